"""The file: who owns it, what is refused and left as it is, how an older one is migrated."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from gateway.delivery.inbox.sqlite import SqliteStore
from gateway.delivery.inbox.sqlite.schema import APPLICATION_ID, SCHEMA, Schema
from gateway.delivery.inbox.store import InboxUnusableError
from tests.inbox.harness import ROOMY, FeedLog, outcome, outcomes, record, until
from tests.inbox.sqlite_file import (
    change,
    contents,
    count,
    dump,
    integrity,
    log_of,
    names,
    read,
    remove,
    version,
    write,
)

RECORDS = 50


async def filled(path: Path, *, schema: Schema = SCHEMA) -> None:
    """Make a file with some records in it."""
    store = SqliteStore(path, ROOMY, schema=schema)
    await store.start(FeedLog())
    await outcomes([store.put(record(number)) for number in range(RECORDS)])
    await store.close(10)


async def refusal(path: Path, *, schema: Schema = SCHEMA) -> InboxUnusableError:
    """Give what a start fails with, and see that it has changed no byte."""
    before = contents(path)
    with pytest.raises(InboxUnusableError) as caught:
        await SqliteStore(path, ROOMY, schema=schema).start(FeedLog())
    assert contents(path) == before
    return caught.value


async def fed(path: Path, *, schema: Schema = SCHEMA) -> int:
    """Open a file, and give how many records wait in it."""
    store, feed = SqliteStore(path, ROOMY, schema=schema), FeedLog()
    await store.start(feed)
    await store.close(10)
    return len(feed.entries)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "inbox.db"


# What is there.


async def test_a_missing_or_empty_file_is_created_for_its_user_alone(path: Path) -> None:
    assert await fed(path) == 0
    write(path, b"", 0o644)
    store = SqliteStore(path, ROOMY)
    await store.start(FeedLog())
    assert await outcome(store.put(record(1))) == "stored"
    made = ("inbox.db", "inbox.db-wal", "inbox.db-shm", "inbox.db.lock")
    assert names(path.parent) == dict.fromkeys(made, 0o600)
    await store.close(10)
    assert set(names(path.parent)) == {"inbox.db", "inbox.db.lock"}


async def test_a_file_that_others_could_read_is_closed_to_them(path: Path) -> None:
    await filled(path)
    write(path, read(path), 0o644)
    assert await fed(path) == RECORDS
    assert names(path.parent)["inbox.db"] == 0o600


async def test_a_crash_while_it_was_created_leaves_nothing_in_the_way(path: Path) -> None:
    write(path.with_name("inbox.db.new"), b"half of it")
    await filled(path)
    assert await fed(path) == RECORDS


async def test_the_file_is_known_by_its_header(path: Path) -> None:
    await filled(path)
    header = read(path, 0, 100)
    assert header.startswith(b"SQLite format 3\0")
    assert int.from_bytes(header[68:72], "big") == APPLICATION_ID
    assert int.from_bytes(header[60:64], "big") == SCHEMA.version


@pytest.mark.parametrize(
    "content",
    [b"x", b"not a database at all\n" * 500, b"SQLite format 3\0", b"\0" * 8192],
    ids=["a byte", "text", "a header cut short", "zeros"],
)
async def test_what_is_no_sqlite_file_is_left_as_it_is(path: Path, content: bytes) -> None:
    write(path, content)
    error = await refusal(path)
    assert error.problem == "is no SQLite file"
    assert "delivery.inbox.path" in error.remedy
    assert str(path) in str(error)


async def test_another_applications_file_is_left_as_it_is(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE theirs (x)")
    connection.commit()
    error = await refusal(path)
    connection.close()
    assert error.problem == "is another application's SQLite file"
    assert (await refusal(path)).problem == "is another application's SQLite file"


async def test_a_later_version_is_left_as_it_is(path: Path) -> None:
    later = msgspec.structs.replace(SCHEMA, version=SCHEMA.version + 1)
    await filled(path, schema=later)
    error = await refusal(path)
    assert "a later version of the gateway wrote it" in error.problem
    assert "use that version" in error.remedy


async def test_a_later_version_that_only_the_log_tells_of_is_left_as_it_is(path: Path) -> None:
    await filled(path)
    # A later gateway has migrated it and was killed: the header still says what it was.
    killed = f"""
