"""This replica's session and its leases: renews them, takes, gives back, and notices their end."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from gateway.brokers.nats.errors import ConnectionLost
from gateway.brokers.nats.jetstream import ApiRefused
from gateway.delivery.inbox.jetstream.follower import Follower, Found
from gateway.delivery.inbox.jetstream.layout import Layout
from gateway.delivery.inbox.jetstream.leases import Book, Sign
from gateway.delivery.inbox.jetstream.puts import is_full
from gateway.delivery.inbox.jetstream.questions import get_last
from gateway.delivery.inbox.jetstream.wire import Ack, Wire

__all__ = ["Holder", "Membership", "clock"]

log = logging.getLogger("gateway.delivery")

_RENEWED_AFTER = 0.3
_SAFE = 0.8
"""Parts of a term: a holder renews after the one, and counts on no more than the other. What is
between that and the whole is for clocks that run at different speeds."""
_SAFE_BY_READING = 0.4
"""Parts of a term that a holder counts on when it could only read: see `leases` for the half."""
_TICK = 20
"""Parts of a term between two looks at what is to do."""
_WRITE_ERRORS = (ConnectionLost, ApiRefused)

_decode_sign = msgspec.json.Decoder(Sign).decode

if hasattr(time, "CLOCK_BOOTTIME"):

    def clock() -> float:
        """Seconds that pass for a machine that sleeps, too."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

else:
    clock = time.monotonic


class Holder(Protocol):
    """Who dispatches what this replica holds."""

    def taken(self, partition: int) -> None:
        """Begin: the lease is held."""
        ...

    def giving(self, partition: int) -> Awaitable[None]:
        """Stop, and say when nothing of it is on its way any more."""
        ...

    def lost(self, partition: int) -> None:
        """Stop at once: another replica may hold the lease."""
        ...

    def has_room(self, room: bool) -> None:
        """Take note whether the server took a sign of life, or had no room for it."""
        ...


