"""What the contract says of the routing table on real brokers: what is published, `check --connect`
and reload.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.commands.command import Done, gateway
from tests.e2e.client import Client, event, signed
from tests.e2e.conftest import Start
from tests.e2e.contract_files import AWAY, BODY, run, table, write
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.readback import create_stream, kafka_records, stream_messages
from tests.e2e.tables import numbers, until_generation
from tests.e2e.tables import table as numbered
from tests.e2e.test_rotation import STALE, said, until_config, until_said
from tests.servers.kafka import KafkaAt
from tests.servers.nats import NatsServer

Unique = Callable[[str], str]
NEEDED = 512 * 1024 + 8 * 1024
"""`max_body` and 8 KiB, which must fit every limit on the way."""


# The same table told, tested and run.


async def test_explain_test_and_gateway_do_the_same_with_one_event(
    gateways: Start,
    kafka_server: KafkaAt,
    nats_server: NatsServer,
    unique: Unique,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every matching route delivers, equal ones once, and what cannot be rendered is refused."""
    monkeypatch.setenv("CONTRACT_SET", "set")
    monkeypatch.delenv("CONTRACT_EMPTY", raising=False)
    name = await kafka_server.create_topic(unique("contract"))
    await create_stream(nats_server.url, name, f"{name}.>")
    sources = {"clerk": {}, "other": {"kind": "svix", "path": "/other"}}
    config = {"sources": sources, **table(kafka_server.bootstrap, nats_server.url, name)}
    gateway = gateways(config)
    body = json.dumps(BODY).encode()
    headers = signed(body, "msg_contract")
    async with Client(gateway) as client:
        await client.until_ready()
        answer = await client.post(body, headers)
    told = await asyncio.to_thread(explained, gateway, body)
    assert answer.word == (told["answer"]["http_status"], told["answer"]["status"])
    assert answer.word == (200, "dead_lettered")
    steady = {"gateway-received-at", "svix-timestamp", "svix-signature"}
    expected = Counter(
        (
            record["topic"] or record["subject"],
            frozenset((name, value) for name, value in record["headers"] if name not in steady),
            record["value"].encode(),
        )
        for record in [*told["records"], *told["letters"]]
    )
    found = await published(kafka_server, nats_server, name)
    assert Counter((where, kept(has, steady), value) for where, has, value in found) == expected
    assert all(has["svix-signature"] == headers["svix-signature"] for _, has, _ in found)
    (by_key,) = await kafka_records(kafka_server.bootstrap, name)
    assert by_key.key.decode() == BODY["data"]["odd"]
    await asyncio.to_thread(assert_tested, gateway, told)


def kept(headers: dict[str, str], without: set[str]) -> frozenset[tuple[str, str]]:
    return frozenset((name, value) for name, value in headers.items() if name not in without)


async def published(
    kafka: KafkaAt, nats: NatsServer, name: str
) -> list[tuple[str, dict[str, str], bytes]]:
    """Give place, headers and value of all that is in the topic and the stream."""
    records = await kafka_records(kafka.bootstrap, name)
    return [
        *((one.subject, one.headers, one.data) for one in await stream_messages(nats.url, name)),
        *(
            (one.topic, {name: value.decode() for name, value in one.headers}, one.value)
            for one in records
        ),
    ]


def explained(gateway_process: GatewayProcess, body: bytes) -> dict[str, Any]:
    """Tell the gateway's own config what it does with the body, at the id it was posted with."""
    given = ("explain", "--config", gateway_process.config, "--source", "clerk")
    how = ("--format", "json", "--id", "msg_contract", "-")
    done = gateway(*given, *how, cwd=gateway_process.directory, piped=body.decode())
    assert (done.code, done.err) == (0, "")
    content: dict[str, Any] = json.loads(done.out)
    return content


