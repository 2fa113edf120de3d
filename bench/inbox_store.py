"""What the SQLite store of the inbox costs: an event is put, loaded by nobody, and settled.

    python -m bench.inbox_store [--events 20000] [--senders 64] [--size 1024] [--path FILE]

Each sender puts an event, waits until it is durable, settles it, waits again, and goes on. The CPU
is that of the whole process: event loop, writer, SQLite. Where there is a C compiler the syncs are
those that the kernel was asked for; else it says so, and the store's own count of commits stands
alone. `--path` should be on the disk that the inbox will be on: a file system in memory syncs for
nothing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import uvloop

from bench.inbox_senders import Refs, measure
from gateway.delivery.inbox.sqlite import SqliteStore
from gateway.delivery.inbox.store import Bounds
from tests.inbox.harness import record
from tests.inbox.syncs import SyncNotes
from tests.servers.process import ServerError

BOUNDS = Bounds(1024**3, 1024**3, 120.0)


async def run(path: Path, events: int, senders: int, size: int) -> None:
    """Print what so many events cost."""
    store, feed = SqliteStore(path, BOUNDS), Refs()
    await store.start(feed)
    given = [record(number, size=size) for number in range(events)]
    commits, checkpoints = store.commits, store.checkpoints
    line = await measure(store, feed, senders, given)
    print(
        f"{line}  {store.commits - commits:>7,} commits"
        f"  {store.checkpoints - checkpoints:>4,} checkpoints",
        flush=True,
    )
    await store.close(30)


def main() -> None:
    """Run each number of senders in a process of its own."""
    options = argparse.ArgumentParser()
    options.add_argument("--events", type=int, default=20_000)
    options.add_argument("--senders", type=int, action="append")
    options.add_argument("--size", type=int, default=1024)
    options.add_argument("--path", type=Path)
    options.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.alone:
        uvloop.run(run(given.path, given.events, given.senders[0], given.size))
        return
    for senders in given.senders or (1, 8, 64, 256):
        with tempfile.TemporaryDirectory(dir=given.path and given.path.parent) as directory:
            _measure(Path(directory), senders, given)


def _measure(directory: Path, senders: int, given: argparse.Namespace) -> None:
    path = directory / "inbox.db"
    try:
        notes = SyncNotes(directory)
    except ServerError as error:
        print(error)
        notes = None
    arguments = ["--alone", "--path", path, "--senders", senders, "--size", given.size]
    # One sender waits for the disk twice per event.
    events = min(given.events, senders * 1000)
    subprocess.run(
        [sys.executable, "-m", "bench.inbox_store", *map(str, arguments), "--events", str(events)],
        env=notes.environment() if notes else os.environ,
        check=True,
    )
    if notes:
        log, file = notes.count()["inbox.db-wal"], notes.count()["inbox.db"]
        print(f"              syncs of the kernel: {log:,} of the log, {file:,} of the file")


if __name__ == "__main__":
    main()
