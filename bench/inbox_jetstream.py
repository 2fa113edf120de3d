"""What the JetStream store of the inbox costs: an event is put, fed, and settled.

    python -m bench.inbox_jetstream [--events 5000] [--size 1024]

One nats-server beside it, one replica. Each sender puts an event, waits until it is durable,
settles it, waits again, and goes on. The CPU is that of this process, without the server's.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import tempfile
import time
from pathlib import Path

import uvloop

from gateway.delivery.inbox.record import Record
from gateway.delivery.inbox.store import Entry
from tests.inbox.harness import record
from tests.inbox.jetstream_place import jetstream_store
from tests.servers.nats import NatsServer


class _Refs:
    """A feed that hands each sender the number of what it has put."""

    def __init__(self) -> None:
        self.of: dict[str, int] = {}

    def stored(self, entry: Entry, record: Record | None) -> None:
        if record is not None:
            self.of[record.name] = entry.ref

    def withdrawn(self, ref: int) -> bool:
        return ref > 0

    def discarded(self, record: Record, targets: int) -> None:
        raise AssertionError(record, targets)

    def lost(self, partition: int) -> None:
        """The store lets go of each when it closes."""


async def run(url: str, senders: int, events: int, size: int) -> None:
    """Print what so many events cost."""
    store, feed = jetstream_store(url, lease=60.0), _Refs()
    await store.start(feed)
    given = iter([record(senders * 1_000_000 + at, size=size) for at in range(events)])

    async def send() -> None:
        for one in given:
            await store.put(one)
            await store.settle(feed.of.pop(one.name), 0)

    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    await asyncio.gather(*(send() for _ in range(senders)))
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    user = (after.ru_utime - before.ru_utime) / events * 1e6
    system = (after.ru_stime - before.ru_stime) / events * 1e6
    print(
        f"{senders:>4} senders  {events / seconds:>8,.0f} events/s"
        f"  {user:>6.1f} us user  {system:>6.1f} us system",
        flush=True,
    )
    await store.close(30)


def main() -> None:
    """Run each number of senders on one server."""
    options = argparse.ArgumentParser()
    options.add_argument("--events", type=int, default=5_000)
    options.add_argument("--size", type=int, default=1024)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as directory, NatsServer(Path(directory)) as server:
        for senders in (1, 8, 64):
            uvloop.run(run(server.url, senders, min(given.events, senders * 1000), given.size))


if __name__ == "__main__":
    main()
