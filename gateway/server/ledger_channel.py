"""The ledger of a process tree: the supervisor keeps the book, its workers claim and release.

Each worker has a private pair of sockets for it, beside that of its orders. What one turn of a
process's loop has to say goes out in one frame: its length in four bytes, then a list in
MessagePack. Neither end ever waits for the other: one that does not read is cut off, and its worker
delivers unshared from then on. That must not stop a supervisor, or a worker. One that is frozen
loses the claims that others wait for, and those who wait for a frozen supervisor go on unshared.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from functools import partial
from typing import cast

import msgspec
import structlog

from gateway.delivery.book import Book, Grant, Report
from gateway.delivery.claims import Known, Unshared
from gateway.delivery.memory import Retention
from gateway.delivery.settlement import Settlement
from gateway.observability.metrics import LedgerMetrics

__all__ = ["BookClient", "BookKeeper"]

_HEAD = struct.Struct("!I")
_MAX_FRAME = 16 * 1024 * 1024
_MAX_UNREAD = 16 * 1024 * 1024
"""Bytes that one end may leave unread: some ten thousand claims with what is known of each."""
_MAX_BATCH = 256
"""Messages of one frame."""
_LOOK_EVERY = 0.25
_LOOKS = 4
"""Without an answer. Counted, not timed: a process that was stopped has yet to read what came."""
_FLUSH_WITHIN = 1.0
_TICK = 1.0
_QUIET_TICKS = 4
"""Without an answer, while others wait: then a worker's claims pass on. Counted, as above."""
_EXPIRED_PER_TICK = 10_000


class _Message(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=True):
    number: int
    """Of the claim, which its worker gives out: one that is made anew is another."""


class _Claim(_Message, frozen=True, tag="claim"):
    key: str


class _Withdraw(_Message, frozen=True, tag="withdraw"):
    key: str


class _Release(_Message, frozen=True, tag="release"):
    key: str
    report: Report


class _Granted(_Message, frozen=True, tag="granted"):
    report: Report


class _Held(_Message, frozen=True, tag="held"):
    """Another worker has it: stand in line."""


class _Lost(_Message, frozen=True, tag="lost"):
    """The claim has passed on: its worker did not answer."""

    key: str


class _Ask(_Message, frozen=True, tag="ask"):
    """Are you there? Others wait for what you have claimed."""


class _Here(_Message, frozen=True, tag="here"):
    """The answer to it."""


_Any = _Claim | _Withdraw | _Release | _Granted | _Held | _Lost | _Ask | _Here
_encode = msgspec.msgpack.Encoder().encode
_frames = msgspec.msgpack.Decoder(list[_Any]).decode
_targets = msgspec.msgpack.Decoder(dict[str, Settlement]).decode


class _End(asyncio.Protocol):
    """One end of a channel."""

    def __init__(self, take: Callable[[_Any], None], on_ended: Callable[[str], None]) -> None:
        """`on_ended` is told once why nothing more will come or go."""
        self._take = take
        self._on_ended = on_ended
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._unread = bytearray()
        self._batch: list[_Any] = []
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is one without being an instance.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _exc: Exception | None) -> None:
        self.end("the other end is gone")

    def data_received(self, data: bytes) -> None:
        unread = self._unread
        unread += data
        at = 0
        while len(unread) - at >= _HEAD.size and not self.ended:
            (length,) = _HEAD.unpack_from(unread, at)
            if length > _MAX_FRAME:
                self.end("a frame that is too large")
                return
            if len(unread) - at - _HEAD.size < length:
                break
            at += _HEAD.size
            self._read(bytes(unread[at : at + length]))
            at += length
        del unread[:at]

    def send(self, message: _Any) -> None:
        """Send at the end of this turn of the loop."""
        if self.ended:
            return
        if not self._batch:
            self._loop.call_soon(self.flush)
        self._batch.append(message)
        if len(self._batch) >= _MAX_BATCH:
            self.flush()

    def flush(self) -> None:
        """Send now."""
        transport, batch = self._transport, self._batch
        if not batch or transport is None or self.ended:
            return
        self._batch = []
        frame = _encode(batch)
        transport.write(_HEAD.pack(len(frame)) + frame)
        if transport.get_write_buffer_size() > _MAX_UNREAD:
            self.end("the other end does not read")

    async def drained(self, timeout: float) -> None:
        """Wait until the other end has read all, for so many seconds at the most."""
        self.flush()
        until = self._loop.time() + timeout
        while self._transport is not None and not self.ended and self._loop.time() < until:
            if self._transport.get_write_buffer_size() == 0:
                return
            await asyncio.sleep(0.01)

    def end(self, why: str) -> None:
        """Drop the connection, with what is not sent yet."""
        if self.ended:
            return
        self.ended = True
        if self._transport is not None:
            self._transport.abort()
        self._on_ended(why)

    def _read(self, frame: bytes) -> None:
        try:
            for message in _frames(frame):
                self._take(message)
        except msgspec.MsgspecError:
            self.end("a frame that cannot be read")


