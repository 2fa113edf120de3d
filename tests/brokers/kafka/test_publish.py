"""Publishing to a real Kafka that is well: what is stored, what is refused, and how fast."""

from __future__ import annotations

import asyncio
import gc
import secrets
import time
from collections.abc import Callable
from typing import Any

import pytest
import uvloop
from aiokafka import AIOKafkaProducer
from aiokafka.admin import NewPartitions
from aiokafka.errors import MessageSizeTooLargeError
from aiokafka.partitioner import DefaultPartitioner

from gateway.brokers.base import Message, Receipt, State, Unavailable
from gateway.brokers.kafka import KafkaBroker, broker
from gateway.config.models import KafkaConfig
from tests.brokers.kafka.conftest import Starter
from tests.brokers.kafka.support import admin, eventually, outcome, set_topic, stored, wait_for
from tests.servers.kafka import KafkaAt

Unique = Callable[[str], str]


async def test_a_record_is_stored_as_it_was_given(
    start: Starter, kafka_server: KafkaAt, unique: Unique
) -> None:
    topic = await kafka_server.create_topic(unique("users"), 3)
    started = await start(kafka_server.bootstrap)
    value = bytes(range(256))
    headers = (("ce_id", "msg_1"), ("svix-id", "ä"), ("ce_id", "twice"), ("empty", ""))
    receipt = await started.publish(topic, value, key="user_é", headers=headers)
    (record,) = await stored(kafka_server.bootstrap, topic)
    assert (record.value, record.key) == (value, "user_é".encode())
    assert record.headers == tuple((name, text.encode()) for name, text in headers)
    assert receipt == Receipt(topic, record.partition, record.offset)
    assert started.states == [State.UP]


async def test_each_record_of_a_batch_gets_its_own_offset_and_the_default_partition(
    start: Starter, kafka_server: KafkaAt, unique: Unique
) -> None:
    topic = await kafka_server.create_topic(unique("users"), 5)
    started = await start(kafka_server.bootstrap)
    keys = [f"user_{number % 37}" for number in range(500)]
    futures = [
        started.publish(topic, str(number).encode(), key=key) for number, key in enumerate(keys)
    ]
    receipts = await asyncio.gather(*futures)
    by_place = {(r.partition, r.offset): r for r in await stored(kafka_server.bootstrap, topic)}
    assert len(by_place) == len(keys)
    partitioner = DefaultPartitioner()
    for number, receipt in enumerate(receipts):
        assert by_place[(receipt.partition, receipt.offset)].value == str(number).encode()
        assert receipt.partition == partitioner(keys[number].encode(), list(range(5)), [])
    assert started.broker.in_flight == (0, 0)


async def test_one_key_stays_in_order_while_batches_follow_each_other(
    start: Starter, kafka_server: KafkaAt, unique: Unique
) -> None:
    topic = await kafka_server.create_topic(unique("users"), 2)
    started = await start(kafka_server.bootstrap, max_in_flight=3000)
    futures = []
    for number in range(3000):
        futures.append(started.publish(topic, str(number).encode(), key="user_1"))
        if number % 7 == 0:
            await asyncio.sleep(0)
    await asyncio.gather(*futures)
    values = [int(record.value) for record in await stored(kafka_server.bootstrap, topic)]
    assert values == list(range(3000))


async def test_records_without_a_key_spread_over_the_partitions(
    start: Starter, kafka_server: KafkaAt, unique: Unique
) -> None:
    topic = await kafka_server.create_topic(unique("users"), 3)
    started = await start(kafka_server.bootstrap)
    partitions = {(await started.publish(topic)).partition for _ in range(6)}
    assert partitions == {0, 1, 2}


async def test_an_unknown_topic_is_told_soon_and_holds_up_no_other(
    start: Starter, kafka_server: KafkaAt, unique: Unique
) -> None:
    topic = await kafka_server.create_topic(unique("users"))
    started = await start(kafka_server.bootstrap)
    missing = unique("missing")
    began = time.monotonic()
    futures = [started.publish(missing) for _ in range(3)]
    assert await started.outcome(topic) == "Receipt"
    assert {await outcome(future) for future in futures} == {"Unavailable(no_topic)"}
    assert time.monotonic() - began < 1
    assert await started.outcome(missing) == "Unavailable(no_topic)"

    await kafka_server.create_topic(missing)
    await eventually(lambda: started.outcome(missing), "Receipt")


async def test_a_topic_that_is_deleted_and_made_anew(
    start: Starter, kafka_server: KafkaAt, unique: Unique
) -> None:
    topic = await kafka_server.create_topic(unique("users"), 2)
    started = await start(kafka_server.bootstrap)
    assert await started.outcome(topic) == "Receipt"
    async with admin(kafka_server.bootstrap) as client:
        await client.delete_topics([topic])
    await eventually(lambda: started.outcome(topic, within=3), "Unavailable(no_topic)")
    await kafka_server.create_topic(topic)
    await eventually(lambda: started.outcome(topic), "Receipt")


