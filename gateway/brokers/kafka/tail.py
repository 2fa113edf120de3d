"""Read back what arrives at topics, for `gateway tail` and `gateway dev`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer

from gateway.brokers.base import Arrival, Need, Unavailable
from gateway.brokers.kafka.connection import Cluster
from gateway.brokers.kafka.errors import CLIENT_ERRORS, connection_problem, failure
from gateway.brokers.kafka.options import CLIENT_ID, ClientOptions, client_options

if TYPE_CHECKING:
    from gateway.config.models import KafkaConfig

_CONNECT_WITHIN = 5.0
_CLOSE_WITHIN = 2.0
_NEW_TOPICS_EVERY_MS = 2000
_REQUEST_TIMEOUT_MS = 10_000


async def tail_topics(
    broker: str, config: KafkaConfig, needs: Sequence[Need]
) -> AsyncIterator[Arrival]:
    """Yield the records that arrive at the topics of `needs` from now on, without a group.

    A templated need takes every topic with its prefix, later ones too. Raises `Unavailable` when
    the cluster cannot be reached, `BrokerOptionsError` for options that cannot work.
    """
    options = client_options(broker, config)
    await _reach(options)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=[f"{host}:{port}" for host, port in options.servers],
        client_id=CLIENT_ID,
        group_id=None,
        auto_offset_reset="latest",
        enable_auto_commit=False,
        metadata_max_age_ms=_NEW_TOPICS_EVERY_MS,
        request_timeout_ms=_REQUEST_TIMEOUT_MS,
        **options.security,
    )
    # A pattern, because subscribing to a name would create a topic that does not exist.
    consumer.subscribe(pattern=_pattern(needs))
    try:
        await consumer.start()
        async for record in consumer:
            yield _arrival(broker, record)
    except CLIENT_ERRORS as error:
        raise failure(Unavailable, broker, "*", "broker_down", error) from error
    finally:
        await asyncio.wait([asyncio.ensure_future(consumer.stop())], timeout=_CLOSE_WITHIN)


async def _reach(options: ClientOptions) -> None:
    """Fail in words when the cluster cannot be reached: the consumer keeps the cause to itself."""
    cluster = Cluster(options, on_lost=lambda: None)
    try:
        await cluster.connect(_CONNECT_WITHIN)
    except CLIENT_ERRORS as error:
        problem = connection_problem(options.broker, error)
        raise Unavailable(options.broker, "*", "broker_down", problem) from error
    finally:
        await cluster.close(_CLOSE_WITHIN)


def _pattern(needs: Sequence[Need]) -> str:
    names = [re.escape(need.destination) + (".*" if need.templated else "") for need in needs]
    return f"(?:{'|'.join(names)})\\Z"


def _arrival(broker: str, record: Any) -> Arrival:
    return Arrival(
        broker=broker,
        destination=record.topic,
        value=record.value or b"",
        headers=tuple(
            (name, (data or b"").decode(errors="replace")) for name, data in record.headers
        ),
        key=None if record.key is None else record.key.decode(errors="replace"),
        partition=record.partition,
        offset=record.offset,
    )
