"""What the inbox asks of its streams.

Only the leader of a stream answers these, so that an answer holds all that was acknowledged
before. A direct get or a consumer may be served by a replica that lags behind.

https://docs.nats.io/reference/reference-protocols/nats_api_reference
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.brokers.nats.errors import ApiError
from gateway.brokers.nats.jetstream import (
    STREAM_NOT_FOUND,
    Answer,
    ApiRefused,
    Requests,
    StoredMessage,
)
from gateway.delivery.inbox.jetstream.layout import StreamSettings, stored_size

__all__ = ["WITHIN", "Look", "get", "get_last", "look", "size_of", "subjects", "update"]

WITHIN = 5.0
"""Seconds for one answer."""


class State(msgspec.Struct, frozen=True):
    """How much is in a stream."""

    messages: int = 0
    bytes: int = 0
    last_seq: int = 0
    subjects: dict[str, int] | None = None


class Look(msgspec.Struct, frozen=True):
    """The answer to STREAM.INFO."""

    config: StreamSettings | None = None
    state: State = State()
    total: int = 0
    error: ApiError | None = None


class _Whole(msgspec.Struct, frozen=True):
    config: dict[str, Any] = {}
    error: ApiError | None = None


async def look(requests: Requests, stream: str) -> Look | None:
    """Settings and state of a stream; None where there is none.

    Raises `ConnectionLost` and `ApiRefused`, as all here do.
    """
    try:
        return await requests.api(f"STREAM.INFO.{stream}", None, Look, WITHIN)
    except ApiRefused as refused:
        if refused.error.err_code == STREAM_NOT_FOUND:
            return None
        raise


async def subjects(requests: Requests, stream: str, pattern: str) -> list[str]:
    """The subjects below a pattern of which a stream has messages."""
    found: list[str] = []
    while True:
        body = {"subjects_filter": pattern, "offset": len(found)}
        page = await requests.api(f"STREAM.INFO.{stream}", body, Look, WITHIN)
        new = page.state.subjects or {}
        found += new
        if not new or len(found) >= page.total:
            return found


async def get(requests: Requests, stream: str, seq: int) -> StoredMessage | None:
    """The message of a number; None where there is none, or no more."""
    return await requests.message(stream, {"seq": seq}, WITHIN)


async def get_last(requests: Requests, stream: str, subject: str) -> StoredMessage | None:
    """The last message of a subject."""
    return await requests.last(stream, subject, WITHIN)


def size_of(message: StoredMessage) -> int:
    """Bytes that a message takes in its stream."""
    return stored_size(message.subject, message.hdrs, message.data)


async def update(requests: Requests, stream: str, changes: dict[str, Any]) -> None:
    """Change some settings of a stream; what else an operator has set, stays."""
    there = await requests.api(f"STREAM.INFO.{stream}", None, _Whole, WITHIN)
    await requests.api(f"STREAM.UPDATE.{stream}", there.config | changes, Answer, WITHIN)
