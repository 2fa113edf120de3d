"""The thread that writes: one transaction for all that came while the last one was synced.

It never ends by a failure: what cannot be written now is told to those who wait for it, and the
next group is tried anew. While nobody writes it looks by itself whether it can again.
"""

from __future__ import annotations

import copy
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from gateway.delivery.inbox.sqlite.file import connect, identity
from gateway.delivery.inbox.sqlite.operations import Operation, Park, Put, Unpark
from gateway.delivery.inbox.sqlite.transaction import Book, Transaction, read_book
from gateway.delivery.inbox.store import (
    Bounds,
    InboxFullError,
    InboxUnavailableError,
    InboxUnusableError,
    Usage,
    Writable,
)

__all__ = ["Report", "Writer"]

log = logging.getLogger("gateway.inbox")

_GROUP_COUNT = 1024
_GROUP_BYTES = 8 * 1024 * 1024
"""Of one transaction at the most: others wait for it, and memory holds it twice."""
_PROBE_EVERY = 0.5
"""Seconds between looks whether the file can be written again."""
_PROBE_BYTES = 64 * 1024
"""What a look writes: less room than for some records would be no news."""
_PAGE = 4096
_CHECKPOINT_BYTES = 16 * 1024 * 1024
"""How long the log may become before it is written back."""
_LOG_MAX = 512 * 1024 * 1024
"""How long, if somebody else reads the file and so keeps it from being written back."""
_MARGIN = 4 * 1024 * 1024
_MARGIN_SHARE = 16
"""Bytes of the disk, and which part of a small one, that new records leave for settlements."""
_SWEEP_EVERY = 256
"""New events between looks for names past the window; each looks at twice as many."""
_EARLY_TOLD = 60.0
"""Seconds between lines about names that had to go before their time."""


class Report(msgspec.Struct, frozen=True):
    """What the writer says after each group."""

    operations: Sequence[Operation]
    """Each with its outcome."""
    usage: Usage
    writable: Writable
    commits: int
    checkpoints: int


