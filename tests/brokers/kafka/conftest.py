"""Brokers under test that end with their test, and clients that are not ours to check them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from gateway.brokers.base import Need, State
from gateway.brokers.kafka import KafkaBroker
from gateway.config.models import KafkaConfig
from tests.brokers.kafka.support import Started, wait_for

Starter = Callable[..., Awaitable[Started]]


@pytest.fixture
async def start() -> AsyncIterator[Starter]:
    """Start a broker: `await start("localhost:9092", linger=0.1)`; waits until it is up."""
    brokers: list[KafkaBroker] = []

    async def start_one(
        bootstrap: str,
        *,
        needs: tuple[Need, ...] = (),
        until: State | None = State.UP,
        **config: Any,
    ) -> Started:
        states: list[State] = []
        broker = KafkaBroker(
            "events",
            KafkaConfig(kind="kafka", servers=(bootstrap,), **config),
            lambda _, state: states.append(state),
            needs,
        )
        brokers.append(broker)
        await broker.start()
        if until is not None:
            await wait_for(lambda: broker.state is until)
        return Started(broker, states)

    yield start_one
    await asyncio.gather(*(broker.close(0) for broker in brokers))
