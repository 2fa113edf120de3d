"""Every type of event reaches Kafka and NATS unchanged, with every header of the contract."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from nats.aio.msg import Msg

from gateway.clerk.catalogue import CATALOGUE
from gateway.clerk.samples import sample
from tests.canaries import CANARY
from tests.e2e.client import Client, event, new_id, signed
from tests.e2e.conftest import Start
from tests.e2e.java_partitioner import murmur2, partition_of
from tests.e2e.readback import Stored, create_stream, kafka_records, nats_client, stream_messages
from tests.servers.kafka import KafkaAt
from tests.servers.nats import NatsServer

PARTITIONS = 6
MAX_BODY = 512 * 1024
UNKNOWN = "galaxy.collided"
NOW_MS = 1_767_225_599_007
"""The `timestamp` of each sample: the last second of 2025, and milliseconds that begin with 0."""
TIME = "2025-12-31T23:59:59.007Z"
RFC3339_MS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

# The field that holds the key, per entity and in order of preference.
PAYER = ("payer.organization_id", "payer.user_id", "id")
KEY_FIELDS = {
    "user": ("id",),
    "session": ("user_id", "id"),
    "email": ("user_id", "id"),
    "sms": ("user_id", "id"),
    "organization": ("id",),
    "organizationDomain": ("organization_id", "id"),
    "organizationInvitation": ("organization_id", "id"),
    "organizationMembership": ("organization.id",),
    "subscription": PAYER,
    "subscriptionItem": PAYER,
    "paymentAttempt": PAYER,
    "role": ("id",),
    "permission": ("id",),
    "waitlistEntry": ("id",),
}


@dataclass(frozen=True)
class Sent:
    """One event as it was posted, and its answer."""

    type: str
    body: bytes
    headers: dict[str, str]
    answer: dict[str, Any]

    @property
    def id(self) -> str:
        return self.headers["svix-id"]

    @property
    def key(self) -> str:
        data = json.loads(self.body)["data"]
        for path in KEY_FIELDS.get(self.type.partition(".")[0], ()):
            value = data
            for step in path.split("."):
                value = (value or {}).get(step)
            if value:
                return str(value)
        return self.id

    @property
    def both_routes(self) -> str:
        """The routes to the topic, where a user's events go by two and arrive once."""
        return "all,users" if self.type.startswith("user.") else "all"

    def attributes(self, prefix: str, content_type: str, routes: str = "all") -> dict[str, str]:
        """Give the headers of the contract, but for the time of receipt."""
        subject = json.loads(self.body)["data"].get("id")
        return {
            prefix + "specversion": "1.0",
            prefix + "id": self.id,
            prefix + "type": self.type,
            prefix + "source": "clerk/clerk",
            **({} if self.type == UNKNOWN else {prefix + "time": TIME}),
            **({prefix + "subject": subject} if subject else {}),
            prefix + "partitionkey": self.key,
            content_type: "application/json",
            **self.headers,
            "gateway-route": routes,
            "gateway-source": "clerk",
        }


@dataclass(frozen=True)
class Delivered:
    """All that was sent, and all that was read back, by svix-id."""

    sent: list[Sent]
    kafka: list[Any]
    jetstream: list[Stored]
    core: list[Msg]
    began: float
    ended: float


def body_of(event_type: str) -> bytes:
    """Give a body that re-encoding would change: its own spacing, escapes, and order of keys."""
    if event_type == UNKNOWN:
        return (
            b'{ "type":"galaxy.collided",\n"data":{"with":"%b", "n":1.50} }\r\n' % CANARY.encode()
        )
    content = json.loads(sample(event_type, NOW_MS))
    content["data"]["note"] = f"{CANARY} \u00e9\u4e2d\U0001f600 <&>"
    return json.dumps(dict(reversed(content.items())), indent=3).encode()


@pytest.fixture(scope="module")
def delivered(module_gateways: Start, kafka_server: KafkaAt, nats_server: NatsServer) -> Delivered:
    """Send each type once to all three kinds of target; read everything back."""
    return asyncio.run(_deliver(module_gateways, kafka_server, nats_server))


