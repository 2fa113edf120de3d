"""A look at a store's file from outside: its bytes, and what SQLite's own shell would say."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path


def contents(path: Path) -> dict[str, bytes]:
    """Give the bytes of a file and of its logs; not of what readers keep in shared memory."""
    names = (path, Path(f"{path}-wal"), Path(f"{path}-journal"))
    return {name.name: name.read_bytes() for name in names if name.exists()}


def integrity(path: Path) -> str:
    """Run SQLite's full check, and give its first line."""
    connection = sqlite3.connect(path)
    try:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
    finally:
        connection.close()


def count(path: Path, table: str) -> int:
    """Give the number of rows of a table."""
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 - a test's own word
    finally:
        connection.close()


def change(path: Path, statement: str) -> None:
    """Change what is in a file that nobody has open."""
    connection = sqlite3.connect(path)
    try:
        with connection:
            connection.execute(statement)
    finally:
        connection.close()


def dump(path: Path) -> list[str]:
    """Give all that is in a file."""
    connection = sqlite3.connect(path)
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


def read(path: Path, first: int = 0, end: int | None = None) -> bytes:
    """Give bytes of a file."""
    return path.read_bytes()[first:end]


def write(path: Path, content: bytes, mode: int | None = None) -> None:
    """Make a file of these bytes."""
    path.write_bytes(content)
    if mode is not None:
        path.chmod(mode)


def version(path: Path) -> int:
    """Give the version that the header tells."""
    return int.from_bytes(read(path, 60, 64), "big")


def log_of(path: Path) -> Path:
    """Give the path of the write-ahead log."""
    return Path(f"{path}-wal")


def names(directory: Path) -> dict[str, int]:
    """Give the files of a directory, with their modes."""
    if not directory.exists():
        return {}
    return {one.name: stat.S_IMODE(one.stat().st_mode) for one in directory.iterdir()}


def remove(path: Path) -> None:
    """Delete a file."""
    path.unlink()


def size(path: Path) -> int:
    """Give the bytes of a file."""
    return path.stat().st_size


def move(path: Path, to: Path) -> None:
    """Give a file another name."""
    path.replace(to)
