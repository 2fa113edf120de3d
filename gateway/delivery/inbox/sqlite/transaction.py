"""What one group of operations does to the file: SQL, and the account of what is in it.

Each statement carries a whole group, because the interpreter is handed over to other threads with
every step of one: a step per row would wait for a busy event loop once per row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import TypeVar

import msgspec

from gateway.delivery.inbox.record import Record, RecordError, decode, encode, replayed, targets
from gateway.delivery.inbox.sqlite.operations import Discard, Operation, Park, Put, Settle, Unpark
from gateway.delivery.inbox.sqlite.schema import OVERHEAD, pack_owed, pack_targets, unpack_owed
from gateway.delivery.inbox.sqlite.statements import (
    delete_bodies,
    finish_events,
    forget_names,
    insert_bodies,
    insert_events,
    keep_owed,
    known_names,
    measure,
    owing_nothing,
)
from gateway.delivery.inbox.store import (
    Bounds,
    Entry,
    InboxFullError,
    InboxUnavailableError,
    Placed,
    Usage,
)

__all__ = ["Book", "Transaction", "read_book"]

_T = TypeVar("_T")

_ROWS = 64
"""Of one statement at the most."""
_REF_BLOCK = 10_000
"""Numbers that are reserved at once: one more write for so many events."""
_BYTES_PER_NAME = 1024
"""Of `max_bytes`, for each finished event whose name is kept: they are bounded too."""

_NEVER = float("-inf")
_INT64 = 2**63

_STORED = Placed("stored")
_PENDING = Placed("pending")
_FINISHED = Placed("finished")


class Book(msgspec.Struct):
    """The account of what is in the file; a transaction works on a copy of its own."""

    next_ref: int
    reserved: int
    """The file says that numbers up to here may be in use."""
    rows: int
    """Events that are known by name: waiting and finished."""
    events: int = 0
    """Those that wait."""
    bytes: int = 0
    parked: int = 0
    parked_bytes: int = 0
    swept: int = 0
    """The number up to which finished events have been looked at."""

    def usage(self) -> Usage:
        """Give what users see of it."""
        return Usage(self.events, self.bytes, self.parked, self.parked_bytes)


def read_book(connection: sqlite3.Connection) -> Book:
    """Count what is in the file. Reads no body."""
    next_ref = connection.execute("SELECT next_ref FROM state").fetchone()[0]
    rows, events, size = connection.execute(
        "SELECT count(*), count(*) FILTER (WHERE finished_at IS NULL),"
        " coalesce(sum(size) FILTER (WHERE finished_at IS NULL), 0) FROM event"
    ).fetchone()
    parked, parked_bytes = connection.execute(
        "SELECT count(*), coalesce(sum(size), 0) FROM parked"
    ).fetchone()
    return Book(next_ref, next_ref, rows, events, size, parked, parked_bytes)


class Transaction:
    """One group on its way into the file; the caller begins and commits."""

    def __init__(
        self, connection: sqlite3.Connection, book: Book, bounds: Bounds, now: float
    ) -> None:
        """`now` is in Unix seconds. `book` is changed: give a copy."""
        self._connection = connection
        self._execute = connection.execute
        self.book = book
        self._bounds = bounds
        self._now = now
        self.written = 0
        """Bytes of records, for the guess at how long the log has become."""

    def apply(self, operations: Sequence[Operation], *, careful: bool) -> None:
        """Do all of them, and note what became of each.

        Unless it is `careful`, names are taken to be new: the usual case, which saves a look for
        each. Raises `sqlite3.IntegrityError` where one is not, and `sqlite3.Error`; both end the
        transaction.
        """
        puts, settled, others = list[Put](), dict[int, int](), list[Park | Unpark | Discard]()
        for one in operations:
            if isinstance(one, Put):
                puts.append(one)
            elif isinstance(one, Settle):
                settled[one.ref] = settled.get(one.ref, one.owed) & one.owed
            else:
                others.append(one)
        # What makes room comes first.
        if settled:
            self._settle(settled)
        if puts:
            self._put(puts, careful=careful)
        for other in others:
            if isinstance(other, Park):
                self._park(other)
            elif isinstance(other, Unpark):
                self._unpark(other)
            else:
                self._discard(other)

    def sweep(self, most: int) -> int:
        """Forget finished events that are past the window, among the next `most` of all.

        Gives how many had to go before their time, because there are too many.
        """
        book, bounds = self.book, self._bounds
        last, seen = self._execute(
            "SELECT max(ref), count(*)"
            " FROM (SELECT ref FROM event WHERE ref > ? ORDER BY ref LIMIT ?)",
            (book.swept, most),
        ).fetchone()
        if not seen:
            book.swept = 0
            return 0
        # At the end it begins anew: there are always later ones, and the earlier ones expire.
        first, book.swept = book.swept, last if seen == most else 0
        window = (first, last, self._now - bounds.window, self._now + bounds.window)
        gone = self._execute(
            "DELETE FROM event WHERE ref > ? AND ref <= ? AND finished_at IS NOT NULL"
            " AND finished_at NOT BETWEEN ? AND ?",
            window,
        ).rowcount
        book.rows -= gone
        excess = book.rows - book.events - bounds.max_bytes // _BYTES_PER_NAME
        if excess <= 0:
            return 0
        early = self._execute(
            "DELETE FROM event WHERE ref IN (SELECT ref FROM event"
            " WHERE finished_at IS NOT NULL AND ref <= ? ORDER BY ref LIMIT ?)",
            (last, min(excess, most)),
        ).rowcount
        book.rows -= early
        return early

    def _put(self, puts: list[Put], *, careful: bool) -> None:
        size = sum([one.size for one in puts])
        if careful or self.book.bytes + size > self._bounds.max_bytes:
            puts = self._new(puts)
        for one in puts:
            one.ref = self._ref()
            one.placed, one.error = _STORED, None
            self.book.bytes += one.size
            self.written += one.size
        self.book.events += len(puts)
        self.book.rows += len(puts)
        for some in _chunks(puts):
            rows = [
                value
                for one in some
                for value in (
                    *(one.ref, one.name, one.record.stored_at, pack_owed(one.owed)),
                    *(one.size, one.packed),
                )
            ]
            self._execute(insert_events(len(some)), rows)
            bodies = [value for one in some for value in (one.ref, one.encoded)]
            self._execute(insert_bodies(len(some)), bodies)

    def _new(self, puts: list[Put]) -> list[Put]:
        """Give those that are neither known nor too much, and note what the others are."""
        known = dict[str, float | None]()
        for some in _chunks([one.name for one in puts]):
            known.update(self._execute(known_names(len(some)), some))
        new, expired, left = list[Put](), list[str](), self._bounds.max_bytes - self.book.bytes
        for one in puts:
            one.error = None
            finished_at = known.get(one.name, _NEVER)
            if finished_at is None:
                one.placed = _PENDING
            elif self._is_remembered(finished_at):
                one.placed = _FINISHED
            elif one.size > left:
                one.placed = None
                one.error = InboxFullError("inbox", self._bounds.max_bytes)
            else:
                left -= one.size
                if one.name in known:
                    expired.append(one.name)
                known[one.name] = None
                new.append(one)
        for some in _chunks(expired):
            gone = self._execute(forget_names(len(some)), some)
            self.book.rows -= gone.rowcount
        return new

    def _is_remembered(self, finished_at: float) -> bool:
        # A clock that was set back must not make a name live longer than the window.
        return abs(self._now - finished_at) < self._bounds.window

    def _settle(self, settled: dict[int, int]) -> None:
        finished = [ref for ref, owed in settled.items() if owed == 0]
        for some in _chunks(finished):
            self._finish(some)
        kept = [(ref, owed) for ref, owed in settled.items() if owed]
        for rest in _chunks(kept):
            self._keep(rest)

    def _finish(self, refs: Sequence[int]) -> int:
        """Keep nothing but the names of these, and give how many of them waited."""
        count, size = self._execute(measure(len(refs)), refs).fetchone()
        if count:
            self._execute(finish_events(len(refs)), (self._now, *refs))
            self._execute(delete_bodies(len(refs)), refs)
            self.book.events -= count
            self.book.bytes -= size
        return int(count)

    def _keep(self, kept: Sequence[tuple[int, int]]) -> None:
        """Keep of records' targets those that are owed by this word and by every earlier one."""
        small = [value for pair in kept if pair[1] < _INT64 for value in pair]
        if not small or self._execute(keep_owed(len(small) // 2), small).rowcount != len(kept):
            self._keep_each(kept)
        # A word that was told to have failed may have been kept: nothing is owed by both together.
        refs = [ref for ref, _ in kept]
        for (ref,) in self._execute(owing_nothing(len(refs)), refs).fetchall():
            self._finish((ref,))

    def _keep_each(self, kept: Sequence[tuple[int, int]]) -> None:
        """Keep bitmasks of more targets than an integer has bits, and pass over what is gone."""
        for ref, owed in kept:
            row = self._execute("SELECT owed FROM event WHERE ref = ?", (ref,)).fetchone()
            if row is not None:
                both = pack_owed(unpack_owed(row[0]) & owed)
                self._execute("UPDATE event SET owed = ? WHERE ref = ?", (both, ref))

    def _park(self, one: Park) -> None:
        one.error = None
        book = self.book
        found = self._execute(
            "SELECT size FROM parked WHERE ref = ? AND target = ?", (one.ref, one.parked.target)
        ).fetchone()
        if found is None:
            if book.parked_bytes + one.size > self._bounds.parked_max_bytes:
                one.error = InboxFullError("inbox, parked", self._bounds.parked_max_bytes)
                return
            parked = one.parked
            self._execute(
                "INSERT INTO parked (ref, target, reason, detail, parked_at, size, record)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    *(one.ref, parked.target, parked.reason, parked.detail),
                    *(parked.parked_at, one.size, one.encoded),
                ),
            )
            book.parked += 1
            book.parked_bytes += one.size
            self.written += one.size
        self._settle({one.ref: one.owed})

    def _unpark(self, one: Unpark) -> None:
        one.error, one.done = None, 0
        entries = list[Entry]()
        for place in one.places:
            row = self._execute(
                "SELECT size, record FROM parked WHERE ref = ? AND target = ?", place
            ).fetchone()
            if row is None:
                continue
            try:
                record = one.rerouted.get(place) or replayed(decode(row[1]), place[1], self._now)
            except RecordError as error:
                one.error = InboxUnavailableError("inbox", "inbox_unavailable", str(error))
                break
            put = _put_of(record, one)
            new = self._new_by_operator(put)
            if new is None:
                one.error = put.error
                break
            if new:
                self._put([put], careful=False)
                entries.append(Entry(put.ref, 0, record.stored_at, put.owed, put.targets, put.size))
            self._unpark_row(place, row[0])
            one.done += 1
        one.entries = tuple(entries)
        if one.done:
            # What was done is told; the rest is told to the one who asks again.
            one.error = None

    def _new_by_operator(self, put: Put) -> bool | None:
        """Tell whether a record is to be stored on an operator's word; None where it has no room.

        One that waits already is not stored twice; one that was finished is, whenever that was.
        """
        row = self._execute("SELECT finished_at FROM event WHERE name = ?", (put.name,)).fetchone()
        if row is not None and row[0] is None:
            return False
        if self.book.bytes + put.size > self._bounds.max_bytes:
            put.error = InboxFullError("inbox", self._bounds.max_bytes)
            return None
        if row is not None:
            self._execute("DELETE FROM event WHERE name = ?", (put.name,))
            self.book.rows -= 1
        return True

    def _unpark_row(self, place: tuple[int, int], size: int) -> None:
        self._execute("DELETE FROM parked WHERE ref = ? AND target = ?", place)
        self.book.parked -= 1
        self.book.parked_bytes -= size

    def _discard(self, one: Discard) -> None:
        one.error, one.done = None, 0
        dropped = list[tuple[bytes, int]]()
        for ref in one.refs:
            row = self._execute(
                "SELECT record, owed FROM event JOIN body USING (ref)"
                " WHERE ref = ? AND finished_at IS NULL",
                (ref,),
            ).fetchone()
            if row is not None:
                dropped.append((row[0], unpack_owed(row[1])))
                one.done += self._finish((ref,))
        for place in one.places:
            row = self._execute(
                "SELECT record, size FROM parked WHERE ref = ? AND target = ?", place
            ).fetchone()
            if row is not None:
                dropped.append((row[0], 1 << place[1]))
                self._unpark_row(place, row[1])
                one.done += 1
        one.dropped = tuple(dropped)

    def _ref(self) -> int:
        book = self.book
        if book.next_ref >= book.reserved:
            book.reserved = book.next_ref + _REF_BLOCK
            self._execute("UPDATE state SET next_ref = ?", (book.reserved,))
        book.next_ref += 1
        return book.next_ref - 1


def _put_of(record: Record, one: Unpark) -> Put:
    """Make what stores a record, without anybody who waits for it alone."""
    encoded, found = encode(record), targets(record)
    packed = pack_targets(found)
    size = len(encoded) + len(packed) + len(record.name) + OVERHEAD
    return Put(
        *(record.name, record, encoded, found, packed, (1 << len(found)) - 1, size),
        future=one.future,  # type: ignore[arg-type]  # never resolved by this one
    )


def _chunks(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), _ROWS):
        yield items[start : start + _ROWS]
