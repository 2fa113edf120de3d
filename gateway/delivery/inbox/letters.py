"""One view of what an operator can look after: dead letters, and records of the inbox.

Pure: what a broker or a store gave in, an `Item` out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal
from urllib.parse import unquote

import msgspec

from gateway.brokers.base import Headers
from gateway.brokers.letters import Letter
from gateway.delivery.dead_letter import target_name
from gateway.delivery.inbox.record import Record, targets
from gateway.delivery.inbox.store import Held
from gateway.delivery.plan import Assignment, Refusal
from gateway.metadata import Metadata, kafka_headers

__all__ = ["Item", "ItemState", "Kept", "of_held", "of_letter", "owed"]

ItemState = Literal["pending", "parked", "dead-letter"]

Kept = Literal["", "replayed", "partial", "discarded"]
"""What was done with a letter that is still there; see `Progress`."""


class Item(msgspec.Struct, frozen=True):
    """One event's record, with the targets that did not get it."""

    id: str
    """What `show`, `replay` and `discard` take."""
    state: ItemState
    kept: Kept
    routes: tuple[str, ...]
    targets: tuple[str, ...]
    """`<broker>/<destination>` each; none for an event that no route took."""
    reason: str
    detail: str
    since: float
    """Unix seconds since which it waits, is parked, or is a letter."""
    size: int
    metadata: Metadata | None
    """None for a record in the dead letter that the gateway did not write."""
    headers: tuple[tuple[str, Headers], ...]
    """What was, or is to be, published beside the body: for each target its headers."""
    body: bytes
    origin: Letter | Held


def of_letter(letter: Letter, kind: Literal["kafka", "nats"]) -> Item:
    """Read a letter. What is not in its headers is empty: it may be anybody's record."""
    known = dict(letter.headers)
    target = known.get("gateway-dead-letter-target", "")
    return Item(
        id=letter.id,
        state="dead-letter",
        kept="" if letter.progress is None else letter.progress.word,
        routes=_names(known.get("gateway-route", "")),
        targets=(target,) if target else (),
        reason=known.get("gateway-dead-letter-reason", ""),
        detail=known.get("gateway-dead-letter-detail", ""),
        since=letter.stored_at,
        size=len(letter.value),
        metadata=_metadata(known, kind),
        headers=((target, letter.headers),),
        body=letter.value,
        origin=letter,
    )


def of_held(held: Held) -> Item:
    """Read a record of the inbox, with the targets that it is held for."""
    found = tuple(owed(held.record, held.owed))
    plan = held.record.plan
    refused = [one for one in found if isinstance(one, Refusal)]
    reason, detail = held.reason, held.detail
    if not reason and refused:
        reason, detail = refused[0].reason, refused[0].detail
    names = [(_target(one), _headers(held.record, one)) for one in found]
    return Item(
        id=held.id,
        state=held.state,
        kept="",
        routes=tuple(dict.fromkeys(route for one in found for route in one.routes)),
        targets=tuple(name for name, _ in names if name),
        reason=reason,
        detail=detail,
        since=held.held_since or held.record.stored_at,
        size=held.size,
        metadata=plan.metadata,
        headers=tuple(names),
        body=plan.body,
        origin=held,
    )


def owed(record: Record, mask: int) -> Iterator[Assignment | Refusal]:
    """Give the targets of a record whose bits are set; see `targets`."""
    plan = record.plan
    every: tuple[Assignment | Refusal, ...] = (*plan.assignments, *plan.refusals)
    for at, _ in enumerate(targets(record)):
        if mask >> at & 1:
            yield every[at]


def _target(one: Assignment | Refusal) -> str:
    if isinstance(one, Refusal):
        return target_name(one.broker, one.destination)
    return target_name(one.broker, one.message.destination)


def _headers(record: Record, one: Assignment | Refusal) -> Headers:
    """Give the headers of a record; for a refused target those that all its letters begin with."""
    if isinstance(one, Assignment):
        return one.message.headers
    return kafka_headers(record.plan.metadata, record.plan.key, ",".join(one.routes))


def _metadata(known: dict[str, str], kind: Literal["kafka", "nats"]) -> Metadata | None:
    """Read back what `kafka_headers` and `nats_headers` write."""

    def attribute(name: str) -> str | None:
        if kind == "kafka":
            return known.get(f"ce_{name}")
        value = known.get(f"ce-{name}")
        return None if value is None else unquote(value)

    source, svix_id = attribute("source"), known.get("svix-id")
    gateway_source = known.get("gateway-source")
    if not source or not svix_id or gateway_source is None:
        return None
    return Metadata(
        id=svix_id,
        type=attribute("type"),
        source=source,
        time=attribute("time"),
        subject=attribute("subject"),
        timestamp=known.get("svix-timestamp", ""),
        signature=known.get("svix-signature"),
        gateway_source=gateway_source,
        received_at=known.get("gateway-received-at", ""),
    )


def _names(routes: str) -> tuple[str, ...]:
    return tuple(name for name in routes.split(",") if name)
