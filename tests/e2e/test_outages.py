"""Brokers that are away, frozen or killed: 503 in time, recovery by itself, nothing lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.e2e.client import Client, event, new_id, signed, until
from tests.e2e.conftest import Start
from tests.e2e.readback import create_stream, kafka_records, stream_messages
from tests.e2e.wire import connected, request
from tests.servers.kafka import KafkaAt, KafkaServer
from tests.servers.nats import NatsServer

DEADLINE = 2.0
SLACK = 1.5
"""Seconds that a busy machine may add to the gateway's own timer."""
AT_ONCE = 1.0
"""Below the deadline: an answer this quick came from what the gateway knows."""


class Outage:
    """A broker that a test may break, the route to it, and what it holds in the end."""

    config: dict[str, Any]
    target: dict[str, str]
    server: KafkaServer | NatsServer

    async def create(self) -> None:
        """Make the destination."""
        raise NotImplementedError

    async def ids(self) -> list[str]:
        """Give the svix-id of each record."""
        raise NotImplementedError


class KafkaOutage(Outage):
    def __init__(self, server: KafkaServer, name: str) -> None:
        self.server = server
        self._topic = name
        self.config = {"kind": "kafka", "servers": [server.bootstrap]}
        self.target = {"broker": "broken", "topic": name}

    async def create(self) -> None:
        assert isinstance(self.server, KafkaServer)
        await self.server.create_topic(self._topic, 3)

    async def ids(self) -> list[str]:
        assert isinstance(self.server, KafkaServer)
        records = await kafka_records(self.server.bootstrap, self._topic)
        return [dict(record.headers)["svix-id"].decode() for record in records]


class NatsOutage(Outage):
    def __init__(self, server: NatsServer, name: str) -> None:
        self.server = server
        self._stream = name
        self.config = {"kind": "nats", "servers": [server.url]}
        self.target = {"broker": "broken", "subject": f"{name}.events"}

    async def create(self) -> None:
        assert isinstance(self.server, NatsServer)
        await create_stream(self.server.url, self._stream, f"{self._stream}.>")

    async def ids(self) -> list[str]:
        assert isinstance(self.server, NatsServer)
        messages = await stream_messages(self.server.url, self._stream)
        return [message.headers["svix-id"] for message in messages]


@pytest.fixture(params=["kafka", "nats"])
async def outage(request: pytest.FixtureRequest, unique: Callable[[str], str]) -> Outage:
    """Give a running broker of each kind, with a destination in it."""
    made: Outage
    if request.param == "kafka":
        made = KafkaOutage(request.getfixturevalue("own_kafka"), unique("outage"))
    else:
        made = NatsOutage(request.getfixturevalue("own_nats"), unique("outage"))
    await made.create()
    return made


def config(outage: Outage) -> dict[str, Any]:
    return {
        "server": {"deadline": f"{DEADLINE}s"},
        "brokers": {"broken": outage.config},
        "routes": [{"name": "all", "events": ["*"], "targets": [outage.target]}],
    }


@dataclass
class Posted:
    """What was posted while something happened, and how it was answered."""

    client: Client
    taken: list[str] = field(default_factory=list)
    """The ids that were answered 2xx."""
    failed: int = 0

    async def post(self) -> float:
        """Post one event; a refusal must be in time and say when to come back."""
        svix_id, body = new_id(), event()
        answer = await self.client.post(body, signed(body, svix_id))
        assert answer.seconds < DEADLINE + SLACK, answer.raw
        if answer.status == 200:
            self.taken.append(svix_id)
        else:
            assert answer.word == (503, "failed")
            assert int(answer.headers["retry-after"]) > 0
            self.failed += 1
        return answer.seconds

    @asynccontextmanager
    async def meanwhile(self) -> AsyncIterator[None]:
        """Post from eight senders as long as the block runs."""
        ended = asyncio.Event()

        async def sender() -> None:
            while not ended.is_set():
                await self.post()
                await asyncio.sleep(0.01)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(8):
                tasks.create_task(sender())
            yield
            ended.set()

    async def until_taken(self) -> None:
        """Post until one is taken again."""
        before = len(self.taken)
        async with asyncio.timeout(60):
            while len(self.taken) == before:
                await self.post()
                await asyncio.sleep(0.05)

    def failing_since(self, failed: int) -> Callable[[], Awaitable[bool]]:
        """Give a condition: more than `failed` were refused."""

        async def is_so() -> bool:
            return self.failed > failed

        return is_so

    async def assert_nothing_lost(self, outage: Outage) -> None:
        """Assert that what was answered 2xx is in the broker."""
        found = set(await outage.ids())
        lost = set(self.taken) - found
        print(f"{len(self.taken)} taken, {self.failed} failed, {len(found)} stored, lost: {lost}")
        assert self.taken
        assert not lost


async def test_down_at_the_start(gateways: Start, outage: Outage) -> None:
    await asyncio.to_thread(outage.server.stop)
    gateway = await asyncio.to_thread(gateways, config(outage))
    async with Client(gateway) as client:
        status, body = await client.ready()
        assert (status, body["status"]) == (503, "undeliverable")
        assert body["brokers"]["broken"] != "up"
        posted = Posted(client)
        await posted.post()
        assert posted.failed == 1
        # By now the state is known, and nobody waits for the deadline.
        assert await posted.post() < AT_ONCE
        assert await client.samples("gateway_broker_up") == {("broken",): 0}
        await asyncio.to_thread(outage.server.start)
        await posted.until_taken()
        await client.until_ready()
        assert (await client.ready())[0] == 200
        assert await client.samples("gateway_broker_up") == {("broken",): 1}
        await posted.assert_nothing_lost(outage)


