"""A disk that is full, a file that goes, another program in the way: nothing is left half done."""

from __future__ import annotations

import asyncio
import resource
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.delivery.inbox.sqlite import SqliteStore
from gateway.delivery.inbox.sqlite import store as store_module
from gateway.delivery.inbox.sqlite import writer as writer_module
from gateway.delivery.inbox.sqlite.file import LOG_KEPT
from gateway.delivery.inbox.store import Bounds, InboxUnavailableError, Parked, Writable
from tests.inbox.harness import MIB, ROOMY, FeedLog, outcome, outcomes, record, takes, until
from tests.inbox.sqlite_file import count, integrity, log_of, move, names, remove, size, write

LARGE = Bounds(1024 * MIB, 64 * MIB, 120.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "inbox.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, LARGE)
    await store.start(FeedLog())
    yield store
    await store.close(10)


@contextmanager
def file_limit(most: int) -> Iterator[None]:
    """Let no file of this process grow beyond so many bytes: writes there fail by EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def until_refused(store: SqliteStore, first: int = 0) -> tuple[list[int], list[str]]:
    """Put large records until there is no room; give the numbers that were stored, and why not."""
    stored, reasons = list[int](), list[str]()
    for at in range(first, first + 2_000, 20):
        futures = {number: store.put(record(number, size=50_000)) for number in range(at, at + 20)}
        for number, future in futures.items():
            word = await outcome(future)
            if word == "stored":
                stored.append(number)
            else:
                reasons.append(word)
        if reasons:
            return stored, reasons
    raise AssertionError("there was room for everything")


async def reopened(path: Path) -> FeedLog:
    """Open a file, close it, and give what was in it."""
    store, feed = SqliteStore(path, LARGE), FeedLog()
    await store.start(feed)
    for ref in feed.entries:
        await store.load(ref)
    await store.close(10)
    return feed


async def check_full_disk(
    store: SqliteStore, path: Path, feed: FeedLog, start: int = 0
) -> list[int]:
    """See what a full disk does to a store, which is full when this returns."""
    stored, reasons = await until_refused(store, start)
    assert set(reasons) == {"inbox_unavailable"}
    assert takes(store) == "no"
    assert store.usage.events == len(stored) == len(feed.entries)
    # What is stored can be read, and a copy of it is refused by what cannot be known now.
    assert await store.load(min(feed.entries)) == record(stored[0], size=50_000)
    future = store.put(record(9_999, size=50_000))
    with pytest.raises(InboxUnavailableError, match=r"SQLITE_(FULL|IOERR)|its disk is full"):
        await future
    return stored


async def test_a_full_disk_is_told_and_passes(path: Path) -> None:
    store, feed = SqliteStore(path, LARGE), FeedLog()
    await store.start(feed)
    with file_limit(6 * MIB):
        stored = await check_full_disk(store, path, feed)
        # Settling may fail too, and is repeated.
        assert await outcome(store.settle(feed.order[0], 0)) in {"done", "inbox_unavailable"}
    # Nobody writes, and yet it is found that there is room again.
    await until(lambda: takes(store) == "yes")
    assert await outcome(store.settle(feed.order[0], 0)) == "done"
    assert await outcome(store.put(record(9_999, size=50_000))) == "stored"
    assert await outcome(store.put(record(stored[1], size=50_000))) == "pending"
    await store.close(10)
    assert len((await reopened(path)).entries) == len(stored)
    assert integrity(path) == "ok"


@contextmanager
def small_disk(place: Path, megabytes: int) -> Iterator[Path]:
    """Give a file system of so many MiB."""
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", place],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"no right to mount; the limit of a file's size stands alone: {made.stderr!r}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


async def test_a_full_file_system_is_told_and_passes(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8) as mounted:
        path = mounted / "inbox.db"
        store, feed = SqliteStore(path, LARGE), FeedLog()
        await store.start(feed)
        other = mounted / "other"
        write(other, b"x" * 2 * MIB)
        stored = await check_full_disk(store, path, feed)
        remove(other)
        await until(lambda: takes(store) == "yes")
        for ref in feed.order[:10]:
            assert await outcome(store.settle(ref, 0)) == "done"
        assert await outcome(store.put(record(9_999, size=50_000))) == "stored"
        await store.close(10)
        assert len((await reopened(path)).entries) == len(stored) - 10 + 1
        assert integrity(path) == "ok"


async def test_what_waits_on_a_full_disk_is_settled_and_its_room_is_used_again(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk", 12) as mounted:
        path = mounted / "inbox.db"
        store, feed = SqliteStore(path, LARGE), FeedLog()
        await store.start(feed)
        for again in range(3):
            await check_full_disk(store, path, feed, 100_000 * again)
            for ref in list(feed.entries):
                assert await outcome(store.settle(ref, 0)) == "done"
                del feed.entries[ref]
            assert store.usage.events == store.usage.bytes == 0
            await until(lambda: takes(store) == "yes")
        await store.close(10)
        assert integrity(path) == "ok"


async def test_many_failures_leave_the_account_exact(path: Path) -> None:
    store, feed = SqliteStore(path, LARGE), FeedLog()
    await store.start(feed)
    for at in range(4):
        with file_limit(size(log_of(path)) + 2 * MIB):
            await until_refused(store, at * 10_000)
            for ref in list(feed.entries)[:3]:
                if await outcome(store.settle(ref, 0)) == "done":
                    del feed.entries[ref]
        await until(lambda: takes(store) == "yes")
    before = store.usage
    assert before.events == len(feed.entries)
    assert before.bytes == sum(one.size for one in feed.entries.values())
    await store.close(10)
    again = SqliteStore(path, LARGE)
    await again.start(FeedLog())
    assert again.usage == before
    await again.close(10)
    assert count(path, "body") == before.events


async def test_a_deleted_file_takes_nothing_until_it_is_back(
    store: SqliteStore, path: Path
) -> None:
    assert await outcome(store.put(record(1))) == "stored"
    aside = path.with_name("aside.db")
    move(path, aside)
    with pytest.raises(InboxUnavailableError, match="was deleted, moved or replaced"):
        await store.put(record(2))
    assert takes(store) == "no"
    # Another file in its place is not taken for it.
    shutil.copy(aside, path)
    assert await outcome(store.put(record(2))) == "inbox_unavailable"
    move(aside, path)
    await until(lambda: takes(store) == "yes")
    assert await outcome(store.put(record(2))) == "stored"


async def test_what_waits_in_a_deleted_file_can_still_be_dispatched(path: Path) -> None:
    store, feed = SqliteStore(path, LARGE), FeedLog()
    await store.start(feed)
    await outcomes([store.put(record(number)) for number in range(10)])
    shutil.rmtree(path.parent)
    assert await outcome(store.put(record(11))) == "inbox_unavailable"
    for ref in feed.order:
        await store.load(ref)
        assert await outcome(store.settle(ref, 0)) == "done"
    parked = Parked(record(1), 0, "no_stream", "", 1.0)
    assert await outcome(store.park(feed.order[0], 0, parked)) == "inbox_unavailable"
    await store.close(10)
    assert not names(path.parent)


async def test_another_program_that_writes_delays_and_harms_nothing(
    store: SqliteStore, path: Path
) -> None:
    shell = sqlite3.connect(path, isolation_level=None)
    shell.execute("BEGIN IMMEDIATE")
    with pytest.raises(InboxUnavailableError, match="SQLITE_BUSY"):
        await store.put(record(1))
    shell.execute("ROLLBACK")
    shell.close()
    assert await outcome(store.put(record(1))) == "stored"


async def test_the_log_is_written_back_while_others_read(store: SqliteStore, path: Path) -> None:
    total = 4 * (LOG_KEPT // 50_000)
    seen = 0
    for at in range(0, total, 100):
        futures = [store.put(record(number, size=50_000)) for number in range(at, at + 100)]
        seen += (await outcomes(futures)).count("stored")
        async for _ in store.held():
            break
    assert seen >= total
    assert store.checkpoints >= 4
    assert size(log_of(path)) <= 2 * LOG_KEPT
    assert size(path) >= seen * 50_000 * 0.9


async def test_a_reader_that_never_ends_does_not_let_the_log_grow_without_end(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "_LOG_MAX", 24 * MIB)
    monkeypatch.setattr(writer_module, "_CHECKPOINT_BYTES", 2 * MIB)
    store, feed = SqliteStore(path, LARGE), FeedLog()
    await store.start(feed)
    await outcome(store.put(record(10_000)))
    shell = sqlite3.connect(path, isolation_level=None)
    shell.execute("BEGIN")
    shell.execute("SELECT count(*) FROM event").fetchone()
    stored, reasons = await until_refused(store)
    assert set(reasons) == {"inbox_unavailable"}
    with pytest.raises(InboxUnavailableError, match="another program reads the file"):
        await store.put(record(9_999))
    assert size(log_of(path)) < 40 * MIB
    # What makes it smaller still goes.
    assert await outcome(store.settle(feed.order[0], 0)) == "done"
    shell.close()
    await until(lambda: takes(store) == "yes")
    assert await outcome(store.put(record(9_999))) == "stored"
    await store.close(10)
    assert len((await reopened(path)).entries) == len(stored) + 1


async def test_the_queue_has_a_bound(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_QUEUED_COUNT", 10)
    shell = sqlite3.connect(path, isolation_level=None)
    shell.execute("BEGIN IMMEDIATE")
    futures = [store.put(record(number)) for number in range(30)]
    assert [future.done() for future in futures] == [False] * 10 + [True] * 20
    assert await outcomes(futures[10:]) == ["overloaded"] * 20
    # Settling makes room, and is taken where a put is not.
    settling = store.settle(1, 0)
    assert not settling.done()
    shell.execute("ROLLBACK")
    shell.close()
    assert await outcomes(futures[:10]) == ["stored"] * 10
    assert await outcome(settling) == "done"
    assert await outcome(store.put(record(30))) == "stored"


async def test_a_disk_that_does_not_answer_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_STALLED", 0.05)
    answers = threading.Event()
    answers.set()

    def clock() -> float:
        # The writer asks for the time before it writes, and hangs there as in a call to the disk.
        answers.wait()
        return time.time()

    store = SqliteStore(path, ROOMY, clock=clock)
    await store.start(FeedLog())
    try:
        assert await outcome(store.put(record(1))) == "stored"
        answers.clear()
        waits = store.put(record(2))
        await until(lambda: takes(store) == Writable.NO)
        assert not waits.done()
    finally:
        answers.set()
    assert await outcome(waits) == "stored"
    assert takes(store) == Writable.YES
    await store.close(10)


async def test_a_close_that_has_no_time_says_so_to_all_that_wait(path: Path) -> None:
    store = SqliteStore(path, ROOMY)
    await store.start(FeedLog())
    shell = sqlite3.connect(path, isolation_level=None)
    shell.execute("BEGIN IMMEDIATE")
    futures = [store.put(record(number)) for number in range(5)]
    await asyncio.sleep(0)
    await store.close(0.05)
    assert await outcomes(futures) == ["closing"] * 5
    shell.close()


async def test_finished_names_do_not_grow_without_end(path: Path) -> None:
    now = [1_800_000_000.0]
    store, feed = SqliteStore(path, Bounds(64 * MIB, MIB, 60.0), clock=lambda: now[0]), FeedLog()
    await store.start(feed)
    for at in range(0, 6_000, 300):
        await outcomes([store.put(record(number)) for number in range(at, at + 300)])
        await asyncio.gather(*(store.settle(ref, 0) for ref in feed.order))
        feed.order.clear()
        now[0] += 20.0
    assert await outcome(store.put(record(5_999))) == "finished"
    assert await outcome(store.put(record(1))) == "stored"
    await store.close(10)
    assert count(path, "event") < 2_500


async def test_too_many_finished_names_go_before_their_time(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, feed = SqliteStore(path, Bounds(MIB, MIB, 3600.0)), FeedLog()
    await store.start(feed)
    for at in range(0, 6_000, 300):
        await outcomes([store.put(record(number)) for number in range(at, at + 300)])
        await asyncio.gather(*(store.settle(ref, 0) for ref in feed.order))
        feed.order.clear()
    await store.close(10)
    assert count(path, "event") < 2 * 1024
    assert "forgotten before the dedupe window was over" in caplog.text


@pytest.mark.parametrize("body", [100, 1_100, 1_800, 2_500, 4_500, 40_000])
async def test_the_file_is_at_most_twice_what_is_counted(path: Path, body: int) -> None:
    store = SqliteStore(path, LARGE)
    await store.start(FeedLog())
    many = 3 * MIB // (body + 400)
    futures = [store.put(record(number, size=body)) for number in range(many)]
    assert set(await outcomes(futures)) == {"stored"}
    counted = store.usage.bytes
    await store.close(10)
    assert counted > many * body
    assert size(path) < 2 * counted


async def test_space_that_was_given_back_is_used_again(store: SqliteStore, path: Path) -> None:
    feed = store._feed
    assert isinstance(feed, FeedLog)
    grown = list[int]()
    for at in range(0, 8_000, 400):
        await outcomes([store.put(record(number, size=20_000)) for number in range(at, at + 400)])
        await asyncio.gather(*(store.settle(ref, 0) for ref in feed.order))
        feed.order.clear()
        grown.append(size(path))
    # 160 MB have gone through it, 8 MB at a time.
    assert grown[-1] < 32 * MIB
