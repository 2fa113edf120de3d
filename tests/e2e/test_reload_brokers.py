"""Brokers that come, go and change with the config file; the others keep their connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.client import Client, event, signed, until
from tests.e2e.conftest import Start
from tests.e2e.readback import create_stream, kafka_records, stream_count, stream_messages
from tests.e2e.sockets import sockets
from tests.e2e.tables import until_generation
from tests.e2e.test_contract_inbox import inbox, settled, until_count
from tests.e2e.test_reload_tables import Load, serving, to
from tests.e2e.test_rotation import held, said, until_said
from tests.e2e.test_workers import until_workers
from tests.servers.kafka import KafkaAt
from tests.servers.nats import NatsServer
from tests.servers.process import LOOPBACK, free_port

Unique = Callable[[str], str]
NewNats = Callable[..., NatsServer]


def bus(server: NatsServer, **more: Any) -> dict[str, Any]:
    return {"kind": "nats", "servers": [server.url], **more}


def route(name: str, *targets: dict[str, str], events: str = "*") -> dict[str, Any]:
    return {"name": name, "events": [events], "targets": list(targets)}


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_broker_comes_changes_and_goes_and_the_others_are_not_touched(
    gateways: Start,
    new_nats: NewNats,
    kafka_server: KafkaAt,
    unique: Unique,
    workers: int,
) -> None:
    """Under load, and every event is delivered: a new broker is connected before it is used."""
    topic = await kafka_server.create_topic(unique("kept"))
    kept, second, third = new_nats(), new_nats(), new_nats()
    for server in (kept, second, third):
        await create_stream(server.url, "kept", "kept.>")
    kafka = {"kind": "kafka", "servers": [kafka_server.bootstrap]}
    stays = [{"broker": "bus", "subject": "kept.a.0"}, {"broker": "events", "topic": topic}]
    more = {"broker": "second", "subject": "kept.b.0"}

    def config(second: dict[str, Any] | None, *targets: dict[str, str]) -> dict[str, Any]:
        brokers = {"bus": bus(kept), "events": kafka}
        if second is not None:
            brokers["second"] = second
        # What a request has begun with is kept for as long as the deadline.
        server = {"deadline": "1s"}
        return {"server": server, "brokers": brokers, "routes": [route("all", *stays, *targets)]}

    gateway = gateways(config(None, {"broker": "bus", "subject": "kept.c.0"}), workers)
    if workers > 1:
        await until_workers(gateway, workers)
    ports = {kept.port, int(kafka_server.bootstrap.split(":")[1])}
    load = Load(gateway)
    async with Client(gateway) as client:
        await client.until_ready()
        for _ in range(20):
            async with Client(gateway) as fresh:
                await fresh.until_delivered()
        connected = {pid: to(sockets(pid), ports) for pid in await serving(gateway)}

        async def until_connected(server: NatsServer, count: int) -> None:
            async def is_so() -> bool:
                found = [to(sockets(pid), {server.port}) for pid in await serving(gateway)]
                return sum(map(len, found)) == count

            await until(is_so, f"{count} connections")

        async with load.running():
            gateway.rewrite(config(bus(second), more))
            await until_generation(client, 2)
            await until_connected(second, workers)
            gateway.rewrite(config(bus(third), more))
            await until_generation(client, 3)
            await until_connected(third, workers)
            await until_connected(second, 0)
            gateway.rewrite(config(bus(third, max_in_flight=500), more))
            await until_generation(client, 4)
            gateway.rewrite(config(None, {"broker": "bus", "subject": "kept.c.0"}))
            await until_generation(client, 5)
            await until_connected(third, 0)
        await until_said(gateway, "config reloaded", 4)
        status, ready = await client.ready()
        assert (status, ready["status"], set(ready["brokers"])) == (200, "ready", {"bus", "events"})
        assert set(await client.samples("gateway_broker_up")) == {("bus",), ("events",)}
        for pid, before in connected.items():
            assert {other for _, other in before} == ports
            assert before <= sockets(pid), "no connection was touched"
    assert load.refused == []
    assert [line["brokers"] for line in said(gateway, "config reloaded")] == [["second"]] * 3 + [[]]
    assert await stream_count(second.url, "kept") > 0
    assert await stream_count(third.url, "kept") > 0


async def test_a_new_broker_that_is_away_holds_up_the_change_for_seconds_only(
    gateways: Start, nats_server: NatsServer, unique: Unique
) -> None:
    name = await create_stream(nats_server.url, unique("away"), "away.>")
    first = [route("all", {"broker": "bus", "subject": "away.one"})]
    gateway = gateways({"brokers": {"bus": bus(nats_server)}, "routes": first})
    away = {"kind": "nats", "servers": [f"nats://{LOOPBACK}:{free_port()}"]}
    second = route("away", {"broker": "away", "subject": "away.two"}, events="session.*")
    async with Client(gateway) as client:
        await client.until_ready()
        gateway.rewrite(
            {"brokers": {"bus": bus(nats_server), "away": away}, "routes": [*first, second]}
        )

        async def is_waited_for() -> bool:
            return (await client.ready())[1].get("replacing") == ["away"]

        await until(is_waited_for, "the new broker is waited for")
        assert (await client.post(event("session.created"))).word == (200, "delivered")
        await until_generation(client, 2)
        answer = await client.post(event("session.created"))
        assert (answer.word, answer.body["reason"]) == ((503, "failed"), "broker_down")
        assert (await client.post()).word == (200, "delivered")
        assert (await client.ready())[1]["status"] == "degraded"
    assert await stream_count(nats_server.url, name) >= 3


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_retry_by_another_table_publishes_what_that_wants_and_is_owed(
    gateways: Start, nats_server: NatsServer, unique: Unique, workers: int
) -> None:
    """Half of the event is done; the source has another path by the time that it is sent again."""
    name = unique("owed")
    await create_stream(nats_server.url, name, f"{name}.>")
    away = {"kind": "nats", "servers": [f"nats://{LOOPBACK}:{free_port()}"]}
    done, fresh = ({"broker": "bus", "subject": f"{name}.{one}"} for one in ("done", "fresh"))
    lost = {"broker": "away", "subject": f"{name}.lost"}
    brokers = {"bus": bus(nats_server), "away": away}
    config = {"brokers": brokers, "routes": [route("all", done, lost)]}
    gateway = gateways(config, workers)
    body = event()
    headers = signed(body)
    async with Client(gateway) as client:
        await client.until_ready("undeliverable")
        if workers > 1:
            await until_workers(gateway, workers)
        assert (await client.post(body, headers)).word == (503, "failed")
        secret = [held(gateway.directory / "secret")]
        gateway.rewrite(
            {
                "sources": {"clerk": {"path": "/elsewhere", "secrets": secret}},
                "brokers": {"bus": bus(nats_server)},
                "routes": [route("renamed", done, fresh)],
            }
        )
        await until_generation(client, 2)
        for word in ("delivered", "duplicate", "duplicate"):
            async with Client(gateway) as other:
                answer = await other.post(body, headers, path="/elsewhere")
                assert answer.word == (200, word)
                assert (await other.post(body, headers)).word == (404, "rejected")
    subjects = sorted(one.subject for one in await stream_messages(nats_server.url, name))
    assert subjects == [f"{name}.done", f"{name}.fresh"]


async def test_a_request_in_flight_ends_with_what_it_began_with(
    gateways: Start, new_nats: NewNats
) -> None:
    """Its source's path, its route and its broker go while the broker does not answer."""
    server, stays = new_nats(), new_nats()
    for one in (server, stays):
        await create_stream(one.url, "flight", "flight.>")
    brokers = {"bus": bus(server), "stays": bus(stays)}
    target = {"broker": "bus", "subject": "flight.before"}
    gateway = gateways({"brokers": brokers, "routes": [route("all", target)]})
    async with Client(gateway) as client:
        await client.until_delivered()
        server.pause()
        try:
            in_flight = asyncio.create_task(client.post())

            async def is_in_flight() -> bool:
                return (await client.samples("gateway_broker_in_flight_records"))[("bus",)] == 1

            await until(is_in_flight, "the record is on its way")
            after = route("all", {"broker": "stays", "subject": "flight.after"})
            secret = [held(gateway.directory / "secret")]
            gateway.rewrite(
                {
                    "sources": {"clerk": {"path": "/elsewhere", "secrets": secret}},
                    "brokers": {"stays": bus(stays)},
                    "routes": [after],
                }
            )
            await until_generation(client, 2)
            assert (await client.post()).word == (404, "rejected")
            assert (await client.post(path="/elsewhere")).word == (200, "delivered")
            assert not in_flight.done()
        finally:
            server.resume()
        answer = await in_flight
    assert answer.word == (200, "delivered")
    assert answer.body["targets"][0]["subject"] == "flight.before"
    assert {one.subject for one in await stream_messages(stays.url, "flight")} == {"flight.after"}


