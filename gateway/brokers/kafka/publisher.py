"""The publish path: records gather in front of their partition and travel in batches.

One produce request per node is on the wire at a time, with at most one batch of each partition,
so order per partition holds over retries without idempotence. What is published meanwhile makes
up the next request: the busier the gateway, the larger the batches.

The requests are sent here and not by aiokafka's producer, because its sender keeps to itself
whether an attempt was on the wire (which is what tells `Unknown` from `Unavailable`), retries past
the caller's deadline, and holds every partition up behind one stalled node.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from gateway.brokers.base import BrokerError, Message, Receipt, Refused, Unavailable, Unknown
from gateway.brokers.kafka.connection import Cluster
from gateway.brokers.kafka.errors import CLIENT_ERRORS, Verdict, detail_of, verdict_of
from gateway.brokers.kafka.in_flight import InFlight
from gateway.brokers.kafka.lanes import (
    BATCH_OVERHEAD,
    Batch,
    KeyHashes,
    Lane,
    LaneState,
    Record,
    Topic,
    encode_batch,
    produce_request,
    record_of,
    results_of,
    take_batch,
)
from gateway.brokers.kafka.options import PublishOptions
from gateway.brokers.kafka.topics import Directory

log = logging.getLogger("gateway.brokers")

_REQUEST_BYTES = 8 * 1024 * 1024
"""Far below a broker's `socket.request.max.bytes` of 100 MiB."""
_CONNECT_WITHIN = 5.0
_BACKOFF = 0.1
_MAX_BACKOFF = 1.0
_SWEEP_EVERY = 0.5
_SUSPICIOUS_AFTER = 3.0
_MAX_CAP = 65_536


class _Flight(msgspec.Struct):
    """A produce request on its way to one node."""

    lanes: list[Lane]
    since: float


Sending = list[tuple[Lane, Batch]]


