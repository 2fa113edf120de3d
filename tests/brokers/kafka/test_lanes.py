"""What needs no server: hashes, batches, and what each error code means."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.record.default_records import DefaultRecordBatch

from gateway.brokers.base import BrokerError, Message, Refused, Unavailable, Unknown
from gateway.brokers.kafka.errors import failure, name_of, verdict_of
from gateway.brokers.kafka.lanes import KeyHashes, Lane, Topic, encode_batch, record_of, take_batch

# https://github.com/apache/kafka/blob/4.1.1/clients/src/test/java/org/apache/kafka/common/utils/UtilsTest.java
JAVA_HASHES = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("key", "expected"), JAVA_HASHES.items())
def test_keys_hash_as_in_java(key: bytes, expected: int) -> None:
    hashes = KeyHashes()
    assert hashes.of(key) == expected & 0x7FFFFFFF
    assert hashes.of(key) == expected & 0x7FFFFFFF


def test_the_memory_of_keys_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.brokers.kafka.lanes._MAX_KEYS", 10)
    hashes = KeyHashes()
    for number in range(100):
        hashes.of(b"%d" % number)
    assert len(hashes._hashes) <= 10


def test_a_key_and_no_key_find_their_lane() -> None:
    topic = Topic("users")
    topic.leaders = (1, -1, 2)
    topic.lanes = [Lane(topic, number) for number in range(3)]
    assert topic.lane_for(7) is topic.lanes[1]
    turns = []
    for _ in range(4):
        turns.append(topic.lane_for(None).partition)
        topic.next_turn()
    assert turns == [0, 2, 0, 2]
    assert [lane.leader for lane in topic.lanes] == [1, -1, 2]
    topic.leaders = ()
    assert [lane.leader for lane in topic.lanes] == [-1, -1, -1]


async def test_a_batch_takes_what_fits_in_order_and_at_least_one() -> None:
    lane = Lane(Topic("users"), 0)
    sizes = [600_000, 300_000, 150_000, 100_000, 10]
    for number, size in enumerate(sizes):
        message = Message("users", b"v" * size, (("n", str(number)),), "id", "k")
        record = record_of(message, float(number), asyncio.get_running_loop().create_future())
        assert record is not None
        assert record.size == size + 3
        lane.queue.append(record)
    taken = []
    while (batch := take_batch(lane, 0)) is not None:
        await encode_batch(batch, 0)
        stored = list(DefaultRecordBatch(bytes(batch.data)))
        assert [record.offset for record in stored] == list(range(len(stored)))
        taken.append([int(record.headers[0][1]) for record in stored])
        assert batch.deadline == taken[-1][-1]
    assert taken == [[0], [1, 2], [3, 4]]


MEANINGS: list[tuple[int, type[BrokerError], str, bool]] = [
    (2, Unavailable, "broker_error", True),
    (3, Unavailable, "no_topic", True),
    (5, Unavailable, "no_leader", True),
    (6, Unavailable, "no_leader", True),
    (7, Unknown, "no_ack", False),
    (10, Refused, "too_large", False),
    (17, Refused, "invalid_destination", False),
    (18, Refused, "too_large", False),
    (19, Unavailable, "not_enough_replicas", True),
    (20, Unknown, "no_ack", False),
    (29, Refused, "not_authorized", False),
    (31, Refused, "not_authorized", False),
    (56, Unavailable, "no_leader", True),
    (74, Unavailable, "no_leader", True),
    (87, Refused, "invalid_record", False),
    (-1, Unavailable, "broker_error", False),
    (44, Unavailable, "broker_error", False),
    (31_000, Unavailable, "broker_error", False),
]


@pytest.mark.parametrize(("code", "outcome", "reason", "retry"), MEANINGS)
def test_what_an_error_code_means(
    code: int, outcome: type[BrokerError], reason: str, retry: bool
) -> None:
    verdict = verdict_of(code)
    assert (verdict.outcome, verdict.reason, verdict.retry) == (outcome, reason, retry)


def test_a_failure_keeps_its_cause() -> None:
    cause = ConnectionResetError("peer")
    error = failure(Unavailable, "events", "users", "broker_down", cause)
    assert error.__cause__ is cause
    assert error.detail == "ConnectionResetError"
    assert failure(Unavailable, "events", "users", "closing").detail == ""
    assert (name_of(19), name_of(87)) == ("NOT_ENOUGH_REPLICAS", "error code 87")