class Waiting:
    """A gateway with an inbox, in which records wait for a broker that is not there yet."""

    def __init__(self, directory: Path, nats: NatsServer, name: str) -> None:
        self.directory, self.nats, self.name = directory, nats, name
        self.port = free_port()
        self.away = {"kind": "nats", "servers": [f"nats://{LOOPBACK}:{self.port}"]}
        self.stays = route("stays", {"broker": "bus", "subject": f"{name}.stays"})
        self.goes = route("goes", {"broker": "away", "subject": f"{name}.before"})

    def config(self, *routes: dict[str, Any], away: bool, **bounds: Any) -> dict[str, Any]:
        brokers = {"bus": bus(self.nats), **({"away": self.away} if away else {})}
        delivery = inbox(self.directory, **bounds)
        delivery["dead_letter"] = {"broker": "bus", "subject": f"{self.name}.letters"}
        return {"brokers": brokers, "routes": list(routes), "delivery": delivery}

    async def until_waiting(self, client: Client, count: int) -> None:
        async def is_so() -> bool:
            return await client.samples("gateway_inbox_events") == {(): count}

        await until(is_so, f"{count} events wait")


@pytest.mark.parametrize("workers", [1, 2])
async def test_what_waits_for_a_route_or_broker_that_went_is_kept_and_goes_where_it_was_to(
    gateways: Start,
    nats_server: NatsServer,
    new_nats: NewNats,
    unique: Unique,
    tmp_path: Path,
    workers: int,
) -> None:
    """Of the route nothing is needed any more; the broker is waited for until it is put back."""
    name = unique("waiting")
    await create_stream(nats_server.url, name, f"{name}.>")
    rig = Waiting(tmp_path, nats_server, name)
    gateway = gateways(rig.config(rig.stays, rig.goes, away=True), workers)
    async with Client(gateway) as client:
        await client.until_ready("degraded")
        for _ in range(5):
            assert (await client.post()).word == (200, "stored")
        await until_count(nats_server, name, 5)
        await rig.until_waiting(client, 5)
        gateway.rewrite(rig.config(rig.stays, away=False))
        await until_generation(client, 2)
        await client.until_ready()
        assert (await client.post()).word == (200, "stored")
        await until_count(nats_server, name, 6)
        await rig.until_waiting(client, 5)
        # The broker is back, its route is not; where it leads to is told by the file.
        back = new_nats()
        await create_stream(back.url, "back", f"{name}.>")
        rig.away = bus(back)
        gateway.rewrite(rig.config(rig.stays, away=True))
        await until_generation(client, 3)
        await until_count(back, "back", 5)
        await rig.until_waiting(client, 0)
    assert {one.subject for one in await stream_messages(back.url, "back")} == {f"{name}.before"}
    stayed = {one.subject for one in await stream_messages(nats_server.url, name)}
    assert stayed == {f"{name}.stays"}


