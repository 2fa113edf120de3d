"""Reading back from a real Kafka what arrives from now on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from gateway.brokers.base import Arrival, Need, Unavailable
from gateway.brokers.kafka import KafkaBroker
from gateway.config.models import KafkaConfig
from tests.brokers.kafka.conftest import Starter
from tests.servers.kafka import KafkaAt
from tests.servers.process import free_port

Unique = Callable[[str], str]


def need(topic: str, *, templated: bool = False) -> Need:
    """Give a need to follow."""
    return Need(topic, templated, 1000, "route users")


async def test_what_arrives_from_now_on_is_shown_whole(
    start: Starter, kafka_server: KafkaAt, unique: Unique
) -> None:
    topic = await kafka_server.create_topic(unique("users"), 2)
    started = await start(kafka_server.bootstrap)
    await started.publish(topic, b"before")
    tail = await started.broker.tail([need(topic)])
    headers = (("ce_id", "msg_1"), ("x", "ä"))
    receipt = await started.publish(topic, b"after", key="user_1", headers=headers)
    async with asyncio.timeout(20):
        arrival = await anext(tail)
    assert arrival == Arrival(
        "events", topic, b"after", headers, "user_1", receipt.partition, receipt.offset
    )
    await tail.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(tail)


async def test_a_template_takes_topics_that_appear_later_from_their_beginning(
    start: Starter, kafka_server: KafkaAt, unique: Unique
) -> None:
    prefix = unique("users") + "."
    old = await kafka_server.create_topic(prefix + "old")
    other = await kafka_server.create_topic(unique("other"))
    started = await start(kafka_server.bootstrap)
    await started.publish(old, b"before")
    tail = await started.broker.tail([need(prefix, templated=True)])
    await started.publish(other, b"not asked for")
    await started.publish(old, b"1")
    new = await kafka_server.create_topic(prefix + "new", 2)
    await started.publish(new, b"2")
    async with asyncio.timeout(30):
        values = {(await anext(tail)).value, (await anext(tail)).value}
        assert values == {b"1", b"2"}
        await started.publish(old, b"3")
        assert (await anext(tail)).value == b"3"
    await tail.aclose()


async def test_a_topic_that_is_missing_is_waited_for_and_not_created(
    start: Starter, kafka_server: KafkaAt, unique: Unique
) -> None:
    topic = unique("users")
    started = await start(kafka_server.bootstrap)
    tail = await started.broker.tail([need(topic)])
    assert await started.outcome(topic) == "Unavailable(no_topic)"
    await kafka_server.create_topic(topic)
    await asyncio.sleep(1.1)
    await started.publish(topic, b"first")
    async with asyncio.timeout(30):
        assert (await anext(tail)).value == b"first"
    await tail.aclose()


async def test_a_tail_that_nobody_reads_closes_too(
    start: Starter, kafka_server: KafkaAt, unique: Unique
) -> None:
    topic = await kafka_server.create_topic(unique("users"))
    started = await start(kafka_server.bootstrap)
    tail = await started.broker.tail([need(topic)])
    await tail.aclose()
    await tail.aclose()


async def test_a_cluster_that_cannot_be_reached() -> None:
    config = KafkaConfig(kind="kafka", servers=(f"127.0.0.1:{free_port()}",))
    broker = KafkaBroker("events", config, lambda _, __: None)
    with pytest.raises(Unavailable, match="nothing listens there"):
        await broker.tail([need("users")])