async def test_new_partitions_come_into_use(
    start: Starter, kafka_server: KafkaAt, unique: Unique, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "_REFRESH_EVERY", 0.1)
    topic = await kafka_server.create_topic(unique("users"))
    started = await start(kafka_server.bootstrap)
    assert (await started.publish(topic)).partition == 0
    async with admin(kafka_server.bootstrap) as client:
        await client.create_partitions({topic: NewPartitions(total_count=3)})

    async def partition() -> int | None:
        return (await started.publish(topic)).partition

    await eventually(partition, 2)


@pytest.mark.parametrize("topic", ["a b", "ä", "..", "x" * 250, ""])
async def test_a_name_that_no_topic_can_have(
    start: Starter, kafka_server: KafkaAt, topic: str
) -> None:
    started = await start(kafka_server.bootstrap)
    assert await started.outcome(topic) == "Refused(invalid_destination)"


async def test_too_large_is_refused_before_sending_where_the_limit_is_known(
    start: Starter, kafka_server: KafkaAt, unique: Unique
) -> None:
    topic = await kafka_server.create_topic(unique("users"), 1, {"max.message.bytes": "4096"})
    started = await start(kafka_server.bootstrap)
    values = [b"a" * 3000, b"b" * 5000, b"c" * 3000, b"d" * 500]
    outcomes = [await outcome(f) for f in [started.publish(topic, value) for value in values]]
    assert outcomes == ["Receipt", "Refused(too_large)", "Receipt", "Receipt"]
    kept = [record.value for record in await stored(kafka_server.bootstrap, topic)]
    assert kept == [values[0], values[2], values[3]]

    await set_topic(kafka_server.bootstrap, topic, {"max.message.bytes": "9000"})
    await eventually(lambda: started.outcome(topic, values[1]), "Receipt")


OVERSIZE = b"o" * 6000