async def test_what_waits_goes_to_no_broker_of_another_kind(
    gateways: Start, nats_server: NatsServer, kafka_server: KafkaAt, unique: Unique, tmp_path: Path
) -> None:
    """The name stays, and a stream would take what was made for a topic of the same name."""
    name = unique("kind")
    await create_stream(nats_server.url, name, f"{name}.>")
    topic = await kafka_server.create_topic(f"{name}.before")
    rig = Waiting(tmp_path, nats_server, name)
    rig.away = {"kind": "kafka", "servers": [f"{LOOPBACK}:{rig.port}"]}
    rig.goes = route("goes", {"broker": "away", "topic": topic})
    gateway = gateways(rig.config(rig.goes, away=True))
    async with Client(gateway) as client:
        await client.until_ready("degraded")
        for _ in range(3):
            assert (await client.post()).word == (200, "stored")
        await rig.until_waiting(client, 3)
        rig.away = bus(nats_server)
        rig.goes = route("goes", {"broker": "away", "subject": f"{name}.after"})
        gateway.rewrite(rig.config(rig.goes, away=True))
        await until_generation(client, 2)
        assert (await client.post()).word == (200, "stored")
        await until_count(nats_server, name, 1)
        await rig.until_waiting(client, 3)
        rig.away = {"kind": "kafka", "servers": [kafka_server.bootstrap]}
        gateway.rewrite(rig.config(rig.stays, away=True))
        await until_generation(client, 3)
        await rig.until_waiting(client, 0)
    assert {one.subject for one in await stream_messages(nats_server.url, name)} == {
        f"{name}.after"
    }
    records = await kafka_records(kafka_server.bootstrap, topic)
    assert [dict(one.headers)["ce_specversion"] for one in records] == [b"1.0"] * 3


async def test_what_waits_for_a_broker_that_went_for_good_is_dead_lettered_by_its_age(
    gateways: Start, nats_server: NatsServer, unique: Unique, tmp_path: Path
) -> None:
    name = unique("gone")
    await create_stream(nats_server.url, name, f"{name}.>")
    rig = Waiting(tmp_path, nats_server, name)
    gateway = gateways(rig.config(rig.goes, away=True))
    async with Client(gateway) as client:
        await client.until_ready("degraded")
        assert (await client.post()).word == (200, "stored")
        await rig.until_waiting(client, 1)
        gateway.rewrite(rig.config(rig.stays, away=False, max_age="1s"))
        await until_generation(client, 2)
        await rig.until_waiting(client, 0)
        assert await settled(client) == {("goes", "away", "dead_lettered", "no_broker"): 1}
    (letter,) = await stream_messages(nats_server.url, name)
    assert letter.headers["gateway-dead-letter-reason"] == "no_broker"
    assert letter.headers["gateway-dead-letter-target"].startswith("away/")
