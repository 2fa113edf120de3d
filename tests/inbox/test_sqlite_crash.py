"""What is acknowledged is on disk: syncs counted at the kernel, a writer killed at any instant."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from gateway.delivery.inbox.sqlite import SqliteStore
from tests.inbox.harness import FeedLog, outcome, record
from tests.inbox.sqlite_file import integrity, log_of, size
from tests.inbox.sqlite_process import BOUNDS
from tests.inbox.syncs import SyncNotes

ROUNDS = 15
EACH = 1_000_000
"""Numbers of a round: more than it can write."""
SIZE = 16_000


def command(path: Path, first: int, count: int, senders: int, size: int) -> list[str]:
    arguments = (path, first, count, senders, size)
    return [sys.executable, "-m", "tests.inbox.sqlite_process", *map(str, arguments)]


@pytest.mark.skipif(sys.platform != "linux", reason="the library that counts syncs is Linux's")
@pytest.mark.parametrize("senders", [1, 64])
async def test_each_commit_is_one_sync_of_the_log_and_senders_share_it(
    tmp_path: Path, senders: int
) -> None:
    notes, path, count = SyncNotes(tmp_path), tmp_path / "inbox.db", 32 * senders
    ran = await asyncio.to_thread(
        subprocess.run,
        command(path, 0, count, senders, SIZE),
        env=notes.environment(),
        stdout=subprocess.PIPE,
        check=True,
    )
    *lines, told = ran.stdout.decode().splitlines()
    stored = sum(line.startswith("stored ") for line in lines)
    settled = sum(line.startswith("settled ") for line in lines)
    assert (stored, settled) == (count, count // 2)
    counts = json.loads(told)
    commits, checkpoints = counts["commits"], counts["checkpoints"]
    syncs = notes.count()
    print(
        f"{senders} senders: {stored} stored, {commits} commits, {checkpoints} checkpoints, {syncs}"
    )
    # A checkpoint syncs the log before it writes the file, and the first commit after it syncs the
    # log's new header. The same goes for the close. Two more: the opening of a new log.
    assert 0 <= syncs["inbox.db-wal"] - commits <= 2 * (checkpoints + 1) + 2
    assert syncs["inbox.db"] >= checkpoints
    if senders == 1:
        assert commits == stored + settled
    else:
        assert commits * 8 < stored + settled


class Told:
    """What the writers have said, over all rounds."""

    def __init__(self) -> None:
        self.of: dict[str, set[int]] = defaultdict(set)

    def hear(self, output: bytes) -> None:
        """Take what one has said; a line that was cut short says nothing."""
        for line in output.decode().splitlines(keepends=True):
            word, _, number = line.rstrip("\n").partition(" ")
            if line.endswith("\n") and number.isdigit() and word != "opened":
                self.of[word].add(int(number))


def killed_after(path: Path, first: int, lines: int) -> bytes:
    """Run a writer, kill it after so many lines, and give all that it has said."""
    with subprocess.Popen(
        command(path, first, EACH, 16, SIZE), stdout=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdout is not None
        heard = bytearray()
        while heard.count(b"\n") < lines:
            more = process.stdout.read(65536)
            assert more, "it ended by itself"
            heard += more
        process.send_signal(signal.SIGKILL)
        while more := process.stdout.read(65536):
            heard += more
        assert process.wait() == -signal.SIGKILL
    return bytes(heard)


@pytest.mark.slow
async def test_nothing_acknowledged_is_lost_when_the_writer_is_killed(tmp_path: Path) -> None:
    path, told = tmp_path / "inbox.db", Told()
    seed = random.SystemRandom().randrange(2**32)
    chance = random.Random(seed)  # noqa: S311 - when to kill is no secret
    print(f"seed {seed}")
    for at in range(ROUNDS):
        lines = chance.randrange(2, 3_000)
        told.hear(await asyncio.to_thread(killed_after, path, at * EACH, lines))
    # What the last one left is recovered first, as after any crash.
    assert log_of(path).exists()
    store, feed = SqliteStore(path, BOUNDS, patience=10.0), FeedLog()
    await store.start(feed)
    waiting = {
        int(loaded.stored_at - record(0).stored_at): loaded
        for loaded in [await store.load(ref) for ref in feed.entries]
    }
    assert all(loaded == record(number, size=SIZE) for number, loaded in waiting.items())
    stored, settling, settled = told.of["stored"], told.of["settling"], told.of["settled"]
    assert not told.of["pending"] | told.of["finished"]
    lost = stored - settling - set(waiting)
    back = settled & set(waiting)
    print(f"{ROUNDS} kills, {len(stored)} stored, {len(settled)} settled, {len(lost)} lost")
    assert (lost, back) == (set(), set())
    # One that was about to be settled waits or is finished: it is known in any case.
    for number in sorted(settling - settled):
        assert await outcome(store.put(record(number, size=SIZE))) in {"pending", "finished"}
    for number in sorted(settled)[:: max(1, len(settled) // 50)]:
        assert await outcome(store.put(record(number, size=SIZE))) == "finished"
    # The rest was written, and nobody had been told yet: at most what was in flight.
    assert len(set(waiting) - stored) <= 16 * ROUNDS
    assert store.usage.events == len(waiting)
    await store.close(30)
    assert await asyncio.to_thread(integrity, path) == "ok"
    assert size(path) > len(waiting) * SIZE
