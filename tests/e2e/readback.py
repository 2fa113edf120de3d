"""Reads brokers by their own clients, and not by any code of the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import nats
from aiokafka import AIOKafkaConsumer
from nats.aio.client import Client
from nats.js.api import RawStreamMsg, StreamConfig

_PATIENCE = 40.0


@dataclass(frozen=True)
class Stored:
    """One message of a stream."""

    subject: str
    data: bytes
    headers: dict[str, str]
    seq: int


async def kafka_records(bootstrap: str, *topics: str, **login: Any) -> list[Any]:
    """Give all records of topics by partition and offset, as aiokafka reads them."""
    consumer = AIOKafkaConsumer(
        *topics,
        bootstrap_servers=bootstrap,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        **login,
    )
    records: list[Any] = []
    await consumer.start()
    try:
        async with asyncio.timeout(_PATIENCE):
            ends = await consumer.end_offsets(list(consumer.assignment()))
            for partition, end in ends.items():
                while await consumer.position(partition) < end:
                    for batch in (await consumer.getmany(timeout_ms=200)).values():
                        records += batch
    finally:
        await consumer.stop()
    return sorted(records, key=lambda record: (record.topic, record.partition, record.offset))


@asynccontextmanager
async def nats_client(url: str, **login: Any) -> AsyncIterator[Client]:
    """Give a connected nats-py client."""
    client = await nats.connect(url, connect_timeout=10, **login)
    try:
        yield client
    finally:
        await client.close()


async def create_stream(
    url: str, name: str, *subjects: str, login: Mapping[str, Any] | None = None, **settings: Any
) -> str:
    """Create a stream and give its name back."""
    async with nats_client(url, **(login or {})) as client:
        config = StreamConfig(name=name, subjects=list(subjects), **settings)
        await client.jetstream().add_stream(config)
    return name


async def stream_messages(url: str, stream: str, **login: Any) -> list[Stored]:
    """Give all messages of a stream, in order."""
    async with nats_client(url, **login) as client:
        manager = client.jetstream()
        state = (await manager.stream_info(stream)).state
        if not state.messages:
            return []
        return [
            _stored(await manager.get_msg(stream, seq))
            for seq in range(state.first_seq, state.last_seq + 1)
        ]


async def stream_count(url: str, stream: str) -> int:
    """Give how many messages a stream has taken."""
    async with nats_client(url) as client:
        return (await client.jetstream().stream_info(stream)).state.last_seq


def _stored(message: RawStreamMsg) -> Stored:
    return Stored(
        message.subject or "", message.data or b"", message.headers or {}, message.seq or 0
    )
