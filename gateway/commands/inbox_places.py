"""Where events are that were not delivered: the dead letter, and the store of the inbox."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Literal, Protocol

import click
import msgspec

from gateway.app import Blueprint, make_letters
from gateway.brokers.letters import Letter, Letters, Progress
from gateway.commands.inbox_batch import NotDone
from gateway.commands.inbox_replay import Publish, Publishing, Replay, numbered
from gateway.commands.inbox_resolve import NotReplayed, Routing, resolve
from gateway.delivery.dead_letter import target_name
from gateway.delivery.inbox.letters import Item, ItemState, of_held, of_letter
from gateway.delivery.inbox.record import Record
from gateway.delivery.inbox.store import Held, Store
from gateway.delivery.plan import Plan

__all__ = ["How", "LettersPlace", "Place", "StorePlace", "open_places", "routing_of"]


class How(msgspec.Struct, frozen=True):
    """How items are replayed."""

    reroute: bool = False
    """Resolve their targets anew."""
    again: bool = False
    """Also what was replayed or discarded before."""


class Place(Protocol):
    """One place that keeps items."""

    name: str
    """What it is, in words."""

    def items(self, ids: Collection[str] | None = None) -> AsyncGenerator[Item, None]:
        """Give all items, or those of `ids`, in the order of the place."""
        ...

    async def prepare(self) -> None:
        """Make sure that it can be changed, before anything is."""
        ...

    def planned(self, item: Item) -> Sequence[str]:
        """Give the targets of a replay. Raises `NotDone`."""
        ...

    async def replay(self, item: Item) -> None:
        """Have an item delivered once more. Raises `NotDone`, and what ends the whole run."""
        ...

    async def discard(self, item: Item) -> None:
        """Drop an item for good. As `replay` otherwise."""
        ...


class LettersPlace:
    """The dead letter, of either kind of broker; this process publishes what is replayed."""

    def __init__(
        self,
        name: str,
        kind: Literal["kafka", "nats"],
        letters: Letters,
        routing: Routing,
        publish: Publish,
        how: How,
    ) -> None:
        self.name = name
        self._kind = kind
        self._letters = letters
        self._replay = Replay(letters, publish, routing, reroute=how.reroute, again=how.again)

    async def items(self, ids: Collection[str] | None = None) -> AsyncGenerator[Item, None]:
        """See `Place.items`."""
        async for letter in self._letters.read(ids):
            yield of_letter(letter, self._kind)

    async def prepare(self) -> None:
        """See `Place.prepare`."""
        await self._letters.prepare()

    def planned(self, item: Item) -> Sequence[str]:
        """See `Place.planned`."""
        return [
            target_name(one.broker, one.message.destination) for one in self._replay.planned(item)
        ]

    async def replay(self, item: Item) -> None:
        """See `Place.replay`."""
        await self._replay(item)

    async def discard(self, item: Item) -> None:
        """See `Place.discard`."""
        if item.kept in {"replayed", "discarded"}:
            raise NotDone(item.kept, "it was before")
        if isinstance(item.origin, Letter):
            replays = item.origin.progress.replays if item.origin.progress is not None else 0
            await self._letters.keep(item.origin, Progress("discarded", replays))


class StorePlace:
    """The store of the inbox: what is replayed goes back into it, and the gateway delivers it."""

    def __init__(self, name: str, store: Store, routing: Routing, how: How) -> None:
        self.name = name
        self._store = store
        self._routing = routing
        self._how = how

    async def items(self, ids: Collection[str] | None = None) -> AsyncGenerator[Item, None]:
        """See `Place.items`."""
        async for held in self._store.held():
            if ids is None or held.id in ids:
                yield of_held(held)

    async def prepare(self) -> None:
        """See `Place.prepare`: a store that is open can be changed."""

    def planned(self, item: Item) -> Sequence[str]:
        """See `Place.planned`."""
        if item.state == "pending":
            raise NotDone("pending", "the gateway delivers it as soon as it can")
        if not self._how.reroute:
            return item.targets
        plan = self._rerouted(item)
        return [target_name(one.broker, one.message.destination) for one in plan.assignments]

    async def replay(self, item: Item) -> None:
        """See `Place.replay`."""
        self.planned(item)
        rerouted = {}
        if self._how.reroute and isinstance(item.origin, Held):
            before = item.origin.record
            rerouted[item.id] = Record(self._rerouted(item), before.stored_at, before.replay + 1)
        if not await self._store.unpark([item.id], rerouted=rerouted):
            raise NotDone("not_found", "it is not parked any more")

    async def discard(self, item: Item) -> None:
        """See `Place.discard`."""
        if not await self._store.discard([item.id]):
            raise NotDone("in_flight", "it is being published now, or is gone")

    def _rerouted(self, item: Item) -> Plan:
        plan = resolve(item, self._routing, reroute=True)
        if isinstance(plan, NotReplayed):
            raise NotDone(plan.word, plan.why)
        replay = item.origin.record.replay + 1 if isinstance(item.origin, Held) else 1
        assignments = tuple(
            msgspec.structs.replace(one, message=numbered(one.message, replay))
            for one in plan.assignments
        )
        return msgspec.structs.replace(plan, assignments=assignments)


def routing_of(blueprint: Blueprint) -> Routing:
    """Give the part of a config that says where an event goes."""
    senders = {endpoint.sender.name: endpoint.sender for endpoint in blueprint.endpoints.values()}
    return Routing(blueprint.table, senders)


@asynccontextmanager
async def open_places(
    blueprint: Blueprint, state: ItemState | None, how: How
) -> AsyncIterator[tuple[Place, ...]]:
    """Open what the config has of these places; with `state` those that can have such items.

    Raises `click.UsageError` where there is none, and what `Letters` raises.
    """
    letters = None if state in {"pending", "parked"} else make_letters(blueprint)
    if letters is None:
        raise click.UsageError(_nothing(blueprint, state))
    publishing = Publishing(blueprint)
    config = blueprint.config.delivery.dead_letter
    name = "" if config is None else f"{config.broker}/{config.topic or config.subject}"
    kind = "kafka" if config is None else blueprint.config.brokers[config.broker].kind
    try:
        await letters.open()
        place = LettersPlace(name, kind, letters, routing_of(blueprint), publishing.publish, how)
        yield (place,)
    finally:
        await publishing.close()
        await letters.close()


def _nothing(blueprint: Blueprint, state: ItemState | None) -> str:
    if state in {"pending", "parked"}:
        return f"delivery.mode is {blueprint.config.delivery.mode}: no event is {state}"
    return "the config has no delivery.dead_letter, so there are no letters"
