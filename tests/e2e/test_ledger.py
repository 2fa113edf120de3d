"""The ledger before real brokers: copies come out once, retries repeat only what is owed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.canaries import OTHER_SECRET, SECRET
from tests.e2e.client import Answer, Client, event, new_id, signed, until
from tests.e2e.conftest import Start
from tests.e2e.readback import create_stream, kafka_records, stream_messages
from tests.e2e.test_rotation import held, on, replace, until_said
from tests.servers.kafka import KafkaAt, KafkaServer
from tests.servers.nats import NatsServer

DEADLINE = 2.0


def config(kafka: KafkaAt | KafkaServer, topic: str, **more: Any) -> dict[str, Any]:
    """Give a config with one route to a Kafka topic, and two secrets while one rotates."""
    return {
        "server": {"deadline": f"{DEADLINE}s"},
        "sources": {"clerk": {"secrets": [SECRET, OTHER_SECRET]}},
        "brokers": {"events": {"kind": "kafka", "servers": [kafka.bootstrap]}},
        "routes": [
            {"name": "all", "events": ["*"], "targets": [{"broker": "events", "topic": topic}]}
        ],
        **more,
    }


async def stored(kafka: KafkaAt | KafkaServer, topic: str) -> Counter[str]:
    """Count the records of a topic by svix-id."""
    records = await kafka_records(kafka.bootstrap, topic)
    return Counter(dict(record.headers)["svix-id"].decode() for record in records)


@asynccontextmanager
async def frozen(server: KafkaServer | NatsServer) -> AsyncIterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()


async def test_both_copies_of_a_rotation_are_one_record_in_kafka(
    gateways: Start, kafka_server: KafkaAt, unique: Callable[[str], str]
) -> None:
    """Every event is posted twice at the same moment, by two endpoints of one URL."""
    topic = await kafka_server.create_topic(unique("twins"), 3)
    gateway = gateways(config(kafka_server, topic))
    ids = [new_id() for _ in range(60)]

    async def both(client: Client, svix_id: str) -> list[Answer]:
        body = event()
        copies = [signed(body, svix_id, secret=secret) for secret in (SECRET, OTHER_SECRET)]
        return await asyncio.gather(*(client.post(body, copy) for copy in copies))

    async with Client(gateway) as client:
        await client.until_ready()
        outcomes = [("clerk", word, "") for word in ("delivered", "duplicate")]
        async with client.counting(*outcomes * len(ids)):
            answers = await asyncio.gather(*(both(client, svix_id) for svix_id in ids))
        places = []
        for first, second in answers:
            assert {first.word, second.word} == {(200, "delivered"), (200, "duplicate")}
            assert first.body["targets"] == second.body["targets"], "both say where it is"
            places += [(one["partition"], one["offset"]) for one in first.body["targets"]]
        settled = await client.samples("gateway_settlements_total")
    assert len(set(places)) == len(ids)
    assert list(settled.values()) == [len(ids)]
    assert await stored(kafka_server, topic) == Counter(ids)


async def test_a_retry_publishes_only_to_the_target_that_is_owed(
    gateways: Start, kafka_server: KafkaAt, own_nats: NatsServer, unique: Callable[[str], str]
) -> None:
    topic = await kafka_server.create_topic(unique("owed"))
    stream = await create_stream(own_nats.url, unique("owed"), "owed.>")
    written = config(kafka_server, topic)
    written["brokers"]["bus"] = {"kind": "nats", "servers": [own_nats.url]}
    written["routes"][0]["targets"].append({"broker": "bus", "subject": "owed.{type}"})
    gateway = gateways(written)
    svix_id, body = new_id(), event()
    async with Client(gateway) as client:
        await client.until_ready()
        own_nats.kill()
        await client.until_ready("undeliverable")
        failed = await client.post(body, signed(body, svix_id))
        assert failed.word == (503, "failed")
        assert [one["status"] for one in failed.body["targets"]] == ["delivered", "failed"]
        await asyncio.to_thread(own_nats.start)
        await client.until_ready()
        retry = await client.post(body, signed(body, svix_id))
        assert retry.word == (200, "delivered")
        assert [one["status"] for one in retry.body["targets"]] == ["delivered", "delivered"]
        assert retry.body["targets"][0] == failed.body["targets"][0]
        assert (await client.post(body, signed(body, svix_id))).word == (200, "duplicate")
    assert await stored(kafka_server, topic) == {svix_id: 1}
    messages = await stream_messages(own_nats.url, stream)
    assert [one.headers["svix-id"] for one in messages] == [svix_id]


async def test_what_a_frozen_kafka_acks_late_is_not_doubled_by_the_retries(
    gateways: Start, own_kafka: KafkaServer, unique: Callable[[str], str]
) -> None:
    """The first attempt ends while it is frozen, and the retries go on until each is taken."""
    topic = await own_kafka.create_topic(unique("frozen"), 3)
    gateway = gateways(config(own_kafka, topic))
    ids, body = [new_id() for _ in range(20)], event()
    words: Counter[tuple[int, str]] = Counter()

    async def post_until_taken(client: Client, svix_id: str) -> None:
        async def is_taken() -> bool:
            answer = await client.post(body, signed(body, svix_id))
            words[answer.word] += 1
            return answer.status == 200

        await until(is_taken, "the event is taken")

    async with Client(gateway) as client:
        await client.until_ready()
        assert (await client.post()).word == (200, "delivered")
        before = await stored(own_kafka, topic)
        async with frozen(own_kafka):
            copies = [client.post(body, signed(body, svix_id)) for svix_id in ids]
            first = [answer.word for answer in await asyncio.gather(*copies)]
            assert first == [(503, "failed")] * len(ids)
            retries = [asyncio.create_task(post_until_taken(client, svix_id)) for svix_id in ids]
        await asyncio.gather(*retries)
        late = sum((await client.samples("gateway_late_acks_total")).values())
    # What was on its way when it froze was acked late. Its retry has published nothing.
    assert late >= 1
    assert words[200, "duplicate"] >= 1
    assert words[200, "duplicate"] + words[200, "delivered"] == len(ids)
    assert await stored(own_kafka, topic) - before == Counter(ids)


async def test_a_resend_after_the_window_is_published_again(
    gateways: Start, kafka_server: KafkaAt, unique: Callable[[str], str]
) -> None:
    topic = await kafka_server.create_topic(unique("resend"))
    gateway = gateways(config(kafka_server, topic, delivery={"dedupe": {"window": "1s"}}))
    svix_id, body = new_id(), event()
    words: list[tuple[int, str]] = []
    async with Client(gateway) as client:
        await client.until_ready()

        async def has_passed() -> bool:
            words.append((await client.post(body, signed(body, svix_id))).word)
            return words.count((200, "delivered")) == 2

        await until(has_passed, "the window is over")
    assert set(words) == {(200, "delivered"), (200, "duplicate")}
    assert await stored(kafka_server, topic) == {svix_id: 2}


async def test_a_reload_keeps_what_is_known(
    gateways: Start, nats_server: NatsServer, unique: Callable[[str], str], tmp_path: Path
) -> None:
    path = tmp_path / "secrets"
    path.write_text(SECRET)
    gateway = gateways(await on(nats_server, unique("kept"), held(path)))
    svix_id, body = new_id(), event()
    async with Client(gateway) as client:
        await client.until_ready()
        assert (await client.post(body, signed(body, svix_id))).word == (200, "delivered")
        replace(path, OTHER_SECRET)
        await until_said(gateway, "config reloaded")
        copy = await client.post(body, signed(body, svix_id, secret=OTHER_SECRET))
    assert copy.word == (200, "duplicate")
