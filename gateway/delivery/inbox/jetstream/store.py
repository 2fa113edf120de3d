"""The store of the inbox that is a replicated stream of a NATS cluster.

Every replica stores what it receives, and dispatches the partitions that it has the leases of
(`membership`, `holding`). `layout` says what is where, and `docs/architecture.md` why.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from gateway.brokers.nats.errors import ConnectionLost
from gateway.brokers.nats.jetstream import ApiRefused
from gateway.brokers.nats.options import ClientOptions
from gateway.delivery.inbox.jetstream import questions
from gateway.delivery.inbox.jetstream.desk import Desk
from gateway.delivery.inbox.jetstream.holding import Holding
from gateway.delivery.inbox.jetstream.layout import PARTITIONS, Layout, stored_size
from gateway.delivery.inbox.jetstream.link import Link
from gateway.delivery.inbox.jetstream.membership import Membership
from gateway.delivery.inbox.jetstream.meter import Meter
from gateway.delivery.inbox.jetstream.parked import encode_parked
from gateway.delivery.inbox.jetstream.provision import provision
from gateway.delivery.inbox.jetstream.puts import Puts, is_full, is_limited, is_there
from gateway.delivery.inbox.jetstream.wire import Wire
from gateway.delivery.inbox.record import Record, RecordError, decode
from gateway.delivery.inbox.store import (
    Bounds,
    Feed,
    Held,
    InboxFullError,
    InboxUnavailableError,
    InboxUnusableError,
    Parked,
    Placed,
    Usage,
    Writable,
)

__all__ = ["LEASE", "JetStreamStore"]

log = logging.getLogger("gateway.delivery")

LEASE = 10.0
"""Seconds without a sign of life after which other replicas take over what one held."""

_START_WITHIN = 10.0
_LOOK_EVERY = 1.0
_PASSED_OVER = 5
"""Looks in a row that count for nothing, for something was acknowledged meanwhile."""
_GONE_AGAIN_AFTER = 0.05
_GONE_ATTEMPTS = 100

T = TypeVar("T")


class JetStreamStore:
    """Fulfils `gateway.delivery.inbox.store.Store`, over a connection of its own."""

    def __init__(
        self,
        options: ClientOptions,
        stream: str,
        bounds: Bounds,
        *,
        dispatches: bool = True,
        lease: float = LEASE,
        partitions: int = PARTITIONS,
    ) -> None:
        """`partitions` counts where the stream is created; `lease` is in seconds.

        One that does not dispatch is for an operator's command: no lease, no feed, no new stream.
        """
        self._options = options
        self._layout = Layout(stream, partitions)
        self._meter = Meter(bounds)
        self._dispatches = dispatches
        self._lease = lease
        self._feed: Feed | None = None
        self._link: Link | None = None
        self._wire: Wire | None = None
        self._puts: Puts | None = None
        self._membership: Membership | None = None
        self._holdings: dict[int, Holding] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._bounding: asyncio.Task[None] | None = None
        self._passed_over = 0
        self._closing = False

    @property
    def writable(self) -> Writable:
        """See `Store.writable`."""
        if self._wire is None or self._closing:
            return Writable.NO
        return Writable.FULL if self._meter.is_full else Writable.YES

    @property
    def usage(self) -> Usage:
        """See `Store.usage`. What other replicas do shows after a second."""
        return self._meter.usage

    @property
    def commits(self) -> int:
        """See `Store.commits`: the acks of the server; each message has its own."""
        return self._meter.writes

    @property
    def partitions(self) -> frozenset[int]:
        """The partitions that this replica dispatches now."""
        return frozenset() if self._membership is None else self._membership.held

    def bound(self, bounds: Bounds) -> None:
        """See `Store.bound`."""
        self._meter.bounds, self._meter.is_bounded = bounds, False
        if self._wire is not None and self._dispatches:
            self._bounding = asyncio.create_task(self._bound(self._wire))

    async def start(self, feed: Feed) -> None:
        """See `Store.start`.

        A cluster that is away does not stop it: it goes on in the background then. What a replica
        that died without a word held is fed once its session is over.
        """
        self._feed = feed
        self._link = Link(self._options, self._use, self._down)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_WITHIN):
                await self._link.tried.wait()
                if self._membership is not None:
                    await self._membership.settled.wait()
                    for holding in tuple(self._holdings.values()):
                        await holding.opened.wait()
        if self._link.unusable is not None:
            unusable = self._link.unusable
            await self.close(0)
            raise InboxUnusableError(unusable.where, unusable.problem, unusable.remedy)
        self._looking = asyncio.create_task(self._keep_looking())

    def put(self, record: Record) -> asyncio.Future[Placed]:
        """See `Store.put`."""
        if self._wire is None or self._puts is None or self._closing:
            future: asyncio.Future[Placed] = asyncio.get_running_loop().create_future()
            future.set_exception(self._away())
            return future
        return self._puts.put(self._wire, record)

    async def load(self, ref: int) -> Record:
        """See `Store.load`."""
        found = await self._asked(questions.get(self._questions(), self._layout.stream, ref))
        if found is None:
            self._forget(ref)
            raise self._unavailable("it is gone: the replica before this one settled it")
        try:
            return decode(found.data)
        except RecordError as error:
            raise self._unavailable(f"message {ref}: {error}") from error

    def settle(self, ref: int, owed: int) -> asyncio.Future[None]:
        """See `Store.settle`."""
        return self._spawn(self._settle(ref, owed))

    def park(self, ref: int, owed: int, parked: Parked) -> asyncio.Future[None]:
        """See `Store.park`."""
        return self._spawn(self._park(ref, owed, parked))

    async def held(self) -> AsyncIterator[Held]:
        """See `Store.held`."""
        wire = self._connected()
        try:
            async for one in self._desk().held(wire):
                yield one
        except (ConnectionLost, ApiRefused) as error:
            raise self._unavailable(str(error)) from error

    async def unpark(self, ids: Sequence[str], *, rerouted: dict[str, Record]) -> int:
        """See `Store.unpark`."""
        return await self._asked(self._desk().unpark(self._connected(), ids, rerouted))

    async def discard(self, ids: Sequence[str]) -> int:
        """See `Store.discard`."""
        return await self._asked(self._desk().discard(self._connected(), ids))

    async def close(self, timeout: float) -> None:
        """See `Store.close`. Leases are given back, so that others go on at once."""
        if self._closing:
            return
        self._closing = True
        ends = asyncio.get_running_loop().time() + timeout
        if self._puts is not None:
            await self._puts.drain(timeout / 2)
            self._puts.close()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=timeout / 4)
        for task in (*self._tasks, self._looking, self._bounding):
            if task is not None:
                task.cancel()
        if self._membership is not None:
            await self._membership.close(max(0.0, ends - asyncio.get_running_loop().time()))
        if self._link is not None:
            await self._link.close()
        self._wire = None

    # The connection.

    async def _use(self, wire: Wire) -> None:
        """Prepare everything on a new connection. Raises what `Link` takes."""
        layout, _ = await provision(
            wire.requests, self._layout, self._meter.bounds, create=self._dispatches
        )
        if self._puts is None:
            self._puts = Puts(layout, self._meter, self._when_fed)
        elif layout != self._layout:
            problem = f"it has {layout.partitions} partitions now, and had others"
            raise InboxUnusableError(f"stream {layout.stream}", problem, "restart the gateway")
        self._layout = layout
        self._meter.is_bounded = True
        await self._look(wire)
        self._wire = wire
        if self._dispatches and self._membership is None:
            self._membership = Membership(layout, self, self._lease)
            self._membership.start()
        if self._membership is not None:
            self._membership.connected(wire)
        for holding in self._holdings.values():
            holding.connected(wire)

    def _down(self) -> None:
        self._wire = None
        if self._membership is not None:
            self._membership.disconnected()
        for holding in self._holdings.values():
            holding.disconnected()

    async def _bound(self, wire: Wire) -> None:
        bounds = self._meter.bounds
        try:
            await provision(wire.requests, self._layout, bounds, create=True)
        except (ConnectionLost, ApiRefused, InboxUnusableError) as error:
            log.warning("inbox: the streams could not be given other bounds: %s", error)
            return
        self._meter.is_bounded = bounds == self._meter.bounds

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            if self._wire is not None:
                with contextlib.suppress(ConnectionLost, ApiRefused):
                    await self._look(self._wire)

    async def _look(self, wire: Wire) -> None:
        """Ask how much there is. What this process was told meanwhile is newer than the answer."""
        before = self._meter.writes
        streams = (self._layout.stream, self._layout.parked, self._layout.state)
        waiting, parked, state = [await questions.look(wire.requests, one) for one in streams]
        if self._dispatches and (waiting is None or parked is None or state is None):
            log.error("inbox: a stream of %s was deleted; it is made anew", self._layout.stream)
            wire.connection_silent("a stream of the inbox was deleted")
        elif before != self._meter.writes and self._passed_over < _PASSED_OVER:
            self._passed_over += 1
        elif waiting is not None and parked is not None:
            self._passed_over = 0
            there, aside = waiting.state, parked.state
            self._meter.looked(Usage(there.messages, there.bytes, aside.messages, aside.bytes))

    # What is held: see `Holder`.

    def taken(self, partition: int) -> None:
        """See `Holder.taken`."""
        if self._feed is None:
            return
        holding = Holding(self._layout, partition, self._feed, self._meter)
        self._holdings[partition] = holding
        if self._wire is not None:
            holding.connected(self._wire)

    async def giving(self, partition: int) -> None:
        """See `Holder.giving`."""
        holding = self._holdings.get(partition)
        if holding is not None:
            await holding.drain()
            self._let_go(partition)

    def lost(self, partition: int) -> None:
        """See `Holder.lost`."""
        self._let_go(partition)

    def has_room(self, room: bool) -> None:
        """See `Holder.has_room`."""
        self._meter.has_room = room

    def _let_go(self, partition: int) -> None:
        holding = self._holdings.pop(partition, None)
        if holding is not None:
            holding.close()
            if self._feed is not None:
                self._feed.lost(partition)

    def _holding_of(self, ref: int) -> Holding | None:
        """The partition that a record waits in, while its lease is held."""
        for holding in self._holdings.values():
            if ref in holding.owed:
                held = self._membership is not None and self._membership.holds(holding.partition)
                return holding if held else None
        return None

    def _when_fed(self, partition: int, ref: int, then: Callable[[], None]) -> bool:
        holding = self._holdings.get(partition)
        return holding is not None and holding.when_fed(ref, then)

    def _forget(self, ref: int, attempt: int = 0) -> None:
        """Have a record forgotten that is settled already, once nobody tries to load it."""
        holding = self._holding_of(ref)
        if holding is None or self._feed is None or attempt == _GONE_ATTEMPTS:
            return
        if self._feed.withdrawn(ref):
            holding.owed.pop(ref, None)
            return
        asyncio.get_running_loop().call_later(_GONE_AGAIN_AFTER, self._forget, ref, attempt + 1)

    def _discarded(self, record: Record, targets: int) -> None:
        if self._feed is not None:
            self._feed.discarded(record, targets)

    async def _withdraw(self, partition: int, ref: int) -> bool | None:
        holding = self._holdings.get(partition)
        return None if holding is None else await holding.withdraw(ref)

    # What is written.

    async def _settle(self, ref: int, owed: int) -> None:
        holding = self._holding_of(ref)
        try:
            if holding is not None and self._wire is not None and not self._closing:
                await holding.settle(ref, owed)
                return
            wire = self._connected()
            if await questions.get(wire.requests, self._layout.stream, ref) is not None:
                raise self._unavailable("another replica dispatches its partition now")
        except (ConnectionLost, ApiRefused) as error:
            raise self._unavailable(str(error)) from error

    async def _park(self, ref: int, owed: int, parked: Parked) -> None:
        wire, holding = self._connected(), self._holding_of(ref)
        if holding is None:
            await self._settle(ref, owed)
            return
        subject = self._layout.parked_as(holding.partition, ref, parked.target)
        try:
            # This is what counts: a target that is parked is not owed, whatever comes after.
            await self._set_aside(wire, subject, encode_parked(parked))
            await holding.settle(ref, owed)
        except (ConnectionLost, ApiRefused) as failed:
            raise self._unavailable(str(failed)) from failed

    async def _set_aside(self, wire: Wire, subject: str, value: bytes) -> None:
        error = (await wire.write(subject, value)).error
        if error is None:
            self._meter.parked(stored_size(subject, b"", value))
        elif is_full(error):
            most = 0 if is_limited(error) else self._meter.bounds.parked_max_bytes
            raise InboxFullError(self._layout.parked, most)
        elif not is_there(error):
            raise ApiRefused(error)

    def _desk(self) -> Desk:
        return Desk(self._layout, self._meter, self.put, self._withdraw, self._discarded)

    def _questions(self) -> Any:
        return self._connected().requests

    def _connected(self) -> Wire:
        if self._wire is None or self._closing:
            raise self._away()
        return self._wire

    def _away(self) -> InboxUnavailableError:
        if self._closing:
            return InboxUnavailableError(self._layout.stream, "closing")
        problem = self._link.problem if self._link is not None else "not started"
        return self._unavailable(problem)

    def _unavailable(self, detail: str) -> InboxUnavailableError:
        return InboxUnavailableError(self._layout.stream, "inbox_unavailable", detail)

    async def _asked(self, question: Coroutine[Any, Any, T]) -> T:
        try:
            return await question
        except (ConnectionLost, ApiRefused, RecordError) as error:
            raise self._unavailable(str(error)) from error

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