import os, sqlite3
connection = sqlite3.connect({str(path)!r}, isolation_level=None)
connection.execute("PRAGMA user_version = {SCHEMA.version + 1}")
os.kill(os.getpid(), 9)
"""
    ended = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", killed], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert contents(path)["inbox.db-wal"]
    assert version(path) == SCHEMA.version
    assert "a later version of the gateway wrote it" in (await refusal(path)).problem


def _cut(content: bytes) -> bytes:
    return content[: len(content) // 2 // 4096 * 4096]


def _overwritten(content: bytes) -> bytes:
    return content[:4096] + b"\xff" * 12288 + content[16384:]


def _one_byte(content: bytes) -> bytes:
    return content[:4096] + bytes([content[4096] ^ 0xFF]) + content[4097:]


@pytest.mark.parametrize("damage", [_cut, _overwritten, _one_byte])
async def test_a_damaged_file_is_left_as_it_is(
    path: Path, damage: Callable[[bytes], bytes]
) -> None:
    await filled(path)
    write(path, damage(read(path)))
    error = await refusal(path)
    assert error.problem.startswith("is damaged (")
    assert ".recover" in error.remedy


async def test_a_record_that_owes_nothing_is_finished_by_the_start(path: Path) -> None:
    await filled(path)
    change(path, "UPDATE event SET owed = 0 WHERE ref <= 3")
    store, feed = SqliteStore(path, ROOMY), FeedLog()
    await store.start(feed)
    assert len(feed.entries) == RECORDS - 3
    await until(lambda: store.usage.events == RECORDS - 3)
    assert await outcome(store.put(record(0))) == "finished"
    await store.close(10)
    assert count(path, "body") == RECORDS - 3


@pytest.mark.parametrize(
    "damage",
    ["owed = 2", "owed = -1", "owed = x'ff'", "owed = 'text'", "targets = x''", "targets = x'93'"],
)
async def test_a_row_that_makes_no_sense_is_refused_and_not_changed(
    path: Path, damage: str
) -> None:
    await filled(path)
    change(path, f"UPDATE event SET {damage} WHERE ref = 40")  # noqa: S608 - a test's own word
    before = dump(path)
    with pytest.raises(InboxUnusableError, match=r"inbox\.db: is damaged \(.*; move it away"):
        await SqliteStore(path, ROOMY).start(FeedLog())
    assert dump(path) == before
    # It lets go of the file, which can be mended.
    change(path, "DELETE FROM event WHERE ref = 40")
    assert await fed(path) == RECORDS - 1


async def test_a_log_without_its_file_is_left_as_it_is(path: Path) -> None:
    store = SqliteStore(path, ROOMY)
    await store.start(FeedLog())
    await outcome(store.put(record(1)))
    log = read(log_of(path))
    await store.close(10)
    remove(path)
    write(log_of(path), log)
    error = await refusal(path)
    assert "its log inbox.db-wal is there" in error.problem
    assert "inbox.db" not in names(path.parent)


async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    error = await refusal(tmp_path / "missing" / "inbox.db")
    assert str(tmp_path / "missing") in error.remedy


async def test_a_directory_in_its_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InboxUnusableError, match="cannot be read"):
        await SqliteStore(tmp_path, ROOMY).start(FeedLog())


# Versions.

_NEXT = Schema(
    version=SCHEMA.version + 1,
    create=(*SCHEMA.create, "ALTER TABLE event ADD COLUMN note TEXT"),
    migrations={SCHEMA.version: ("ALTER TABLE event ADD COLUMN note TEXT",)},
)


async def test_an_older_file_is_migrated_with_all_that_is_in_it(path: Path) -> None:
    await filled(path)
    assert await fed(path, schema=_NEXT) == RECORDS
    assert version(path) == _NEXT.version
    assert integrity(path) == "ok"
    # And not once more.
    assert await fed(path, schema=_NEXT) == RECORDS


async def test_a_migration_that_fails_leaves_the_file_as_it_was(path: Path) -> None:
    await filled(path)
    broken = msgspec.structs.replace(
        _NEXT, migrations={SCHEMA.version: ("DELETE FROM event", "ALTER TABLE nothing ADD x")}
    )
    error = await refusal(path, schema=broken)
    assert "could not be migrated from version 1 to 2" in error.problem
    assert await fed(path) == RECORDS


async def test_a_version_from_which_no_way_leads_is_named(path: Path) -> None:
    await filled(path)
    error = await refusal(path, schema=msgspec.structs.replace(_NEXT, migrations={}))
    assert "it is of version 1, from which no way leads to 2" in error.problem


# Owners.


async def test_a_second_owner_is_told_who_has_the_file(path: Path) -> None:
    store = SqliteStore(path, ROOMY)
    await store.start(FeedLog())
    error = await refusal(path)
    assert error.problem == f"process {os.getpid()} has it open"
    link = path.parent / "link.db"
    link.symlink_to(path)
    with pytest.raises(InboxUnusableError, match="has it open"):
        await SqliteStore(link, ROOMY).start(FeedLog())
    await store.close(10)
    assert await fed(link) == 0


async def test_a_successor_waits_for_an_owner_that_is_about_to_end(path: Path) -> None:
    store = SqliteStore(path, ROOMY)
    await store.start(FeedLog())
    await outcome(store.put(record(1)))
    successor, feed = SqliteStore(path, ROOMY, patience=30.0), FeedLog()
    starting = asyncio.create_task(successor.start(feed))
    done, _ = await asyncio.wait((starting,), timeout=0.2)
    assert not done
    await store.close(10)
    await starting
    assert len(feed.entries) == 1
    await successor.close(10)


async def test_a_start_that_failed_lets_go_of_the_file(path: Path) -> None:
    write(path, b"x")
    await refusal(path)
    remove(path)
    assert await fed(path) == 0