def assert_tested(gateway_process: GatewayProcess, told: dict[str, Any]) -> None:
    """Assert that a test that expects what explain told passes, and no other one does."""
    place = gateway_process.directory
    (place / "body.json").write_text(json.dumps(BODY))
    expect = [
        {
            "broker": one["broker"],
            "topic" if one["topic"] else "subject": one["topic"] or one["subject"],
            "routes": one["routes"],
            "key": one["key"],
            "headers": {name: value for name, value in one["headers"] if name.startswith("x-")},
        }
        for one in told["records"]
    ] + [
        {"broker": one["broker"], "subject": one["subject"], "refused": one["reason"]}
        for one in told["refusals"]
    ]
    event = {"file": "body.json", "source": "clerk", "id": "msg_contract"}
    test = {"name": "as it was told", **event, "expect": expect}
    less = {**test, "name": "one less", "expect": expect[:-1]}
    (place / "contract.yaml").write_text(json.dumps({"tests": [test, less]}))
    given = ("test", "--config", gateway_process.config, "contract.yaml")
    done = gateway(*given, cwd=place)
    assert done.code == 1, done.out
    assert "ok    as it was told" in done.out, done.out
    assert "FAIL  one less" in done.out
    assert "1 passed, 1 failed" in done.out


# check --connect


def connect(directory: Path, config: dict[str, Any]) -> Done:
    write(directory, {"sources": {"clerk": {"secrets": ["${CONTRACT_SECRET}"]}}, **config})
    return run(directory, "check", "--config", "config.yaml", "--connect")


def line(done: Done, severity: str, about: str) -> str:
    """Give what was said of a thing, which is one line."""
    lines = [line.strip() for line in done.out.splitlines()]
    (found,) = [one for one in lines if one.startswith(f"{severity}  ") and f": {about}: " in one]
    return found


def test_connect_finds_topics_that_are_missing_or_take_too_little(
    tmp_path: Path, kafka_server: KafkaAt, unique: Unique
) -> None:
    fine, small, letters, missing = (unique(kind) for kind in ("fine", "small", "dead", "missing"))

    async def create() -> None:
        await kafka_server.create_topic(fine, 1, {"max.message.bytes": str(NEEDED)})
        await kafka_server.create_topic(small, 1, {"max.message.bytes": str(NEEDED - 1)})
        await kafka_server.create_topic(letters, 1, {"max.message.bytes": "1000"})

    asyncio.run(create())
    routes = [
        {"name": name, "events": ["user.*"], "targets": [{"broker": "events", "topic": name}]}
        for name in (fine, small, missing)
    ]
    config = {
        "brokers": {"events": {"kind": "kafka", "servers": [kafka_server.bootstrap]}},
        "routes": routes,
        "delivery": {"dead_letter": {"broker": "events", "topic": letters}},
    }
    done = connect(tmp_path, config)
    assert done.code == 1
    assert "kafka-topics.sh" in line(done, "error", missing)
    for topic, has in ((small, NEEDED - 1), (letters, 1000)):
        said = line(done, "error", topic)
        assert f"max.message.bytes is {has}" in said
        assert "kafka-configs.sh" in said
        assert f"max.message.bytes={NEEDED}" in said
    assert not [one for one in done.out.splitlines() if "error" in one and f" {fine}: " in one]
    assert "replication factor" in done.out, "the thin ones are warned of"


def test_connect_finds_subjects_with_no_stream_and_with_several(
    tmp_path: Path, nats_server: NatsServer, unique: Unique
) -> None:
    name = unique("several")

    async def create() -> None:
        await create_stream(nats_server.url, f"{name}-1", f"{name}.user.created")
        await create_stream(nats_server.url, f"{name}-2", f"{name}.user.updated")

    asyncio.run(create())
    routes = [
        {
            "name": "several",
            "events": ["user.*"],
            "targets": [{"broker": "bus", "subject": f"{name}.{{type}}"}],
        },
        {
            "name": "none",
            "events": ["role.*"],
            "targets": [{"broker": "bus", "subject": f"none-{name}.roles"}],
        },
    ]
    config = {
        "brokers": {"bus": {"kind": "nats", "servers": [nats_server.url]}},
        "routes": routes,
    }
    done = connect(tmp_path, config)
    assert done.code == 1
    assert "nats stream add" in line(done, "error", f"none-{name}.roles")
    deleted = f"{name}.user.deleted"
    assert f"no stream takes {deleted}; add " in line(done, "error", f"{name}.*")
    several = line(done, "warning", f"{name}.*")
    assert f"streams {name}-1 and {name}-2 share its subjects" in several
    assert f"one stream with {name}.> takes all" in several


