"""Reads a stream by pages, as fast as the reader wants: for an operator's list of what is held."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from nats.aio.msg import Msg

from gateway.brokers.nats.errors import ApiError, ConnectionLost
from gateway.brokers.nats.jetstream import new_inbox
from gateway.brokers.nats.ordered import numbers
from gateway.delivery.inbox.jetstream.follower import Found
from gateway.delivery.inbox.jetstream.layout import header_block, stored_size
from gateway.delivery.inbox.jetstream.questions import WITHIN
from gateway.delivery.inbox.jetstream.wire import Wire, seen

__all__ = ["read"]

_PAGE = 256
_PAGE_BYTES = 8 * 1024 * 1024
_KEPT_FOR = 300
"""Seconds that the server keeps a consumer of which nobody wants the next page."""
_NANOSECONDS = 1_000_000_000
_NO_MORE = {"404", "408"}
_NO_MORE_BYTES = "maxbytes"
"""In the words of a 409, whose others tell that the consumer is gone."""


class _Created(msgspec.Struct, frozen=True):
    error: ApiError | None = None


async def read(wire: Wire, stream: str, pattern: str) -> AsyncIterator[Found]:
    """Give what a stream holds under a pattern, in order.

    Raises `ConnectionLost` and `ApiRefused`.
    """
    name = f"gateway-inbox-{secrets.token_hex(8)}"
    config = {
        "name": name,
        "deliver_policy": "all",
        "filter_subject": pattern,
        "ack_policy": "none",
        "inactive_threshold": _KEPT_FOR * _NANOSECONDS,
        "mem_storage": True,
        "num_replicas": 1,
    }
    body = {"stream_name": stream, "config": config, "action": "create"}
    await wire.requests.api(f"CONSUMER.CREATE.{stream}.{name}", body, _Created, WITHIN)
    try:
        while page := await _page(wire, f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"):
            for found in page:
                yield found
    finally:
        if not wire.ended.done():
            wire.call(f"CONSUMER.DELETE.{stream}.{name}", None).add_done_callback(seen)


async def _page(wire: Wire, next_subject: str) -> list[Found]:
    """Fetch what there is, up to a page; nothing at the end."""
    found: list[Found] = []
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def came(msg: Msg) -> None:
        headers = msg.headers or {}
        if not msg.reply or "Status" in headers:
            if not ended.done():
                ended.set_result(_cut_short(headers))
            return
        seq, _, _ = numbers(msg.reply)
        size = stored_size(msg.subject, header_block(headers), msg.data)
        found.append(Found(msg.subject, seq, msg.data, size))
        if len(found) == _PAGE and not ended.done():
            ended.set_result("")

    inbox = f"{new_inbox()}page"
    subscription = wire.connection.subscribe(inbox, came)
    request = {"batch": _PAGE, "max_bytes": _PAGE_BYTES, "no_wait": True}
    wire.connection.publish(next_subject, inbox, None, msgspec.json.encode(request))
    try:
        ends: list[asyncio.Future[Any]] = [ended, wire.ended]
        await asyncio.wait(ends, timeout=WITHIN, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            raise ConnectionLost("no answer in time")
        if problem := ended.result():
            raise ConnectionLost(problem)
        return found
    finally:
        if subscription is not None:
            wire.connection.unsubscribe(subscription)


def _cut_short(headers: dict[str, str]) -> str:
    """Say why there is no more, where that is not because the list, or the page, is at its end."""
    status, told = headers.get("Status", ""), headers.get("Description", "")
    if status in _NO_MORE or _NO_MORE_BYTES in told.lower():
        return ""
    return f"the list was cut short: {status} {told or 'nobody gives the rest'}; ask again"
