"""The verified event: what the gateway knows of a webhook once its signature is proven.

Pure: a proof, the raw body and the time in, an `Event` out. The body is parsed here and
nowhere else, and what is published is the body, not what was parsed.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from gateway import GatewayError
from gateway.clerk.catalogue import entity_key
from gateway.metadata import Metadata, rfc3339
from gateway.routing.expressions import Expression, ExpressionError

__all__ = ["Event", "EventError", "Proven", "Sender", "event_time", "read_event"]

MAX_TYPE = 256
"""Characters of an event type; Clerk's longest has 34."""

MAX_ENTITY = 512
"""Characters of an entity's id that become key and subject; what is longer is none of Clerk's,
and in its dead letter's headers it could make that too large as well."""

_MILLISECONDS_FROM = 100_000_000_000
"""A number this large is milliseconds: as seconds it would be the year 5138."""
_LAST_MILLISECOND = 253_402_300_799_000
"""The last second of the year 9999, where RFC 3339 ends."""


class EventError(GatewayError):
    """A genuine webhook that is not an event: 400. Reasons: `not_json`, `not_an_object`,
    `no_type`, `type_too_long`."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the body is signed but is no event: {reason.replace('_', ' ')}")


class Proven(Protocol):
    """What is known of a body once it is verified; `gateway.signature.Proof` is one."""

    @property
    def id(self) -> str:
        """The svix-id."""
        ...

    @property
    def timestamp(self) -> str:
        """`svix-timestamp`, verbatim."""
        ...

    @property
    def signature(self) -> str:
        """`svix-signature`, verbatim."""
        ...


class Sender(msgspec.Struct, frozen=True):
    """What an event takes from the source it came by."""

    name: str
    uri: str
    """The CloudEvents `source`."""
    type_required: bool
    """Kind clerk: an event without a type is an error. Others follow `unmatched`."""
    type: Expression
    signature: bool = True
    """Whether `svix-signature` travels on."""


class Event(msgspec.Struct, frozen=True):
    """One genuine event. `document` is the parsed body: read it, never change it."""

    source: str
    svix_id: str
    type: str | None
    key: str
    """The default key: the entity the event belongs to, else the svix-id."""
    metadata: Metadata
    body: bytes
    document: dict[str, Any]


def read_event(proof: Proven, body: bytes, sender: Sender, now: float) -> Event:
    """Read the event out of a proven body; `now` is Unix seconds. Raises `EventError`."""
    document = _parse(body)
    event_type = _type(document, sender)
    data = document.get("data")
    metadata = Metadata(
        id=proof.id,
        type=event_type,
        source=sender.uri,
        time=event_time(document),
        subject=_subject(data),
        timestamp=proof.timestamp,
        signature=proof.signature if sender.signature else None,
        gateway_source=sender.name,
        received_at=rfc3339(now),
    )
    key = entity_key(event_type or "", data)
    if not key or len(key) > MAX_ENTITY:
        key = proof.id
    return Event(sender.name, proof.id, event_type, key, metadata, body, document)


def event_time(document: dict[str, Any]) -> str | None:
    """Give when the event happened, in RFC 3339, or None. Never the delivery attempt's time.

    The envelope's `timestamp`, else `data.updated_at`, else `data.created_at`; in milliseconds
    or seconds, since Clerk sends both.
    """
    data = document.get("data")
    fields = data if type(data) is dict else {}
    for value in (document.get("timestamp"), fields.get("updated_at"), fields.get("created_at")):
        if type(value) is not int and type(value) is not float:
            continue
        # Bounded before it is divided: JSON has integers that no float can hold.
        if 0 < value <= _LAST_MILLISECOND:
            return rfc3339(value / 1000 if value >= _MILLISECONDS_FROM else value)
    return None


def _subject(data: object) -> str | None:
    value = data.get("id") if isinstance(data, dict) else None
    if type(value) is int:
        return str(value)
    return value if type(value) is str and 0 < len(value) <= MAX_ENTITY else None


def _parse(body: bytes) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise EventError("not_json") from None
    if type(document) is not dict:
        raise EventError("not_an_object")
    return document


def _type(document: dict[str, Any], sender: Sender) -> str | None:
    try:
        value = sender.type.evaluate(document)
    except ExpressionError:
        value = None
    if type(value) is not str or not value:
        if sender.type_required:
            raise EventError("no_type")
        return None
    if len(value) > MAX_TYPE:
        raise EventError("type_too_long")
    return value
