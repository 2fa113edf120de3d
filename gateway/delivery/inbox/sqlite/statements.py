"""The statements that carry a whole group: SQL made for a number of rows.

They hold question marks, and nothing else from outside.
"""

from __future__ import annotations

from functools import cache

__all__ = [
    "delete_bodies",
    "finish_events",
    "forget_names",
    "insert_bodies",
    "insert_events",
    "keep_owed",
    "known_names",
    "measure",
    "owing_nothing",
]


def _marks(count: int) -> str:
    """Give so many question marks."""
    return ",".join("?" * count)


@cache
def insert_events(count: int) -> str:
    """Store so many events: ref, name, stored_at, owed, size and targets of each."""
    rows = ",".join(["(?,?,?,NULL,?,?,?)"] * count)
    # A name that is known ends the transaction, which is then done again with care: to undo this
    # statement alone, SQLite would have to keep a copy of every page that it changes.
    return f"INSERT OR ROLLBACK INTO event VALUES {rows}"  # noqa: S608 - question marks only


@cache
def insert_bodies(count: int) -> str:
    """Store so many bodies: ref and record of each."""
    rows = ",".join(["(?,?)"] * count)
    return f"INSERT OR ROLLBACK INTO body VALUES {rows}"  # noqa: S608 - question marks only


@cache
def measure(count: int) -> str:
    """Count those of so many refs that wait, and their bytes."""
    return (
        "SELECT count(*), coalesce(sum(size), 0) FROM event"  # noqa: S608 - question marks only
        f" WHERE finished_at IS NULL AND ref IN ({_marks(count)})"
    )


@cache
def finish_events(count: int) -> str:
    """Keep of so many refs the names only; the time comes first."""
    return (
        "UPDATE event SET finished_at = ?, owed = 0, targets = x''"  # noqa: S608 - question marks only
        f" WHERE finished_at IS NULL AND ref IN ({_marks(count)})"
    )


@cache
def keep_owed(count: int) -> str:
    """Narrow what so many events owe: ref and bitmask of each, where both are integers."""
    rows = ",".join(["(?,?)"] * count)
    return (
        f"UPDATE event SET owed = owed & new.column2 FROM (VALUES {rows}) AS new"  # noqa: S608 - question marks only
        " WHERE ref = new.column1 AND typeof(owed) = 'integer'"
    )


@cache
def delete_bodies(count: int) -> str:
    """Drop the bodies of so many refs."""
    return f"DELETE FROM body WHERE ref IN ({_marks(count)})"  # noqa: S608 - question marks only


@cache
def owing_nothing(count: int) -> str:
    """Find those of so many refs that wait for no target any more."""
    return (
        f"SELECT ref FROM event WHERE finished_at IS NULL AND owed = 0 AND ref IN ({_marks(count)})"  # noqa: S608 - question marks only
    )


@cache
def known_names(count: int) -> str:
    """Find those of so many names that are known, and since when they are finished."""
    return f"SELECT name, finished_at FROM event WHERE name IN ({_marks(count)})"  # noqa: S608 - question marks only


@cache
def forget_names(count: int) -> str:
    """Forget so many names."""
    return f"DELETE FROM event WHERE name IN ({_marks(count)})"  # noqa: S608 - question marks only
