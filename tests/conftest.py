"""What every test can ask for: real brokers, names of its own, and one hypothesis profile."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests import outputs
from tests.servers.kafka import KafkaAt, KafkaServer, SecureKafka, secure_kafka
from tests.servers.kafka.jars import jars
from tests.servers.nats import NatsServer
from tests.servers.process import ServerError

KAFKA_ADDRESS = os.environ.get("GATEWAY_TEST_KAFKA")
KAFKA_FIXTURES = {"fire_kafka", "kafka_server", "own_kafka", "secured_kafka"}

settings.register_profile("laptop", deadline=None)
# The same examples on every run: what fails on the build server fails again when it is repeated.
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "laptop")


def pytest_configure(config: pytest.Config) -> None:
    """Gather what the suite writes: no secret may be in it."""
    outputs.register(config)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fetch Kafka before the first test, whose own time limit a slow line would exceed."""
    wanted = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    if wanted & KAFKA_FIXTURES and not session.config.option.collectonly:
        # The fixture fails with the same message, and with a test to show it under.
        with suppress(ServerError):
            jars()


@pytest.fixture
def unique() -> Callable[[str], str]:
    """Make a name that no other test has: `unique("users")` for a topic, stream or subject."""
    return lambda prefix: f"{prefix}-{secrets.token_hex(6)}"


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaAt]:
    """Give the Kafka that all tests share: none may stop it, each uses topics of its own."""
    if KAFKA_ADDRESS:
        yield KafkaAt(KAFKA_ADDRESS)
        return
    with KafkaServer(tmp_path_factory.mktemp("kafka")) as server:
        yield KafkaAt(server.bootstrap)


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """Give the nats-server with JetStream that all tests share: none may stop it."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture(scope="session")
def breakable_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """Hold the process behind `own_kafka`."""
    # After a kill the controller takes the node back once its session is over: 9 s by default.
    sooner = {"broker.session.timeout.ms": "3000", "broker.heartbeat.interval.ms": "500"}
    with KafkaServer(tmp_path_factory.mktemp("own-kafka"), properties=sooner) as server:
        yield server


@pytest.fixture
def own_kafka(breakable_kafka: KafkaServer) -> Iterator[KafkaServer]:
    """Give a running Kafka that the test may stop, freeze, kill and start again."""
    breakable_kafka.start()
    yield breakable_kafka
    breakable_kafka.resume()


@pytest.fixture
def own_nats(new_nats: Callable[..., NatsServer]) -> NatsServer:
    """Give a running nats-server that the test may stop, freeze, kill and start again."""
    return new_nats()


@pytest.fixture
def new_nats(tmp_path: Path) -> Iterator[Callable[..., NatsServer]]:
    """Start nats-servers of the test's own: `new_nats(options={"max_payload": 4096})`."""
    servers: list[NatsServer] = []

    def start(**arguments: Any) -> NatsServer:
        server = NatsServer(tmp_path / f"nats-{len(servers)}", **arguments)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.kill()


@pytest.fixture(scope="session")
def secured_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    """Give a running Kafka with TLS, SASL and an authorizer, shared like `kafka_server`."""
    secured = secure_kafka(tmp_path_factory.mktemp("secure-kafka"))
    with secured.server:
        yield secured
