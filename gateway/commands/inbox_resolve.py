"""What a replay publishes: decided by the config as it is now, purely.

A letter holds the original body. Its target may want another value (`payload`, `redact`), a key or
headers of its own, so the event is read again and the table renders it, and a target that must not
see a field is not sent it by a replay either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from gateway.delivery.dead_letter import target_name
from gateway.delivery.inbox.letters import Item
from gateway.delivery.plan import Assignment, Plan, Refusal
from gateway.event import Event, EventError, Sender, read_event
from gateway.metadata import Metadata
from gateway.routing.table import Table

__all__ = ["NotReplayed", "Routing", "resolve"]

_REROUTE = "correct the config, or replay it with --reroute"


class NotReplayed(msgspec.Struct, frozen=True):
    """Why an item is left as it is."""

    word: str
    """One bounded word."""
    why: str
    """In words, with what to do."""


class Routing(NamedTuple):
    """The part of a config that says where an event goes."""

    table: Table
    senders: Mapping[str, Sender]
    """By the name of the source."""


class _Proof(NamedTuple):
    id: str
    timestamp: str
    signature: str


def resolve(item: Item, routing: Routing, *, reroute: bool) -> Plan | NotReplayed:
    """Give what to publish, which has no refusals, or why nothing is.

    Without `reroute` that is the item's own target, as the table renders it now. With it, and where
    the table does not lead the event there any more: the targets of the item's routes; where none
    of those takes the event, all targets.
    """
    event = _reread(item, routing.senders)
    if isinstance(event, NotReplayed):
        return event
    plan = routing.table.plan(event)
    own = _own(plan, item)
    if own.assignments or own.refusals:
        return _sound(own)
    if not reroute:
        return _no_target(item)
    mine = _of_routes(plan, item.routes)
    chosen = mine if mine.assignments or mine.refusals else plan
    if chosen.is_unmatched:
        return NotReplayed("unmatched", "no route takes the event; correct the config")
    return _sound(chosen)


def _sound(plan: Plan) -> Plan | NotReplayed:
    if plan.refusals:
        refusal = plan.refusals[0]
        why = f"{refusal.reason}: {refusal.detail}; correct the config"
        return NotReplayed("still_refused", why)
    return plan


def _own(plan: Plan, item: Item) -> Plan:
    """Keep what leads to the item's own targets; of several to one place, those of its routes."""
    assignments = tuple(
        one
        for one in plan.assignments
        if target_name(one.broker, one.message.destination) in item.targets
    )
    refusals = tuple(
        one for one in plan.refusals if target_name(one.broker, one.destination) in item.targets
    )
    own = _with(plan, assignments, refusals)
    mine = _of_routes(own, item.routes)
    return mine if mine.assignments else own


def _of_routes(plan: Plan, routes: tuple[str, ...]) -> Plan:
    names = set(routes)
    return _with(
        plan,
        tuple(one for one in plan.assignments if names & set(one.routes)),
        tuple(one for one in plan.refusals if names & set(one.routes)),
    )


def _with(plan: Plan, assignments: tuple[Assignment, ...], refusals: tuple[Refusal, ...]) -> Plan:
    return msgspec.structs.replace(plan, assignments=assignments, refusals=refusals)


def _no_target(item: Item) -> NotReplayed:
    if not item.targets:
        return NotReplayed("no_target", f"no route took the event; {_REROUTE}")
    where = ", ".join(item.targets)
    return NotReplayed("no_target", f"the config does not lead it to {where}; {_REROUTE}")


def _reread(item: Item, senders: Mapping[str, Sender]) -> Event | NotReplayed:
    """Read the event out of the stored body, with the metadata that it came with.

    Consumers know an event by its source and id: both stay what they were.
    """
    kept = item.metadata
    if kept is None:
        return NotReplayed("not_a_letter", "the record lacks the headers of a dead letter")
    sender = senders.get(kept.gateway_source)
    if sender is None:
        why = f"the config has no source {kept.gateway_source}; add it, or discard the letter"
        return NotReplayed("no_source", why)
    try:
        event = read_event(_Proof(kept.id, kept.timestamp, ""), item.body, sender, 0.0)
    except EventError as error:
        return NotReplayed("not_an_event", str(error))
    return msgspec.structs.replace(event, metadata=_metadata(event.metadata, kept, sender))


def _metadata(read: Metadata, kept: Metadata, sender: Sender) -> Metadata:
    return msgspec.structs.replace(
        read,
        source=kept.source,
        signature=kept.signature if sender.signature else None,
        received_at=kept.received_at,
    )