class BookKeeper:
    """The supervisor's part: one book, and a channel to each worker that runs."""

    def __init__(self, retention: Retention) -> None:
        self.metrics = LedgerMetrics()
        self._book = Book(retention, lambda state: self.metrics.evicted.labels(state).inc())
        self._ends: dict[int, _End] = {}
        self._quiet: dict[int, int] = {}
        """Of processes that others wait for: ticks since one was heard."""
        self._count = 0
        self._ticker: asyncio.Task[None] | None = None
        self._stopped = False

    @property
    def workers(self) -> int:
        """How many share the book now."""
        return len(self._ends)

    def retain(self, retention: Retention) -> None:
        """Remember by other bounds from now on."""
        self._book.retain(retention)

    def start(self) -> None:
        """Begin to forget what is past its time."""
        self._ticker = asyncio.create_task(self._tick())

    def stop(self) -> None:
        """End it all."""
        self._stopped = True
        if self._ticker is not None:
            self._ticker.cancel()
        for end in tuple(self._ends.values()):
            end.end("")

    async def serve(self, channel: socket.socket, worker: int) -> None:
        """Keep the book for a worker that runs, until its end of `channel` closes."""
        self._count += 1
        process = self._count
        end = _End(partial(self._take, process), partial(self._ended, process, worker))
        self._ends[process] = end
        await asyncio.get_running_loop().create_unix_connection(lambda: end, sock=channel)

    def show(self) -> None:
        """Set the gauges."""
        self.metrics.show(self._book.complete, self._book.incomplete, self._book.size)

    def _take(self, process: int, message: _Any) -> None:
        now = asyncio.get_running_loop().time()
        number = message.number
        holder = (process, number)
        if self._quiet:
            self._quiet.pop(process, None)
        match message:
            case _Claim(key=key):
                report = self._book.claim(key, holder, now)
                self._say(process, _Held(number) if report is None else _Granted(number, report))
            case _Release(key=key, report=report):
                self._tell(self._book.release(key, holder, report, now))
            case _Withdraw(key=key):
                self._tell(self._book.withdraw(key, holder, now))
            case _ if not isinstance(message, _Here):
                self._ends[process].end("a message that is not a worker's")

    def _tell(self, grant: Grant | None) -> None:
        if grant is None:
            return
        process, number = grant.holder
        self._say(process, _Granted(number, grant.report))

    def _say(self, process: int, message: _Any) -> None:
        # What a worker had that has just been cut off has passed on already.
        end = self._ends.get(process)
        if end is not None:
            end.send(message)

    def _ended(self, process: int, worker: int, why: str) -> None:
        del self._ends[process]
        if self._stopped:
            return
        structlog.get_logger().info("ledger channel ended", worker=worker, why=why)
        for grant in self._book.give_up(process, asyncio.get_running_loop().time()):
            self._tell(grant)

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._book.expire(loop.time(), _EXPIRED_PER_TICK)
            self._look_at_waited_for(loop.time())
            await asyncio.sleep(_TICK)

    def _look_at_waited_for(self, now: float) -> None:
        """Ask those who have what others wait for, and pass on what one has that is frozen."""
        waited_for = self._book.waited_for()
        self._quiet = {process: self._quiet.get(process, 0) + 1 for process in waited_for}
        for process, ticks in tuple(self._quiet.items()):
            if ticks <= _QUIET_TICKS:
                self._say(process, _Ask(0))
                continue
            del self._quiet[process]
            structlog.get_logger().warning("worker does not answer, its claims pass on")
            for key, number in self._book.held_by(process):
                self._say(process, _Lost(number, key))
            for grant in self._book.give_up(process, now):
                self._tell(grant)


