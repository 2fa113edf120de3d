"""The file of the inbox: who owns it, what it is, and how it is opened. All of this blocks.

What is not ours, or not whole, is left as it is: it is looked at by a connection that can only
read, before one that writes is opened.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path

from gateway.delivery.inbox.sqlite.schema import APPLICATION_ID, Schema
from gateway.delivery.inbox.store import InboxUnusableError

__all__ = ["DAMAGED", "LOG_KEPT", "Lock", "connect", "identity", "prepare"]

LOG_KEPT = 32 * 1024 * 1024
"""Bytes of the write-ahead log that stay on disk once it is written back."""

DAMAGED = (
    "move it away with its -wal, keep both, and save what can be read with `sqlite3 FILE .recover`"
)
"""What to do about a file that is not whole."""

_MAGIC = b"SQLite format 3\x00"
_HEADER = 100
"""Bytes of a SQLite file's header (https://www.sqlite.org/fileformat.html#the_database_header)."""
_BUSY = 1.0
"""Seconds to wait for a lock that another program holds: `sqlite3` in an operator's shell."""
_LOCK_LOOKS = 0.05
"""Seconds between tries for the lock of a predecessor that is about to end."""
_STATEMENTS = 512
"""Prepared statements that a connection keeps: one for each number of rows."""
_MODE = 0o600
_ELSEWHERE = "set delivery.inbox.path to another file, or move this one away"


class Lock:
    """The ownership of a file: an flock on `<path>.lock`, which goes with the process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Path(f"{path}.lock")
        self._fd: int | None = None

    def take(self, patience: float) -> None:
        """Take it, waiting for at most `patience` seconds. Raises `InboxUnusableError`."""
        try:
            fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, _MODE)
        except OSError as error:
            raise InboxUnusableError(
                str(self._path), f"cannot be locked: {_said(error)}", _directory_remedy(self._path)
            ) from error
        deadline = time.monotonic() + patience
        while not _locked(fd):
            if time.monotonic() >= deadline:
                owner = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
                os.close(fd)
                raise InboxUnusableError(
                    str(self._path),
                    f"process {owner or 'of another gateway'} has it open",
                    "stop that one, or give this gateway another delivery.inbox.path",
                )
            time.sleep(_LOCK_LOOKS)
        self._fd = fd
        # Who has it, for the message of the next one. A full disk must not keep us from starting.
        with suppress(OSError):
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let go. The lock file stays: two gateways could lock two files of one name otherwise."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def prepare(path: Path, schema: Schema) -> None:
    """Make the file one that this version reads: create it, or look at it, or migrate it.

    The caller has the lock. Raises `InboxUnusableError`, and then not a byte has changed.
    """
    try:
        header = _header(path)
    except OSError as error:
        raise InboxUnusableError(
            str(path), f"cannot be read: {_said(error)}", _directory_remedy(path)
        ) from error
    log = Path(f"{path}-wal")
    if not header and log.exists() and log.stat().st_size:
        raise InboxUnusableError(
            str(path),
            f"is missing or empty, but its log {log.name} is there",
            "put the file back beside it, or move the log away to begin anew",
        )
    if not header:
        _create(path, schema)
        return
    _look(path, header, schema)
    for name in (path, log, Path(f"{path}-shm")):
        with suppress(OSError):
            name.chmod(_MODE)


def connect(path: Path, *, writes: bool) -> sqlite3.Connection:
    """Open a file that `prepare` has seen. Raises `InboxUnusableError`."""
    try:
        connection = _open(path)
        if writes:
            # Every commit is on disk before it is told; the log is written back by us.
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise sqlite3.OperationalError(f"no write-ahead log there, only {mode}")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute(f"PRAGMA journal_size_limit = {LOG_KEPT}")
            # Bodies of finished events are wiped where that costs no write of its own.
            connection.execute("PRAGMA secure_delete = FAST")
            connection.execute("PRAGMA cache_size = -8192")
            # An empty transaction, so that a directory without the right to write is told now.
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("COMMIT")
        else:
            connection.execute("PRAGMA query_only = ON")
    except sqlite3.Error as error:
        raise InboxUnusableError(
            str(path), f"cannot be opened: {error}", _directory_remedy(path)
        ) from error
    return connection


def identity(path: Path) -> tuple[int, int] | None:
    """Give what tells a file from another one of its name; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _header(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEADER)
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise
        return b""


