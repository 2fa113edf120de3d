"""Where events are that were not delivered: the dead letter, and the store of the inbox."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import click
import msgspec

from gateway import GatewayError
from gateway.app import Blueprint
from gateway.brokers.letters import Letter, Letters, LettersUnavailable, Progress
from gateway.commands.inbox_batch import NotDone
from gateway.commands.inbox_replay import Publish, Publishing, Replay, numbered
from gateway.commands.inbox_resolve import NotReplayed, Routing, resolve
from gateway.config.models import DeadLetterConfig
from gateway.delivery.dead_letter import target_name
from gateway.delivery.inbox.letters import Item, ItemState, of_held, of_letter
from gateway.delivery.inbox.owner import socket_path
from gateway.delivery.inbox.record import Record
from gateway.delivery.inbox.remote import RemoteStore
from gateway.delivery.inbox.store import Entry, Held, InboxUnavailableError, Store
from gateway.delivery.plan import Plan
from gateway.inboxes import make_store

__all__ = ["How", "LettersPlace", "Place", "StorePlace", "open_places", "routing_of"]

T = TypeVar("T")

_CLOSE_WITHIN = 10.0


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
            # Its age counts from now: what was parked for long is not too old.
            rerouted[item.id] = Record(self._rerouted(item), time.time(), before.replay + 1)
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
    blueprint: Blueprint, state: ItemState | None, how: How, away: list[GatewayError] | None = None
) -> AsyncIterator[tuple[Place, ...]]:
    """Open what the config has of these places; with `state` those that can have such items.

    Raises `click.UsageError` where there is none, and what `Letters` and `Store` raise. With `away`
    a place that cannot be opened is left out, and that error is put there.
    """
    routing = routing_of(blueprint)
    delivery = blueprint.config.delivery
    places: list[Place] = []
    async with AsyncExitStack() as opened:
        if state != "dead-letter" and delivery.mode == "inbox":
            store = await _entered(opened, _open_store(blueprint), away)
            if store is not None:
                name = f"the inbox {delivery.inbox.path}"
                places.append(StorePlace(name, store, routing, how))
        elif state in {"pending", "parked"}:
            raise click.UsageError(f"delivery.mode is direct: no event is {state}")
        if state in {None, "dead-letter"} and delivery.dead_letter is not None:
            letters = await _entered(opened, _open_letters(blueprint, delivery.dead_letter), away)
            if letters is not None:
                kind = blueprint.config.brokers[delivery.dead_letter.broker].kind
                publishing = Publishing(blueprint)
                opened.push_async_callback(publishing.close)
                name = _name(delivery.dead_letter)
                places.append(LettersPlace(name, kind, letters, routing, publishing.publish, how))
        elif state == "dead-letter" or delivery.mode == "direct":
            raise click.UsageError("the config has no delivery.dead_letter: there are no letters")
        yield tuple(places)


async def _entered(
    opened: AsyncExitStack, opening: AbstractAsyncContextManager[T], away: list[GatewayError] | None
) -> T | None:
    try:
        return await opened.enter_async_context(opening)
    except GatewayError as error:
        if away is None:
            raise
        away.append(error)
        return None


@asynccontextmanager
async def _open_letters(blueprint: Blueprint, letter: DeadLetterConfig) -> AsyncIterator[Letters]:
    config = blueprint.config.brokers[letter.broker]
    letters: Letters
    # A kind is imported only where it is used.
    if config.kind == "kafka":
        from gateway.brokers.kafka.letters import KafkaLetters  # noqa: PLC0415 - as said above

        letters = KafkaLetters(letter.broker, config, letter.topic or "")
    else:
        from gateway.brokers.nats.letters import NatsLetters  # noqa: PLC0415 - as said above

        letters = NatsLetters(letter.broker, config, letter.subject or "")
    try:
        await letters.open()
        yield letters
    finally:
        await letters.close()


@asynccontextmanager
async def _open_store(blueprint: Blueprint) -> AsyncIterator[Store | None]:
    """Reach the store through the gateway that runs, or open it; None where there is none yet."""
    inbox = blueprint.config.delivery.inbox
    store: Store | None = None
    if inbox.store == "sqlite":
        if _is_missing(inbox.path):
            # Looking must not make one. A path may be relative, and this directory another one.
            place = Path(inbox.path).absolute()  # noqa: ASYNC240 - asks for the directory, no disk
            click.echo(f"{place} does not exist: nothing was stored yet", err=True)
            yield None
            return
        store = await _running(Path(inbox.path))
    if store is None:
        store = make_store(blueprint.config, dispatches=False)
        await store.start(_Undispatched())
    try:
        yield store
    except InboxUnavailableError as error:
        if inbox.store == "sqlite":
            raise
        # Its store is a broker, which could not be reached.
        where = inbox.broker or ""
        raise LettersUnavailable(where, inbox.stream, error.reason, error.detail) from error
    finally:
        await store.close(_CLOSE_WITHIN)


def _is_missing(path: str) -> bool:
    return not Path(path).exists()


async def _running(path: Path) -> Store | None:
    """Connect to the gateway that has the file open, if one does."""
    remote = RemoteStore(socket_path(path))
    try:
        await remote.connect()
    except InboxUnavailableError:
        await remote.close(0)
        return None
    return remote


class _Undispatched:
    """What a store feeds while no gateway runs: what waits is left for the next one that does."""

    def stored(self, entry: Entry, record: Record | None) -> None:
        """See `Feed.stored`."""

    def withdrawn(self, ref: int) -> bool:  # noqa: ARG002 - nothing is being published
        """See `Feed.withdrawn`."""
        return True

    def discarded(self, record: Record, targets: int) -> None:
        """See `Feed.discarded`."""

    def lost(self, partition: int) -> None:
        """See `Feed.lost`."""


def _name(letter: DeadLetterConfig) -> str:
    return f"{letter.broker}/{letter.topic or letter.subject}"
