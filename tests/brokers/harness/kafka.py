"""A real Kafka, read back by aiokafka's consumer."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from gateway.brokers.base import Broker, Receipt, Unavailable
from gateway.brokers.kafka import KafkaBroker
from gateway.config.models import KafkaConfig
from tests.brokers.harness.base import PATIENCE, Harness, Options, Place, Record, Subject, Traits
from tests.servers.kafka import KafkaAt, KafkaServer

_PARTITIONS = 3


class KafkaHarness(Harness):
    """One Kafka; its process can be controlled where it is the test's own."""

    traits = Traits(
        keyed=True,
        ordered_headers=True,
        missing=(Unavailable, "no_topic"),
        invalid=("", "a b", "a\nb", "..", "a" * 250, "ä"),
    )

    def __init__(self, server: KafkaAt | KafkaServer) -> None:
        super().__init__()
        self._server = server

    def make(self, options: Options, subject: Subject) -> Broker:
        config = KafkaConfig(
            kind="kafka",
            servers=(self._server.bootstrap,),
            max_in_flight=options.max_in_flight,
            max_in_flight_bytes=options.max_in_flight_bytes,
            request_timeout=options.request_timeout,
        )
        return KafkaBroker("contract", config, subject.listen)

    async def destination(self, name: str | None = None) -> str:
        return await self._server.create_topic(name or uuid.uuid4().hex, _PARTITIONS)

    async def missing(self) -> str:
        return uuid.uuid4().hex

    async def read(self, destination: str, at_least: int) -> list[Record]:
        partitions = [TopicPartition(destination, number) for number in range(_PARTITIONS)]
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._server.bootstrap, enable_auto_commit=False
        )
        found: list[Any] = []
        await consumer.start()
        try:
            consumer.assign(partitions)
            await consumer.seek_to_beginning(*partitions)
            async with asyncio.timeout(PATIENCE):
                while len(found) < at_least or not await _at_end(consumer, partitions):
                    for batch in (await consumer.getmany(timeout_ms=100)).values():
                        found += batch
        finally:
            await consumer.stop()
        return [_record(one) for one in sorted(found, key=lambda one: (one.partition, one.offset))]

    def place(self, receipt: Receipt) -> Place | None:
        return receipt.partition, receipt.offset

    @property
    def _process(self) -> KafkaServer:
        assert isinstance(self._server, KafkaServer), "others use this server too"
        return self._server

    async def start_server(self) -> None:
        await asyncio.to_thread(self._process.start)

    async def stop_server(self) -> None:
        await asyncio.to_thread(self._process.stop)

    async def kill_server(self) -> None:
        self._process.kill()

    async def pause_server(self) -> None:
        self._process.pause()

    async def resume_server(self) -> None:
        self._process.resume()


async def _at_end(consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> bool:
    ends = await consumer.end_offsets(partitions)
    return all([await consumer.position(one) >= end for one, end in ends.items()])


def _record(found: Any) -> Record:
    headers = tuple((name, value.decode()) for name, value in found.headers)
    key = None if found.key is None else found.key.decode()
    return Record(found.value, headers, key, (found.partition, found.offset))
