"""Read back what arrives at topics, for `gateway tail` and `gateway dev`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from aiokafka import TopicPartition

from gateway.brokers.base import Arrival, Need, TailUnavailable
from gateway.brokers.kafka.connection import Cluster
from gateway.brokers.kafka.errors import CLIENT_ERRORS, connection_problem
from gateway.brokers.kafka.options import (
    ClientOptions,
    client_options,
    quiet_client_logs,
)
from gateway.brokers.kafka.reader import reader

if TYPE_CHECKING:
    from gateway.config.models import KafkaConfig

_CONNECT_WITHIN = 5.0
_ASK_WITHIN = 2.0
_CLOSE_WITHIN = 2.0
_NEW_TOPICS_EVERY = 2.0
_POLL_MS = 500


async def tail_topics(
    broker: str, config: KafkaConfig, needs: Sequence[Need]
) -> AsyncGenerator[Arrival, None]:
    """Follow the topics of `needs` from their ends, without a consumer group.

    A templated need takes every topic with its prefix; one that appears later is read from its
    beginning. Raises `TailUnavailable` when the cluster cannot be reached, `BrokerOptionsError` for
    options that cannot work.
    """
    quiet_client_logs()
    tail = _Tail(client_options(broker, config), needs)
    try:
        await tail.start()
    except CLIENT_ERRORS as error:
        problem = connection_problem(broker, error)
        raise TailUnavailable(broker, "*", "broker_down", problem) from error
    return tail


class _Tail(AsyncGenerator[Arrival, None]):
    """A generator by hand, so that closing it before its first record closes the connections."""

    def __init__(self, options: ClientOptions, needs: Sequence[Need]) -> None:
        self._options = options
        self._needs = tuple(needs)
        self._cluster = Cluster(options, on_lost=lambda: None)
        self._consumer = reader(options)
        self._next: dict[TopicPartition, int] = {}
        """The offset to read next, per partition."""
        self._arrived: deque[Arrival] = deque()
        self._look_again_at = 0.0
        self._closed = False

    async def start(self) -> None:
        """Connect and note where each partition ends."""
        try:
            await self._cluster.connect(_CONNECT_WITHIN)
            await self._consumer.start()
            partitions = await self._partitions()
            if partitions:
                self._assign(await self._consumer.end_offsets(list(partitions)))
        except BaseException:
            await self.aclose()
            raise
        self._look_again_at = asyncio.get_running_loop().time() + _NEW_TOPICS_EVERY

    async def asend(self, _: None) -> Arrival:
        """Wait for the next record."""
        try:
            while not self._arrived and not self._closed:
                await self._poll()
        except CLIENT_ERRORS as error:
            await self.aclose()
            problem = connection_problem(self._options.broker, error)
            raise TailUnavailable(self._options.broker, "*", "broker_down", problem) from error
        if self._closed:
            raise StopAsyncIteration
        return self._arrived.popleft()

    async def athrow(
        self,
        typ: type[BaseException] | BaseException,
        val: BaseException | object = None,
        _: TracebackType | None = None,
    ) -> Arrival:
        """Close, and raise what was thrown."""
        await self.aclose()
        if isinstance(val, BaseException):
            raise val
        raise typ

    async def aclose(self) -> None:
        """Disconnect. Idempotent."""
        if self._closed:
            return
        self._closed = True
        stopping = asyncio.ensure_future(self._consumer.stop())
        await asyncio.wait([stopping], timeout=_CLOSE_WITHIN)
        stopping.cancel()
        await self._cluster.close(_CLOSE_WITHIN)

    async def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() >= self._look_again_at:
            self._look_again_at = loop.time() + _NEW_TOPICS_EVERY
            # An outage is waited out here; the consumer does the same.
            with suppress(*CLIENT_ERRORS):
                await self._look_for_topics()
        if not self._next:
            await asyncio.sleep(_POLL_MS / 1000)
            return
        for partition, records in (await self._consumer.getmany(timeout_ms=_POLL_MS)).items():
            self._next[partition] = records[-1].offset + 1
            self._arrived += (_arrival(self._options.broker, record) for record in records)

    async def _look_for_topics(self) -> None:
        try:
            partitions = await self._partitions()
        except CLIENT_ERRORS:
            await self._cluster.connect(_CONNECT_WITHIN)
            partitions = await self._partitions()
        if partitions != self._next.keys():
            self._assign({partition: self._next.get(partition, 0) for partition in partitions})

    def _assign(self, offsets: dict[TopicPartition, int]) -> None:
        self._next = dict(offsets)
        # Assigning forgets where the consumer was.
        self._consumer.assign(list(offsets))
        for partition, offset in offsets.items():
            self._consumer.seek(partition, offset)

    async def _partitions(self) -> set[TopicPartition]:
        prefixes = tuple(need.destination for need in self._needs if need.templated)
        names = {need.destination for need in self._needs if not need.templated}
        views = await self._cluster.describe(None if prefixes else sorted(names), _ASK_WITHIN)
        return {
            TopicPartition(view.name, partition)
            for view in views
            if view.error == 0 and not view.internal
            if view.name in names or (prefixes and view.name.startswith(prefixes))
            for partition in range(len(view.leaders))
        }


def _arrival(broker: str, record: Any) -> Arrival:
    headers = ((name, (data or b"").decode(errors="replace")) for name, data in record.headers)
    return Arrival(
        broker=broker,
        destination=record.topic,
        value=record.value or b"",
        headers=tuple(headers),
        key=None if record.key is None else record.key.decode(errors="replace"),
        partition=record.partition,
        offset=record.offset,
    )
