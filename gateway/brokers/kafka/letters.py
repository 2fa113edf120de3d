"""Read dead letters back from their topic, from its beginning to its end as of the start."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import TopicAuthorizationFailedError

from gateway.brokers.base import Headers
from gateway.brokers.kafka.connection import Cluster
from gateway.brokers.kafka.errors import CLIENT_ERRORS, connection_problem, name_of
from gateway.brokers.kafka.letter_states import States, StateTopic
from gateway.brokers.kafka.options import (
    client_options,
    quiet_client_logs,
)
from gateway.brokers.kafka.reader import reader
from gateway.brokers.letters import Letter, LettersError, LettersUnavailable, Progress

if TYPE_CHECKING:
    from gateway.config.models import KafkaConfig

__all__ = ["KafkaLetters"]

_CONNECT_WITHIN = 5.0
_DESCRIBE_WITHIN = 5.0
_OFFSETS_WITHIN = 10.0
_CLOSE_WITHIN = 2.0
_POLL_MS = 500
_SILENT_AFTER = 15.0
"""Seconds without a record after which the cluster counts as gone."""
_AT_ONCE = 200
_JUMP = 1_000
"""Offsets between two wanted letters that are not read but jumped over."""
_UNKNOWN_TOPIC = 3
_DENIED = 29
_ID = re.compile(r"(\d{1,9})-(\d{1,18})")


class KafkaLetters:
    """The letters of one topic; fulfils `gateway.brokers.letters.Letters`."""

    def __init__(self, broker: str, config: KafkaConfig, topic: str) -> None:
        """Raise `BrokerOptionsError` for options that cannot work."""
        quiet_client_logs()
        self._options = client_options(broker, config)
        self._topic = topic
        self._cluster = Cluster(self._options, on_lost=lambda: None)
        self._consumer: AIOKafkaConsumer | None = None
        self._spans: dict[int, tuple[int, int]] = {}
        """First offset and the one after the last, per partition."""
        self._states = States()
        self._state_topic = StateTopic(self._options, self._cluster, f"{topic}.state")

    async def open(self) -> None:
        """See `Letters.open`."""
        try:
            await self._cluster.connect(_CONNECT_WITHIN)
            replicas = await self._describe()
            self._consumer = reader(self._options)
            await self._consumer.start()
            self._spans = await _spans(self._consumer, self._topic, list(self._spans))
            await self._state_topic.look(replicas)
            self._states = await self._read_states(self._consumer)
        except CLIENT_ERRORS as error:
            raise self._failed(error) from error

    async def read(self, ids: Collection[str] | None = None) -> AsyncIterator[Letter]:
        """See `Letters.read`."""
        consumer = self._consumer
        if consumer is None:
            raise RuntimeError("open comes first")
        wanted = None if ids is None else _by_partition(ids)
        for partition, (start, end) in self._spans.items():
            offsets = None if wanted is None else wanted.get(partition, [])
            at = TopicPartition(self._topic, partition)
            try:
                async for record in _records(consumer, at, start, end, offsets):
                    yield self._letter(record)
            except CLIENT_ERRORS as error:
                raise self._failed(error) from error

    async def prepare(self) -> None:
        """See `Letters.prepare`: also forgets what was kept of letters that have left the topic."""
        firsts = {partition: start for partition, (start, _) in self._spans.items()}
        gone = self._states.before(firsts)
        try:
            await self._state_topic.prepare(gone)
        except CLIENT_ERRORS as error:
            raise self._failed(error) from error

    async def keep(self, letter: Letter, progress: Progress) -> None:
        """See `Letters.keep`."""
        try:
            await self._state_topic.write(letter.id, _name_of(letter.headers), progress)
        except CLIENT_ERRORS as error:
            raise self._failed(error) from error

    async def close(self) -> None:
        """See `Letters.close`."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            stopping = asyncio.ensure_future(consumer.stop())
            await asyncio.wait([stopping], timeout=_CLOSE_WITHIN)
            stopping.cancel()
        await self._state_topic.close(_CLOSE_WITHIN)
        with suppress(*CLIENT_ERRORS):
            await self._cluster.close(_CLOSE_WITHIN)

    async def _describe(self) -> int:
        """Note the topic's partitions; give how many replicas it has."""
        (view,) = await self._cluster.describe([self._topic], _DESCRIBE_WITHIN)
        if view.error == _DENIED:
            raise self._denied()
        if view.error == _UNKNOWN_TOPIC:
            problem = "the topic does not exist"
            raise LettersError(
                self._options.broker,
                self._topic,
                problem,
                "create it, or correct delivery.dead_letter; it holds no letters yet",
            )
        if view.error:
            raise LettersUnavailable(
                self._options.broker, self._topic, "broker_error", name_of(view.error)
            )
        self._spans = dict.fromkeys(range(len(view.leaders)), (0, 0))
        return view.replicas

    async def _read_states(self, consumer: AIOKafkaConsumer) -> States:
        name = self._state_topic.name
        spans = await _spans(consumer, name, list(range(self._state_topic.partitions)))
        states = States()
        try:
            for partition, (start, end) in spans.items():
                at = TopicPartition(name, partition)
                async for record in _records(consumer, at, start, end, None):
                    states.take(record.key, record.value)
        except TopicAuthorizationFailedError as error:
            raise self._state_topic.denied("read", "READ") from error
        return states

    def _letter(self, record: Any) -> Letter:
        pairs = ((name, (data or b"").decode(errors="replace")) for name, data in record.headers)
        headers = tuple(pairs)
        return Letter(
            id=f"{record.partition}-{record.offset}",
            value=record.value or b"",
            headers=headers,
            key=None if record.key is None else record.key.decode(errors="replace"),
            stored_at=record.timestamp / 1000,
            progress=self._states.of(record.partition, record.offset, _name_of(headers)),
        )

    def _failed(self, error: BaseException) -> Exception:
        if isinstance(error, TopicAuthorizationFailedError):
            return self._denied()
        broker = self._options.broker
        problem = connection_problem(broker, error)
        return LettersUnavailable(broker, self._topic, "broker_down", problem)

    def _denied(self) -> LettersError:
        problem = "the login may not read the topic"
        return LettersError(
            self._options.broker, self._topic, problem, "grant DESCRIBE and READ on it"
        )


