"""Dead letters in real brokers, put there by the brokers' own clients, and what became of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from aiokafka import AIOKafkaProducer

from gateway.brokers.base import Message
from gateway.delivery.dead_letter import DeadLetter
from gateway.delivery.plan import Plan, Refusal
from gateway.event import Sender, read_event
from gateway.routing.expressions import compiled
from tests.commands.command import Done, in_process, write_config
from tests.e2e.client import event
from tests.e2e.readback import (
    create_stream,
    kafka_records,
    nats_client,
    stream_count,
    stream_messages,
)
from tests.servers.kafka import KafkaAt
from tests.servers.nats import NatsServer

SENDER = Sender("clerk", "clerk/clerk", True, compiled("type"))
NOW = 1_800_000_000.0


@dataclass(frozen=True)
class Proof:
    """What a verified webhook brings."""

    id: str
    timestamp: str = "1800000000"
    signature: str = "v1,c2lnbmF0dXJl"


@dataclass
class Site:
    """A config with one route `users`, and a dead letter with letters for its target."""

    kind: Literal["kafka", "nats"]
    directory: Path
    server: str
    name: str
    """What the topic or the subject of the target is called."""
    route: dict[str, Any] = field(default_factory=dict)
    """What the route's target has beside its place."""

    letters: str = ""
    """The dead letter's topic or subject, and in JetStream its stream."""
    broker_name: str = "one"

    def __post_init__(self) -> None:
        self.letters = self.letters or f"{self.name}-letters"

    @property
    def broker(self) -> dict[str, Any]:
        """The broker as the config has it."""
        server = self.server if self.kind == "kafka" else f"nats://{self.server}"
        return {"kind": self.kind, "servers": [server]}

    def place(self, name: str) -> dict[str, str]:
        """A topic or a subject, as the config has it."""
        return {"broker": self.broker_name, "topic" if self.kind == "kafka" else "subject": name}

    def config(self, **more: Any) -> Path:
        """Write the config; `more` stands for parts of it."""
        target = {**self.place(self.name), **self.route}
        return write_config(
            self.directory,
            {
                "brokers": {"one": self.broker},
                "routes": [{"name": "users", "events": ["user.*"], "targets": [target]}],
                "delivery": {
                    "dead_letter": {**self.place(self.letters), "unredacted": True},
                },
                **more,
            },
        )

    def inbox(self, *arguments: object, typed: str | None = None) -> Done:
        """Run `gateway inbox`; see `in_process`."""
        command, *rest = arguments
        config = self.directory / "config.yaml"
        return in_process("inbox", command, "--config", config, *rest, typed=typed)

    def listed(self, *arguments: object) -> list[dict[str, Any]]:
        """Give what `gateway inbox list` prints as JSON."""
        done = self.inbox("list", "--format", "json", *arguments)
        assert done.code == 0, done.err
        return [json.loads(line) for line in done.out.splitlines()]

    def letter(
        self,
        svix_id: str,
        body: bytes | None = None,
        *,
        destination: str | None = None,
        routes: Sequence[str] = ("users",),
        reason: str = "too_large",
        detail: str = "1 byte too many",
    ) -> Message:
        """Make a letter, as the gateway makes it."""
        read = read_event(Proof(svix_id), event() if body is None else body, SENDER, NOW)
        place = self.name if destination is None else destination
        refusal = Refusal(tuple(routes), self.broker_name if place else "", place, reason, detail)
        plan = Plan(read.key, read.body, read.metadata, (), ())
        return DeadLetter(self.broker_name, self.kind, self.letters).letter(plan, refusal, place)

    def put(self, *letters: Message) -> None:
        """Publish letters, in order."""
        publish = publish_kafka if self.kind == "kafka" else publish_nats
        server = self.server if self.kind == "kafka" else f"nats://{self.server}"
        asyncio.run(publish(server, letters))

    def delivered(self, name: str | None = None) -> list[tuple[bytes, dict[str, str]]]:
        """Give value and headers of all records of the target, or of another place."""
        return asyncio.run(self._delivered(name or self.name))

    def delivered_ids(self) -> list[str]:
        """Give the svix-ids in the target, in order."""
        return [headers["svix-id"] for _, headers in self.delivered()]

    async def create(self, *names: str, create_topic: Callable[..., Any] | None = None) -> None:
        """Create topics, or streams with a subject of the same name."""
        for name in names:
            if create_topic is not None:
                await create_topic(name, 2)
            else:
                await create_stream(f"nats://{self.server}", name, name)

    async def _delivered(self, name: str) -> list[tuple[bytes, dict[str, str]]]:
        if self.kind == "kafka":
            records = await kafka_records(self.server, name)
            return [(one.value, {k: v.decode() for k, v in one.headers}) for one in records]
        url = f"nats://{self.server}"
        if await stream_count(url, name) == 0:
            return []
        return [(one.data, one.headers) for one in await stream_messages(url, name)]


async def publish_kafka(bootstrap: str, messages: Sequence[Message]) -> None:
    """Publish with aiokafka's producer, in order."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    await producer.start()
    try:
        sends = [
            await producer.send(
                one.destination,
                one.value,
                key=(one.key or "").encode(),
                headers=[(name, value.encode()) for name, value in one.headers],
            )
            for one in messages
        ]
        await asyncio.gather(*sends)
    finally:
        await producer.stop()


async def publish_nats(url: str, messages: Sequence[Message]) -> None:
    """Publish with nats-py, one after another."""
    async with nats_client(url) as client:
        stream = client.jetstream()
        for one in messages:
            headers = {**dict(one.headers), "Nats-Msg-Id": one.dedupe_id}
            await stream.publish(one.destination, one.value, headers=headers)


def kafka_site(directory: Path, server: KafkaAt, name: str) -> Site:
    """Make the topics: two partitions each, and none for the state."""
    site = Site("kafka", directory, server.bootstrap, name)
    asyncio.run(site.create(name, site.letters, create_topic=server.create_topic))
    site.config()
    return site


def nats_site(directory: Path, server: NatsServer, name: str) -> Site:
    """Make the streams."""
    site = Site("nats", directory, server.url.removeprefix("nats://"), name)
    asyncio.run(site.create(name, site.letters))
    site.config()
    return site


def headers_of(pairs: Mapping[str, str]) -> dict[str, str]:
    """Give the headers without the broker's own."""
    return {name: value for name, value in pairs.items() if not name.startswith("Nats-")}


__all__ = [
    "NOW",
    "SENDER",
    "Proof",
    "Site",
    "headers_of",
    "kafka_site",
    "nats_site",
    "publish_kafka",
    "publish_nats",
]
