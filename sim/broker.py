"""A broker that is only simulated: the cluster, which keeps what it stored, and a client of it.

A record travels, is stored or not, and its ack travels back. Each of these may be slow or never
happen, and a client learns what `gateway.brokers.base` says that it learns. A record that is on
its way when the process dies may be stored all the same, and much later.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from random import Random
from typing import Literal, Protocol

import msgspec

from gateway.brokers.base import (
    Arrival,
    BrokerError,
    Finding,
    Message,
    Need,
    Receipt,
    Refused,
    State,
    Unavailable,
    Unknown,
)
from sim.clock import Outside
from sim.world import FATES, Broker, Fate, Outage, World

__all__ = ["Client", "Cluster", "Copy", "Publish", "Watcher"]

_DEDUPE_SECONDS = 120.0
_QUICK = (0.0, 0.0, 0.0005, 0.002, 0.01)


class Publish(msgspec.Struct, eq=False):
    """One call of `publish`, and how it ended."""

    number: int
    """Counts all publishes of the world."""
    target: str
    """`event.target`; a letter has that of the target that it is for."""
    is_letter: bool
    life: int
    at: float
    state: Literal["open", "acked", "refused", "unavailable", "unknown", "orphaned"] = "open"
    """`orphaned`: the process died before it learned."""
    ended: float = 0.0
    stored: int = 0
    """How often it stands in the broker."""
    why: str = "first"
    """What allows it, if it is not the first of its target."""


class Copy(msgspec.Struct, frozen=True):
    """A record in the broker."""

    message: Message
    publish: Publish
    at: float


class Watcher(Protocol):
    """Who judges what is published, and what becomes of it."""

    def published(self, broker: str, message: Message, life: int) -> Publish:
        """Take a publish that has begun."""
        ...

    def stored(self, broker: str, copy: Copy) -> None:
        """Take a record that is now in the broker."""
        ...

    def ended(self, publish: Publish, state: str, reason: str = "") -> None:
        """Take what the client said of it."""
        ...


class Flight(msgspec.Struct, eq=False):
    """A record on its way, and its ack."""

    client: Client
    message: Message
    publish: Publish
    future: asyncio.Future[Receipt]
    fate: Fate
    lost: bool = False
    """Its connection is gone, and it with it, unless it has arrived already."""


class Cluster:
    """The servers. What is stored stays, whatever becomes of the gateway."""

    def __init__(
        self, spec: Broker, world: World, outside: Outside, chance: Random, watcher: Watcher
    ) -> None:
        self.spec = spec
        self.world = world
        self.outside = outside
        self.chance = chance
        self.watcher = watcher
        self.outages = [one for one in world.outages if one.broker == spec.name]
        self.log: list[Copy] = []
        self._seen: dict[str, tuple[float, int]] = {}

    def outage(self, kind: str) -> Outage | None:
        """Give the outage of a kind that is now."""
        now = self.outside.now
        return next(
            (one for one in self.outages if one.kind == kind and one.since <= now < one.until), None
        )

    def draw_fate(self, publish: Publish) -> Fate:
        """Draw what becomes of a record."""
        event, _, at = publish.target.partition(".")
        never = (
            self.world.letters_refused
            if publish.is_letter
            else (event, int(at)) in self.world.refusing
        )
        if never:
            return "refused"
        if self.outside.now >= self.world.faults_end:
            return "acked"
        return self.chance.choices(FATES, self.world.weights)[0]

    def delay(self) -> float:
        """Draw how long something travels."""
        if self.chance.random() < 0.9 or self.outside.now >= self.world.faults_end:
            return self.chance.choice(_QUICK)
        return self.chance.random() * 3

    def arrive(self, flight: Flight) -> None:
        """Take a record off the network: it waits where the servers are stopped."""
        if flight.lost or self.outage("down") is not None:
            return
        frozen = self.outage("frozen")
        if frozen is not None:
            self.outside.at(frozen.until + self.delay() / 100, partial(self.arrive, flight))
            return
        self._take(flight)

    def _take(self, flight: Flight) -> None:
        fate, client = flight.fate, flight.client
        destination = flight.message.destination
        if fate == "record_lost":
            return
        if fate == "refused":
            client.fail_later(flight, Refused(self.spec.name, destination, "not_authorized"))
        elif fate == "unavailable":
            client.fail_later(flight, Unavailable(self.spec.name, destination, "no_leader"))
        else:
            receipt = self._store(flight)
            if fate == "stored_twice":
                self._store(flight)
            if fate != "ack_lost":
                after = self.chance.uniform(2, 25) if fate == "acked_late" else self.delay()
                client.ack_later(flight, receipt, after)

    def _store(self, flight: Flight) -> Receipt:
        """Append the record, unless this is a stream that has it already."""
        message, now = flight.message, self.outside.now
        seen = self._seen.get(message.dedupe_id)
        if self.spec.dedupes and seen is not None and now - seen[0] < _DEDUPE_SECONDS:
            return self._receipt(message, seen[1], duplicate=True)
        self._seen[message.dedupe_id] = now, len(self.log)
        flight.publish.stored += 1
        copy = Copy(message, flight.publish, now)
        self.log.append(copy)
        self.watcher.stored(self.spec.name, copy)
        return self._receipt(message, len(self.log) - 1, duplicate=False)

    def _receipt(self, message: Message, at: int, *, duplicate: bool) -> Receipt:
        if self.spec.dedupes:
            return Receipt(message.destination, stream="S", seq=at, duplicate=duplicate)
        return Receipt(message.destination, partition=0, offset=at)


class Client:
    """Fulfils `gateway.brokers.base.Broker`; dies with its process."""

    def __init__(self, cluster: Cluster, life: int, loop: asyncio.AbstractEventLoop) -> None:
        self._cluster = cluster
        self._life = life
        self._loop = loop
        self._state = State.CONNECTING
        self._flights: dict[Flight, None] = {}
        self._closing = False
        self._is_dead = False
        self._idle: asyncio.Future[None] | None = None
        self.on_state: Callable[[str, State], None] = lambda *_: None

    @property
    def name(self) -> str:
        """See `Broker.name`."""
        return self._cluster.spec.name

    @property
    def state(self) -> State:
        """See `Broker.state`."""
        return self._state

    @property
    def in_flight(self) -> tuple[int, int]:
        """See `Broker.in_flight`."""
        return len(self._flights), sum(len(flight.message.value) for flight in self._flights)

    async def start(self) -> None:
        """See `Broker.start`."""
        outside, now = self._cluster.outside, self._loop.time()
        for outage in self._cluster.outages:
            if outage.kind == "down" and outage.until > now:
                noticed = max(now, outage.since + self._cluster.delay() / 6)
                outside.tell(noticed, partial(self._lose_connection, outage))
                outside.tell(outage.until + self._cluster.delay(), self._connected)
        if self._cluster.outage("down") is None:
            outside.tell(now + self._cluster.delay() / 10, self._connected)

    def publish(self, message: Message, deadline: float) -> asyncio.Future[Receipt]:  # noqa: ARG002 - the contract's; it retries nothing by itself
        """See `Broker.publish`."""
        future: asyncio.Future[Receipt] = self._loop.create_future()
        if self._is_dead:
            return future
        publish = self._cluster.watcher.published(self.name, message, self._life)
        reason = self._why_not()
        if reason:
            self._cluster.watcher.ended(publish, "unavailable", reason)
            future.set_exception(Unavailable(self.name, message.destination, reason))
            return future
        flight = Flight(self, message, publish, future, self._cluster.draw_fate(publish))
        self._flights[flight] = None
        outside, now = self._cluster.outside, self._loop.time()
        outside.at(now + self._cluster.delay(), partial(self._cluster.arrive, flight))
        silent = Unknown(self.name, message.destination, "no_ack")
        timeout = now + self._cluster.world.request_timeout
        outside.tell(timeout, partial(self._fail, flight, silent))
        return future

    def _why_not(self) -> str:
        if self._closing:
            return "closing"
        if self._state is not State.UP:
            return "broker_down"
        return "overloaded" if len(self._flights) >= self._cluster.spec.max_in_flight else ""

    def ack_later(self, flight: Flight, receipt: Receipt, after: float) -> None:
        """Let the ack travel."""
        if not self._is_dead:
            when = self._loop.time() + after
            self._cluster.outside.tell(when, partial(self._ack, flight, receipt))

    def fail_later(self, flight: Flight, error: BrokerError) -> None:
        """Let a refusal travel."""
        if not self._is_dead:
            when = self._loop.time() + self._cluster.delay()
            self._cluster.outside.tell(when, partial(self._fail, flight, error))

    def _ack(self, flight: Flight, receipt: Receipt) -> None:
        if self._flights.pop(flight, flight) is None:
            self._cluster.watcher.ended(flight.publish, "acked")
            if not flight.future.cancelled():
                flight.future.set_result(receipt)
            self._tell_if_idle()

    def _fail(self, flight: Flight, error: BrokerError) -> None:
        if self._flights.pop(flight, flight) is None:
            self._cluster.watcher.ended(flight.publish, type(error).__name__.lower(), error.reason)
            if not flight.future.cancelled():
                flight.future.set_exception(error)
            self._tell_if_idle()

    def _lose_connection(self, outage: Outage) -> None:
        if self._loop.time() < outage.until:
            self._set_state(State.DOWN)
        self._fail_all()

    def _fail_all(self) -> None:
        """Nobody knows what became of what had no answer yet."""
        for flight in tuple(self._flights):
            flight.lost = self._cluster.chance.random() < 0.5
            self._fail(flight, Unknown(self.name, flight.message.destination, "no_ack"))

    def _connected(self) -> None:
        if not self._closing and self._cluster.outage("down") is None:
            self._set_state(State.UP)

    def _set_state(self, state: State) -> None:
        if state is not self._state:
            self._state = state
            self.on_state(self.name, state)

    def _tell_if_idle(self) -> None:
        if self._idle is not None and not self._flights and not self._idle.done():
            self._idle.set_result(None)

    def kill(self) -> None:
        """The process has died: what it had sent may still arrive."""
        self._is_dead = True
        for flight in self._flights:
            flight.lost = self._cluster.chance.random() < 0.5
            self._cluster.watcher.ended(flight.publish, "orphaned")

    async def check(self, needs: Sequence[Need]) -> list[Finding]:
        """See `Broker.check`: the delivery core never asks."""
        raise NotImplementedError

    async def tail(self, needs: Sequence[Need]) -> AsyncGenerator[Arrival, None]:
        """See `Broker.tail`: the delivery core never asks."""
        raise NotImplementedError

    async def close(self, timeout: float) -> None:
        """See `Broker.close`."""
        self._closing = True
        if self._flights:
            self._idle = self._loop.create_future()
            await asyncio.wait([self._idle], timeout=timeout)
            self._idle.cancel()
        self._fail_all()
        self._set_state(State.DOWN)
