"""The shape of what `gateway explain --format json` prints: one `Explained`.

Field names are a contract with those who read it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from gateway.brokers.base import Headers
from gateway.commands.explain_answer import Answer, Then
from gateway.routing import explain as routing
from gateway.routing.explain import Saw, Verdict
from gateway.routing.payload import Payload
from gateway.routing.table import Kind

__all__ = [
    "Body",
    "Condition",
    "EventReport",
    "Explained",
    "Origin",
    "Record",
    "RefusedTarget",
    "RouteReport",
    "TargetReport",
]

Origin = Literal["sample", "file", "stdin"]


class Body(msgspec.Struct, frozen=True):
    """Where the body came from, and its length."""

    origin: Origin
    bytes: int
    """Of a body over `server.max_body` no more is read than one byte beyond it."""


class EventReport(msgspec.Struct, frozen=True):
    """The event that the gateway reads out of the body."""

    id: str
    type: str | None
    key: str
    """The default key."""
    key_from: str
    """The path that gave it, or `svix-id`."""
    time: str | None
    subject: str | None


class Condition(msgspec.Struct, frozen=True):
    """A route's `when`."""

    expression: str
    result: routing.Condition | None
    """None where the type or the source already decided."""
    saw: tuple[Saw, ...]


class Record(msgspec.Struct, frozen=True):
    """One record as it would be published, to a target or as a dead letter."""

    broker: str
    kind: Kind
    topic: str | None
    subject: str | None
    routes: tuple[str, ...]
    key: str
    """The Kafka record's key. NATS has none, but for the header `ce-partitionkey`."""
    headers: Headers
    payload: Payload
    bytes: int
    """Of the value."""
    value: str
    dedupe_id: str
    """The same for every attempt. On NATS it is also the header `Nats-Msg-Id`."""


class RefusedTarget(msgspec.Struct, frozen=True):
    """Why a target never gets the event, and what happens instead."""

    routes: tuple[str, ...]
    broker: str
    topic: str | None
    subject: str | None
    """As far as it is known: the template's text where it could not be rendered."""
    reason: str
    detail: str
    then: Then
    letter: int | None
    """Which of `letters`."""


class TargetReport(msgspec.Struct, frozen=True):
    """What becomes of one target of a route that matches."""

    at: int
    broker: str
    kind: Kind
    template: str
    """The topic or subject as the config has it."""
    record: int | None
    """Which of `records`; targets with the same one are published once."""
    key_from: str | None
    """`template`, the path of the default key, or `svix-id`."""
    refusal: int | None
    """Which of `refusals`."""


class RouteReport(msgspec.Struct, frozen=True):
    """One route's answer to the event."""

    name: str
    verdict: Verdict
    pattern: str | None
    events: tuple[str, ...]
    exclude: tuple[str, ...]
    sources: tuple[str, ...] | None
    when: Condition | None
    targets: tuple[TargetReport, ...]


class Explained(msgspec.Struct, frozen=True):
    """All that is told of one body."""

    config: str
    source: str
    body: Body
    event: EventReport | None
    """None where the body is no event; then there are no routes either."""
    answer: Answer
    routes: tuple[RouteReport, ...]
    records: tuple[Record, ...]
    refusals: tuple[RefusedTarget, ...]
    letters: tuple[Record, ...]
    stand_ins: Headers
    """Headers whose values only a real delivery has, with what stands here in their place."""

    @property
    def is_lost(self) -> bool:
        """Whether the event, or a target's share of it, would be neither delivered nor kept in a
        dead letter, nor accepted unmatched by policy."""
        is_parked = any(refusal.then == "parked" for refusal in self.refusals)
        return self.answer.http_status != 200 or is_parked