async def refused_to_others(bootstrap: str, topic: str) -> bool:
    """Whether a producer that is not ours gets a record refused as too large."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    try:
        await producer.send_and_wait(topic, OVERSIZE)
    except MessageSizeTooLargeError:
        return True
    finally:
        await producer.stop()
    return False


async def test_a_record_that_the_node_finds_too_large_fails_no_neighbour(
    start: Starter, kafka_server: KafkaAt, unique: Unique
) -> None:
    topic = await kafka_server.create_topic(unique("users"))
    started = await start(kafka_server.bootstrap)
    assert await started.outcome(topic, b"first") == "Receipt"
    # The gateway has read the limit by now and does not know of the new one.
    await set_topic(kafka_server.bootstrap, topic, {"max.message.bytes": "4096"})
    await eventually(lambda: refused_to_others(kafka_server.bootstrap, topic), True)
    values = [str(number).encode() * 100 for number in range(40)]
    values[17] = b"g" * 6000
    outcomes = [await outcome(f) for f in [started.publish(topic, value) for value in values]]
    assert [n for n, kind in enumerate(outcomes) if kind != "Receipt"] == [17]
    assert outcomes[17] == "Refused(too_large)"
    kept = [record.value for record in await stored(kafka_server.bootstrap, topic)]
    assert [value for value in kept if value != OVERSIZE] == [b"first", *values[:17], *values[18:]]


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
async def test_compressed_batches_are_read_back_whole(
    start: Starter, kafka_server: KafkaAt, unique: Unique, compression: str
) -> None:
    topic = await kafka_server.create_topic(unique("users"))
    started = await start(kafka_server.bootstrap, compression=compression)
    values = [b'{"n": %d}' % number * 400 for number in range(60)]
    await asyncio.gather(*(started.publish(topic, value) for value in values))
    assert [r.value for r in await stored(kafka_server.bootstrap, topic)] == values


async def test_compression_lets_pass_what_the_limit_would_not(
    start: Starter, kafka_server: KafkaAt, unique: Unique
) -> None:
    topic = await kafka_server.create_topic(unique("users"), 1, {"max.message.bytes": "4096"})
    started = await start(kafka_server.bootstrap, compression="zstd")
    assert await started.outcome(topic, b"a" * 100_000) == "Receipt"
    noise = secrets.token_bytes(6000)
    assert await started.outcome(topic, noise) == "Refused(too_large)"


async def test_a_record_that_the_node_finds_invalid_fails_no_neighbour(
    start: Starter, kafka_server: KafkaAt, unique: Unique
) -> None:
    topic = await kafka_server.create_topic(unique("users"), 1, {"cleanup.policy": "compact"})
    started = await start(kafka_server.bootstrap)
    keys = ["a", None, "c", "d"]
    outcomes = [await outcome(f) for f in [started.publish(topic, key=key) for key in keys]]
    assert outcomes == ["Receipt", "Refused(invalid_record)", "Receipt", "Receipt"]


async def test_text_without_a_utf8_form_is_refused(start: Starter, kafka_server: KafkaAt) -> None:
    started = await start(kafka_server.bootstrap)
    assert await started.outcome("users", key="\ud800") == "Refused(invalid_record)"
    assert await started.outcome("users", headers=(("a", "\ud800"),)) == "Refused(invalid_record)"
    assert started.broker.in_flight == (0, 0)


async def test_the_caps_count_records_and_bytes(
    start: Starter, kafka_server: KafkaAt, unique: Unique
) -> None:
    topic = await kafka_server.create_topic(unique("users"))
    few = await start(kafka_server.bootstrap, max_in_flight=3)
    futures = [few.publish(topic) for _ in range(5)]
    assert few.broker.in_flight[0] == 3
    assert [future.done() for future in futures] == [False, False, False, True, True]
    assert [await outcome(f) for f in futures] == ["Receipt"] * 3 + ["Unavailable(overloaded)"] * 2

    small = await start(kafka_server.bootstrap, max_in_flight_bytes=1000)
    headers = (("h" * 100, "v" * 100),)
    futures = [small.publish(topic, b"v" * 100, key="k" * 100, headers=headers) for _ in range(3)]
    assert small.broker.in_flight == (2, 800)
    assert await outcome(futures[2]) == "Unavailable(overloaded)"
    assert [await outcome(future) for future in futures[:2]] == ["Receipt"] * 2
    assert small.broker.in_flight == (0, 0)
    assert await small.outcome(topic) == "Receipt"


async def test_a_dropped_or_cancelled_future_takes_nothing_back_and_complains_of_nothing(
    start: Starter, kafka_server: KafkaAt, unique: Unique
) -> None:
    complaints: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    topic = await kafka_server.create_topic(unique("users"))
    started = await start(kafka_server.bootstrap)
    assert started.publish(topic, b"cancelled").cancel()
    del (_ := [started.publish(topic, b"dropped"), started.publish(unique("missing"))])[:]
    await wait_for(lambda: started.broker.in_flight == (0, 0))
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []
    values = [record.value for record in await stored(kafka_server.bootstrap, topic)]
    assert values == [b"cancelled", b"dropped"]


async def test_linger_waits_for_company(
    start: Starter, kafka_server: KafkaAt, unique: Unique
) -> None:
    topic = await kafka_server.create_topic(unique("users"))
    started = await start(kafka_server.bootstrap, linger=0.3)
    assert await started.outcome(topic) == "Receipt"
    began = time.monotonic()
    assert await started.outcome(topic) == "Receipt"
    assert time.monotonic() - began >= 0.3


async def test_more_than_one_batch_holds_still_arrives(
    start: Starter, kafka_server: KafkaAt, unique: Unique
) -> None:
    topic = await kafka_server.create_topic(unique("users"), 2)
    started = await start(kafka_server.bootstrap)
    values = [bytes([number]) * 200_000 for number in range(20)]
    await asyncio.gather(*(started.publish(topic, value, key="k") for value in values))
    assert [record.value for record in await stored(kafka_server.bootstrap, topic)] == values


async def test_before_start_and_after_close(kafka_server: KafkaAt, unique: Unique) -> None:
    topic = await kafka_server.create_topic(unique("users"))
    states: list[State] = []
    config = KafkaConfig(kind="kafka", servers=(kafka_server.bootstrap,))
    one = KafkaBroker("events", config, lambda _, state: states.append(state))
    deadline = asyncio.get_running_loop().time() + 5
    message = Message(topic, b"{}", (), "id")
    assert one.state is State.CONNECTING
    with pytest.raises(Unavailable, match="broker_down"):
        await one.publish(message, deadline)
    await one.start()
    await wait_for(lambda: one.state is State.UP)
    pending = [one.publish(message, deadline) for _ in range(100)]
    await asyncio.gather(one.close(5), one.close(5))
    assert {await outcome(future) for future in pending} == {"Receipt"}
    with pytest.raises(Unavailable, match="closing"):
        await one.publish(message, deadline)
    assert states == [State.UP, State.DOWN]
    assert one.in_flight == (0, 0)


def test_on_uvloop(kafka_server: KafkaAt, unique: Unique) -> None:
    async def publish() -> list[Receipt]:
        topic = await kafka_server.create_topic(unique("users"))
        config = KafkaConfig(kind="kafka", servers=(kafka_server.bootstrap,))
        one = KafkaBroker("events", config, lambda _, __: None)
        await one.start()
        await wait_for(lambda: one.state is State.UP)
        deadline = asyncio.get_running_loop().time() + 5
        message = Message(topic, b"{}", (), "id")
        receipts = await asyncio.gather(*(one.publish(message, deadline) for _ in range(10)))
        await one.close(5)
        return receipts

    receipts = uvloop.run(publish())
    assert [receipt.offset for receipt in receipts] == list(range(10))
