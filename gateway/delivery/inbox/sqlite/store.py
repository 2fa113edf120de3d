"""The embedded store: a SQLite file, its owner, a thread that writes and one that reads.

Everything here runs on the event loop; what blocks is in the two threads. Disk space, durability
and what each failure does are described in docs/operations.md.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gateway.delivery.inbox.record import Record, RecordError, decode, encode, targets
from gateway.delivery.inbox.sqlite.file import DAMAGED, Lock, connect, prepare
from gateway.delivery.inbox.sqlite.loads import Loads
from gateway.delivery.inbox.sqlite.operations import (
    Discard,
    Operation,
    Park,
    Put,
    Settle,
    Unpark,
    batches,
    entry_of,
    fail,
    place_of,
    resolve,
)
from gateway.delivery.inbox.sqlite.reader import (
    Reader,
    entries,
    entries_of,
    held_parked,
    held_pending,
)
from gateway.delivery.inbox.sqlite.schema import OVERHEAD, SCHEMA, Schema, pack_targets
from gateway.delivery.inbox.sqlite.writer import Report, Writer
from gateway.delivery.inbox.store import (
    Bounds,
    Entry,
    Feed,
    Held,
    InboxUnavailableError,
    InboxUnusableError,
    Parked,
    Placed,
    Usage,
    Writable,
)

__all__ = ["SqliteStore"]

_QUEUED_COUNT = 8192
_QUEUED_BYTES = 64 * 1024 * 1024
"""What may wait for the writer; settlements may go to twice as much, for they make room."""
_STALLED = 5.0
"""Seconds that the writer may be silent while something waits for it."""
_FAILED = 5.0
"""Seconds for a file to be closed again that cannot be used."""
_LAST_WORDS = 0.2
"""Seconds beyond the time to close, for the threads' ends to be seen."""