def _create(path: Path, schema: Schema) -> None:
    """Make the file whole under another name first: a crash leaves either none or all of it."""
    new = Path(f"{path}.new")
    try:
        new.unlink(missing_ok=True)
        os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _MODE))
        connection = _open(new)
        try:
            # Free pages are used again, and the file does not shrink: see docs/operations.md.
            connection.execute("PRAGMA auto_vacuum = NONE")
            connection.execute("PRAGMA synchronous = FULL")
            _in_one(
                connection, (*schema.create, f"PRAGMA application_id = {APPLICATION_ID}"), schema
            )
        finally:
            connection.close()
        new.replace(path)
        _sync_directory(path.parent)
    except (OSError, sqlite3.Error) as error:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise InboxUnusableError(
            str(path), f"cannot be created: {_said(error)}", _directory_remedy(path)
        ) from error


def _look(path: Path, header: bytes, schema: Schema) -> None:
    """See that the file is ours, whole, and of a version that this code reads; or make it that."""
    where = str(path)
    if not header.startswith(_MAGIC) or len(header) < _HEADER:
        raise InboxUnusableError(where, "is no SQLite file", _ELSEWHERE)
    if int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        raise InboxUnusableError(where, "is another application's SQLite file", _ELSEWHERE)
    try:
        connection = _open_to_look(path)
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > schema.version:
                problem = f"a later version of the gateway wrote it (its version is {version},"
                problem += f" this gateway reads {schema.version})"
                raise InboxUnusableError(where, problem, "use that version, or a later one")
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        verdict, version = str(error), schema.version
    if verdict != "ok":
        raise InboxUnusableError(
            where,
            f"is damaged ({str(verdict).splitlines()[-1][:200]})",
            DAMAGED,
        )
    if version < schema.version:
        _migrate(path, version, schema)


def _open_to_look(path: Path) -> sqlite3.Connection:
    """Connect so that neither the file nor its log is written to, nor made, nor removed."""
    log = Path(f"{path}-wal")
    # Without a log the file is all there is; with one SQLite may only be told not to write.
    alone = "" if log.exists() and log.stat().st_size else "&immutable=1"
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro{alone}", uri=True, timeout=_BUSY, isolation_level=None
    )


def _migrate(path: Path, version: int, schema: Schema) -> None:
    """Make an older file one of this version: in one transaction, or not at all."""
    steps = range(version, schema.version)
    missing = [step for step in steps if step not in schema.migrations]
    if missing:
        raise InboxUnusableError(
            str(path),
            f"it is of version {version}, from which no way leads to {schema.version}",
            "let the gateway that wrote it empty it, then move it away",
        )
    try:
        connection = _open(path)
        try:
            statements = [one for step in steps for one in schema.migrations[step]]
            _in_one(connection, statements, schema)
            # What the header says is what the file holds, also for one who reads no log.
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise InboxUnusableError(
            str(path),
            f"could not be migrated from version {version} to {schema.version}: {error}",
            "it is as it was; make room on the disk, or use the version that wrote it",
        ) from error


def _in_one(
    connection: sqlite3.Connection, statements: tuple[str, ...] | list[str], schema: Schema
) -> None:
    connection.execute("BEGIN EXCLUSIVE")
    for statement in statements:
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {schema.version}")
    connection.execute("COMMIT")


def _open(path: Path) -> sqlite3.Connection:
    """Connect; a connection is used by one thread, but not by the one that opens it."""
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=_BUSY,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=_STATEMENTS,
    )


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _said(error: OSError | sqlite3.Error) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _directory_remedy(path: Path) -> str:
    if not path.parent.is_dir():
        return f"make the directory {path.parent}, or set delivery.inbox.path"
    return f"let the gateway's user read and write in {path.parent}, and see that the disk has room"
