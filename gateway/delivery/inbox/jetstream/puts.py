"""The way of a record into the stream: one message per partition, all pipelined."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, Literal

import msgspec

from gateway.brokers.nats.errors import ApiError, ConnectionLost
from gateway.brokers.nats.jetstream import ApiRefused
from gateway.delivery.inbox.jetstream.layout import Layout, header_block, stored_size
from gateway.delivery.inbox.jetstream.meter import Meter
from gateway.delivery.inbox.jetstream.questions import get_last
from gateway.delivery.inbox.jetstream.wire import Ack, Wire
from gateway.delivery.inbox.record import Record, encode, targets
from gateway.delivery.inbox.store import InboxFullError, InboxUnavailableError, Placed

__all__ = ["Puts", "is_full", "is_limited", "is_there"]

_STORE_FAILED = 10077
_FULL_CODES = {10002, 10023, 10028, 10047}
"""The limits of the account and of the server: resources, memory, storage."""
_IN_PROCESS = 10158
"""Another write of the same `Nats-Msg-Id` has not been replicated yet."""
_NO_LEADER_CODES = {0, 10008, 10009}
_AGAIN_AFTER = 0.1
_MOST_ATTEMPTS = 20
_MOST_PENDING = 10_000
_MOST_PENDING_BYTES = 64 * 1024 * 1024

_ORDER: Final[tuple[Literal["stored", "pending", "finished"], ...]] = (
    "stored",
    "pending",
    "finished",
)


def is_there(error: ApiError) -> bool:
    """Whether a write was refused because its subject has a message."""
    return error.err_code == _STORE_FAILED and "per subject" in error.description


def is_full(error: ApiError) -> bool:
    """Whether a write was refused because the stream, or the account, has no room."""
    full = error.err_code == _STORE_FAILED and "maximum bytes" in error.description
    return full or is_limited(error)


def is_limited(error: ApiError) -> bool:
    """Whether it was the account, or the server, that had no room."""
    return error.err_code in _FULL_CODES


class _Put(msgspec.Struct, eq=False):
    """One record on its way, in several shares."""

    future: asyncio.Future[Placed]
    open: int
    state: int = len(_ORDER) - 1
    """Of its shares the one that comes first in `_ORDER`."""


class Puts:
    """Stores records."""

    def __init__(
        self,
        layout: Layout,
        meter: Meter,
        when_fed: Callable[[int, int, Callable[[], None]], bool],
    ) -> None:
        """`when_fed(partition, number, then)` calls `then` when the feed has it, if it gets it."""
        self._layout = layout
        self._meter = meter
        self._when_fed = when_fed
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[asyncio.Future[Placed]] = set()

    def put(self, wire: Wire, record: Record) -> asyncio.Future[Placed]:
        """See `Store.put`."""
        future: asyncio.Future[Placed] = self._loop.create_future()
        if wire.pending >= _MOST_PENDING or wire.pending_bytes >= _MOST_PENDING_BYTES:
            future.set_exception(InboxUnavailableError(self._layout.stream, "overloaded"))
            return future
        self._open.add(future)
        future.add_done_callback(self._open.discard)
        value = encode(record)
        shares = self._layout.shares(record, targets(record))
        put = _Put(future, len(shares))
        if not shares:
            future.set_result(Placed("finished"))  # nothing is owed
        for subject in shares:
            size = self._size(subject, value)
            if self._meter.may_not_fit(size):
                self._full(put, size)
            else:
                self._send(wire, put, subject, value, 1)
        return future

    def _full(self, put: _Put, size: int, *, limited: bool = False) -> None:
        if limited:
            self._meter.has_room = False
        else:
            self._meter.refused(size)
        if not put.future.done():
            most = 0 if limited else self._meter.bounds.max_bytes
            error = InboxFullError(self._layout.stream, most)
            put.future.set_exception(error)

    def _msg_id(self, subject: str) -> str:
        """Nothing where copies of what is finished are to be new."""
        window = self._meter.bounds.window
        return subject.removeprefix(f"{self._layout.stream}.waiting.") if window else ""

    def _size(self, subject: str, value: bytes) -> int:
        msg_id = self._msg_id(subject)
        block = header_block({"Nats-Msg-Id": msg_id} if msg_id else {})
        return stored_size(subject, block, value)

    async def drain(self, timeout: float) -> None:
        """Wait until what was put has its answer, at most `timeout` seconds."""
        if self._open:
            await asyncio.wait(list(self._open), timeout=timeout)

    def close(self) -> None:
        """End what is open: it is not known whether it is stored."""
        for task in self._tasks:
            task.cancel()
        for future in list(self._open):
            if not future.done():
                future.set_exception(InboxUnavailableError(self._layout.stream, "closing"))

    def _send(self, wire: Wire, put: _Put, subject: str, value: bytes, attempt: int) -> None:
        write = wire.write(subject, value, msg_id=self._msg_id(subject))
        write.add_done_callback(partial(self._answered, wire, put, subject, value, attempt))

    def _answered(
        self,
        wire: Wire,
        put: _Put,
        subject: str,
        value: bytes,
        attempt: int,
        write: asyncio.Future[Ack],
    ) -> None:
        if write.exception() is not None:
            self._fail(put, "inbox_unavailable", str(write.exception()))
            return
        ack = write.result()
        if ack.error is None:
            if ack.duplicate:
                self._spawn(self._look(wire, put, subject))
                return
            self._meter.stored(self._size(subject, value))
            end = partial(self._end, put, "stored")
            if not self._when_fed(self._layout.partition_of(subject), ack.seq, end):
                end()
        elif is_there(ack.error):
            self._end(put, "pending")
        elif is_full(ack.error) and (self._meter.is_bounded or attempt == _MOST_ATTEMPTS):
            self._full(put, self._size(subject, value), limited=is_limited(ack.error))
        elif self._may_pass(ack.error) and attempt < _MOST_ATTEMPTS:
            # An election, or the first attempt of this very event: both take moments.
            again = partial(self._send, wire, put, subject, value, attempt + 1)
            self._loop.call_later(_AGAIN_AFTER, again)
        else:
            self._fail(put, "inbox_unavailable", ack.error.description)

    async def _look(self, wire: Wire, put: _Put, subject: str) -> None:
        """Tell a copy of what waits from one of what is finished."""
        try:
            found = await get_last(wire.requests, self._layout.stream, subject)
        except (ConnectionLost, ApiRefused) as error:
            self._fail(put, "inbox_unavailable", str(error))
            return
        self._end(put, "finished" if found is None else "pending")

    def _end(self, put: _Put, state: Literal["stored", "pending", "finished"]) -> None:
        put.open -= 1
        put.state = min(put.state, _ORDER.index(state))
        if not put.open and not put.future.done():
            put.future.set_result(Placed(_ORDER[put.state]))

    def _fail(self, put: _Put, reason: str, detail: str) -> None:
        if not put.future.done():
            error = InboxUnavailableError(self._layout.stream, reason, detail)
            put.future.set_exception(error)

    def _may_pass(self, error: ApiError) -> bool:
        # A bound that was changed takes a moment, too.
        return (
            error.err_code == _IN_PROCESS
            or is_full(error)
            or (error.err_code in _NO_LEADER_CODES and error.code == 503)
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
