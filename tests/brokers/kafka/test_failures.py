"""A real Kafka that is down, frozen, killed or short of a node: true states, true outcomes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.brokers.base import State
from tests.brokers.kafka.conftest import Starter
from tests.brokers.kafka.second_node import SecondNode, create_replicated_topic
from tests.brokers.kafka.support import Started, outcome, stored, wait_for
from tests.servers.kafka import KafkaServer

Unique = Callable[[str], str]


async def became(started: Started, state: State) -> float:
    """Wait until the broker is in `state` and give the seconds."""
    return await wait_for(lambda: started.broker.state is state)


async def test_a_cluster_that_is_down_at_start_is_told_at_once_and_found_later(
    start: Starter, own_kafka: KafkaServer, unique: Unique, caplog: pytest.LogCaptureFixture
) -> None:
    topic = await own_kafka.create_topic(unique("users"))
    own_kafka.kill()
    with caplog.at_level(logging.WARNING, "gateway.brokers"):
        started = await start(own_kafka.bootstrap, until=State.DOWN)
        await asyncio.sleep(1)
    # One warning per cause, however many attempts there were.
    (warning,) = caplog.messages
    assert "nothing listens there; check brokers.events.servers" in warning
    began = time.monotonic()
    assert await started.outcome(topic) == "Unavailable(broker_down)"
    assert time.monotonic() - began < 0.1
    await asyncio.to_thread(own_kafka.start)
    await became(started, State.UP)
    assert await started.outcome(topic) == "Receipt"
    assert started.states == [State.DOWN, State.UP]


async def test_a_frozen_node_is_noticed_and_its_late_ack_still_counts(
    start: Starter, own_kafka: KafkaServer, unique: Unique
) -> None:
    topic = await own_kafka.create_topic(unique("users"))
    started = await start(own_kafka.bootstrap)
    assert await started.outcome(topic) == "Receipt"
    own_kafka.pause()
    sent = started.publish(topic, b"sent", within=1)
    await asyncio.sleep(0.05)
    waiting = started.publish(topic, b"never sent", within=1)
    assert await became(started, State.DOWN) < 4.5
    assert await started.outcome(topic) == "Unavailable(broker_down)"
    assert await outcome(waiting) == "Unavailable(timeout)"
    assert not sent.done()
    own_kafka.resume()
    assert await outcome(sent) == "Receipt"
    await became(started, State.UP)
    assert await started.outcome(topic, b"after") == "Receipt"
    values = [record.value for record in await stored(own_kafka.bootstrap, topic)]
    assert values == [b"{}", b"sent", b"after"]


async def test_a_frozen_node_from_the_start_is_down(
    start: Starter, own_kafka: KafkaServer, unique: Unique
) -> None:
    own_kafka.pause()
    started = await start(own_kafka.bootstrap, until=State.DOWN)
    own_kafka.resume()
    await became(started, State.UP)


async def test_what_was_on_the_wire_when_the_node_died_is_unknown_and_the_rest_is_not(
    start: Starter, own_kafka: KafkaServer, unique: Unique
) -> None:
    topic = await own_kafka.create_topic(unique("users"))
    started = await start(own_kafka.bootstrap)
    assert await started.outcome(topic) == "Receipt"
    own_kafka.pause()
    sent = started.publish(topic, b"sent", within=1.5)
    await asyncio.sleep(0.05)
    waiting = started.publish(topic, b"never sent", within=1.5)
    own_kafka.kill()
    assert await became(started, State.DOWN) < 1
    assert await outcome(sent) == "Unknown(no_ack)"
    assert await outcome(waiting) in {"Unavailable(broker_down)", "Unavailable(timeout)"}
    assert started.broker.in_flight == (0, 0)
    await asyncio.to_thread(own_kafka.start)
    await became(started, State.UP)
    assert await started.outcome(topic) == "Receipt"


async def test_a_node_that_comes_back_before_the_deadline_gets_the_records_in_order(
    start: Starter, own_kafka: KafkaServer, unique: Unique
) -> None:
    topic = await own_kafka.create_topic(unique("users"))
    started = await start(own_kafka.bootstrap)
    assert await started.outcome(topic, b"first") == "Receipt"
    own_kafka.pause()
    futures = [started.publish(topic, b"sent", within=60)]
    await asyncio.sleep(0.05)
    futures += [started.publish(topic, str(number).encode(), within=60) for number in range(5)]
    own_kafka.kill()
    await asyncio.to_thread(own_kafka.start)
    assert [await outcome(future) for future in futures] == ["Receipt"] * 6
    # The first was on the wire when the node died: it might be there twice.
    assert [future.result().unsure for future in futures] == [True] + [False] * 5
    values = [record.value for record in await stored(own_kafka.bootstrap, topic)]
    assert values == [b"first", b"sent", b"0", b"1", b"2", b"3", b"4"]


async def test_the_request_timeout_ends_what_is_never_answered(
    start: Starter, own_kafka: KafkaServer, unique: Unique
) -> None:
    topic = await own_kafka.create_topic(unique("users"))
    started = await start(own_kafka.bootstrap, request_timeout=2.0)
    assert await started.outcome(topic) == "Receipt"
    own_kafka.pause()
    began = time.monotonic()
    assert await started.outcome(topic, within=0.5) == "Unknown(no_ack)"
    assert 1.9 < time.monotonic() - began < 3.5


async def test_close_is_bounded_and_tells_what_was_sent_from_what_was_not(
    start: Starter, own_kafka: KafkaServer, unique: Unique
) -> None:
    topic = await own_kafka.create_topic(unique("users"))
    started = await start(own_kafka.bootstrap)
    assert await started.outcome(topic) == "Receipt"
    own_kafka.pause()
    sent = started.publish(topic, within=60)
    await asyncio.sleep(0.05)
    waiting = started.publish(topic, within=60)
    unheard_of = started.publish(unique("users"), within=60)
    began = time.monotonic()
    await started.broker.close(0.5)
    assert time.monotonic() - began < 3
    assert await outcome(sent) == "Unknown(no_ack)"
    assert await outcome(waiting) == "Unavailable(closing)"
    assert await outcome(unheard_of) in {"Unavailable(closing)", "Unavailable(broker_down)"}
    assert await started.outcome(topic) == "Unavailable(closing)"
    assert started.broker.in_flight == (0, 0)


async def test_close_with_the_cluster_gone(
    start: Starter, own_kafka: KafkaServer, unique: Unique
) -> None:
    topic = await own_kafka.create_topic(unique("users"))
    started = await start(own_kafka.bootstrap)
    assert await started.outcome(topic) == "Receipt"
    own_kafka.pause()
    pending = [started.publish(topic, within=60) for _ in range(3)]
    own_kafka.kill()
    began = time.monotonic()
    await started.broker.close(0.5)
    assert time.monotonic() - began < 3
    assert {await outcome(future) for future in pending} <= {
        "Unknown(no_ack)",
        "Unavailable(closing)",
    }


@pytest.fixture
async def second_node(own_kafka: KafkaServer, tmp_path: Path) -> AsyncIterator[SecondNode]:
    """Give a second node of the breakable Kafka's cluster."""
    node = SecondNode(tmp_path / "second", own_kafka)
    await asyncio.to_thread(node.start)
    yield node
    node.kill()


