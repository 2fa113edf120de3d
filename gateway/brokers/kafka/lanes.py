"""Topics, the queue in front of each of their partitions, records and batches: data without I/O."""

from __future__ import annotations

import asyncio
from collections import deque
from enum import Enum
from typing import Any

import msgspec
from aiokafka.partitioner import murmur2
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from gateway.brokers.base import BrokerError, Message, Receipt
from gateway.brokers.kafka.errors import Verdict

BATCH_BYTES = 512 * 1024
"""A batch grows to this size. One record may be larger and then travels alone."""
BATCH_OVERHEAD = 61
"""The header of a record batch, which counts against `max.message.bytes`."""

_COMPRESS_ASIDE = 32 * 1024
"""Compressing more than this would hold up the event loop."""
_MAX_KEYS = 65_536
_ALL_REPLICAS = -1
_MAGIC = 2
_NO_PRODUCER = -1


class Record(msgspec.Struct, gc=False):
    """One record on its way; `size` is key, value and headers in bytes."""

    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]
    size: int
    deadline: float
    future: asyncio.Future[Receipt]


class Batch(msgspec.Struct):
    """Records that travel together, encoded once so that every attempt is the same bytes."""

    records: list[Record]
    builder: Any
    """Holds the records until they are encoded."""
    deadline: float
    """The latest of its records."""
    data: bytearray = msgspec.field(default_factory=bytearray)
    """Empty until they are."""
    sent: bool = False
    """On the wire, and not answered yet."""
    unsure: bool = False
    """An attempt was on the wire and its answer never came: it may be stored."""
    denied: bool = False
    """An attempt was refused as not authorised."""


class LaneState(Enum):
    """Where a lane is between two batches."""

    IDLE = "idle"
    READY = "ready"
    """Has records and waits for its leader to be free."""
    FLYING = "flying"
    """Is part of a produce request."""
    HELD = "held"
    """Waits for its next attempt."""


class Lane:
    """The queue in front of one partition. One batch at a time leaves it: that keeps order."""

    __slots__ = ("attempts", "batch", "cap", "partition", "queue", "state", "timer", "topic")

    def __init__(self, topic: Topic, partition: int) -> None:
        self.topic = topic
        self.partition = partition
        self.queue: deque[Record] = deque()
        self.batch: Batch | None = None
        self.state = LaneState.IDLE
        self.timer: asyncio.TimerHandle | None = None
        """Ends `HELD`."""
        self.attempts = 0
        """Failed ones in a row."""
        self.cap = 0
        """At most so many records a batch; 0 for no limit. Set when a batch was too large."""

    @property
    def leader(self) -> int:
        """The node that leads this partition, or -1."""
        leaders = self.topic.leaders
        return leaders[self.partition] if self.partition < len(leaders) else -1