def test_the_highest_exit_code_that_applies_is_given(
    tmp_path: Path, nats_server: NatsServer, unique: Unique
) -> None:
    """A subject without a stream is 1, a broker that is away is 3."""
    name = unique("nowhere")
    targets = [{"broker": "bus", "subject": name}, {"broker": "away", "topic": name}]
    config = {
        "brokers": {
            "bus": {"kind": "nats", "servers": [nats_server.url]},
            "away": {"kind": "kafka", "servers": [AWAY[0]]},
        },
        "routes": [{"name": "all", "events": ["*"], "targets": targets}],
    }
    done = connect(tmp_path, config)
    assert done.code == 3
    assert "no stream takes this subject; create one" in line(done, "error", name)
    assert "unreachable" in done.out


# Reload


async def test_a_changed_file_counts_a_bad_one_does_not_and_a_server_needs_a_restart(
    gateways: Start, nats_server: NatsServer, unique: Unique
) -> None:
    name = unique("reload")
    await create_stream(nats_server.url, name, f"{name}.>")
    gateway = gateways(numbered(nats_server, name, 0), 2)
    process = gateway.pid
    async with Client(gateway) as client:
        await client.until_ready()
        assert await numbers(client, 4) == {0}
        gateway.rewrite(numbered(nats_server, name, 1))
        await until_generation(client, 2)
        assert await numbers(client, 8) == {1}, "in all workers"
        assert await client.samples("gateway_config_stale") == {(): 0}

        bad = numbered(nats_server, name, 2)
        bad["routes"][0]["targets"][0]["broker"] = "buss"
        gateway.rewrite(bad)
        await until_config(client, "stale")
        await until_said(gateway, STALE)
        status, body = await client.ready()
        assert (status, body["status"], body["generation"]) == (200, "ready", 2)
        assert body["problems"]["count"] == 1
        assert body["problems"]["first"].startswith("config.yaml:")
        assert await numbers(client, 8) == {1}, "the last good one serves"
        assert await client.samples("gateway_config_stale") == {(): 1}
        reloads = await client.samples("gateway_config_reloads_total")
        assert reloads == {("applied",): 1, ("refused",): 1}
        (problem,) = said(gateway, STALE)[0]["problems"]
        assert 'no broker is called "buss"; did you mean bus?' in problem

        changed = numbered(nats_server, name, 3, server={"max_body": "1KiB"})
        gateway.rewrite(changed)
        await until_config(client, "needs_restart")
        assert (await client.ready())[0] == 200
        assert await client.samples("gateway_config_needs_restart") == {(): 1}
        assert await client.samples("gateway_config_stale") == {(): 0}
        assert await numbers(client, 8) == {3}, "everything else counts"
        large = event(size=2000)
        assert (await client.post(large)).word == (200, "delivered"), "as at the start"
        await until_said(gateway, "config needs a restart")
        assert "server" in said(gateway, "config needs a restart")[0]["sections"]
    assert gateway.pid == process


async def test_no_watch_leaves_it_to_sighup(
    gateways: Start, nats_server: NatsServer, unique: Unique
) -> None:
    """Another gateway follows the same file, and so tells when a change was to be seen."""
    name = unique("hup")
    await create_stream(nats_server.url, name, f"{name}.>")
    gateway = gateways(numbered(nats_server, name, 0), 1, "--no-watch")
    follows = gateways(numbered(nats_server, name, 0), start=False)
    follows.config = gateway.config
    await asyncio.to_thread(follows.start)
    async with Client(gateway) as client, Client(follows) as other:
        await client.until_ready()
        await other.until_ready()
        for number in (1, 2):
            gateway.rewrite(numbered(nats_server, name, number))
            await until_generation(other, number + 1)
            assert await numbers(client) == {0}
        gateway.send(signal.SIGHUP)
        await until_generation(client, 2)
        assert await numbers(client) == {2}