class Writer:
    """Groups operations into transactions, in a thread of its own."""

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        bounds: Bounds,
        tell: Callable[[Report], None],
        clock: Callable[[], float],
    ) -> None:
        """`tell` is called in the writer's thread. `clock` gives Unix seconds."""
        self._bounds = bounds
        self._path = path
        self._log_path = Path(f"{path}-wal")
        self._connection = connection
        self._tell = tell
        self._clock = clock
        self._inbox = queue.SimpleQueue[Sequence[Operation] | None]()
        self._identities = (identity(path), identity(self._log_path))
        self._book: Book = read_book(connection)
        self._missing = 0
        """Bytes that the last record that was refused would have needed."""
        self._log_bytes = 0
        """How long the log is, as guessed from what was written since it was written back."""
        self._checkpoint_at = _CHECKPOINT_BYTES
        self._is_stuck = False
        """The log could not be written back the last time, and that is told."""
        self._writable = Writable.YES
        self._judge([], "")
        self._unswept = 0
        self._early_told = float("-inf")
        self.commits = 0
        self.checkpoints = 0
        self._closing = False
        # A disk that hangs must not keep the process from ending; `close` gives it its time.
        self._thread = threading.Thread(target=self._run, name="inbox-writer", daemon=True)

    @property
    def usage(self) -> Usage:
        """What is in the file. For before the thread is started."""
        return self._book.usage()

    @property
    def writable(self) -> Writable:
        """Whether there is room. For before the thread is started."""
        return self._writable

    def bound(self, bounds: Bounds) -> None:
        """Be held to other bounds from the next group on, and say whether there is room now."""
        self._bounds = bounds
        self._inbox.put([])

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def give(self, operations: Sequence[Operation]) -> None:
        """Take operations, in order. Called in the event loop's thread; never blocks."""
        self._inbox.put(operations)

    def stop(self) -> None:
        """Write what was given, close the file, and end."""
        self._inbox.put(None)

    def join(self, timeout: float) -> bool:
        """Wait for the end; False where it has not come."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._closing:
            group = self._next()
            if group:
                self._write(group)
            elif self._writable is Writable.NO:
                self._probe()
            else:
                self._judge([], "")
                self._report([])
        self._close()

    def _next(self) -> list[Operation]:
        """Wait for operations, and take all that there are, up to the bounds of a group."""
        group, size, waits = list[Operation](), 0, True
        while len(group) < _GROUP_COUNT and size < _GROUP_BYTES:
            patience = _PROBE_EVERY if self._writable is Writable.NO else None
            try:
                given = self._inbox.get(waits, patience)
            except queue.Empty:
                break
            if given is None:
                self._closing = True
                break
            group += given
            size += sum([one.size for one in given])
            waits = False
        return group

    def _write(self, group: list[Operation]) -> None:
        trouble = self._trouble()
        allowed, refused = group, list[Operation]()
        if trouble:
            # What makes the file smaller still goes: it loses nothing that is acknowledged.
            refused = [one for one in group if isinstance(one, Put | Park | Unpark)]
            allowed = [one for one in group if not isinstance(one, Put | Park | Unpark)]
        for one in refused:
            one.error = self._unavailable(trouble)
        if allowed:
            trouble = self._commit(allowed) or trouble
        self._judge(group, trouble)
        self._report(group)
        if self._log_bytes >= self._checkpoint_at:
            self._checkpoint()

    def _commit(self, group: list[Operation]) -> str:
        """Write one group durably. Gives what went wrong, and then all of it has failed."""
        try:
            try:
                transaction = self._applied(group, careful=False)
            except sqlite3.IntegrityError:
                transaction = self._applied(group, careful=True)
            if self._unswept >= _SWEEP_EVERY:
                self._sweep(transaction)
            self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - the thread outlives every failure of a group
            self._roll_back()
            trouble = _said(error)
            for one in group:
                one.error = self._unavailable(trouble)
            return trouble
        self._unswept += transaction.book.next_ref - self._book.next_ref
        self._book = transaction.book
        self._log_bytes += _log_bytes(transaction.written, len(group))
        self.commits += 1
        return ""

    def _applied(self, group: list[Operation], *, careful: bool) -> Transaction:
        # A failure may have left one open that could not be ended then.
        self._roll_back()
        self._connection.execute("BEGIN IMMEDIATE")
        transaction = Transaction(
            self._connection, copy.copy(self._book), self._bounds, self._clock()
        )
        transaction.apply(group, careful=careful)
        return transaction

    def _sweep(self, transaction: Transaction) -> None:
        early = transaction.sweep(2 * self._unswept)
        self._unswept = 0
        if early and time.monotonic() - self._early_told > _EARLY_TOLD:
            self._early_told = time.monotonic()
            log.warning(
                "inbox %s: %d finished events were forgotten before the dedupe window was over;"
                " a copy of one is delivered again: raise delivery.inbox.max_bytes",
                self._path,
                early,
            )

    def _trouble(self) -> str:
        """Say why nothing may be acknowledged, although it could be written."""
        if (identity(self._path), identity(self._log_path)) != self._identities:
            return "the file was deleted, moved or replaced: put it back, or restart the gateway"
        if self._log_bytes > _LOG_MAX:
            self._checkpoint()
        if self._log_bytes > _LOG_MAX:
            return "another program reads the file, so its log cannot be written back: end it"
        return self._disk_trouble()

    def _disk_trouble(self) -> str:
        """Say that the disk is full before it is, so that what is settled can still be written.

        The log can be written back if there is as much room as it takes, and then be used again.
        """
        free, margin = _room(self._path)
        if free >= self._log_bytes + margin:
            return ""
        if self._log_bytes > margin // 4:
            self._checkpoint()
            free, margin = _room(self._path)
        if free >= margin:
            return ""
        with suppress(sqlite3.Error):
            # What was settled has left room in the file itself.
            (pages,) = self._connection.execute("PRAGMA freelist_count").fetchone()
            free += pages * _PAGE
        return "" if free >= margin else f"its disk is full: {free} bytes are left"

    def _judge(self, group: list[Operation], trouble: str) -> None:
        """Say whether the store takes records now, as far as this group has shown."""
        before = self._writable
        if trouble:
            self._writable = Writable.NO
            if before is not Writable.NO:
                log.error("inbox %s: cannot be written: %s", self._path, trouble)
            return
        if before is Writable.NO:
            log.warning("inbox %s: can be written again", self._path)
        for one in group:
            if isinstance(one, Put):
                # What could never fit says nothing of the others.
                full = isinstance(one.error, InboxFullError) and one.size <= self._bounds.max_bytes
                self._missing = one.size if full else 0
        room = self._bounds.max_bytes - self._book.bytes
        self._writable = Writable.FULL if self._missing > room else Writable.YES

    def _probe(self) -> None:
        """See whether the file can be written again, although nobody writes."""
        trouble = self._trouble()
        if not trouble:
            try:
                self._roll_back()
                for probe in (b"\0" * _PROBE_BYTES, None):
                    self._connection.execute("UPDATE state SET probe = ?", (probe,))
                    self.commits += 1
                self._log_bytes += 2 * _PROBE_BYTES
            except sqlite3.Error as error:
                trouble = _said(error)
                # Its pages may be all that there is room for.
                self._checkpoint()
        self._judge([], trouble)
        self._report([])

    def _checkpoint(self) -> None:
        """Write the log back into the file, so that it is used from its beginning again."""
        try:
            busy, pages, done = self._connection.execute(
                "PRAGMA wal_checkpoint(PASSIVE)"
            ).fetchone()
        except sqlite3.Error as error:
            # Nothing is lost: it is all in the log. The next group will meet what is wrong.
            if not self._is_stuck:
                log.warning(
                    "inbox %s: its log cannot be written back: %s", self._path, _said(error)
                )
            self._is_stuck = True
            self._checkpoint_at = self._log_bytes + _CHECKPOINT_BYTES
            return
        self.checkpoints += 1
        self._is_stuck = False
        if not busy and pages == done:
            self._log_bytes, self._checkpoint_at = 0, _CHECKPOINT_BYTES
            return
        # Somebody reads what is behind: our own reader for an instant, or another program.
        self._log_bytes = pages * _PAGE
        self._checkpoint_at = self._log_bytes + _CHECKPOINT_BYTES

    def _roll_back(self) -> None:
        """Leave no transaction open; where even that fails, connect anew: the file is whole."""
        with suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            if not self._connection.in_transaction:
                return
        with suppress(sqlite3.Error, InboxUnusableError):
            self._connection.close()
            self._connection = connect(self._path, writes=True)

    def _unavailable(self, trouble: str) -> InboxUnavailableError:
        return InboxUnavailableError(str(self._path), "inbox_unavailable", trouble)

    def _report(self, group: Sequence[Operation]) -> None:
        self._tell(
            Report(group, self._book.usage(), self._writable, self.commits, self.checkpoints)
        )

    def _close(self) -> None:
        with suppress(sqlite3.Error):
            if identity(self._path) == self._identities[0]:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with suppress(sqlite3.Error):
            self._connection.close()


def _room(path: Path) -> tuple[int, int]:
    """Give the bytes that are free on a file's disk, and those that are to stay free."""
    try:
        disk = os.statvfs(path)
    except OSError:
        return _MARGIN, 0
    margin = min(_MARGIN, disk.f_blocks * disk.f_frsize // _MARGIN_SHARE)
    return disk.f_bavail * disk.f_frsize, margin


def _log_bytes(written: int, count: int) -> int:
    """Guess what a group has added to the log: whole pages, of which each record shares some."""
    return 2 * written + _PAGE * (4 + count // 8)


def _said(error: Exception) -> str:
    """Say what went wrong, in SQLite's words: they hold no value of a record."""
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    return f"{name}: {error}" if isinstance(error, sqlite3.Error) else name