async def _deliver(start: Start, kafka: KafkaAt, bus: NatsServer) -> Delivered:
    name = f"events-{new_id()[4:]}"
    topic = await kafka.create_topic(name, PARTITIONS)
    stream = await create_stream(bus.url, name, f"{name}.>")
    to_kafka = {"broker": "events", "topic": topic}
    gateway = start(
        {
            "brokers": {
                "events": {"kind": "kafka", "servers": [kafka.bootstrap]},
                "bus": {"kind": "nats", "servers": [bus.url]},
                "core": {"kind": "nats", "servers": [bus.url], "jetstream": False},
            },
            "routes": [
                {
                    "name": "all",
                    "events": ["*"],
                    "targets": [
                        to_kafka,
                        {"broker": "bus", "subject": f"{name}.{{type}}"},
                        {"broker": "core", "subject": f"core-{name}.{{type}}"},
                    ],
                },
                {"name": "users", "events": ["user.*"], "targets": [to_kafka]},
            ],
        }
    )
    async with nats_client(bus.url) as listener, Client(gateway) as client:
        subscription = await listener.subscribe(f"core-{name}.>")
        await listener.flush()
        await client.until_ready()
        began = time.time()
        sent = [await _send(client, event_type) for event_type in (*CATALOGUE, UNKNOWN)]
        ended = time.time()
        core = [await subscription.next_msg(timeout=10) for _ in sent]
    records = await kafka_records(kafka.bootstrap, topic)
    return Delivered(sent, records, await stream_messages(bus.url, stream), core, began, ended)


async def _send(client: Client, event_type: str) -> Sent:
    body = body_of(event_type)
    headers = signed(body)
    answer = await client.post(body, headers)
    assert answer.word == (200, "delivered"), answer.raw
    return Sent(event_type, body, headers, answer.body)


def _is_now(delivered: Delivered, received_at: str) -> bool:
    assert RFC3339_MS.fullmatch(received_at)
    at = datetime.strptime(received_at, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC).timestamp()
    return delivered.began - 0.001 <= at <= delivered.ended + 0.001


def test_all_45_types_and_one_that_nobody_knows_were_sent(delivered: Delivered) -> None:
    assert len(CATALOGUE) == 45
    assert len({one.id for one in delivered.sent}) == 46


def test_kafka_has_each_once_with_its_bytes_key_and_headers(delivered: Delivered) -> None:
    records = {dict(record.headers)["svix-id"].decode(): record for record in delivered.kafka}
    assert len(delivered.kafka) == len(records) == len(delivered.sent)
    for one in delivered.sent:
        record = records[one.id]
        assert record.value == one.body
        assert record.key.decode() == one.key
        headers = {name: value.decode() for name, value in record.headers}
        assert len(headers) == len(record.headers)
        assert _is_now(delivered, headers.pop("gateway-received-at"))
        assert headers == one.attributes("ce_", "content-type", one.both_routes)


def test_kafka_partitions_are_those_of_the_java_client(delivered: Delivered) -> None:
    for record in delivered.kafka:
        assert record.partition == partition_of(record.key, PARTITIONS)
    assert len({record.partition for record in delivered.kafka}) > 1


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("21", -973932308),
        ("foobar", -790332482),
        ("a-little-bit-long-string", -985981536),
        ("a-little-bit-longer-string", -1486304829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        ("abc", 479470107),
    ],
)
def test_the_java_partitioner_of_these_tests_is_that_of_kafka(key: str, expected: int) -> None:
    assert murmur2(key.encode()) == expected & 0xFFFFFFFF  # from Kafka's own UtilsTest


def test_jetstream_has_each_once_with_its_bytes_and_headers(delivered: Delivered) -> None:
    found = {message.headers["svix-id"]: message for message in delivered.jetstream}
    assert len(delivered.jetstream) == len(found) == len(delivered.sent)
    for one in delivered.sent:
        message = found[one.id]
        assert message.data == one.body
        assert message.subject.endswith(f".{one.type}")
        headers = dict(message.headers)
        assert re.fullmatch(rf"{one.id}\.[0-9A-Za-z_-]+", headers.pop("Nats-Msg-Id"))
        assert _is_now(delivered, headers.pop("gateway-received-at"))
        assert headers == one.attributes("ce-", "ce-datacontenttype")


def test_core_nats_has_each_once_with_its_bytes_and_headers(delivered: Delivered) -> None:
    found = {(message.headers or {})["svix-id"]: message for message in delivered.core}
    assert len(found) == len(delivered.sent)
    for one in delivered.sent:
        message = found[one.id]
        assert message.data == one.body
        assert message.subject.endswith(f".{one.type}")
        headers = dict(message.headers or {})
        headers.pop("Nats-Msg-Id", None)
        assert _is_now(delivered, headers.pop("gateway-received-at"))
        assert headers == one.attributes("ce-", "ce-datacontenttype")


