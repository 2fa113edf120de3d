"""A store in memory, for tests of what stands on `Store`: it does what it is told.

It passes the same contract suite as the stores on disk and in the network. What was put is
durable on a later turn of the event loop, one commit for all that came meanwhile. Told to, it is
slow, fails writes, fills up, and crashes, which loses what was not durable:

    store = FakeStore()
    await store.start(feed)
    store.fail(times=2)
    reopened = store.crash()

Its only clock is the event loop's, and it uses no chance: a test that runs twice sees the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeVar

import msgspec

from gateway.delivery.inbox.record import Record, decode, encode, replayed, targets
from gateway.delivery.inbox.store import (
    Bounds,
    Entry,
    Feed,
    Held,
    InboxFullError,
    InboxUnavailableError,
    Parked,
    Placed,
    Usage,
    Writable,
)

__all__ = ["FakeStore"]

_WHERE = "the inbox in memory"
_AMPLE = Bounds(max_bytes=1024**3, parked_max_bytes=1024**3, window=120.0)

T = TypeVar("T")


class _Row(msgspec.Struct, frozen=True):
    """A record as it is stored: bytes, so that a reader shares nothing with the writer."""

    name: str
    stored: bytes
    owed: int


class _ParkedRow(msgspec.Struct, frozen=True):
    name: str
    stored: bytes
    target: int
    reason: str
    detail: str
    parked_at: float


class _Disk(msgspec.Struct):
    """What a crash leaves."""

    rows: dict[int, _Row] = {}
    parked: dict[tuple[int, int], _ParkedRow] = {}
    """By ref and target."""
    finished: dict[str, float] = {}
    """The event-loop time at which a record was finished, by its name."""
    last: int = 0


class FakeStore:
    """Fulfils `gateway.delivery.inbox.store.Store` in memory."""

    def __init__(
        self,
        bounds: Bounds = _AMPLE,
        *,
        commit_after: float = 0.0,
        now: Callable[[], float] | None = None,
    ) -> None:
        """`commit_after` is the seconds that a commit takes, `now` Unix seconds for what is parked
        again; the event loop's time without.
        """
        self._bounds = bounds
        self._commit_after = commit_after
        self._now = now
        self._disk = _Disk()
        self._feed: Feed | None = None
        self._writes: list[Callable[[bool], None]] = []
        self._commit: asyncio.Handle | None = None
        self._failing = 0
        self._held_back = False
        self._closed = False
        self._crashed = False
        self._refused = 0
        """Bytes of what had no room last."""
        self._last = 0
        self._idle = asyncio.Event()
        self.commits = 0
        """See `Store.commits`."""

    # What a test tells it.

    def fail(self, times: int | None = None) -> None:
        """Fail the next commits, and reads meanwhile: so many, or all until `fail(0)`."""
        self._failing = 2**62 if times is None else times

    def hold(self) -> None:
        """Make nothing durable until `release`."""
        self._held_back = True

    def release(self) -> None:
        """Go on after `hold`."""
        self._held_back = False
        self._schedule()

    def crash(self) -> FakeStore:
        """Die now, and give the store that is found afterwards: only what is durable is in it."""
        self._crashed = True
        if self._commit is not None:
            self._commit.cancel()
        found = FakeStore(self._bounds, commit_after=self._commit_after, now=self._now)
        disk = self._disk
        found._disk = _Disk(dict(disk.rows), dict(disk.parked), dict(disk.finished), disk.last)
        return found

    # See `Store`.

    @property
    def writable(self) -> Writable:
        """See `Store.writable`."""
        if self._failing or self._closed:
            return Writable.NO
        full = self.usage.bytes + self._refused > self._bounds.max_bytes
        return Writable.FULL if full else Writable.YES

    @property
    def usage(self) -> Usage:
        """See `Store.usage`."""
        rows, parked = self._disk.rows.values(), self._disk.parked.values()
        size, parked_size = sum(map(_size, rows)), sum(map(_size, parked))
        return Usage(len(rows), size, len(parked), parked_size)

    def bound(self, bounds: Bounds) -> None:
        """See `Store.bound`."""
        self._bounds = bounds

    async def start(self, feed: Feed) -> None:
        """See `Store.start`."""
        self._feed = feed
        self._last = self._disk.last
        for ref in sorted(self._disk.rows):
            self._tell(ref, None)

    def put(self, record: Record) -> asyncio.Future[Placed]:
        """See `Store.put`."""
        row = _Row(record.name, encode(record), (1 << len(targets(record))) - 1)

        def write() -> Placed:
            if self._finished(row.name):
                return Placed("finished")
            if any(other.name == row.name for other in self._disk.rows.values()):
                return Placed("pending")
            self._check_room(row)
            self._insert(row, record)
            return Placed("stored")

        return self._write(write)

    async def load(self, ref: int) -> Record:
        """See `Store.load`."""
        await asyncio.sleep(0)
        if self._failing or ref not in self._disk.rows:
            raise InboxUnavailableError(_WHERE, "inbox_unavailable", "told to fail")
        return decode(self._disk.rows[ref].stored)

    def settle(self, ref: int, owed: int) -> asyncio.Future[None]:
        """See `Store.settle`."""
        return self._write(lambda: self._owe(ref, owed))

    def park(self, ref: int, owed: int, parked: Parked) -> asyncio.Future[None]:
        """See `Store.park`."""
        record = parked.record
        row = _ParkedRow(
            record.name,
            encode(record),
            parked.target,
            parked.reason,
            parked.detail,
            parked.parked_at,
        )

        def write() -> None:
            place = (ref, parked.target)
            size = 0 if place in self._disk.parked else _size(row)
            if self.usage.parked_bytes + size > self._bounds.parked_max_bytes:
                raise InboxFullError(_WHERE, self._bounds.parked_max_bytes)
            self._disk.parked.setdefault(place, row)
            self._owe(ref, owed)

        return self._write(write)

    async def held(self) -> AsyncIterator[Held]:
        """See `Store.held`."""
        found = []
        for ref, row in self._disk.rows.items():
            record = decode(row.stored)
            found.append(
                Held(
                    str(ref),
                    "pending",
                    record,
                    row.owed,
                    _size(row),
                    held_since=record.stored_at,
                )
            )
        for (ref, target), parked in self._disk.parked.items():
            record = decode(parked.stored)
            why = (parked.reason, parked.detail, parked.parked_at)
            owed, size = 1 << parked.target, _size(parked)
            found.append(Held(f"{ref}.{target}", "parked", record, owed, size, *why))
        for one in sorted(found, key=lambda held: held.held_since):
            yield one

    async def unpark(self, ids: Sequence[str], *, rerouted: dict[str, Record]) -> int:
        """See `Store.unpark`."""

        def write() -> int:
            count, now = 0, self._unix()
            for place, row in self._parked_of(ids):
                record = rerouted.get(f"{place[0]}.{place[1]}")
                record = record or replayed(decode(row.stored), row.target, now)
                owed = (1 << len(targets(record))) - 1
                new = _Row(record.name, encode(record), owed)
                try:
                    self._check_room(new)
                except InboxFullError:
                    # What was done is told; the rest is told to the one who asks again.
                    if count:
                        return count
                    raise
                del self._disk.parked[place]
                self._insert(new, record)
                count += 1
            return count

        return await self._write(write)

    async def discard(self, ids: Sequence[str]) -> int:
        """See `Store.discard`."""

        def write() -> int:
            count = 0
            for ref in _refs(ids):
                row = self._disk.rows.get(ref)
                if row is not None and self._withdrawn(ref):
                    self._owe(ref, 0)
                    self._discarded(row.stored, row.owed)
                    count += 1
            for place, parked in self._parked_of(ids):
                del self._disk.parked[place]
                self._discarded(parked.stored, 1 << parked.target)
                count += 1
            return count

        return await self._write(write)

    async def close(self, timeout: float) -> None:
        """See `Store.close`."""
        if self._writes and not self._crashed:
            self._idle.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._idle.wait()
            except TimeoutError:
                pass
        self._closed = True
        self._flush(commits=False)

    def _write(self, what: Callable[[], T]) -> asyncio.Future[T]:
        """Do something at the next commit, which makes it durable, or fails it."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def commit(succeeds: bool) -> None:
            try:
                self._check(succeeds)
                result = what()
            except InboxUnavailableError as error:
                if not future.done():
                    future.set_exception(error)
                    # Marks it as seen: a caller that has gone is no reason for a complaint.
                    future.exception()
                return
            if not future.done():
                future.set_result(result)

        if self._crashed:
            return future
        if self._closed:
            commit(False)
            return future
        self._writes.append(commit)
        self._schedule()
        return future

    def _check(self, succeeds: bool) -> None:
        if not succeeds:
            reason = "closing" if self._closed else "inbox_unavailable"
            raise InboxUnavailableError(_WHERE, reason, "told to fail")

    def _schedule(self) -> None:
        if self._commit is None and self._writes and not self._held_back:
            loop = asyncio.get_running_loop()
            self._commit = loop.call_later(self._commit_after, self._flush)

    def _flush(self, *, commits: bool = True) -> None:
        self._commit = None
        if self._crashed:
            return
        succeeds = commits and not self._failing
        if commits and self._failing:
            self._failing -= 1
        writes, self._writes = self._writes, []
        self.commits += 1 if succeeds and writes else 0
        for write in writes:
            write(succeeds)
        if not self._writes:
            self._idle.set()

    def _insert(self, row: _Row, record: Record) -> None:
        self._last += 1
        self._disk.last = self._last
        self._disk.rows[self._last] = row
        self._tell(self._last, record)

    def _tell(self, ref: int, record: Record | None) -> None:
        row = self._disk.rows[ref]
        known = decode(row.stored)
        entry = Entry(ref, 0, known.stored_at, row.owed, targets(known), _size(row))
        if self._feed is not None:
            self._feed.stored(entry, record)

    def _owe(self, ref: int, owed: int) -> None:
        row = self._disk.rows.get(ref)
        if row is None:
            return
        # A write that was said to have failed may have settled another target of it.
        left = owed & row.owed
        if left:
            self._disk.rows[ref] = msgspec.structs.replace(row, owed=left)
            return
        del self._disk.rows[ref]
        self._disk.finished[row.name] = asyncio.get_running_loop().time()

    def _finished(self, name: str) -> bool:
        finished_at = self._disk.finished.get(name)
        if finished_at is None:
            return False
        if asyncio.get_running_loop().time() - finished_at < self._bounds.window:
            return True
        del self._disk.finished[name]
        return False

    def _check_room(self, row: _Row) -> None:
        self._refused = 0
        if self.usage.bytes + _size(row) > self._bounds.max_bytes:
            # What could never fit says nothing of the others.
            self._refused = _size(row) if _size(row) <= self._bounds.max_bytes else 0
            raise InboxFullError(_WHERE, self._bounds.max_bytes)

    def _parked_of(self, ids: Sequence[str]) -> list[tuple[tuple[int, int], _ParkedRow]]:
        known = {f"{ref}.{target}": (ref, target) for ref, target in self._disk.parked}
        places = [known[one] for one in dict.fromkeys(ids) if one in known]
        return [(place, self._disk.parked[place]) for place in places]

    def _withdrawn(self, ref: int) -> bool:
        return self._feed is None or self._feed.withdrawn(ref)

    def _discarded(self, stored: bytes, owed: int) -> None:
        if self._feed is not None:
            self._feed.discarded(decode(stored), owed)

    def _unix(self) -> float:
        return asyncio.get_running_loop().time() if self._now is None else self._now()


def _refs(ids: Sequence[str]) -> list[int]:
    return [int(one) for one in dict.fromkeys(ids) if one.isdecimal()]


def _size(row: _Row | _ParkedRow) -> int:
    return len(row.stored)