async def _spans(
    consumer: AIOKafkaConsumer, topic: str, partitions: list[int]
) -> dict[int, tuple[int, int]]:
    """First offset and the one after the last of each partition."""
    if not partitions:
        return {}
    places = [TopicPartition(topic, partition) for partition in partitions]
    consumer.assign(places)
    async with asyncio.timeout(_OFFSETS_WITHIN):
        starts = await consumer.beginning_offsets(places)
        ends = await consumer.end_offsets(places)
    return {place.partition: (starts[place], ends[place]) for place in places}


async def _records(
    consumer: AIOKafkaConsumer,
    at: TopicPartition,
    start: int,
    end: int,
    offsets: Sequence[int] | None,
) -> AsyncIterator[Any]:
    """Read a partition from `start` up to `end`, or only `offsets` of it, which are in order."""
    loop = asyncio.get_running_loop()
    wanted = None if offsets is None else deque(one for one in offsets if start <= one < end)
    position = start if wanted is None else (wanted[0] if wanted else end)
    if position >= end:
        return
    consumer.assign([at])
    consumer.seek(at, position)
    heard = loop.time()
    while position < end and wanted != deque():
        found = await consumer.getmany(at, timeout_ms=_POLL_MS, max_records=_AT_ONCE)
        for record in found.get(at, ()):
            if record.offset >= end:
                return
            if wanted is None or _is_next(wanted, record.offset):
                yield record
        before, position = position, await consumer.position(at)
        if position > before:
            heard = loop.time()
        elif loop.time() - heard > _SILENT_AFTER:
            raise TimeoutError
        if wanted and wanted[0] > position + _JUMP:
            position = wanted[0]
            consumer.seek(at, position)


def _is_next(wanted: deque[int], offset: int) -> bool:
    """Whether the letter at an offset is wanted; what is not there any more is passed over."""
    while wanted and wanted[0] < offset:
        wanted.popleft()
    if not wanted or wanted[0] != offset:
        return False
    wanted.popleft()
    return True


def _by_partition(ids: Collection[str]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for name in ids:
        match = _ID.fullmatch(name)
        if match is not None:
            found.setdefault(int(match[1]), []).append(int(match[2]))
    return {partition: sorted(set(offsets)) for partition, offsets in found.items()}


def _name_of(headers: Headers) -> str:
    """Name a letter's event: what its state belongs to."""
    known = dict(headers)
    return f"{known.get('gateway-source', '')} {known.get('svix-id', '')}"
