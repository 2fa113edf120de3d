"""What the tests of this broker share: ways to wait, to publish, and to read back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from gateway.brokers.base import BrokerError, Message, Receipt, State
from gateway.brokers.kafka import KafkaBroker

PATIENCE = 40.0


async def wait_for(condition: Callable[[], bool], patience: float = PATIENCE) -> float:
    """Watch something outside until it is so, and give the seconds that it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < patience, "it did not happen in time"
        await asyncio.sleep(0.01)
    return time.monotonic() - began


@dataclass
class Started:
    """A broker under test."""

    broker: KafkaBroker
    states: list[State]
    """Every state it told, in order."""

    def publish(
        self,
        topic: str,
        value: bytes = b"{}",
        *,
        key: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        within: float = 10.0,
    ) -> asyncio.Future[Receipt]:
        """Publish one record with a deadline `within` seconds."""
        deadline = asyncio.get_running_loop().time() + within
        return self.broker.publish(Message(topic, value, headers, "id", key), deadline)

    async def outcome(self, topic: str, value: bytes = b"{}", **arguments: Any) -> str:
        """Publish one record and give its outcome: a class name and a reason."""
        return await outcome(self.publish(topic, value, **arguments))


async def outcome(future: asyncio.Future[Receipt]) -> str:
    """`Receipt`, or the class and the reason of what the future failed with."""
    try:
        return type(await future).__name__
    except BrokerError as error:
        return f"{type(error).__name__}({error.reason})"


async def eventually(
    probe: Callable[[], Awaitable[object]], wanted: object, patience: float = 20.0
) -> None:
    """Try until `probe` gives what is wanted."""
    deadline = time.monotonic() + patience
    while True:
        seen = await probe()
        if seen == wanted:
            return
        assert time.monotonic() < deadline, f"still {seen!r} and not {wanted!r}"
        await asyncio.sleep(0.05)


async def stored(bootstrap: str, topic: str) -> list[Any]:
    """Read a whole topic with a plain consumer, by partition and offset."""
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False
    )
    records: list[Any] = []
    await consumer.start()
    try:
        ends = await consumer.end_offsets(list(consumer.assignment()))
        for partition, end in ends.items():
            while await consumer.position(partition) < end:
                for batch in (await consumer.getmany(timeout_ms=200)).values():
                    records += batch
    finally:
        await consumer.stop()
    return sorted(records, key=lambda record: (record.partition, record.offset))


@asynccontextmanager
async def admin(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    """Give an admin client that is not ours."""
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def set_topic(bootstrap: str, topic: str, configs: Mapping[str, str]) -> None:
    """Change settings of a topic."""
    async with admin(bootstrap) as client:
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, configs=dict(configs))
        (answer,) = await client.alter_configs([resource])
    assert [resource[0] for resource in answer.resources] == [0]


async def delete_records(bootstrap: str, topic: str, before: int) -> None:
    """Have a topic's only partition begin at an offset, as retention does."""
    async with admin(bootstrap) as client:
        await client.delete_records({TopicPartition(topic, 0): RecordsToDelete(before)})
