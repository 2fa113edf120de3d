"""`gateway inbox` beside a real gateway, and when it is interrupted."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.commands.command import Running
from tests.commands.letters import Site, kafka_site, nats_site
from tests.e2e.client import PATIENCE, Client, event, signed
from tests.e2e.conftest import Start
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.readback import create_stream, kafka_records
from tests.servers.kafka import KafkaAt
from tests.servers.nats import NatsServer
from tests.servers.process import free_port

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


def two_servers(directory: Path, letters: NatsServer, targets: NatsServer, name: str) -> Site:
    """Letters in one NATS system, for targets in another, which can be frozen or killed."""
    site = nats_site(directory, letters, name)
    asyncio.run(create_stream(targets.url, name, name))
    route = {
        "name": "users",
        "events": ["user.*"],
        "targets": [{"broker": "far", "subject": name}],
    }
    far = {"kind": "nats", "servers": [targets.url]}
    site.config(brokers={"one": site.broker, "far": far}, routes=[route])
    site.broker_name = "far"
    names = [f"msg_{number}" for number in range(LETTERS)]
    site.put(*(site.letter(one, event(id=f"user_{one}")) for one in names))
    site.server = targets.url.removeprefix("nats://")
    return site


def test_a_second_interruption_waits_for_nothing(
    tmp_path: Path, nats_server: NatsServer, own_nats: NatsServer, unique: Unique
) -> None:
    site = two_servers(tmp_path, nats_server, own_nats, unique("twice"))
    command = ("inbox", "replay", "--config", tmp_path / "config.yaml", "--all", "--yes")
    with Running(tmp_path / "replay", "replayed ", *command) as process:
        own_nats.pause()
        process.send(signal.SIGINT)
        process.until_written("stopping: what is on its way is finished first")
        process.send(signal.SIGINT)
        assert process.exit_code() == 1
        written = process.written
    own_nats.resume()
    assert "left what was on its way: it may be delivered" in written
    assert "Traceback" not in written
    assert DONE.findall(written)
    assert site.inbox("replay", "--all", "--yes").code == 0
    # What was on its way has the same dedupe id in the second run.
    assert sorted(site.delivered_ids()) == sorted(f"msg_{number}" for number in range(LETTERS))


def test_a_broker_that_goes_away_ends_the_replay_and_a_rerun_goes_on(
    tmp_path: Path, nats_server: NatsServer, own_nats: NatsServer, unique: Unique
) -> None:
    site = two_servers(tmp_path, nats_server, own_nats, unique("killed"))
    command = ("inbox", "replay", "--config", tmp_path / "config.yaml", "--all", "--yes")
    with Running(tmp_path / "replay", "replayed ", *command) as process:
        own_nats.kill()
        assert process.exit_code() == 3
        written = process.written
    assert "error: far: could not publish to" in written
    assert "run the command again to go on" in written
    own_nats.start()
    assert site.inbox("replay", "--all", "--yes").code == 0
    assert set(site.delivered_ids()) == {f"msg_{number}" for number in range(LETTERS)}
    assert site.inbox("replay", "--all", "--yes").out == "replayed 0 of 0\n"


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


def inbox_config(nats_url: str, subject: str, directory: Path, **more: Any) -> dict[str, Any]:
    """One route without a dead letter, in inbox mode."""
    place = {"broker": "bus", "subject": f"{subject}.{{type}}"}
    return {
        "brokers": {"bus": {"kind": "nats", "servers": [nats_url]}},
        "routes": [{"name": "users", "events": ["user.*"], "targets": [place]}],
        "delivery": {"mode": "inbox", "inbox": {"path": str(directory / "inbox.db")}},
        **more,
    }


def store_events(gateway: GatewayProcess, *names: str, ready: bool = True) -> None:
    """Post an event under each name, once its brokers are up with `ready`; each is stored."""

    async def post() -> None:
        async with Client(gateway) as client:
            if ready:
                await client.until_ready()
            for name in names:
                body = event(id=f"user_{name}")
                assert (await client.post(body, signed(body, name))).word == (200, "stored")

    asyncio.run(post())


def wait_for_states(site: Site, expected: dict[str, str]) -> list[dict[str, Any]]:
    """List until these svix-ids are in these states, and give the list."""
    deadline = time.monotonic() + PATIENCE
    while True:
        listed = site.listed()
        if {one["svix_id"]: one["state"] for one in listed} == expected:
            return listed
        assert time.monotonic() < deadline, listed
        time.sleep(0.1)


@pytest.mark.parametrize("kind", ["sqlite", "jetstream"])
def test_the_inbox_is_looked_after_through_the_gateway_and_without_one(
    gateways: Start, nats_server: NatsServer, unique: Unique, tmp_path: Path, kind: str
) -> None:
    """Parked for want of a stream; replayed through the socket, and then by the file itself."""
    subject = unique("parked")
    config = inbox_config(nats_server.url, subject, tmp_path)
    if kind == "jetstream":
        stream = {"store": "jetstream", "broker": "bus", "stream": unique("INBOX")}
        config["delivery"]["inbox"] = {**stream, "max_bytes": "8MiB", "parked_max_bytes": "8MiB"}
    gateway = gateways(config)
    site = Site("nats", gateway.directory, nats_server.url.removeprefix("nats://"), subject)
    store_events(gateway, "msg_1", "msg_2", "msg_3")
    names = ("msg_1", "msg_2", "msg_3")
    listed = wait_for_states(site, dict.fromkeys(names, "parked"))
    assert {one["reason"] for one in listed} == {"no_stream"}
    ids = {one["svix_id"]: one["id"] for one in listed}
    shown = site.inbox("show", ids["msg_1"])
    assert f"bus/{subject}.user.created" in shown.out

    assert site.inbox("discard", ids["msg_1"], "--yes").out == "discarded 1 of 1\n"
    asyncio.run(create_stream(nats_server.url, subject, f"{subject}.>"))
    done = site.inbox("replay", ids["msg_2"])
    assert (done.code, done.out) == (0, "replayed 1 of 1\n"), done.err
    wait_for_states(site, {"msg_3": "parked"})
    assert site.delivered_ids() == ["msg_2"]
    gateway.end()

    # Without a gateway the command opens the file; the next gateway delivers.
    assert [one["id"] for one in site.listed("--state", "parked")] == [ids["msg_3"]]
    assert site.inbox("replay", "--all", "--yes").out == "replayed 1 of 1\n"
    wait_for_states(site, {"msg_3": "pending"})
    assert site.inbox("replay", "--all", "--yes").code == 1
    gateway.start()
    wait_for_states(site, {})
    assert site.delivered_ids() == ["msg_2", "msg_3"]


def test_what_waits_is_shown_while_the_broker_of_the_dead_letter_is_away(
    gateways: Start, tmp_path: Path, unique: Unique
) -> None:
    subject = unique("outage")
    server = f"127.0.0.1:{free_port()}"
    config = inbox_config(f"nats://{server}", subject, tmp_path)
    letters = {"broker": "bus", "subject": f"{subject}-letters", "unredacted": True}
    config["delivery"]["dead_letter"] = letters
    gateway = gateways(config)
    site = Site("nats", gateway.directory, server, subject)
    store_events(gateway, "msg_1", ready=False)
    away = f"error: bus: could not reach {subject}-letters: broker_down ("

    listed = site.inbox("list", "--format", "json")
    assert away in listed.err
    assert listed.code == 3
    (item,) = map(json.loads, listed.out.splitlines())
    assert (item["svix_id"], item["state"]) == ("msg_1", "pending")

    shown = site.inbox("show", item["id"])
    assert "svix_id  msg_1\n" in shown.out
    assert away in shown.err
    assert shown.code == 3

    # What changes something does it whole, or for the places that are named.
    refused = site.inbox("discard", item["id"], "--yes")
    assert (refused.code, refused.out) == (3, "")
    done = site.inbox("discard", item["id"], "--yes", "--state", "pending")
    assert (done.code, done.out) == (0, "discarded 1 of 1\n"), done.err


def test_an_inbox_that_does_not_exist_is_not_made(tmp_path: Path, nats_server: NatsServer) -> None:
    site = Site("nats", tmp_path, nats_server.url.removeprefix("nats://"), "none")
    config = inbox_config(nats_server.url, "none", tmp_path)
    config["delivery"]["inbox"]["path"] = "elsewhere.db"
    site.config(**config)
    assert f"{Path.cwd()}/elsewhere.db does not exist" in site.inbox("list").err
    site.config(**inbox_config(nats_server.url, "none", tmp_path))
    done = site.inbox("list")
    assert done.code == 0
    assert "inbox.db does not exist: nothing was stored yet" in done.err
    assert not (tmp_path / "inbox.db").exists()
    (tmp_path / "inbox.db").write_text("not a database")
    done = site.inbox("list")
    assert done.code == 2
    assert (tmp_path / "inbox.db").read_text() == "not a database"


def test_an_inbox_in_a_stream_that_cannot_be_reached(tmp_path: Path) -> None:
    site = Site("nats", tmp_path, f"127.0.0.1:{free_port()}", "away")
    config = inbox_config(f"nats://{site.server}", "away", tmp_path)
    config["delivery"]["inbox"] = {"store": "jetstream", "broker": "bus", "stream": "AWAY"}
    site.config(**config)
    done = site.inbox("list")
    assert (done.code, done.out) == (3, "")
    assert "error: bus: could not reach AWAY" in done.err