class Membership:
    """One replica among those that share an inbox."""

    def __init__(self, layout: Layout, holder: Holder, term: float) -> None:
        """`term` is how many seconds a session lives without a sign of life."""
        self._layout = layout
        self._holder = holder
        self._term = term
        self._book = Book(layout.partitions, term)
        self._session = _new_session()
        self._valid_until = 0.0
        self._sent_at = 0.0
        self._held: set[int] = set()
        self._giving: dict[int, asyncio.Task[None]] = {}
        self._view: Follower | None = None
        self._wire: Wire | None = None
        self._renewing, self._balancing = asyncio.Event(), asyncio.Event()
        """Set to make the keepers look at once what there is to do."""
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False
        self._full = False
        """The last write found no room."""
        self.settled = asyncio.Event()
        """Everything that this replica is to hold now, it holds."""

    @property
    def held(self) -> frozenset[int]:
        """The partitions that this replica dispatches."""
        return frozenset(self._held)

    def holds(self, partition: int) -> bool:
        """Whether a partition is this replica's at this moment; what is not, is lost at once."""
        self._notice()
        return partition in self._held

    def start(self) -> None:
        """Begin. Nothing happens until there is a connection."""
        self._tasks = [
            asyncio.create_task(self._forever(self._renew, self._renewing)),
            asyncio.create_task(self._forever(self._balance, self._balancing)),
        ]

    def connected(self, wire: Wire) -> None:
        """Go on over a new connection; what is held, stays held while its term lasts."""
        self._wire = wire
        # Who was silent while nobody could be heard gets another term.
        self._book = Book(self._layout.partitions, self._term)
        filters = [self._layout.session(), self._layout.lease()]
        self._view = Follower(wire, self._layout.state, filters, self._saw, last_only=True)
        self._renewing.set()

    def disconnected(self) -> None:
        """Note that there is no connection."""
        if self._view is not None:
            self._view.stop()
        self._wire = self._view = None

    async def close(self, timeout: float) -> None:
        """Give everything back, for at most `timeout` seconds, and end the session."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        try:
            async with asyncio.timeout(timeout):
                await asyncio.gather(*map(self._give, tuple(self._held)))
                await self._end(self._session, self._book.session_seq(self._session))
        except (TimeoutError, *_WRITE_ERRORS) as error:
            log.warning("inbox: the leases were not given back and run out: %s", error)
        for partition in tuple(self._held):
            self._drop(partition)
        if self._view is not None:
            self._view.stop()
        for task in self._giving.values():
            task.cancel()

    async def _forever(self, step: Callable[[Wire], Awaitable[None]], wake: asyncio.Event) -> None:
        while True:
            self._notice()
            wire = self._wire
            if wire is not None and not wire.ended.done():
                try:
                    await step(wire)
                except _WRITE_ERRORS as error:
                    log.info("inbox: leases: %s", error)
                except Exception:
                    log.exception("inbox: the leases' keeper failed")
            try:
                await asyncio.wait_for(wake.wait(), self._term / _TICK)
            except TimeoutError:
                continue
            wake.clear()

    def _notice(self) -> None:
        """See whether the session's time is over, and then begin another one."""
        if self._closing or not self._valid_until or clock() < self._valid_until:
            return
        log.warning("inbox: the leases could not be renewed in time; others may have them")
        self._lapse()

    def _lapse(self) -> None:
        self._valid_until = 0.0
        self._session = _new_session()
        self.settled.clear()
        for partition in tuple(self._held):
            self._drop(partition)

    def _drop(self, partition: int) -> None:
        self._held.discard(partition)
        self._holder.lost(partition)

    async def _renew(self, wire: Wire) -> None:
        now = clock()
        recent = now - self._sent_at < self._term * _RENEWED_AFTER
        if self._valid_until and recent and not self._full:
            return
        session = self._session
        sign = msgspec.json.encode(Sign(self._term))
        expected = self._book.session_seq(session)
        write = wire.write(self._layout.session(session), sign, expected=expected)
        ack = await _within(write, self._term / 5)
        if session != self._session:
            return  # it has lapsed meanwhile
        if ack.error is None:
            self._book.saw_session(session, ack.seq, Sign(self._term), now)
            self._sent_at = now
            self._valid_for(self._term * _SAFE, now)
            self._found_room()
            self._balancing.set()
            return
        if self._found_full(ack):
            await self._stay(wire, session)
            return
        await self._look_at_session(wire, session)
        if session == self._session and session not in self._book.alive():
            self._lapse()  # its message is gone
        self._renewing.set()

    def _valid_for(self, seconds: float, since: float) -> None:
        self._valid_until = max(self._valid_until, since + seconds)
        # Another clock may have woken this timer's.
        asyncio.get_running_loop().call_later(seconds, self._notice)

    def _found_room(self) -> None:
        if self._full:
            log.info("inbox: the storage has room again")
        self._full = False
        self._holder.has_room(True)

    def _found_full(self, ack: Ack) -> bool:
        """Whether a write was refused for want of room; then no silence means a thing."""
        if ack.error is None or not is_full(ack.error):
            return False
        if not self._full:
            log.warning(
                "inbox: the storage is full, nothing is taken: %s; what is held is dispatched."
                " Make room, or raise the limit of the account or the server",
                ack.error.description,
            )
        self._full = True
        self._book.excuse(clock())
        self._holder.has_room(False)
        return True

    async def _stay(self, wire: Wire, session: str) -> None:
        """Hold on without a sign, for there is no room for one: see `leases` for why it may.

        A leader that was deposed may answer a question, as it does not know yet. So the stream is
        first made to agree on something, which changes nothing.
        """
        if not self._valid_until:
            return
        began = clock()
        nothing = {"filter": self._layout.progress(0, 0)}
        call = wire.call(f"STREAM.PURGE.{self._layout.state}", nothing)
        agreed = await _within(call, self._term / 5)
        if agreed.error is not None:
            raise ApiRefused(agreed.error)
        sign = await self._look_at_session(wire, session)
        if session != self._session:
            return
        if sign is None:
            self._lapse()
        elif not sign.ended and not sign.doubted:
            self._valid_for(self._term * _SAFE_BY_READING, began)

    async def _balance(self, wire: Wire) -> None:
        """Do what there is to do. Raises `ConnectionLost` and `ApiRefused`."""
        view = self._view
        if view is None or not view.caught_up.is_set() or not self._valid_until or self._full:
            return
        steps = self._book.steps(self._session, clock())
        for session, seq in steps.doubt.items():
            await self._write_sign(session, Sign(self._book.term(session), doubted=True), seq)
        for session, seq in steps.end.items():
            log.warning("inbox: session %s shows no sign of life; its leases are free", session)
            await self._end(session, seq)
        for session, seq in steps.forget.items():
            await self._forget(wire, session, seq)
        for partition, seq in steps.take.items():
            await self._take(wire, partition, seq)
        for partition in self._book.held_by(self._session) - self._held - set(self._giving):
            # It was taken, or was to be given back, and the answer was lost.
            await self._take(wire, partition, self._book.lease(partition).seq)
        for partition in steps.give:
            self._start_giving(partition)
        if not steps.doubt and not steps.end and not steps.take:
            self.settled.set()
        else:
            self._balancing.set()

    async def _take(self, wire: Wire, partition: int, expected: int) -> None:
        session = self._session
        write = wire.write(self._layout.lease(partition), session.encode(), expected=expected)
        ack = await _within(write, self._term / 5)
        if ack.error is not None:
            if not self._found_full(ack):
                await self._look_at_lease(wire, partition)
            return
        self._book.saw_lease(partition, ack.seq, session, clock())
        self._notice()
        if session == self._session:
            self._begin(partition)

    def _begin(self, partition: int) -> None:
        if partition not in self._held and not self._closing:
            self._held.add(partition)
            self._holder.taken(partition)

    def _start_giving(self, partition: int) -> None:
        if partition in self._held and partition not in self._giving:
            task = asyncio.create_task(self._give(partition))
            self._giving[partition] = task
            task.add_done_callback(lambda _: self._giving.pop(partition, None))

    async def _give(self, partition: int) -> None:
        """Give a lease back, once nothing of its partition is on its way."""
        session = self._session
        await self._holder.giving(partition)
        if session != self._session or partition not in self._held:
            return  # lost while it waited
        self._held.discard(partition)
        wire = self._wire
        if wire is None:
            return  # it is still this session's, and is begun again or given back later
        expected = self._book.lease(partition).seq
        write = wire.write(self._layout.lease(partition), expected=expected)
        try:
            ack = await _within(write, self._term / 5)
        except ConnectionLost:
            return
        if ack.error is None:
            self._book.saw_lease(partition, ack.seq, "", clock())
        elif self._found_full(ack) and session == self._session:
            self._begin(partition)  # it was not given, and the answer says so

    async def _end(self, session: str, expected: int) -> None:
        """End a session, another's or this one's."""
        await self._write_sign(session, Sign(self._term, ended=True), expected)

    async def _write_sign(self, session: str, sign: Sign, expected: int) -> None:
        wire = self._wire
        if wire is None:
            raise ConnectionLost("not connected")
        value = msgspec.json.encode(sign)
        write = wire.write(self._layout.session(session), value, expected=expected)
        ack = await _within(write, self._term / 5)
        if ack.error is None:
            self._book.saw_session(session, ack.seq, sign, clock())
        elif not self._found_full(ack):
            await self._look_at_session(wire, session)

    async def _forget(self, wire: Wire, session: str, seq: int) -> None:
        body = {"seq": seq}
        await _within(wire.call(f"STREAM.MSG.DELETE.{self._layout.state}", body), self._term / 5)
        self._book.gone(session)

    async def _look_at_session(self, wire: Wire, session: str) -> Sign | None:
        """See what is true, where a write was refused."""
        found = await get_last(wire.requests, self._layout.state, self._layout.session(session))
        if found is None:
            self._book.gone(session)
            return None
        self._saw(Found(found.subject, found.seq, found.data))
        try:
            return _decode_sign(found.data)
        except msgspec.MsgspecError:
            return Sign(self._term, doubted=True)  # a foreign hand's: nothing to count on

    async def _look_at_lease(self, wire: Wire, partition: int) -> None:
        found = await get_last(wire.requests, self._layout.state, self._layout.lease(partition))
        if found is not None:
            self._saw(Found(found.subject, found.seq, found.data))

    def _saw(self, found: Found) -> None:
        kind, _, name = found.subject[len(self._layout.stream) + 1 :].partition(".")
        try:
            if kind == "session":
                sign = _decode_sign(found.data)
                self._book.saw_session(name, found.seq, sign, clock())
                if sign.ended and name == self._session and not self._closing:
                    log.warning("inbox: another replica has ended this one's session")
                    self._lapse()
            elif kind == "lease":
                holder = found.data.decode("ascii")
                self._book.saw_lease(int(name), found.seq, holder, clock())
                self._compare(int(name))
        except (ValueError, msgspec.MsgspecError):
            log.warning("inbox: stream %s holds a foreign message", self._layout.state)
        self._balancing.set()

    def _compare(self, partition: int) -> None:
        """Let go of what another one's lease is on; only a hand in the stream can make that so."""
        if partition in self._held and self._book.lease(partition).session != self._session:
            log.warning("inbox: the lease of partition %d is another's", partition)
            self._drop(partition)


async def _within(write: asyncio.Future[Ack], timeout: float) -> Ack:
    """Wait for an answer. Raises `ConnectionLost`."""
    try:
        async with asyncio.timeout(timeout):
            return await asyncio.shield(write)
    except TimeoutError:
        write.add_done_callback(lambda done: done.cancelled() or done.exception())
        raise ConnectionLost("no answer in time") from None


def _new_session() -> str:
    return secrets.token_hex(8)
