"""A partition while this replica holds it: read in order, and settled."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from gateway.brokers.nats.errors import ConnectionLost
from gateway.brokers.nats.jetstream import ApiRefused, is_gone
from gateway.delivery.inbox.jetstream import questions
from gateway.delivery.inbox.jetstream.follower import Follower, Found
from gateway.delivery.inbox.jetstream.layout import Layout
from gateway.delivery.inbox.jetstream.meter import Meter
from gateway.delivery.inbox.jetstream.wire import Wire, seen
from gateway.delivery.inbox.record import RecordError, decode, targets
from gateway.delivery.inbox.store import Entry, Feed

__all__ = ["Holding", "bits"]

log = logging.getLogger("gateway.delivery")

_AGAIN_AFTER = 1.0
_EVERY = -1
"""The mask of all targets."""
_MOST_SWEPT = 1000
_DRAIN_WITHIN = 60.0
"""Seconds: longer than an attempt of the dispatcher takes, with all that a broker may do in it."""
_LOOK_EVERY = 0.05
_FED_WITHIN = 1.0
_AT_HAND = 256
_AT_HAND_BYTES = 64 * 1024
"""A record is handed on with its entry while so few wait, and when it is so small."""


class Holding:
    """What waits in one partition, as this replica dispatches it."""

    def __init__(self, layout: Layout, partition: int, feed: Feed, meter: Meter) -> None:
        self._layout = layout
        self._meter = meter
        self.partition = partition
        self._feed = feed
        self._wire: Wire | None = None
        self._follower: Follower | None = None
        self._opening: asyncio.Task[None] | None = None
        self._barrier = -1
        """What was there when the lease was taken; -1 until that is known."""
        self._last = 0
        self._settled: dict[int, int] = {}
        """Of records that are still to be read, the targets that are settled or parked."""
        self.owed: dict[int, int] = {}
        """What waits, by number, with the targets that are owed."""
        self._sizes: dict[int, int] = {}
        self._unmarked: dict[int, int] = {}
        """Settled targets without stored progress; once all are settled, none is needed."""
        self._marked: set[int] = set()
        """Records of which there is progress."""
        self._waiters: dict[int, Callable[[], None]] = {}
        self._questions: Subscription | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self.opened = asyncio.Event()
        """All that waited has been fed."""

    def connected(self, wire: Wire) -> None:
        """Read on, over a new connection."""
        self.disconnected()
        self._wire = wire
        asked = self._layout.withdraw(self.partition)
        self._questions = wire.connection.subscribe(asked, lambda msg: self._asked(wire, msg))
        self._opening = asyncio.create_task(self._open(wire))

    def disconnected(self) -> None:
        """Read no more for now."""
        if self._wire is not None and self._questions is not None:
            self._wire.connection.unsubscribe(self._questions)
        self._wire = self._questions = None
        self._read_no_more()

    def _read_no_more(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
        if self._follower is not None:
            self._last = self._follower.after
            self._follower.stop()
            self._follower = None

    def close(self) -> None:
        """Forget everything."""
        self.disconnected()
        for task in self._tasks:
            task.cancel()
        for ref in list(self._waiters):
            self._fed(ref)
        self.owed.clear()
        self._unmarked.clear()
        self._sizes.clear()
        self.opened.set()

    async def _open(self, wire: Wire) -> None:
        while self._barrier < 0:
            try:
                self._barrier = await self._prepare(wire)
            except (ConnectionLost, ApiRefused) as error:
                if wire.ended.done():
                    return
                log.warning("inbox: partition %d could not be read: %s", self.partition, error)
                await asyncio.sleep(_AGAIN_AFTER)
        pattern = self._layout.waiting_in(self.partition)
        self._follower = Follower(
            wire, self._layout.stream, [pattern], self._take, after=self._last
        )
        await self._follower.caught_up.wait()
        self.opened.set()
        with contextlib.suppress(ConnectionLost, ApiRefused):
            await self._sweep_marks(wire)

    async def _prepare(self, wire: Wire) -> int:
        """See what is settled, and give the number of the last message that there is."""
        look = await questions.look(wire.requests, self._layout.stream)
        if look is None:
            raise ConnectionLost(f"stream {self._layout.stream} is gone")
        found: dict[int, int] = {}
        for stream, pattern in (
            (self._layout.state, self._layout.progress_in(self.partition)),
            (self._layout.parked, self._layout.parked_in(self.partition)),
        ):
            for subject in await questions.subjects(wire.requests, stream, pattern):
                mark = self._layout.mark_of(subject)
                found[mark.ref] = found.get(mark.ref, 0) | 1 << mark.target
                if stream == self._layout.state:
                    self._marked.add(mark.ref)
        self._settled = found
        return look.state.last_seq

    def _take(self, found: Found) -> None:
        try:
            record = decode(found.data)
        except RecordError as error:
            log.warning("inbox: message %d is left as it is: %s", found.seq, error)
            return
        wanted = targets(record)
        owed = self._layout.owed(wanted, self.partition) & ~self._settled.pop(found.seq, 0)
        self.owed[found.seq], self._sizes[found.seq] = owed, found.size
        if not owed:
            # Its last target was settled, and then the process died or the lease went.
            task = asyncio.create_task(self._finish_surely(found.seq))
            self._tasks.add(task)
            task.add_done_callback(self._done)
            return
        # What was there before may have been settled by who held the partition before, which the
        # replica that this is read from may not know yet: then it is loaded, from the leader.
        at_hand = (
            found.seq > self._barrier
            and len(self.owed) <= _AT_HAND
            and len(found.data) <= _AT_HAND_BYTES
        )
        entry = Entry(found.seq, self.partition, record.stored_at, owed, wanted, found.size)
        self._feed.stored(entry, record if at_hand else None)
        self._fed(found.seq)

    def when_fed(self, ref: int, then: Callable[[], None]) -> bool:
        """Call `then` once a message has been fed, or after a second; False if it has been."""
        if self._follower is None or self._follower.after >= ref:
            return False
        self._waiters[ref] = then
        asyncio.get_running_loop().call_later(_FED_WITHIN, self._fed, ref)
        return True

    def _fed(self, ref: int) -> None:
        then = self._waiters.pop(ref, None)
        if then is not None:
            then()

    async def drain(self) -> None:
        """Have nothing new dispatched, and wait until nothing is on its way any more.

        Who dispatches the partition next would otherwise publish what comes later in a lane
        before what is still on its way from here.
        """
        self._read_no_more()
        ends = asyncio.get_running_loop().time() + _DRAIN_WITHIN
        while self.owed and asyncio.get_running_loop().time() < ends:
            for ref in list(self.owed):
                if self._feed.withdrawn(ref):
                    self.owed.pop(ref, None)
            if self.owed:
                await asyncio.sleep(_LOOK_EVERY)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        seen(task)

    async def settle(self, ref: int, owed: int) -> None:
        """Keep that only these targets are owed. Raises `ConnectionLost` and `ApiRefused`."""
        before = self.owed.get(ref, 0)
        settled = before & ~owed
        settled |= before & self._unmarked.get(ref, 0)
        if settled != before:
            self._unmarked[ref] = settled
            await self._mark(ref, settled)
            self._unmarked.pop(ref, None)
            if ref not in self.owed:
                return
            # Two targets may be settled at once, each without the other's knowledge.
            self.owed[ref] &= ~settled
        if settled == before or not self.owed[ref]:
            await self._finish(ref)

    async def _mark(self, ref: int, settled: int) -> None:
        wire = self._connection()
        self._marked.add(ref)
        subjects = [self._layout.progress(self.partition, ref, at) for at in bits(settled)]
        for ack in await asyncio.gather(*(wire.write(subject) for subject in subjects)):
            if ack.error is not None:
                raise ApiRefused(ack.error)
            self._meter.writes += 1

    async def _finish(self, ref: int) -> bool:
        """Remove a record for good; False where it was not there any more."""
        wire = self._connection()
        body = {"seq": ref, "no_erase": True}
        ack = await wire.call(f"STREAM.MSG.DELETE.{self._layout.stream}", body)
        there = ack.error is None
        if ack.error is not None and not is_gone(ack.error):
            raise ApiRefused(ack.error)
        size = self._sizes.pop(ref, 0)
        if there:
            self._meter.finished(size)
        self.owed.pop(ref, None)
        self._unmarked.pop(ref, None)
        if ref in self._marked:
            self._marked.discard(ref)
            self._forget_marks(wire, ref)
        return there

    async def _finish_surely(self, ref: int) -> None:
        """Remove a record that nobody is to dispatch, and so nobody else tries to."""
        while True:
            try:
                await self._finish(ref)
            except (ConnectionLost, ApiRefused) as error:
                log.warning("inbox: message %d is settled and still there: %s", ref, error)
                await asyncio.sleep(_AGAIN_AFTER)
            else:
                return

    def _forget_marks(self, wire: Wire, ref: int) -> None:
        body = {"filter": self._layout.progress(self.partition, ref)}
        wire.call(f"STREAM.PURGE.{self._layout.state}", body).add_done_callback(seen)

    async def _sweep_marks(self, wire: Wire) -> None:
        """Remove the progress of records that are gone, of which a process died in between."""
        for ref in sorted(self._marked - self.owed.keys())[:_MOST_SWEPT]:
            if await questions.get(wire.requests, self._layout.stream, ref) is None:
                self._marked.discard(ref)
                self._settled.pop(ref, None)
                self._forget_marks(wire, ref)

    async def withdraw(self, ref: int) -> bool:
        """Drop a record for an operator, unless it is being published now, or is gone.

        Raises `ConnectionLost` and `ApiRefused`.
        """
        found = await questions.get(self._connection().requests, self._layout.stream, ref)
        if found is None:
            return False
        record = decode(found.data)
        wanted = targets(record)
        owed = self.owed.get(ref)
        if owed is None:
            self._settled[ref] = _EVERY  # it is on its way here
            owed = self._layout.owed(wanted, self.partition)
        elif not self._feed.withdrawn(ref):
            return False
        try:
            done = await self._finish(ref)
        except (ConnectionLost, ApiRefused):
            if ref in self.owed:
                size = questions.size_of(found)
                entry = Entry(ref, self.partition, record.stored_at, owed, wanted, size)
                self._feed.stored(entry, None)
            raise
        if done:
            self._feed.discarded(record, owed)
        return done

    def _asked(self, wire: Wire, msg: Msg) -> None:
        """Answer another process, whose operator drops a record."""

        async def answer() -> None:
            try:
                done = await self.withdraw(int(msg.data))
            except (ValueError, RecordError, ConnectionLost, ApiRefused) as error:
                log.warning("inbox: a record could not be dropped: %s", error)
                return  # the asker hears nothing, and says so
            wire.connection.publish(msg.reply, "", None, b"1" if done else b"0")

        task = asyncio.create_task(answer())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _connection(self) -> Wire:
        if self._wire is None:
            raise ConnectionLost("not connected")
        return self._wire


def bits(mask: int) -> list[int]:
    """The places of a mask's ones."""
    return [at for at in range(mask.bit_length()) if mask >> at & 1]
