"""User-mode CPU of one acknowledged Kafka record: this gateway's publisher against aiokafka's.

    python -m bench.kafka_publish [--servers localhost:9092 --topic bench]

Without `--servers` it starts a Kafka for itself. Both sides keep as many records outstanding as a
gateway with that many open connections would: each worker publishes, awaits the ack, and publishes
again. The record has 1 kB, a key and the headers that an event has. Only the CPU of this process
is counted, so a broker on the same machine does not blur the figure.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import resource
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop
from aiokafka import AIOKafkaProducer

from gateway.brokers.base import Message, Receipt, State
from gateway.brokers.kafka import KafkaBroker
from gateway.config.models import KafkaConfig
from tests.servers.kafka.server import KafkaServer

_UP_WITHIN = 15.0

VALUE = b'{"data":{"id":"user_1"},"object":"event","type":"user.updated"}'.ljust(1024)
KEYS = [f"user_{number}" for number in range(1000)]
HEADERS = (
    ("ce_specversion", "1.0"),
    ("ce_id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
    ("ce_type", "user.updated"),
    ("ce_source", "clerk/clerk"),
    ("ce_time", "2026-01-01T00:00:00.000Z"),
    ("ce_subject", "user_1"),
    ("ce_partitionkey", "user_1"),
    ("content-type", "application/json"),
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
    await asyncio.gather(*(publish(number) for number in range(200)))
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
        f"{name:8} {user:6.1f} us user, {system:5.1f} us system per record;"
        f" {records / wall:8.0f} records/s"
    )


async def ours(arguments: argparse.Namespace) -> None:
    """Measure `KafkaBroker`."""
    up = asyncio.Event()
    config = KafkaConfig(kind="kafka", servers=tuple(arguments.servers), linger=arguments.linger)

    def on_state(_: str, state: State) -> None:
        if state is State.UP:
            up.set()

    broker = KafkaBroker("bench", config, on_state)
    await broker.start()
    async with asyncio.timeout(_UP_WITHIN):
        await up.wait()
    loop = asyncio.get_running_loop()

    def publish(number: int) -> asyncio.Future[Receipt]:
        key = KEYS[number % len(KEYS)]
        message = Message(arguments.topic, VALUE, HEADERS, "x", key)
        return broker.publish(message, loop.time() + 10)

    await measure("gateway", publish, arguments.records, arguments.outstanding)
    await broker.close(5)


async def theirs(arguments: argparse.Namespace) -> None:
    """Measure aiokafka's producer, with the settings that cost it least."""
    producer = AIOKafkaProducer(
        bootstrap_servers=arguments.servers,
        acks="all",
        max_batch_size=512 * 1024,
        linger_ms=int(arguments.linger * 1000),
    )
    await producer.start()

    async def publish(number: int) -> object:
        key = KEYS[number % len(KEYS)].encode()
        headers = [(name, text.encode()) for name, text in HEADERS]
        return await (await producer.send(arguments.topic, VALUE, key=key, headers=headers))

    await measure("aiokafka", publish, arguments.records, arguments.outstanding)
    await producer.stop()


def main() -> None:
    """Measure both, in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--servers", nargs="+", help="default: a Kafka of its own")
    parser.add_argument("--topic", default="bench")
    parser.add_argument("--records", type=int, default=50_000)
    parser.add_argument("--outstanding", type=int, default=64)
    parser.add_argument("--linger", type=float, default=0.0, help="seconds")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        if not arguments.servers:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            server = stack.enter_context(KafkaServer(directory))
            asyncio.run(server.create_topic(arguments.topic, partitions=6))
            arguments.servers = [server.bootstrap]
        for _ in range(2):
            uvloop.run(ours(arguments))
            uvloop.run(theirs(arguments))


if __name__ == "__main__":
    main()
