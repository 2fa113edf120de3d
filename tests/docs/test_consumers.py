"""The Python of docs/consumers.md, run as it stands there against real brokers."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import nats
import pytest
from aiokafka import AIOKafkaProducer
from nats.js.api import StreamConfig
from pydantic import SecretStr

from gateway.metadata import Metadata, kafka_headers, nats_headers
from gateway.signature import Verifier
from tests.canaries import SECRET
from tests.docs.pages import blocks
from tests.servers.kafka import KafkaAt
from tests.servers.nats import NatsServer

PATIENCE = 30.0
TOPIC = f"clerk.users-{secrets.token_hex(6)}"
"""Stands in for the page's `clerk.users`: tests share a Kafka."""


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """Run every Python block of the page in one namespace."""
    names: dict[str, Any] = {}
    for block in blocks("python"):
        assert block.page == "docs/consumers.md"
        source = block.text.replace('"clerk.users"', f'"{TOPIC}"')
        exec(compile(source, str(block), "exec"), names)  # noqa: S102 - it is our own page
    return names


class Event:
    """One event, as the gateway would publish it."""

    def __init__(self, event_type: str, at: str, name: str = "", user: str = "user_1") -> None:
        self.body = json.dumps({"data": {"id": user, "name": name}, "type": event_type}).encode()
        self.metadata = Metadata(
            id=f"msg_{secrets.token_hex(8)}",
            type=event_type,
            source="clerk/clerk",
            time=at,
            subject=user,
            timestamp="1614265330",
            signature="v1,unused",
            gateway_source="clerk",
            received_at=at,
        )


FIRST, SECOND, THIRD = (f"2026-01-01T00:00:0{second}.000Z" for second in (1, 2, 3))


def story() -> list[Event]:
    """Give what Svix may make of a user's life: late, doubled, after the end."""
    updated = Event("user.updated", SECOND, "second")
    return [
        updated,
        Event("user.created", FIRST, "first"),
        updated,
        Event("user.created", FIRST, "other", "user_2"),
        Event("user.updated", SECOND, "other at the same time", "user_2"),
        Event("user.updated", SECOND, "other, last", "user_2"),
        Event("user.deleted", FIRST, user="user_3"),
        Event("user.updated", THIRD, "back from the dead", "user_3"),
        Event("user.created", FIRST, "the end", "user_4"),
    ]


def assert_told_right(users: Any) -> None:
    """Assert what a consumer knows at the end of the story."""
    assert {user: row["name"] for user, row in users.rows.items()} == {
        "user_1": "second",
        "user_2": "other, last",
        "user_4": "the end",
    }


async def until_the_end(consuming: Coroutine[Any, Any, None], users: Any) -> None:
    """Run a consumer until it knows the last event; it never ends by itself."""
    task = asyncio.create_task(consuming)
    deadline = time.monotonic() + PATIENCE
    while "user_4" not in users.rows:
        assert not task.done(), task.exception()
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_kafka(page: dict[str, Any], kafka_server: KafkaAt) -> None:
    await kafka_server.create_topic(TOPIC)
    producer = AIOKafkaProducer(bootstrap_servers=kafka_server.bootstrap)
    await producer.start()
    try:
        for event in story():
            headers = kafka_headers(event.metadata, "user_1", "users")
            pairs = [(name, value.encode()) for name, value in headers]
            await producer.send_and_wait(TOPIC, event.body, headers=pairs)
    finally:
        await producer.stop()
    users = page["Users"]()
    await until_the_end(page["consume_kafka"](kafka_server.bootstrap, users), users)
    assert_told_right(users)


async def test_jetstream(page: dict[str, Any], new_nats: Callable[..., NatsServer]) -> None:
    server = await asyncio.to_thread(new_nats)
    client = await nats.connect(server.url)
    try:
        jetstream = client.jetstream()
        await jetstream.add_stream(StreamConfig(name="CLERK", subjects=["clerk.>"]))
        for event in story():
            headers = dict(nats_headers(event.metadata, "user_1", "users"))
            await jetstream.publish(f"clerk.{event.metadata.type}", event.body, headers=headers)
    finally:
        await client.close()
    users = page["Users"]()
    await until_the_end(page["consume_jetstream"](server.url, users), users)
    assert_told_right(users)


def test_a_signature_is_verified_from_a_record(page: dict[str, Any]) -> None:
    """With the vector that Standard Webhooks' own tests have, years after its time."""
    headers = {
        "svix-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "svix-timestamp": "1614265330",
        "svix-signature": "v1a,other v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    body = b'{"test": 2432232314}'
    assert page["is_genuine"](headers, body, SECRET)
    assert not page["is_genuine"](headers, body + b" ", SECRET)
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert (
        Verifier([SecretStr(SECRET)], 300).verify(raw, body, 1614265330).timestamp == "1614265330"
    )
