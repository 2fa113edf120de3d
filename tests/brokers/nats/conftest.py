"""Brokers under test that end with their test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from gateway.brokers.base import State
from gateway.brokers.nats import NatsBroker
from gateway.config.models import NatsConfig
from tests.brokers.nats.support import Started, wait_for

Starter = Callable[..., Awaitable[Started]]


@pytest.fixture
async def start() -> AsyncIterator[Starter]:
    """Start a broker: `await start(url, request_timeout=1.0)`; waits until it is up."""
    brokers: list[NatsBroker] = []

    async def start_one(*urls: str, until: State | None = State.UP, **config: Any) -> Started:
        states: list[State] = []
        broker = NatsBroker(
            "bus",
            NatsConfig.model_validate({"kind": "nats", "servers": urls, **config}),
            lambda _, state: states.append(state),
        )
        brokers.append(broker)
        await broker.start()
        if until is not None:
            await wait_for(lambda: broker.state is until)
        return Started(broker, states)

    yield start_one
    await asyncio.gather(*(broker.close(0) for broker in brokers))