class Topic:
    """One topic: its lanes, or why there are none."""

    __slots__ = (
        "asking",
        "bytes_limit",
        "detail",
        "lanes",
        "leaders",
        "limit_until",
        "name",
        "parked",
        "turn",
        "verdict",
        "verdict_until",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.leaders: tuple[int, ...] = ()
        self.lanes: list[Lane] = []
        self.parked: deque[Record] = deque()
        """Records that came before the cluster had said anything about the topic."""
        self.asking: asyncio.Task[None] | None = None
        self.verdict: Verdict | None = None
        """Why the topic cannot be published to, valid until `verdict_until` (loop time)."""
        self.verdict_until = 0.0
        self.detail = ""
        """The verdict's, for the operator's log."""
        self.bytes_limit: int | None = None
        """`max.message.bytes`, where the cluster lets us read it."""
        self.limit_until = 0.0
        self.turn = 0

    def refusal(self, now: float) -> tuple[type[BrokerError], str, str] | None:
        """Outcome, reason and detail for a new record, while the topic's verdict is valid."""
        if self.verdict is None or self.verdict_until <= now:
            return None
        return self.verdict.outcome, self.verdict.reason, self.detail

    def lane_for(self, key_hash: int | None) -> Lane:
        """The partition of a key, as Kafka's own default partitioner picks it.

        Without a key it is the partition whose turn it is, so that batches stay whole.
        """
        lanes = self.lanes
        if key_hash is not None:
            return lanes[key_hash % len(lanes)]
        return lanes[self.turn % len(lanes)]

    def next_turn(self) -> None:
        """Move on to the next partition that has a leader."""
        count = len(self.leaders)
        for step in range(1, count + 1):
            if self.leaders[(self.turn + step) % count] >= 0:
                self.turn = (self.turn + step) % count
                return


class KeyHashes:
    """Hashes of keys, remembered because hashing one takes as long as the rest of a publish."""

    def __init__(self) -> None:
        self._hashes: dict[bytes, int] = {}

    def of(self, key: bytes) -> int:
        """The positive murmur2 of `key`, equal to the Java client's `toPositive(murmur2(key))`."""
        known = self._hashes.get(key)
        if known is not None:
            return known
        if len(self._hashes) >= _MAX_KEYS:
            self._hashes.clear()
        fresh: int = murmur2(key) & 0x7FFFFFFF
        self._hashes[key] = fresh
        return fresh


def record_of(message: Message, deadline: float, future: asyncio.Future[Receipt]) -> Record | None:
    """The record as it is sent, or None where a text has no UTF-8 form (a lone surrogate)."""
    size = len(message.value)
    headers = []
    key = None
    try:
        for name, text in message.headers:
            data = text.encode()
            size += len(name) + len(data)
            headers.append((name, data))
        if message.key is not None:
            key = message.key.encode()
            size += len(key)
    except UnicodeEncodeError:
        return None
    return Record(key, message.value, headers, size, deadline, future)


def take_batch(lane: Lane, codec: int) -> Batch | None:
    """Move the next batch out of the lane's queue; None where the queue is empty.

    `codec` is the number of the compression in the record batch format, 0 for none.
    """
    queue = lane.queue
    if not queue:
        return None
    limit = min(lane.topic.bytes_limit or BATCH_BYTES, BATCH_BYTES)
    builder = DefaultRecordBatchBuilder(_MAGIC, codec, 0, _NO_PRODUCER, _NO_PRODUCER, 0, limit)
    records: list[Record] = []
    deadline = 0.0
    while queue and not 0 < lane.cap <= len(records):
        record = queue[0]
        # The first record always fits; a later one that does not starts the next batch.
        if builder.append(len(records), None, record.key, record.value, record.headers) is None:
            break
        records.append(queue.popleft())
        deadline = max(deadline, record.deadline)
    if records[0].key is None:
        lane.topic.next_turn()
    return Batch(records, builder, deadline)


async def encode_batch(batch: Batch, codec: int) -> None:
    """Fill in `batch.data`, once; a large batch is compressed in a thread."""
    if batch.data:
        return
    if codec and batch.builder.size() > _COMPRESS_ASIDE:
        batch.data = await asyncio.to_thread(batch.builder.build)
    else:
        batch.data = batch.builder.build()


def produce_request(sending: list[tuple[Lane, Batch]], request_timeout: float) -> ProduceRequest:
    topics: dict[str, list[tuple[int, bytearray]]] = {}
    for lane, batch in sending:
        topics.setdefault(lane.topic.name, []).append((lane.partition, batch.data))
    return ProduceRequest(
        transactional_id=None,
        required_acks=_ALL_REPLICAS,
        # The node gives up on slow replicas a little before we give up on the node.
        timeout=int(request_timeout * 900),
        topics=list(topics.items()),
    )


def results_of(answer: Any) -> dict[tuple[str, int], tuple[int, int]]:
    """Error code and first offset of each topic and partition in a produce response."""
    return {
        (topic, partition): (code, offset)
        for topic, partitions in answer.topics
        for partition, code, offset, *_ in partitions
    }