class Publisher:
    """Takes records, answers each with a receipt or one of the three errors."""

    def __init__(
        self,
        cluster: Cluster,
        options: PublishOptions,
        in_flight: InFlight,
        on_trouble: Callable[[], None],
    ) -> None:
        """`on_trouble` is called when a node did not answer as it should."""
        self._cluster = cluster
        self._options = options
        self._in_flight = in_flight
        self._on_trouble = on_trouble
        self._loop = asyncio.get_running_loop()
        self._hashes = KeyHashes()
        self.directory = Directory(cluster, self._unpark, self._no_such_topic, on_trouble)
        self._active: set[Lane] = set()
        """Lanes that are not idle."""
        self._ready: dict[Lane, None] = {}
        self._flights: dict[int, _Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.Handle | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self.last_ack = 0.0
        """Loop time of the last answer from any node."""

    def publish(self, message: Message, deadline: float) -> asyncio.Future[Receipt]:
        """Queue one record; see `Broker.publish`."""
        future: asyncio.Future[Receipt] = self._loop.create_future()
        record = record_of(message, deadline, future)
        if record is None:
            self._in_flight.reject(future, message.destination, Refused, "invalid_record")
            return future
        if not self._in_flight.admit(record):
            self._in_flight.reject(future, message.destination, Unavailable, "overloaded")
            return future
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(_SWEEP_EVERY, self._sweep)
        topic = self.directory.topic(message.destination)
        # Records that are parked must not be overtaken.
        if topic.lanes and not topic.parked:
            self._enqueue(topic, record)
        else:
            self._park(topic, record)
        return future

    async def abandon(self, timeout: float) -> None:
        """Answer what is left, `Unknown` where it may be stored, and stop every task."""
        for topic in self.directory:
            self._fail_parked(topic, Unavailable, "closing")
        for lane in list(self._active):
            self._fail_lane(lane, Unavailable, "closing")
        for handle in (self._timer, self._sweeper):
            if handle is not None:
                handle.cancel()
        tasks = {*self._tasks, *self.directory.tasks()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)

    # From a record to its lane

    def _enqueue(self, topic: Topic, record: Record) -> None:
        limit = topic.bytes_limit
        if limit is not None and not self._options.codec and record.size + BATCH_OVERHEAD > limit:
            detail = f"{record.size} bytes; the topic's max.message.bytes is {limit}"
            self.directory.learn_limit(topic)
            self._in_flight.fail([record], topic.name, Refused, "too_large", detail)
            return
        key = record.key
        lane = topic.lane_for(None if key is None else self._hashes.of(key))
        lane.queue.append(record)
        if lane.state is LaneState.IDLE:
            self._active.add(lane)
            self._make_ready(lane)

    def _park(self, topic: Topic, record: Record) -> None:
        refusal = topic.refusal(self._loop.time())
        if refusal is not None:
            self._in_flight.fail([record], topic.name, *refusal)
            return
        topic.parked.append(record)
        self.directory.ask(topic)

    def _unpark(self, topic: Topic) -> None:
        while topic.parked:
            self._enqueue(topic, topic.parked.popleft())

    def _no_such_topic(self, topic: Topic, verdict: Verdict, detail: str) -> None:
        self._fail_parked(topic, verdict.outcome, verdict.reason, detail)
        for lane in [lane for lane in self._active if lane.topic is topic]:
            # What is on the wire is answered by the node.
            if not topic.leaders and (lane.batch is None or not lane.batch.sent):
                self._fail_lane(lane, verdict.outcome, verdict.reason, detail)

    # From lanes to requests

    def _make_ready(self, lane: Lane) -> None:
        lane.state = LaneState.READY
        self._ready[lane] = None
        if self._timer is None and lane.leader not in self._flights:
            self._schedule(self._options.linger)

    def _schedule(self, delay: float = 0.0) -> None:
        if self._timer is not None:
            return
        loop = self._loop
        self._timer = loop.call_later(delay, self._flush) if delay else loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Start one request to every node that is free and leads a lane that is ready."""
        self._timer = None
        by_node: dict[int, list[Lane]] = {}
        for lane in list(self._ready):
            node = lane.leader
            if node in self._flights:
                continue
            del self._ready[lane]
            lane.state = LaneState.FLYING
            if node < 0:
                self.directory.refresh()
                self._again(lane, "no_leader", "the partition has no leader")
            else:
                by_node.setdefault(node, []).append(lane)
        for node, lanes in by_node.items():
            flight = self._flights[node] = _Flight(lanes, self._loop.time())
            task = self._loop.create_task(self._fly(node, flight))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _fly(self, node: int, flight: _Flight) -> None:
        try:
            await self._produce(node, flight)
        except Exception as error:
            # Not known to happen; the futures must end all the same.
            log.exception("a produce request broke off")
            for lane in flight.lanes:
                self._fail_lane(lane, Unavailable, "broker_error", type(error).__name__)
        finally:
            del self._flights[node]
            if self._ready:
                self._schedule()

    async def _produce(self, node: int, flight: _Flight) -> None:
        try:
            connection = await self._cluster.to_node(node, _CONNECT_WITHIN)
            sending = await self._load(flight)
            if not sending:
                return
            reply = connection.send(produce_request(sending, self._options.request_timeout))
        except CLIENT_ERRORS as error:
            self._stumbled()
            for lane in flight.lanes:
                if lane.state is LaneState.FLYING:
                    self._again(lane, "broker_down", error)
            return
        # From here on the node may store them, whatever becomes of the connection.
        for _, batch in sending:
            batch.sent = True
        try:
            answer = await reply
        except CLIENT_ERRORS as error:
            self._lost(node, sending, error)
            return
        self.last_ack = self._loop.time()
        self._settle(sending, answer)

    async def _load(self, flight: _Flight) -> Sending:
        """One batch per lane, as many as one request takes; the other lanes are ready again."""
        loaded: Sending = []
        total = 0
        for lane in list(flight.lanes):
            if lane.state is not LaneState.FLYING:
                continue
            if total >= _REQUEST_BYTES:
                self._make_ready(lane)
                continue
            self._expire(lane.topic, lane.queue)
            batch = lane.batch = lane.batch or take_batch(lane, self._options.codec)
            if batch is None:
                self._rest(lane)
                continue
            await encode_batch(batch, self._options.codec)
            total += len(batch.data)
            loaded.append((lane, batch))
        return [(lane, batch) for lane, batch in loaded if lane.batch is batch]

    # From answers to futures

    def _settle(self, sending: Sending, answer: Any) -> None:
        results = results_of(answer)
        for lane, batch in sending:
            batch.sent = False
            if lane.batch is not batch:
                continue
            result = results.get((lane.topic.name, lane.partition))
            if result is None:
                batch.unsure = True
                self._again(lane, "broker_error", "the answer leaves the partition out")
            elif result[0]:
                self._refused(lane, batch, result[0])
            else:
                lane.cap = lane.cap * 2 if 0 < lane.cap < _MAX_CAP else 0
                self._in_flight.deliver(batch, lane.topic.name, lane.partition, result[1])
                self._rest(lane)

    def _refused(self, lane: Lane, batch: Batch, code: int) -> None:
        verdict = verdict_of(code)
        if verdict.refresh:
            self.directory.refresh()
        # A node refuses a batch as a whole and does not say for which record. Half a batch, and
        # half again, leaves the guilty one alone in the end; the order stays.
        if verdict.split and len(batch.records) > 1:
            lane.cap = len(batch.records) // 2
            lane.queue.extendleft(reversed(batch.records))
            self._rest(lane)
        elif verdict.retry:
            self._again(lane, verdict.reason, detail_of(code))
        elif verdict.twice and not batch.denied:
            batch.denied = True
            self._again(lane, "broker_error", detail_of(code))
        else:
            if verdict.reason == "too_large":
                self.directory.learn_limit(lane.topic)
            self._fail_batch(lane, batch, verdict.outcome, verdict.reason, detail_of(code))
            self._rest(lane)

    def _lost(self, node: int, sending: Sending, error: BaseException) -> None:
        """The request was on the wire and no answer came."""
        # The node handles one request of a connection at a time, so nothing sent on this one
        # would be heard before the request that has timed out.
        if isinstance(error, TimeoutError | asyncio.TimeoutError):
            self._cluster.drop(node)
        self._stumbled()
        for lane, batch in sending:
            batch.sent = False
            batch.unsure = True
            if lane.batch is batch:
                self._again(lane, "broker_down", error)

    def _stumbled(self) -> None:
        self._on_trouble()
        self.directory.refresh()

    def _again(self, lane: Lane, reason: str, cause: BaseException | str) -> None:
        """Hold the lane until its next attempt, or fail what has no time left for one."""
        delay = min(_MAX_BACKOFF, _BACKOFF * 2 ** min(lane.attempts, 8))
        delay *= random.uniform(0.5, 1.0)  # noqa: S311 - it spreads attempts, it is no secret
        batch = lane.batch
        if batch is not None and self._loop.time() + delay >= batch.deadline:
            self._fail_batch(lane, batch, Unavailable, reason, cause)
        self._expire(lane.topic, lane.queue, reason, cause)
        if lane.batch is None and not lane.queue:
            self._rest(lane)
            return
        lane.attempts += 1
        lane.state = LaneState.HELD
        lane.timer = self._loop.call_later(delay, self._make_ready, lane)

    def _rest(self, lane: Lane) -> None:
        """The lane's batch is settled: go on with the queue, or be idle."""
        lane.batch = None
        lane.attempts = 0
        if lane.queue:
            self._make_ready(lane)
            return
        lane.state = LaneState.IDLE
        self._active.discard(lane)

    def _sweep(self) -> None:
        """Fail what waits past its deadline, and look after requests that take long."""
        self._sweeper = None
        if self._in_flight.count == 0:
            return
        self._sweeper = self._loop.call_later(_SWEEP_EVERY, self._sweep)
        for topic in self.directory:
            self._expire(topic, topic.parked)
        for lane in self._active:
            self._expire(lane.topic, lane.queue)
        late = self._loop.time() - _SUSPICIOUS_AFTER
        for node, flight in self._flights.items():
            if flight.since > late:
                continue
            self.directory.refresh()
            # A node that leads none of these partitions any more can acknowledge nothing.
            if all(lane.leader not in (node, -1) for lane in flight.lanes):
                self._cluster.drop(node)

    def _expire(
        self,
        topic: Topic,
        queue: deque[Record],
        reason: str = "timeout",
        cause: BaseException | str = "",
    ) -> None:
        now = self._loop.time()
        expired = []
        while queue and queue[0].deadline <= now:
            expired.append(queue.popleft())
        self._in_flight.fail(expired, topic.name, Unavailable, reason, cause)

    def _fail_parked(
        self, topic: Topic, outcome: type[BrokerError], reason: str, cause: str = ""
    ) -> None:
        parked, topic.parked = topic.parked, deque()
        self._in_flight.fail(parked, topic.name, outcome, reason, cause)

    def _fail_lane(
        self, lane: Lane, outcome: type[BrokerError], reason: str, cause: str = ""
    ) -> None:
        if lane.batch is not None:
            self._fail_batch(lane, lane.batch, outcome, reason, cause)
        queue, lane.queue = lane.queue, deque()
        self._in_flight.fail(queue, lane.topic.name, outcome, reason, cause)
        if lane.timer is not None:
            lane.timer.cancel()
        self._ready.pop(lane, None)
        self._rest(lane)

    def _fail_batch(
        self,
        lane: Lane,
        batch: Batch,
        outcome: type[BrokerError],
        reason: str,
        cause: BaseException | str,
    ) -> None:
        """`Unavailable` says that nothing was stored, so it is `Unknown` where that is not sure."""
        lane.batch = None
        if outcome is Unavailable and (batch.sent or batch.unsure):
            outcome, reason = Unknown, "no_ack"
        self._in_flight.fail(batch.records, lane.topic.name, outcome, reason, cause)
