"""The thread that reads, on a connection of its own: so nothing read waits for a sync."""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from gateway.delivery.inbox.record import Record, RecordError, decode
from gateway.delivery.inbox.sqlite.schema import unpack_owed, unpack_targets
from gateway.delivery.inbox.store import Entry, Held, InboxUnavailableError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

__all__ = ["ENTRIES", "Reader", "entries", "entries_of", "held_parked", "held_pending", "load"]

ENTRIES = 1000
"""Of a page: some 300 kB."""
_HELD = 16
"""Records of a page for the operator, each up to a body's bound."""

_Job = tuple[Callable[..., Any], tuple[Any, ...], "Future[Any]"]


class Reader:
    """Runs what reads, one after the other."""

    def __init__(self, where: str, connection: sqlite3.Connection, loop: AbstractEventLoop) -> None:
        self._where = where
        self._connection = connection
        self._loop = loop
        self._jobs = queue.SimpleQueue[_Job | None]()
        self._thread = threading.Thread(target=self._run, name="inbox-reader", daemon=True)
        self._thread.start()

    def read(self, job: Callable[..., Any], *args: Any) -> Future[Any]:
        """Run a job with the connection and `args`. Fails with `InboxUnavailableError`."""
        future = self._loop.create_future()
        self._jobs.put((job, args, future))
        return future

    def stop(self) -> None:
        """Do what was asked, and close."""
        self._jobs.put(None)

    def join(self, timeout: float) -> None:
        """Wait for the end, for at most so many seconds."""
        self._thread.join(timeout)

    def _run(self) -> None:
        while (given := self._jobs.get()) is not None:
            job, args, future = given
            found: Any = None
            error: InboxUnavailableError | None = None
            try:
                found = job(self._connection, *args)
            except Exception as cause:  # noqa: BLE001 - the thread outlives whatever a file holds
                name = getattr(cause, "sqlite_errorname", type(cause).__name__)
                error = InboxUnavailableError(
                    self._where, "inbox_unavailable", f"could not be read: {name}: {cause}"
                )
            # The loop may have ended before us.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(_resolve, future, found, error)
        with suppress(sqlite3.Error):
            self._connection.close()


def _resolve(future: Future[Any], found: Any, error: InboxUnavailableError | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(found)


def entries(connection: sqlite3.Connection, after: int, most: int = ENTRIES) -> list[Entry]:
    """Give a page of what waits, in order of arrival, from the first after a number."""
    rows = connection.execute(
        "SELECT ref, stored_at, owed, targets, size FROM event"
        " WHERE ref > ? AND finished_at IS NULL ORDER BY ref LIMIT ?",
        (after, most),
    ).fetchall()
    return [
        _entry(Entry(ref, 0, stored_at, unpack_owed(owed), unpack_targets(packed), size))
        for ref, stored_at, owed, packed, size in rows
    ]


def entries_of(connection: sqlite3.Connection, refs: Sequence[int]) -> list[Entry]:
    """Give what waits of these numbers."""
    return [entry for ref in refs for entry in entries(connection, ref - 1, 1) if entry.ref == ref]


def _entry(entry: Entry) -> Entry:
    """Give what was read, if it is whole: who dispatches it looks its targets up by their bits."""
    if entry.owed < 0 or entry.owed >> len(entry.targets):
        raise RecordError(f"record {entry.ref} owes targets that it does not have")
    return entry


def load(connection: sqlite3.Connection, refs: Sequence[int]) -> dict[int, Record | str]:
    """Give the records that are there of these numbers, or what is wrong with one."""
    marks = ",".join("?" * len(refs))
    rows = connection.execute(
        f"SELECT ref, record FROM body WHERE ref IN ({marks})",  # noqa: S608 - question marks
        refs,
    ).fetchall()
    return {ref: _decoded(record) for ref, record in rows}


def held_pending(connection: sqlite3.Connection, after: int) -> list[tuple[int, Held]]:
    """Give a page of what waits, for the operator, each with where the next page begins."""
    rows = connection.execute(
        "SELECT event.ref, stored_at, owed, size, record FROM event JOIN body USING (ref)"
        " WHERE event.ref > ? AND finished_at IS NULL ORDER BY event.ref LIMIT ?",
        (after, _HELD),
    ).fetchall()
    return [
        (ref, Held(str(ref), "pending", decode(record), unpack_owed(owed), size, "", "", stored_at))
        for ref, stored_at, owed, size, record in rows
    ]


def held_parked(connection: sqlite3.Connection, after: int) -> list[tuple[int, Held]]:
    """Give a page of what is parked, as `held_pending`."""
    rows = connection.execute(
        "SELECT id, ref, target, reason, detail, parked_at, size, record FROM parked"
        " WHERE id > ? ORDER BY id LIMIT ?",
        (after, _HELD),
    ).fetchall()
    return [
        (
            number,
            Held(
                *(f"{ref}.{target}", "parked", decode(record), 1 << target),
                *(size, reason, detail, parked_at),
            ),
        )
        for number, ref, target, reason, detail, parked_at, size, record in rows
    ]


def _decoded(record: bytes) -> Record | str:
    try:
        return decode(record)
    except RecordError as error:
        return str(error)