class SqliteStore:
    """The inbox in one file. One event loop uses it; only `start` of another owner fails."""

    def __init__(
        self,
        path: Path,
        bounds: Bounds,
        *,
        patience: float = 0.0,
        clock: Callable[[], float] = time.time,
        schema: Schema = SCHEMA,
    ) -> None:
        """`patience` is how many seconds to wait for an owner that is about to end.

        `clock` gives Unix seconds; finished events are remembered by it.
        """
        self._path = path.absolute().resolve()
        self._bounds = bounds
        self._patience = patience
        self._clock = clock
        self._schema = schema
        self._lock = Lock(self._path)
        self._writer: Writer | None = None
        self._reader: Reader | None = None
        self._feed: Feed | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_fed = False
        self._closed = False
        self._gathering: list[Operation] = []
        self._at_writer: dict[Operation, None] = {}
        """In order; what is left here when the store is closed has failed."""
        self._waits_since: float | None = None
        """Event-loop time of the writer's last word, or of the first one it has yet to answer."""
        self._queued = 0
        self._queued_bytes = 0
        self._loads: Loads | None = None
        self._usage = Usage(0, 0, 0, 0)
        self._writable = Writable.NO
        self._counts = (0, 0)

    @property
    def writable(self) -> Writable:
        """What `/readyz` tells: NO as well while a disk does not answer."""
        since = self._waits_since
        if since is not None and self._running().time() - since > _STALLED:
            return Writable.NO
        return self._writable

    @property
    def usage(self) -> Usage:
        """What is in the file, as of the last commit."""
        return self._usage

    @property
    def commits(self) -> int:
        """How many transactions were made durable: one sync of the log each."""
        return self._counts[0]

    @property
    def checkpoints(self) -> int:
        """How often the log was written back: a sync of the log and one of the file each."""
        return self._counts[1]

    def bound(self, bounds: Bounds) -> None:
        """Be held to other bounds from now on."""
        self._bounds = bounds
        if self._writer is not None:
            self._writer.bound(bounds)

    async def start(self, feed: Feed) -> None:
        """Take the lock, open or create the file, and feed what waits.

        Raises `InboxUnusableError`. What is put before it has ended is refused, so that all is fed
        in order.
        """
        loop = self._loop = asyncio.get_running_loop()
        self._feed = feed
        writing, reading = await asyncio.to_thread(self._open)
        self._writer = Writer(self._path, writing, self._bounds, self._tell, self._clock)
        self._reader = Reader(str(self._path), reading, loop)
        self._loads = Loads(str(self._path), self._reader)
        self._usage = self._writer.usage
        self._writable = self._writer.writable
        self._writer.start()
        try:
            await self._feed_all(self._reader)
        except InboxUnavailableError as error:
            await self.close(_FAILED)
            raise InboxUnusableError(
                str(self._path), f"is damaged ({error.detail})", DAMAGED
            ) from error
        self._is_fed = True

    async def _feed_all(self, reader: Reader) -> None:
        last = 0
        while page := await reader.read(entries, last):
            for entry in page:
                if entry.owed:
                    self._fed().stored(entry, None)
                else:
                    # Nobody else would ever say that it is finished.
                    self._gather(Settle(entry.ref, 0, self._future()))
            last = page[-1].ref

    def put(self, record: Record) -> asyncio.Future[Placed]:
        """Store a record; see `Store.put`."""
        future: asyncio.Future[Placed] = self._future()
        if not self._is_fed and not self._closed:
            future.set_exception(
                InboxUnavailableError(str(self._path), "inbox_unavailable", "it is being opened")
            )
            return future
        if self._refused(future, _QUEUED_COUNT, _QUEUED_BYTES):
            return future
        found, encoded, name = targets(record), encode(record), record.name
        packed = pack_targets(found)
        size = len(encoded) + len(packed) + len(name) + OVERHEAD
        owed = (1 << len(found)) - 1
        self._gather(Put(name, record, encoded, found, packed, owed, size, future))
        return future

    async def load(self, ref: int) -> Record:
        """Give the record that waits under a number. Raises `InboxUnavailableError`."""
        if self._loads is None or self._closed:
            raise self._closing()
        return await self._loads.load(ref)

    def settle(self, ref: int, owed: int) -> asyncio.Future[None]:
        """Keep what is still owed; see `Store.settle`."""
        future: asyncio.Future[None] = self._future()
        if not self._refused(future, 2 * _QUEUED_COUNT, 2 * _QUEUED_BYTES):
            self._gather(Settle(ref, owed, future))
        return future

    def park(self, ref: int, owed: int, parked: Parked) -> asyncio.Future[None]:
        """Set a target aside; see `Store.park`."""
        future: asyncio.Future[None] = self._future()
        if not self._refused(future, 2 * _QUEUED_COUNT, 2 * _QUEUED_BYTES):
            encoded = encode(parked.record)
            size = len(encoded) + len(parked.reason) + len(parked.detail) + OVERHEAD
            self._gather(Park(ref, owed, parked, encoded, size, future))
        return future

    async def held(self) -> AsyncIterator[Held]:
        """Give all that waits and all that is parked, the oldest first; a page is in memory."""
        pending, parked = self._pages(held_pending), self._pages(held_parked)
        waits, aside = await anext(pending, None), await anext(parked, None)
        while waits is not None or aside is not None:
            if aside is None or (waits is not None and waits.held_since <= aside.held_since):
                assert waits is not None  # noqa: S101 - one of them is there
                yield waits
                waits = await anext(pending, None)
            else:
                yield aside
                aside = await anext(parked, None)

    async def unpark(self, ids: Sequence[str], *, rerouted: dict[str, Record]) -> int:
        """Put parked targets back to be dispatched; see `Store.unpark`.

        Where only some have room, gives how many; where none has, raises `InboxFullError`.
        """
        instead = {place: rerouted[id] for id in rerouted if (place := place_of(id)) is not None}  # noqa: A001 - what the contract calls it
        places = [place for one in ids if (place := place_of(one)) is not None]
        done = 0
        for some in batches(places):
            future: asyncio.Future[int] = self._future()
            if not self._refused(future, 2 * _QUEUED_COUNT, 2 * _QUEUED_BYTES):
                size = sum(len(instead[one].plan.body) for one in some if one in instead)
                self._gather(Unpark(tuple(some), instead, future, size))
            try:
                done += await future
            except InboxUnavailableError:
                if done:
                    break
                raise
        return done

    async def discard(self, ids: Sequence[str]) -> int:
        """Drop records for good, parked or waiting; see `Store.discard`."""
        done = 0
        for some in batches(list(dict.fromkeys(ids))):
            places = [place for one in some if (place := place_of(one)) is not None]
            refs = [int(one) for one in some if one.isascii() and one.isdigit()]
            withdrawn = await self._withdraw(refs)
            future: asyncio.Future[int] = self._future()
            if not self._refused(future, 2 * _QUEUED_COUNT, 2 * _QUEUED_BYTES):
                self._gather(Discard(tuple(one.ref for one in withdrawn), tuple(places), future))
            try:
                done += await future
            except InboxUnavailableError:
                # They are still there, and nobody else would dispatch them before a restart.
                for entry in withdrawn:
                    self._fed().stored(entry, None)
                raise
        return done

    async def close(self, timeout: float) -> None:
        """Write what was taken, for at most `timeout` seconds, and let go. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._writable = Writable.NO
        writer, reader = self._writer, self._reader
        if writer is None or reader is None:
            self._lock.release()
            return
        self._hand_over()
        reader.stop()
        writer.stop()
        ended = await asyncio.to_thread(writer.join, timeout)
        await asyncio.to_thread(reader.join, _LAST_WORDS)
        # What the writer has told is still on its way through the loop.
        await asyncio.sleep(0)
        for one in list(self._at_writer):
            fail(one.future, self._closing())
        if self._loads is not None:
            self._loads.fail(self._closing())
        if ended:
            self._lock.release()

    def _open(self) -> tuple[sqlite3.Connection, sqlite3.Connection]:
        self._lock.take(self._patience)
        try:
            prepare(self._path, self._schema)
            writing = connect(self._path, writes=True)
            return writing, connect(self._path, writes=False)
        except BaseException:
            self._lock.release()
            raise

    def _refused(self, future: asyncio.Future[Any], count: int, size: int) -> bool:
        """Fail what is not taken: the queue has a bound."""
        if self._writer is None or self._closed:
            future.set_exception(self._closing())
        elif self._queued >= count or self._queued_bytes >= size:
            future.set_exception(InboxUnavailableError(str(self._path), "overloaded"))
        else:
            return False
        return True

    def _gather(self, operation: Operation) -> None:
        """Take what goes to the writer with all else of this round of the event loop."""
        if not self._gathering:
            self._running().call_soon(self._hand_over)
        self._gathering.append(operation)
        self._queued += 1
        self._queued_bytes += operation.size

    def _hand_over(self) -> None:
        if self._gathering and self._writer is not None:
            group, self._gathering = self._gathering, []
            if not self._at_writer:
                self._waits_since = self._running().time()
            self._at_writer.update(dict.fromkeys(group))
            self._writer.give(group)

    def _tell(self, report: Report) -> None:
        """Pass on what the writer says; called in its thread."""
        # The loop may have ended before us.
        with suppress(RuntimeError):
            self._running().call_soon_threadsafe(self._told, report)

    def _told(self, report: Report) -> None:
        feed = self._fed()
        self._usage = report.usage
        self._counts = (report.commits, report.checkpoints)
        if not self._closed:
            self._writable = report.writable
        for one in report.operations:
            del self._at_writer[one]
            self._queued -= 1
            self._queued_bytes -= one.size
            if one.error is not None:
                fail(one.future, one.error)
            elif isinstance(one, Put):
                assert one.placed is not None  # noqa: S101 - the writer's promise
                if one.placed.state == "stored":
                    feed.stored(entry_of(one), one.record)
                resolve(one.future, one.placed)
            elif isinstance(one, Unpark):
                for entry in one.entries:
                    feed.stored(entry, None)
                resolve(one.future, one.done)
            elif isinstance(one, Discard):
                for stored, owed in one.dropped:
                    # What no version can read may be discarded; there is no more to tell of it.
                    with suppress(RecordError):
                        feed.discarded(decode(stored), owed)
                resolve(one.future, one.done)
            else:
                resolve(one.future, None)
        self._waits_since = self._running().time() if self._at_writer else None

    async def _pages(
        self, page_of: Callable[[sqlite3.Connection, int], list[tuple[int, Held]]]
    ) -> AsyncIterator[Held]:
        last = 0
        while True:
            if self._reader is None or self._closed:
                raise self._closing()
            page = await self._reader.read(page_of, last)
            if not page:
                return
            for last, held in page:  # noqa: B007 - the last one is where the next page begins
                yield held

    async def _withdraw(self, refs: Sequence[int]) -> list[Entry]:
        """Take records from the dispatcher, and give what it would have to be told again."""
        if not refs or self._reader is None or self._closed:
            return []
        known = await self._reader.read(entries_of, refs)
        feed = self._fed()
        return [entry for entry in known if feed.withdrawn(entry.ref)]

    def _future(self) -> asyncio.Future[Any]:
        return self._running().create_future()

    def _running(self) -> asyncio.AbstractEventLoop:
        # Asked for once: before Python 3.12 each asking is a system call.
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def _fed(self) -> Feed:
        assert self._feed is not None  # noqa: S101 - nothing is written before the start
        return self._feed

    def _closing(self) -> InboxUnavailableError:
        return InboxUnavailableError(str(self._path), "closing")