async def test_a_leader_that_freezes_is_left_for_the_next_one(
    start: Starter, own_kafka: KafkaServer, second_node: SecondNode, unique: Unique
) -> None:
    topic = unique("users")
    await create_replicated_topic(own_kafka.bootstrap, topic, [2, 1], {})
    started = await start(own_kafka.bootstrap)
    # These keys fall on partitions 0 and 1.
    assert (await started.publish(topic, key="user_2")).partition == 0
    assert (await started.publish(topic, key="user_1")).partition == 1
    second_node.pause()
    stuck = started.publish(topic, b"stuck", key="user_2", within=40)
    assert await outcome(stuck) == "Receipt"
    assert await started.outcome(topic, key="user_1", within=40) == "Receipt"
    assert State.DOWN not in started.states


async def test_too_few_replicas_are_told_by_the_deadline(
    start: Starter, own_kafka: KafkaServer, second_node: SecondNode, unique: Unique
) -> None:
    topic = unique("users")
    await create_replicated_topic(own_kafka.bootstrap, topic, [1], {"min.insync.replicas": "2"})
    started = await start(own_kafka.bootstrap)
    assert await started.outcome(topic) == "Receipt"
    await asyncio.to_thread(second_node.stop)
    began = time.monotonic()
    assert await started.outcome(topic, within=1.5) == "Unavailable(not_enough_replicas)"
    assert time.monotonic() - began < 1.7
    recovered = started.publish(topic, b"at last", within=60)
    await asyncio.to_thread(second_node.start)
    assert await outcome(recovered) == "Receipt"
