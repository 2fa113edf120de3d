"""Gateways for the tests: started when asked for, read and ended with the test or the module."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.locks import Doors, kafka_doors, nats_doors
from tests.e2e.readback import create_stream
from tests.e2e.rows import LETTERS, MAX_PAYLOAD, STREAM, Bus
from tests.servers.kafka import SecureKafka
from tests.servers.nats import NatsServer

Start = Callable[..., GatewayProcess]


@pytest.fixture
def gateways(tmp_path: Path) -> Iterator[Start]:
    """Prepare gateways of the test's own, started unless `start=False`: `gateways(config)`."""
    yield from _gateways(tmp_path)


@pytest.fixture(scope="module")
def module_gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Prepare gateways that the tests of one module share."""
    yield from _gateways(tmp_path_factory.mktemp("gateways"))


def _gateways(directory: Path) -> Iterator[Start]:
    made: list[GatewayProcess] = []

    def prepare(
        config: dict[str, Any], workers: int = 1, *options: str, start: bool = True
    ) -> GatewayProcess:
        gateway = GatewayProcess(directory / f"gateway-{len(made)}", config, workers, options)
        made.append(gateway)
        if start:
            gateway.start()
        return gateway

    yield prepare
    try:
        for gateway in made:
            gateway.end()
    finally:
        for gateway in made:
            gateway.kill()


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bus]:
    """Give the broker of the contract's rows, for one module."""
    options = {"max_payload": MAX_PAYLOAD}
    with NatsServer(tmp_path_factory.mktemp("nats"), options=options) as server:
        asyncio.run(create_stream(server.url, STREAM, "rows.>", LETTERS))
        yield Bus(server.url)


@pytest.fixture(scope="session")
def doors(tmp_path_factory: pytest.TempPathFactory, secured_kafka: SecureKafka) -> Iterator[Doors]:
    """Give a broker behind every kind of lock; the tests of several modules share them."""
    directory = tmp_path_factory.mktemp("doors")
    started: list[NatsServer] = []

    def start(options: dict[str, Any]) -> NatsServer:
        server = NatsServer(directory / f"nats-{len(started)}", options=options)
        started.append(server)
        server.start()
        return server

    doors = Doors(secured_kafka.certificates, secured_kafka, directory / "secrets", start)
    doors.directory.mkdir()
    try:
        kafka_doors(doors)
        nats_doors(doors)
        yield doors
    finally:
        for server in started:
            server.kill()
