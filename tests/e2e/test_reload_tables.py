"""While tables and brokers change under load: no event is lost, mixed, refused or misrouted."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.e2e.client import Client, event, new_id, signed, until
from tests.e2e.conftest import Start
from tests.e2e.gateway_process import GatewayProcess, children
from tests.e2e.readback import create_stream, kafka_records, stream_messages
from tests.e2e.sockets import sockets
from tests.e2e.tables import table, until_generation
from tests.e2e.test_rotation import until_said
from tests.e2e.test_workers import until_workers
from tests.servers.kafka import KafkaAt
from tests.servers.nats import NatsServer

Unique = Callable[[str], str]
RATE = 200
"""Events per second, as far as this machine keeps up."""
SENDERS = 8


@dataclass
class Load:
    """Senders on connections of their own, each event with the tables that may have taken it."""

    gateway: GatewayProcess
    written: int = 0
    """The number of the table that was written last."""
    confirmed: int = 0
    """The number of the table by which every worker serves at least."""
    windows: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By svix-id: the oldest and the newest table in force between first byte and answer."""
    answered: dict[str, set[int]] = field(default_factory=dict)
    refused: list[Any] = field(default_factory=list)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        over = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(SENDERS):
                tasks.create_task(self._send(over))
            try:
                yield
            finally:
                over.set()

    async def _send(self, over: asyncio.Event) -> None:
        async with Client(self.gateway, connections=1) as client:
            due = time.monotonic()
            while not over.is_set():
                await self._one(client)
                due = max(due + SENDERS / RATE, time.monotonic() - 1)
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _one(self, client: Client) -> None:
        svix_id, body, oldest = new_id(), event(), self.confirmed
        answer = await client.post(body, signed(body, svix_id))
        self.windows[svix_id] = oldest, self.written
        if answer.word != (200, "delivered"):
            self.refused.append((answer.word, answer.body))
            return
        subjects = [one["subject"] for one in answer.body["targets"] if "subject" in one]
        self.answered[svix_id] = {int(subject.split(".")[-1]) for subject in subjects}
        assert len(answer.body["targets"]) == 3


def both(nats: NatsServer, kafka: KafkaAt, name: str, number: int) -> dict[str, Any]:
    """Give a table with two subjects of its own, and its number in a header on Kafka."""
    config = table(nats, name, number)
    config["brokers"]["events"] = {"kind": "kafka", "servers": [kafka.bootstrap]}
    config["routes"][0]["targets"].append(
        {"broker": "events", "topic": name, "headers": {"table": str(number)}}
    )
    return config


async def where(nats: NatsServer, kafka: KafkaAt, name: str) -> dict[str, list[str]]:
    """Give by svix-id what stands in the brokers: `a.<number>`, `b.<number>`, `kafka.<number>`."""
    found: dict[str, list[str]] = defaultdict(list)
    for message in await stream_messages(nats.url, name):
        found[message.headers["svix-id"]].append(message.subject.removeprefix(f"{name}."))
    for record in await kafka_records(kafka.bootstrap, name):
        headers = dict(record.headers)
        found[headers["svix-id"].decode()].append(f"kafka.{headers['table'].decode()}")
    return found


def assert_each_in_one_table(load: Load, found: dict[str, list[str]]) -> None:
    assert load.refused == []
    assert load.answered.keys() == load.windows.keys()
    for svix_id, (oldest, newest) in load.windows.items():
        (number,) = load.answered[svix_id]
        assert sorted(found[svix_id]) == [f"a.{number}", f"b.{number}", f"kafka.{number}"]
        assert oldest <= number <= newest, svix_id


@pytest.mark.parametrize(("workers", "changes"), [(1, 10), (2, 25)])
async def test_each_event_is_in_all_targets_of_one_table_that_was_in_force(
    gateways: Start,
    own_nats: NatsServer,
    kafka_server: KafkaAt,
    unique: Unique,
    workers: int,
    changes: int,
) -> None:
    name = unique("tables")
    await create_stream(own_nats.url, name, f"{name}.>")
    await kafka_server.create_topic(name, 3)
    gateway = gateways(both(own_nats, kafka_server, name, 0), workers)
    load = Load(gateway)
    async with Client(gateway) as client:
        await client.until_ready()
        if workers > 1:
            await until_workers(gateway, workers)
        for _ in range(20):
            async with Client(gateway) as fresh:
                await fresh.until_delivered(event("user.deleted"))
        connected = {pid: sockets(pid) for pid in await serving(gateway)}
        async with load.running():
            for number in range(1, changes + 1):
                load.written = number
                gateway.rewrite(both(own_nats, kafka_server, name, number))
                gateway.send(signal.SIGHUP)
                await until_generation(client, number + 1)
                load.confirmed = number
        ports = {own_nats.port, int(kafka_server.bootstrap.split(":")[1])}
        for pid, before in connected.items():
            assert {other for _, other in to(before, ports)} == ports
            assert to(before, ports) <= to(sockets(pid), ports), "no connection was touched"
        await until_said(gateway, "config reloaded", changes)
        assert await client.samples("gateway_config_reloads_total") == {
            ("applied",): changes,
            ("refused",): 0,
        }
    assert len(load.answered) > changes * 10, "this was no load"
    assert len({number for found in load.answered.values() for number in found}) > changes // 2
    assert_each_in_one_table(load, await where_of(load, own_nats, kafka_server, name))


async def test_changes_during_changes_end_with_the_last_one(
    gateways: Start, own_nats: NatsServer, kafka_server: KafkaAt, unique: Unique
) -> None:
    """Written at any moment, some of them bad, and not waited for."""
    name = unique("during")
    await create_stream(own_nats.url, name, f"{name}.>")
    await kafka_server.create_topic(name, 3)
    gateway = gateways(both(own_nats, kafka_server, name, 0), 2)
    await until_workers(gateway, 2)
    load = Load(gateway)
    chance = random.Random(6)  # noqa: S311 - of a test
    async with Client(gateway) as client:
        await client.until_ready()
        async with load.running():
            for number in range(1, 31):
                load.written = number
                if number % 7 == 0:
                    gateway.config.write_text("routes: [")
                else:
                    gateway.rewrite(both(own_nats, kafka_server, name, number))
                if chance.random() < 0.5:
                    gateway.send(signal.SIGHUP)
                await asyncio.sleep(chance.random() * 0.3)

            async def is_last() -> bool:
                return await tables_of(client, 4) == {30}

            await until(is_last, "the last table serves")
    assert_each_in_one_table(load, await where_of(load, own_nats, kafka_server, name))


async def tables_of(client: Client, count: int) -> set[int]:
    """As `numbers`, of answers that tell of Kafka, too."""
    found = set()
    for _ in range(count):
        answer = await client.post(event("user.deleted"))
        targets = [one["subject"] for one in answer.body["targets"] if "subject" in one]
        found |= {int(subject.split(".")[-1]) for subject in targets}
    return found


async def where_of(load: Load, nats: NatsServer, kafka: KafkaAt, name: str) -> dict[str, list[str]]:
    found = await where(nats, kafka, name)
    return {svix_id: found[svix_id] for svix_id in load.windows}


async def serving(gateway: GatewayProcess) -> set[int]:
    """Give the processes that have connections to the brokers."""
    return await asyncio.to_thread(children, gateway.pid) or {gateway.pid}


def to(found: set[tuple[int, int]], ports: set[int]) -> set[tuple[int, int]]:
    return {(local, remote) for local, remote in found if remote in ports}
