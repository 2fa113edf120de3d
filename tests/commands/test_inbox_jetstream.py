"""`gateway inbox` beside gateways that share a JetStream inbox."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from gateway.delivery.inbox.store import Parked
from tests.canaries import SECRET
from tests.inbox.harness import FeedLog, outcome, record
from tests.inbox.jetstream_place import jetstream_store
from tests.servers.nats import NatsServer


def config(directory: Path, server: NatsServer) -> Path:
    """Write the config of a gateway whose inbox is on the server."""
    path = directory / "config.yaml"
    path.write_text(
        json.dumps(
            {
                "sources": {"clerk": {"kind": "clerk", "secrets": [SECRET]}},
                "brokers": {"bus": {"kind": "nats", "servers": [server.url]}},
                "routes": [
                    {
                        "name": "users",
                        "events": ["*"],
                        "targets": [{"broker": "bus", "subject": "out.all"}],
                    }
                ],
                "delivery": {"mode": "inbox", "inbox": {"store": "jetstream", "broker": "bus"}},
            }
        )
    )
    return path


async def inbox(path: Path, *arguments: str) -> tuple[int, str]:
    """Run the command; give its exit code and what it wrote."""
    command = (sys.executable, "-m", "gateway", "inbox", arguments[0], "--config", str(path))
    process = await asyncio.create_subprocess_exec(
        *command,
        *arguments[1:],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    written, _ = await process.communicate()
    return process.returncode or 0, written.decode()


async def test_it_takes_no_work_from_the_gateways_that_run(
    tmp_path: Path, own_nats: NatsServer
) -> None:
    store, feed = jetstream_store(own_nats.url), FeedLog()
    await store.start(feed)
    given = record(1)
    assert await outcome(store.put(given)) == "stored"
    assert await outcome(store.put(record(2))) == "stored"
    parked = Parked(given, 0, "no_stream", "no stream takes it", 1.0)
    assert await outcome(store.park(feed.order[0], 0, parked)) == "done"
    fewest = len(store.partitions)
    path = config(tmp_path, own_nats)
    running = asyncio.create_task(inbox(path, "list"))
    while not running.done():
        fewest = min(fewest, len(store.partitions))
        await asyncio.sleep(0.01)
    code, written = await running
    assert code == 0, written
    assert "no_stream" in written
    assert fewest == 16
    await store.close(2)


async def test_where_no_gateway_ever_ran_nothing_is_made(
    tmp_path: Path, own_nats: NatsServer
) -> None:
    code, written = await inbox(config(tmp_path, own_nats), "list")
    assert code == 2, written
    assert written.startswith("stream GATEWAY_INBOX_STATE: there is no such stream; ")
