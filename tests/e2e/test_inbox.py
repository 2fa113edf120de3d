"""`gateway inbox` beside a real gateway, and when it is interrupted."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands.command import Running
from tests.commands.letters import Site, kafka_site, nats_site
from tests.e2e.client import Client, event, signed
from tests.e2e.conftest import Start
from tests.e2e.readback import create_stream, kafka_records
from tests.servers.kafka import KafkaAt
from tests.servers.nats import NatsServer

Unique = Callable[[str], str]
LETTERS = 2000
DONE = re.compile(r"^replayed ([\d,]+) of ([\d,]+)$", re.MULTILINE)


@pytest.mark.parametrize("kind", ["kafka", "nats"])
def test_an_interrupted_replay_and_its_reruns_deliver_each_letter_once(
    kind: str, tmp_path: Path, kafka_server: KafkaAt, nats_server: NatsServer, unique: Unique
) -> None:
    if kind == "kafka":
        site = kafka_site(tmp_path, kafka_server, unique("sigint"))
    else:
        site = nats_site(tmp_path, nats_server, unique("sigint"))
    names = [f"msg_{number}" for number in range(LETTERS)]
    site.put(*(site.letter(name, event(id=f"user_{name}")) for name in names))

    told = []
    for turn in range(3):
        command = ("inbox", "replay", "--config", tmp_path / "config.yaml", "--all", "--yes")
        process = Running(tmp_path / f"replay-{turn}", "replayed ", *command)
        with process:
            if turn < 2:
                process.end(signal.SIGINT)
            code = process.exit_code()
            written = process.written
        assert "Traceback" not in written
        done = int(DONE.findall(written)[-1][0].replace(",", ""))
        told.append(done)
        if turn < 2:
            left = LETTERS - sum(told)
            assert left > 0, "the interruption came too late to prove anything"
            assert "stopping: what is on its way is finished first" in written
            assert f"left {left:,}: run the command again to go on" in written
        assert code == (1 if turn < 2 else 0), written
    assert sum(told) == LETTERS
    assert sorted(site.delivered_ids()) == sorted(names)


def test_what_a_gateway_could_not_deliver_is_replayed_when_it_can(
    gateways: Start, nats_server: NatsServer, kafka_server: KafkaAt, unique: Unique
) -> None:
    """Refused for want of a stream, kept in Kafka, and delivered to JetStream in the end."""
    letters, subject = unique("letters"), unique("late")
    asyncio.run(kafka_server.create_topic(letters))
    config = {
        "brokers": {
            "events": {"kind": "kafka", "servers": [kafka_server.bootstrap]},
            "bus": {"kind": "nats", "servers": [nats_server.url]},
        },
        "routes": [
            {
                "name": "users",
                "events": ["user.*"],
                "targets": [{"broker": "bus", "subject": f"{subject}.{{type}}"}],
            }
        ],
        "delivery": {"dead_letter": {"broker": "events", "topic": letters}},
    }
    gateway = gateways(config)
    site = Site("nats", gateway.directory, nats_server.url.removeprefix("nats://"), subject)
    bodies = {f"msg_{number}": event(number=number) for number in range(3)}

    async def post() -> None:
        async with Client(gateway) as client:
            await client.until_ready()
            for name, body in bodies.items():
                answer = await client.post(body, signed(body, name))
                assert answer.word == (200, "dead_lettered"), answer.raw

    asyncio.run(post())
    first, *_ = site.listed()
    assert (first["reason"], first["targets"]) == ("no_stream", [f"bus/{subject}.user.created"])

    asyncio.run(create_stream(nats_server.url, subject, f"{subject}.>"))
    done = site.inbox("replay", "--all", "--yes")
    assert (done.code, done.out) == (0, "replayed 3 of 3\n"), done.err
    delivered = site.delivered()
    assert {headers["svix-id"]: value for value, headers in delivered} == bodies
    for _, headers in delivered:
        assert headers["ce-source"] == "clerk/clerk"
        assert headers["svix-signature"].startswith("v1,")
        assert headers["Nats-Msg-Id"].endswith(".r1")
        assert not any(name.startswith("gateway-dead-letter") for name in headers)
    assert len(asyncio.run(kafka_records(kafka_server.bootstrap, letters))) == 3
    assert site.listed() == []
