"""`gateway tail`: shows what arrives in real brokers, whoever published it through the gateway."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.canaries import CANARY
from tests.commands.command import GATEWAY, Running, gateway, write_config
from tests.e2e.client import Client, event, signed
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.readback import create_stream
from tests.servers.kafka import KafkaAt
from tests.servers.nats import NatsServer
from tests.servers.process import LOOPBACK, free_port

READY = "waiting for events"


@dataclass
class Site:
    """A running gateway with three targets, and tails that watch them."""

    process: GatewayProcess
    directory: Path
    topic: str
    tails: list[Running]

    def tail(self, *options: str) -> Running:
        """Start a tail and wait until it misses nothing."""
        command = ("tail", "--config", self.process.config, *options)
        tail = Running(self.directory / f"tail-{len(self.tails)}", READY, *command)
        self.tails.append(tail)
        tail.start()
        return tail

    def send(self, *event_types: str) -> list[str]:
        """Post an event of each type; give their ids."""
        return asyncio.run(self._send(event_types))

    async def _send(self, event_types: tuple[str, ...]) -> list[str]:
        ids = []
        async with Client(self.process) as client:
            await client.until_ready()
            for event_type in event_types:
                body = event(event_type)
                headers = signed(body)
                assert (await client.post(body, headers)).word == (200, "delivered")
                ids.append(headers["svix-id"])
        return ids


@pytest.fixture
def site(
    tmp_path: Path, kafka_server: KafkaAt, nats_server: NatsServer, unique: Callable[[str], str]
) -> Iterator[Site]:
    """Give a gateway: users to Kafka and JetStream, sessions to core NATS."""
    topic = asyncio.run(kafka_server.create_topic(unique("tail"), 3))
    asyncio.run(create_stream(nats_server.url, topic, f"{topic}.>"))
    both = [
        {"broker": "events", "topic": topic},
        {"broker": "bus", "subject": f"{topic}.{{type}}"},
    ]
    core = [{"broker": "core", "subject": f"core-{topic}.{{type}}"}]
    config = {
        "brokers": {
            "events": {"kind": "kafka", "servers": [kafka_server.bootstrap]},
            "bus": {"kind": "nats", "servers": [nats_server.url]},
            "core": {"kind": "nats", "servers": [nats_server.url], "jetstream": False},
        },
        "routes": [
            {"name": "users", "events": ["user.*"], "targets": both},
            {"name": "sessions", "events": ["session.*"], "targets": core},
        ],
    }
    with GatewayProcess(tmp_path / "gateway", config) as process:
        site = Site(process, tmp_path, topic, [])
        yield site
        for tail in site.tails:
            tail.kill()
        process.end()


def test_text(site: Site) -> None:
    tail = site.tail()
    user, session = site.send("user.created", "session.created")
    tail.until_written(session)
    written = tail.until_written(user, times=2)
    lines = [line for line in written.splitlines() if READY not in line]
    places = {
        f"events/{site.topic} partition ": "user.created",
        f"bus/{site.topic}.user.created stream {site.topic} seq 1": "user.created",
        f"core/core-{site.topic}.session.created": "session.created",
    }
    assert len(lines) == 3
    for place, event_type in places.items():
        (line,) = (line for line in lines if place in line)
        assert event_type in line
        assert "key user_1" in line
    # The value holds personal data and is not shown.
    assert CANARY not in written
    assert tail.end() in {0, 130}
    assert "Traceback" not in tail.written


@pytest.mark.shows_payload("`tail --format json` shows payloads by contract")
def test_json_has_the_whole_record(site: Site) -> None:
    tail = site.tail("--format", "json")
    (svix_id,) = site.send("user.created")
    written = tail.until_written(svix_id + '"', times=4)
    records = [json.loads(line) for line in written.splitlines() if line.startswith("{")]
    found: dict[str, dict[str, Any]] = {record["broker"]: record for record in records}
    assert sorted(found) == ["bus", "events"]
    for record in records:
        assert json.loads(record["value"])["data"]["first_name"] == CANARY
        assert ["svix-id", svix_id] in record["headers"]
    kafka, jetstream = found["events"], found["bus"]
    assert (kafka["destination"], kafka["key"], kafka["offset"]) == (site.topic, "user_1", 0)
    assert kafka["partition"] in range(3)
    assert ["ce_type", "user.created"] in kafka["headers"]
    assert (jetstream["stream"], jetstream["seq"]) == (site.topic, 1)
    assert jetstream["destination"] == f"{site.topic}.user.created"
    assert ["ce-type", "user.created"] in jetstream["headers"]


def test_one_route(site: Site) -> None:
    tail = site.tail("--route", "sessions")
    user, session = site.send("user.created", "session.created")
    again, last = site.send("user.updated", "session.ended")
    written = tail.until_written(last)
    assert session in written
    assert user not in written
    assert again not in written


def test_a_route_that_is_not_there(site: Site) -> None:
    config = ("--config", site.process.config)
    done = gateway("tail", *config, "--route", "userz", cwd=site.directory)
    assert done.code == 2
    assert "there is no route userz; the config has users, sessions" in done.err


def test_what_was_there_before_is_not_shown(site: Site) -> None:
    (before,) = site.send("user.created")
    tail = site.tail()
    (after,) = site.send("user.updated")
    assert before not in tail.until_written(after, times=2)
    assert tail.end(signal.SIGTERM) in {0, 143, -signal.SIGTERM}


def test_a_reader_that_leaves_ends_it_in_peace(site: Site) -> None:
    command = [*GATEWAY, "tail", "--config", str(site.process.config), "--format", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as tail:
        assert tail.stdout
        assert tail.stderr
        assert READY in tail.stderr.readline().decode()
        tail.stdout.close()
        site.send("user.created", "user.created")
        complaint = tail.stderr.read().decode()
        assert tail.wait(60) in {0, 1, 141, -signal.SIGPIPE}
    assert complaint == ""


def test_a_broker_that_goes_away_ends_it(
    tmp_path: Path, own_nats: NatsServer, unique: Callable[[str], str]
) -> None:
    name = unique("gone")
    asyncio.run(create_stream(own_nats.url, name, f"{name}.>"))
    brokers = {"bus": {"kind": "nats", "servers": [own_nats.url]}}
    target = {"broker": "bus", "subject": f"{name}.users"}
    routes = [{"name": "all", "events": ["*"], "targets": [target]}]
    path = write_config(tmp_path, {"brokers": brokers, "routes": routes})
    with Running(tmp_path / "tail", READY, "tail", "--config", path) as tail:
        own_nats.kill()
        assert tail.exit_code() == 3
        assert "error: bus: could not read from *: broker_down (" in tail.written
        assert "Traceback" not in tail.written


@pytest.mark.parametrize("kind", ["kafka", "nats"])
def test_a_broker_that_is_away(tmp_path: Path, kind: str) -> None:
    address = f"{LOOPBACK}:{free_port()}"
    kafka = kind == "kafka"
    broker = {"kind": kind, "servers": [address if kafka else f"nats://{address}"]}
    target = {"broker": "away", "topic" if kafka else "subject": "clerk.users"}
    routes = [{"name": "all", "events": ["*"], "targets": [target]}]
    path = write_config(tmp_path, {"brokers": {"away": broker}, "routes": routes})
    done = gateway("tail", "--config", path, cwd=tmp_path)
    assert done.code == 3
    assert "error: away: could not read from *: broker_down (" in done.err
    assert READY not in done.err