def test_each_answer_says_where_the_event_is(delivered: Delivered) -> None:
    kafka = {dict(record.headers)["svix-id"].decode(): record for record in delivered.kafka}
    jetstream = {message.headers["svix-id"]: message for message in delivered.jetstream}
    for one in delivered.sent:
        assert (one.answer["id"], one.answer["type"]) == (one.id, one.type)
        events, bus, core = (
            next(target for target in one.answer["targets"] if target["broker"] == broker)
            for broker in ("events", "bus", "core")
        )
        record, message = kafka[one.id], jetstream[one.id]
        done = {"status": "delivered"}
        assert events == {
            "route": one.both_routes,
            "broker": "events",
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            **done,
        }
        assert bus == {
            "route": "all",
            "broker": "bus",
            "subject": message.subject,
            "stream": record.topic,
            "seq": message.seq,
            **done,
        }
        assert core == {
            "route": "all",
            "broker": "core",
            "subject": f"core-{message.subject}",
            **done,
        }


async def test_events_of_one_user_share_a_partition_in_order(
    gateways: Start, kafka_server: KafkaAt, unique: Callable[[str], str]
) -> None:
    topic = await kafka_server.create_topic(unique("users"), PARTITIONS)
    gateway = gateways(
        {
            "brokers": {"events": {"kind": "kafka", "servers": [kafka_server.bootstrap]}},
            "routes": [
                {
                    "name": "all",
                    "events": ["*"],
                    "targets": [{"broker": "events", "topic": topic}],
                }
            ],
        }
    )
    user = {"data.id": "user_7", "data.user_id": "user_7"}
    types = ["user.created", "session.created", "user.updated", "email.created", "user.deleted"]
    async with Client(gateway) as client:
        await client.until_ready()
        for event_type in types:
            answer = await client.post(sample(event_type, NOW_MS, user))
            assert answer.word == (200, "delivered")
    records = await kafka_records(kafka_server.bootstrap, topic)
    assert {record.partition for record in records} == {partition_of(b"user_7", PARTITIONS)}
    assert [dict(record.headers)["ce_type"].decode() for record in records] == types


async def test_the_largest_body_reaches_both(
    gateways: Start, kafka_server: KafkaAt, nats_server: NatsServer, unique: Callable[[str], str]
) -> None:
    name = await kafka_server.create_topic(unique("large"))
    await create_stream(nats_server.url, name, f"{name}.>")
    gateway = gateways(
        {
            "brokers": {
                "events": {"kind": "kafka", "servers": [kafka_server.bootstrap]},
                "bus": {"kind": "nats", "servers": [nats_server.url]},
            },
            "routes": [
                {
                    "name": "all",
                    "events": ["*"],
                    "targets": [
                        {"broker": "events", "topic": name},
                        {"broker": "bus", "subject": f"{name}.{{type}}"},
                    ],
                }
            ],
        }
    )
    largest = event(size=MAX_BODY)
    assert len(largest) == MAX_BODY
    async with Client(gateway) as client:
        await client.until_ready()
        assert (await client.post(largest)).word == (200, "delivered")
        assert (await client.post(largest + b" ")).word == (413, "rejected")
    (record,) = await kafka_records(kafka_server.bootstrap, name)
    (message,) = await stream_messages(nats_server.url, name)
    assert record.value == message.data == largest


async def test_a_dead_letter_on_kafka(
    gateways: Start, kafka_server: KafkaAt, nats_server: NatsServer, unique: Callable[[str], str]
) -> None:
    letters = await kafka_server.create_topic(unique("letters"))
    gateway = gateways(
        {
            "brokers": {
                "events": {"kind": "kafka", "servers": [kafka_server.bootstrap]},
                "bus": {"kind": "nats", "servers": [nats_server.url]},
            },
            "routes": [
                {
                    "name": "tenants",
                    "events": ["*"],
                    "targets": [{"broker": "bus", "subject": "tenant.{data.tenant}"}],
                }
            ],
            "delivery": {"dead_letter": {"broker": "events", "topic": letters}},
        }
    )
    body = event()
    headers = signed(body)
    async with Client(gateway) as client:
        await client.until_ready()
        async with client.counting(("clerk", "dead_lettered", "expression")):
            assert (await client.post(body, headers)).word == (200, "dead_lettered")
    (letter,) = await kafka_records(kafka_server.bootstrap, letters)
    assert (letter.value, letter.key) == (body, b"user_1")
    shown = {name: value.decode() for name, value in letter.headers}
    assert shown["gateway-dead-letter-reason"] == "expression"
    assert shown["gateway-dead-letter-target"] == "bus/tenant.{data.tenant}"
    assert "data.tenant" in shown["gateway-dead-letter-detail"]
    assert shown["gateway-route"] == "tenants"
    assert (shown["ce_id"], shown["ce_type"]) == (headers["svix-id"], "user.created")
