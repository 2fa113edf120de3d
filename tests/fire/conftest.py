"""The field of each row, and what all rows come to, for the end of the run."""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import conftest as e2e
from tests.fire.field import Field, Result
from tests.fire.fight import Fight
from tests.fire.load import SENDERS
from tests.servers.kafka import KafkaServer
from tests.servers.nats import NatsServer
from tests.servers.process import LOOPBACK, free_port

TALLY = pytest.StashKey["Tally"]()
Reckon = Callable[[Fight], None]
SEED = int(os.environ.get("FIRE_SEED") or secrets.randbelow(1 << 32))
"""Of the instants at which processes are killed; what runs beside them is as it comes."""
gateways = e2e.gateways


@dataclass
class Tally:
    """What the rows came to, so far."""

    lines: list[str] = field(default_factory=list)
    kills: int = 0
    events: int = 0
    answered: int = 0
    lost: int = 0
    duplicates: int = 0

    def add(self, what: str, result: Result, kills: int) -> None:
        """Count a row in."""
        self.lines.append(result.line(what, kills))
        self.kills += kills
        self.events += result.events
        self.answered += result.answered
        self.lost += len(result.lost)
        self.duplicates += result.duplicates

    def line(self) -> str:
        """Tell it in one line."""
        return (
            f"fire: {self.kills} kills, {self.events:,} events, {self.answered:,} answered,"
            f" {self.lost} lost, {self.duplicates} duplicates (seed {SEED})"
        )


@pytest.fixture(scope="session")
def tally(pytestconfig: pytest.Config) -> Tally:
    """Give what is counted; asking for it makes the lines appear."""
    return pytestconfig.stash.setdefault(TALLY, Tally())


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the counts, also in a quiet run."""
    tally = config.stash.get(TALLY, None)
    if tally is not None:
        for line in (*tally.lines, tally.line()):
            terminalreporter.write_line(line)


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Give the row's own random numbers, which the seed decides."""
    return random.Random(f"{SEED} {request.node.name}")  # noqa: S311 - no secret


@dataclass(frozen=True)
class ProxiedKafka:
    """A Kafka with a second listener, whose address it tells as that of a proxy."""

    server: KafkaServer
    proxy_port: int
    behind: int
    """The port of the listener itself."""


@pytest.fixture(scope="session")
def fire_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxiedKafka]:
    """Hold the Kafka that the rows break, one after the other."""
    port = free_port()
    # After a kill the controller takes the node back once its session is over: 9 s by default.
    properties = {"broker.session.timeout.ms": "3000", "broker.heartbeat.interval.ms": "500"}
    server = KafkaServer(
        tmp_path_factory.mktemp("fire-kafka"),
        listeners={"PROXIED": "PLAINTEXT"},
        properties=properties,
    )
    told = f"PLAINTEXT://{server.address('PLAINTEXT')},PROXIED://{LOOPBACK}:{port}"
    server.set_property("advertised.listeners", told)
    with server:
        behind = int(server.address("PROXIED").rpartition(":")[2])
        yield ProxiedKafka(server, port, behind)


@pytest.fixture
def kafka(fire_kafka: ProxiedKafka) -> Iterator[KafkaServer]:
    """Give a running Kafka that the row may stop, freeze, kill and start again."""
    fire_kafka.server.start()
    yield fire_kafka.server
    fire_kafka.server.resume()


MODES = ("direct", "inbox")


@pytest.fixture(params=MODES)
def delivery(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Give the config's `delivery`, once for each mode."""
    if request.param == "direct":
        return {"mode": "direct"}
    return {"mode": "inbox", "inbox": {"path": str(tmp_path / "inbox.db")}}


@pytest.fixture
async def ground(
    kafka: KafkaServer,
    own_nats: NatsServer,
    gateways: e2e.Start,
    unique: Callable[[str], str],
    delivery: dict[str, Any],
) -> Field:
    """Give a field with running brokers and destinations, and no gateway yet."""
    ground = Field(kafka, own_nats, gateways, unique("fire"), delivery)
    await ground.lay()
    return ground


@pytest.fixture
def reckon(request: pytest.FixtureRequest, tally: Tally) -> Reckon:
    """Count a row in, and assert what holds for every row."""

    def reckon(row: Fight) -> None:
        tally.add(request.node.name, row.came_to, row.kills)
        assert row.came_to.lost == []
        assert row.came_to.unexplained == []
        assert row.came_to.answered == row.came_to.events, "in the end each is taken"
        if not row.ground.is_direct:
            # What was on its way when something broke: one record of each user and broker.
            most = sum(map(len, row.breaks.values())) * SENDERS
            assert row.came_to.duplicates <= most
            assert row.load.words["200 stored"] + row.load.words["200 duplicate"] == row.load.taken

    return reckon
