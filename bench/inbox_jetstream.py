"""What the JetStream store of the inbox costs: an event is put, fed, and settled.

    python -m bench.inbox_jetstream [--events 5000] [--size 1024]

One nats-server beside it, one replica. Each sender puts an event, waits until it is durable,
settles it, waits again, and goes on. The CPU is that of this process, without the server's.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import uvloop

from bench.inbox_senders import Refs, measure
from tests.inbox.harness import record
from tests.inbox.jetstream_place import jetstream_store
from tests.servers.nats import NatsServer


async def run(url: str, senders: int, events: int, size: int) -> None:
    """Print what so many events cost."""
    store, feed = jetstream_store(url, lease=60.0), Refs()
    await store.start(feed)
    given = [record(senders * 1_000_000 + at, size=size) for at in range(events)]
    print(await measure(store, feed, senders, given), flush=True)
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