class _Asked:
    """A claim that has been asked for and not been given."""

    __slots__ = ("answered", "future", "key", "looks")

    def __init__(self, key: str, future: asyncio.Future[Known]) -> None:
        self.key = key
        self.future = future
        self.looks = 0
        self.answered = False
        """It stands in line."""


class BookClient:
    """A worker's part; see `Claims`."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._end = _End(self._take, self._ended)
        self._on_lost: Callable[[str], None] = lambda _: None
        self._count = 0
        self._asked: dict[int, _Asked] = {}
        self._held: dict[str, int] = {}
        self._silent = False
        self._sweeper: asyncio.TimerHandle | None = None

    async def start(self, on_lost: Callable[[str], None]) -> None:
        """See `Claims.start`."""
        self._on_lost = on_lost
        await self._loop.create_unix_connection(lambda: self._end, sock=self._channel)

    def claim(self, key: str) -> asyncio.Future[Known]:
        """See `Claims.claim`."""
        future: asyncio.Future[Known] = self._loop.create_future()
        if self._end.ended or self._silent:
            # One whose answer is late ends the silence.
            future.set_exception(Unshared("unreachable" if self._end.ended else "timeout"))
            return future
        self._count += 1
        number = self._count
        self._asked[number] = _Asked(key, future)
        future.add_done_callback(partial(self._settled, number))
        self._end.send(_Claim(number, key))
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(_LOOK_EVERY, self._sweep)
        return future

    def release(self, key: str, known: Known, done: Callable[[bool], None]) -> None:
        """See `Claims.release`."""
        number = self._held.pop(key, None)
        if number is None or self._end.ended:
            done(False)
            return
        targets = _encode(known.targets) if known.targets else b""
        report = Report(targets, known.complete, known.age)
        self._end.send(_Release(number, key, report))
        done(True)

    async def close(self) -> None:
        """See `Claims.close`."""
        await self._end.drained(_FLUSH_WITHIN)
        self._end.end("")

    def _take(self, message: _Any) -> None:
        self._silent = False
        match message:
            case _Granted() | _Held():
                self._answered(message)
            case _Ask(number=number):
                self._end.send(_Here(number))
            case _Lost(number=number, key=key):
                # It may have been asked for once more before this was read.
                self._end.send(_Withdraw(number, key))
                if self._held.get(key) == number:
                    del self._held[key]
                    self._on_lost(key)

    def _answered(self, message: _Granted | _Held) -> None:
        asked = self._asked.get(message.number)
        if asked is None or asked.future.done():
            return
        if isinstance(message, _Held):
            asked.answered = True
        else:
            self._held[asked.key] = message.number
            report = message.report
            targets = _targets(report.targets) if report.targets else {}
            asked.future.set_result(Known(targets, report.complete, report.age))

    def _settled(self, number: int, future: asyncio.Future[Known]) -> None:
        asked = self._asked.pop(number)
        if future.cancelled() or future.exception() is not None:
            self._end.send(_Withdraw(number, asked.key))

    def _sweep(self) -> None:
        """Go on unshared with what the supervisor does not answer."""
        self._sweeper = None
        for number, asked in tuple(self._asked.items()):
            if asked.answered:
                # Asked again, for nothing else shows that the supervisor is still there.
                asked.looks, asked.answered = 0, False
                self._end.send(_Claim(number, asked.key))
            asked.looks += 1
            if not asked.answered and asked.looks > _LOOKS and not asked.future.done():
                self._silent = True
                asked.future.set_exception(Unshared("timeout"))
        if self._asked:
            self._sweeper = self._loop.call_later(_LOOK_EVERY, self._sweep)

    def _ended(self, why: str) -> None:
        if why:
            structlog.get_logger().warning("ledger not shared", why=why)
        for asked in tuple(self._asked.values()):
            if not asked.future.done():
                asked.future.set_exception(Unshared("unreachable"))
        held, self._held = self._held, {}
        for key in held:
            self._on_lost(key)
