"""A process that writes to a store, and says what was acknowledged; others kill it.

    python -m tests.inbox.sqlite_process PATH FIRST COUNT SENDERS SIZE

Each sender puts a record, and says `stored N` once that is durable. Those with an even number it
settles: it says `settling N` before and `settled N` after. At the end a line of JSON tells the
store's own counts.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from gateway.delivery.inbox.sqlite import SqliteStore
from gateway.delivery.inbox.store import Bounds
from tests.inbox.harness import MIB, FeedLog, record

BOUNDS = Bounds(2048 * MIB, 64 * MIB, 3600.0)


def say(line: str) -> None:
    """Write a line, whole, past every buffer."""
    os.write(1, f"{line}\n".encode())


async def work(path: Path, first: int, count: int, senders: int, size: int) -> None:
    """Put and settle, `senders` records at a time."""
    store, feed = SqliteStore(path, BOUNDS, patience=10.0), FeedLog()
    await store.start(feed)
    say(f"opened {len(feed.entries)}")
    commits, checkpoints = store.commits, store.checkpoints
    refs = dict[float, int]()
    numbers = iter(range(first, first + count))

    async def send() -> None:
        for number in numbers:
            given = record(number, size=size)
            placed = await store.put(given)
            say(f"{placed.state} {number}")
            if number % 2 == 0:
                refs.update((one.stored_at, ref) for ref, one in feed.entries.items())
                feed.entries.clear()
                say(f"settling {number}")
                await store.settle(refs[given.stored_at], 0)
                say(f"settled {number}")

    await asyncio.gather(*(send() for _ in range(senders)))
    counts = (store.commits - commits, store.checkpoints - checkpoints)
    say(json.dumps(dict(zip(("commits", "checkpoints"), counts, strict=True))))
    await store.close(30)


if __name__ == "__main__":
    asyncio.run(work(Path(sys.argv[1]), *map(int, sys.argv[2:])))