async def test_frozen(gateways: Start, outage: Outage) -> None:
    gateway = await asyncio.to_thread(gateways, config(outage))
    async with Client(gateway) as client:
        await client.until_ready()
        posted = Posted(client)
        await posted.post()
        assert posted.failed == 0
        outage.server.pause()
        assert await posted.post() > DEADLINE - 0.1
        assert posted.failed == 1
        # A client that waits for acks in vain comes to know it; then answers are quick.
        async with asyncio.timeout(40):
            while await posted.post() > AT_ONCE:
                continue
        assert (await client.ready())[0] == 503
        outage.server.resume()
        await posted.until_taken()
        await client.until_ready()
        await posted.assert_nothing_lost(outage)


@pytest.mark.timeout(180)
async def test_killed_under_load_and_started_again(gateways: Start, outage: Outage) -> None:
    gateway = await asyncio.to_thread(gateways, config(outage))
    async with Client(gateway) as client:
        await client.until_ready()
        posted = Posted(client)
        async with posted.meanwhile():
            for _ in range(2):
                await posted.until_taken()
                outage.server.kill()
                failed = posted.failed
                await until(posted.failing_since(failed), "an answer of 503")
                await asyncio.to_thread(outage.server.start)
                await posted.until_taken()
        await client.until_ready()
        assert posted.failed > 0
        await posted.assert_nothing_lost(outage)


async def test_one_of_two_brokers_down_takes_only_its_own_routes(
    gateways: Start, own_nats: NatsServer, kafka_server: KafkaAt, unique: Callable[[str], str]
) -> None:
    topic = await kafka_server.create_topic(unique("up"))
    stream = await create_stream(own_nats.url, unique("down"), "down.>")
    up = {"broker": "events", "topic": topic}
    down = {"broker": "bus", "subject": "down.{type}"}
    gateway = gateways(
        {
            "brokers": {
                "events": {"kind": "kafka", "servers": [kafka_server.bootstrap]},
                "bus": {"kind": "nats", "servers": [own_nats.url]},
            },
            "routes": [
                {"name": "up", "events": ["user.*"], "targets": [up]},
                {"name": "down", "events": ["session.*"], "targets": [down]},
                {"name": "both", "events": ["role.*"], "targets": [up, down]},
            ],
        }
    )
    async with Client(gateway) as client:
        await client.until_ready()
        own_nats.kill()
        await client.until_ready("degraded")
        status, body = await client.ready()
        assert (status, body["broken"]) == (200, ["bus"])
        assert body["brokers"]["events"] == "up"
        assert (await client.post(event("user.created"))).word == (200, "delivered")
        refused = await client.post(event("session.created"))
        assert refused.word == (503, "failed")
        assert refused.seconds < AT_ONCE
        both = await client.post(event("role.created"))
        assert both.word == (503, "failed")
        assert {one["broker"]: one["status"] for one in both.body["targets"]} == {
            "events": "delivered",
            "bus": "failed",
        }
        await asyncio.to_thread(own_nats.start)
        await client.until_ready()
        assert (await client.until_delivered(event("session.created"))).status == 200
    assert len(await stream_messages(own_nats.url, stream)) == 1
    assert len(await kafka_records(kafka_server.bootstrap, topic)) == 2


async def test_what_is_acked_after_the_answer_is_counted(
    gateways: Start, own_nats: NatsServer, unique: Callable[[str], str]
) -> None:
    outage = NatsOutage(own_nats, unique("late"))
    await outage.create()
    gateway = gateways(config(outage))
    async with Client(gateway) as client:
        await client.until_ready()
        own_nats.pause()
        async with client.counting(("clerk", "failed", "deadline")):
            began = time.monotonic()
            assert (await client.post()).word == (503, "failed")
            assert time.monotonic() - began < DEADLINE + SLACK
        own_nats.resume()

        async def acked() -> bool:
            return (await client.samples("gateway_late_acks_total")).get(("broken",)) == 1

        await until(acked, "the ack is counted")
    assert len(await outage.ids()) == 1


async def test_the_deadline_counts_from_the_first_byte(
    gateways: Start, own_nats: NatsServer, unique: Callable[[str], str]
) -> None:
    outage = NatsOutage(own_nats, unique("slow"))
    await outage.create()
    gateway = gateways(config(outage))
    async with Client(gateway) as client, connected(gateway.port) as wire:
        await client.until_ready()
        own_nats.pause()
        whole = request(event())
        began = time.monotonic()
        await wire.send(whole[:20])
        await asyncio.sleep(DEADLINE / 2)
        await wire.send(whole[20:])
        assert (await wire.reply()).word == (503, "failed")
        assert DEADLINE - 0.1 < time.monotonic() - began < DEADLINE + SLACK / 2


async def test_the_deadline_cuts_the_header_timeout_short(
    gateways: Start, own_nats: NatsServer, unique: Callable[[str], str]
) -> None:
    outage = NatsOutage(own_nats, unique("cut"))
    longer = {"header_timeout": "30s", "body_timeout": "30s", "deadline": "1s"}
    gateway = gateways({**config(outage), "server": longer})
    async with Client(gateway) as client:
        for sent, outcome in (
            (b"POST / HT", ("", "rejected", "head_too_slow")),
            (request(event())[:-1], ("clerk", "rejected", "body_too_slow")),
        ):
            async with client.counting(outcome), connected(gateway.port) as wire:
                began = time.monotonic()
                await wire.send(sent)
                assert (await wire.reply()).word == (408, "rejected")
                assert time.monotonic() - began < 1 + SLACK
