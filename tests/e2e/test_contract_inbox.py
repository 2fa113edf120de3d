"""What the contract says of inbox mode, sentence by sentence, on real processes and servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.canaries import CANARY
from tests.e2e.client import Client, event, new_id, signed, until
from tests.e2e.conftest import Start
from tests.e2e.readback import create_stream, kafka_records, stream_count, stream_messages
from tests.e2e.test_contract_delivery import nats, route
from tests.servers.kafka import KafkaAt
from tests.servers.nats import NatsServer

Unique = Callable[[str], str]
Settled = dict[tuple[str, ...], float]
STORED, DUPLICATE = (200, "stored"), (200, "duplicate")
SHORT = 0.1
"""JetStream's own duplicate window, in seconds, where the ledger's is to be seen."""


def inbox(directory: Path, **more: Any) -> dict[str, Any]:
    """Give the settings of an inbox in a file; `more` stands beside the path."""
    return {"mode": "inbox", "inbox": {"path": str(directory / "inbox.db"), **more}}


async def settled(client: Client) -> Settled:
    """Give how many targets were settled, by route, broker, status and reason."""
    counts = await client.samples("gateway_settlements_total")
    # The text has the labels by their names' alphabet.
    return {
        (route, broker, status, reason): count
        for (broker, reason, route, status), count in counts.items()
        if count
    }


async def until_settled(client: Client, count: int) -> Settled:
    """Wait until so many targets are settled."""

    async def is_so() -> bool:
        return sum((await settled(client)).values()) >= count

    await until(is_so, f"{count} targets are settled")
    return await settled(client)


async def until_count(server: NatsServer, stream: str, count: int) -> None:
    async def is_so() -> bool:
        return await stream_count(server.url, stream) >= count

    await until(is_so, f"{count} records are in {stream}")


async def ids_in(server: NatsServer, stream: str) -> list[str]:
    """Give the svix-ids of a stream, in order."""
    return [one.headers["svix-id"] for one in await stream_messages(server.url, stream)]


async def test_one_broker_is_down_and_the_other_target_is_served_at_once(
    gateways: Start, kafka_server: KafkaAt, own_nats: NatsServer, unique: Unique, tmp_path: Path
) -> None:
    """Each target has exactly one settlement; a copy is `stored`, then `duplicate`, then anew."""
    topic = await kafka_server.create_topic(unique("served"))
    stream = await create_stream(own_nats.url, unique("served"), "served.>", duplicate_window=SHORT)
    gateway = gateways(
        {
            "brokers": {
                "events": {"kind": "kafka", "servers": [kafka_server.bootstrap]},
                "bus": nats(own_nats),
            },
            "routes": [
                route(
                    "all",
                    {"broker": "events", "topic": topic},
                    {"broker": "bus", "subject": "served.{type}"},
                )
            ],
            "delivery": {**inbox(tmp_path), "dedupe": {"window": "3s"}},
        }
    )
    svix_id, body = new_id(), event()
    async with Client(gateway) as client:
        await client.until_ready()
        own_nats.kill()
        await client.until_ready("degraded")
        assert (await client.ready())[0] == 200, "no route is whole, and events are stored"
        first = await client.post(body, signed(body, svix_id))
        assert [one["status"] for one in first.body["targets"]] == ["stored", "stored"]
        one = ("all", "events", "delivered", "")
        assert await until_settled(client, 1) == {one: 1}
        assert (await client.post(body, signed(body, svix_id))).word == STORED, "it waits"
        (record,) = await kafka_records(kafka_server.bootstrap, topic)
        assert record.value == body

        await asyncio.to_thread(own_nats.start)
        both = {one: 1, ("all", "bus", "delivered", ""): 1}
        assert await until_settled(client, 2) == both
        assert (await client.post(body, signed(body, svix_id))).word == DUPLICATE

        async def passes_again() -> bool:
            answer = await client.post(body, signed(body, svix_id))
            assert answer.word in {STORED, DUPLICATE}
            return answer.word == STORED

        await until(passes_again, "the window is over")
        assert await until_settled(client, 4) == dict.fromkeys(both, 2)
        outcomes = await client.counted()
    assert outcomes[("clerk", "stored", "")] == 3
    assert outcomes[("clerk", "duplicate", "")] >= 1
    assert await ids_in(own_nats, stream) == [svix_id] * 2
    assert len(await kafka_records(kafka_server.bootstrap, topic)) == 2


async def test_order_of_each_key_holds_over_an_outage_and_kills_of_the_gateway(
    gateways: Start, own_nats: NatsServer, unique: Unique, tmp_path: Path
) -> None:
    """A `key` orders also on NATS: two users of one organization stay in order."""
    stream = await create_stream(own_nats.url, unique("order"), "order.>")
    target = {"broker": "bus", "subject": "order.{data.id}", "key": "{data.org}"}
    gateway = gateways(
        {
            "brokers": {"bus": nats(own_nats)},
            "routes": [route("all", target)],
            "delivery": inbox(tmp_path),
        }
    )
    sent: dict[str, list[str]] = {f"org_{number}": [] for number in range(4)}

    async def post(client: Client, org: str, count: int) -> None:
        for number in range(count):
            body, svix_id = event(id=f"user_{number % 2}", org=org), new_id()
            assert (await client.post(body, signed(body, svix_id))).word == STORED
            sent[org].append(svix_id)

    async def all_post(count: int) -> None:
        async with Client(gateway) as client:
            await asyncio.gather(*(post(client, org, count) for org in sent))

    async with Client(gateway) as client:
        await client.until_ready()
    await all_post(5)
    own_nats.kill()
    await all_post(5)
    gateway.kill()
    await asyncio.to_thread(gateway.start)
    await all_post(5)
    await asyncio.to_thread(own_nats.start)
    gateway.kill()
    await asyncio.to_thread(gateway.start)
    await all_post(5)
    every = {svix_id for ids in sent.values() for svix_id in ids}

    async def all_there() -> bool:
        messages = await stream_messages(own_nats.url, stream)
        return every <= {one.headers["svix-id"] for one in messages}

    await until(all_there, "every event is in the stream")
    # What was on its way at a kill may be there twice: the first one of each counts.
    arrived: dict[str, dict[str, None]] = {org: {} for org in sent}
    for message in await stream_messages(own_nats.url, stream):
        org = json.loads(message.data)["data"]["org"]
        arrived[org].setdefault(message.headers["svix-id"])
    assert {org: list(ids) for org, ids in arrived.items()} == sent


async def test_the_stored_targets_count_and_not_those_of_a_later_config(
    gateways: Start, own_nats: NatsServer, unique: Unique, tmp_path: Path
) -> None:
    """Each target gets its own payload, rendered when the event came."""
    stream = await create_stream(own_nats.url, unique("kinds"), "kinds.>")
    redacted = {"payload": "data", "redact": ["data.first_name"], "headers": {"x-org": "{source}"}}
    config = {
        "brokers": {"bus": nats(own_nats)},
        "routes": [
            route(
                "all",
                {"broker": "bus", "subject": "kinds.original.{type}"},
                {"broker": "bus", "subject": "kinds.data.{type}", **redacted},
                {"broker": "bus", "subject": "kinds.events.{type}", "payload": "cloudevents"},
            )
        ],
        "delivery": inbox(tmp_path),
    }
    gateway = gateways(config)
    svix_id, body = new_id(), event()
    async with Client(gateway) as client:
        await client.until_ready()
        own_nats.kill()
        await client.until_ready("degraded")
        assert (await client.post(body, signed(body, svix_id))).word == STORED
    gateway.kill()
    config["routes"] = [route("new", {"broker": "bus", "subject": "kinds.new.{type}"})]
    await asyncio.to_thread(own_nats.start)
    async with Client(gateways(config)) as client:
        await until_count(own_nats, stream, 3)
        assert sum((await until_settled(client, 3)).values()) == 3
    by_kind = {
        one.subject.split(".")[1]: one for one in await stream_messages(own_nats.url, stream)
    }
    assert set(by_kind) == {"original", "data", "events"}
    assert by_kind["original"].data == body
    data = json.loads(by_kind["data"].data)
    assert data["id"] == "user_1"
    assert CANARY not in json.dumps(data)
    assert by_kind["data"].headers["x-org"] == "clerk"
    structured = json.loads(by_kind["events"].data)
    assert (structured["id"], structured["data"]) == (svix_id, json.loads(body))
    assert by_kind["events"].headers["content-type"] == "application/cloudevents+json"
    assert len({one.headers["Nats-Msg-Id"] for one in by_kind.values()}) == 3
    assert {one.headers["svix-id"] for one in by_kind.values()} == {svix_id}


async def test_what_outlives_max_age_goes_to_the_dead_letter(
    gateways: Start, nats_server: NatsServer, own_nats: NatsServer, unique: Unique, tmp_path: Path
) -> None:
    """The letter has the original bytes and headers, the reason and the target."""
    letters = unique("aged")
    await create_stream(nats_server.url, letters, letters)
    late = await create_stream(own_nats.url, unique("late"), "late.>")
    gateway = gateways(
        {
            "brokers": {"bus": nats(nats_server), "away": nats(own_nats)},
            "routes": [
                route("late", {"broker": "away", "subject": "late.{type}", "payload": "data"})
            ],
            "delivery": {
                **inbox(tmp_path, max_age="1s"),
                "dead_letter": {"broker": "bus", "subject": letters},
            },
        }
    )
    body = event()
    headers = signed(body)
    async with Client(gateway) as client:
        await client.until_ready()
        own_nats.kill()
        await client.until_ready("degraded")
        assert (await client.post(body, headers)).word == STORED
        assert await until_settled(client, 1) == {("late", "away", "dead_lettered", "max_age"): 1}
        assert (await client.post(body, headers)).word == DUPLICATE, "it is finished"
        await asyncio.to_thread(own_nats.start)
        await client.until_ready()
    (letter,) = await stream_messages(nats_server.url, letters)
    assert letter.data == body
    assert {name: letter.headers[name] for name in headers} == headers
    assert letter.headers["gateway-dead-letter-reason"] == "max_age"
    assert letter.headers["gateway-dead-letter-target"] == "away/late.user.created"
    assert await stream_count(own_nats.url, late) == 0


async def test_a_refused_target_is_told_at_once_and_its_letter_waits_for_its_broker(
    gateways: Start, nats_server: NatsServer, own_nats: NatsServer, unique: Unique, tmp_path: Path
) -> None:
    good, letters = unique("good"), "letters.all"
    await create_stream(nats_server.url, good, good)
    stream = await create_stream(own_nats.url, unique("letters"), letters)
    gateway = gateways(
        {
            "brokers": {"bus": nats(nats_server), "away": nats(own_nats)},
            "routes": [
                route("good", {"broker": "bus", "subject": good}, events=["user.*"]),
                route("bad", {"broker": "bus", "subject": "x.{data.no}"}, events=["user.*"]),
            ],
            "unmatched": "dead_letter",
            "delivery": {
                **inbox(tmp_path),
                "dead_letter": {"broker": "away", "subject": letters},
            },
        }
    )
    body, nobodys = event(), event("role.created")
    async with Client(gateway) as client:
        await client.until_ready()
        own_nats.kill()
        await client.until_ready("degraded")
        answer = await client.post(body)
        assert answer.word == STORED
        reasons = {one["route"]: one.get("reason") for one in answer.body["targets"]}
        assert reasons == {"good": None, "bad": "expression"}
        assert await until_settled(client, 1) == {("good", "bus", "delivered", ""): 1}
        unmatched = await client.post(nobodys)
        assert unmatched.word == STORED
        await asyncio.to_thread(own_nats.start)
        found = await until_settled(client, 3)
    assert found[("bad", "bus", "dead_lettered", "expression")] == 1
    assert sum(found.values()) == 3
    reasons = {
        one.headers["gateway-dead-letter-reason"]: one.data
        for one in await stream_messages(own_nats.url, stream)
    }
    assert reasons == {"expression": body, "unmatched": nobodys}


async def test_a_stuck_destination_holds_up_no_other(
    gateways: Start, kafka_server: KafkaAt, unique: Unique, tmp_path: Path
) -> None:
    """One Kafka topic is missing, which is not final; it is served when it is there."""
    prefix = unique("stuck")
    await kafka_server.create_topic(f"{prefix}-there")
    target = {"broker": "events", "topic": f"{prefix}-{{data.kind}}"}
    gateway = gateways(
        {
            "brokers": {"events": {"kind": "kafka", "servers": [kafka_server.bootstrap]}},
            "routes": [route("all", target)],
            "delivery": inbox(tmp_path),
        }
    )
    missing = [event(kind="missing", number=number) for number in range(5)]
    async with Client(gateway) as client:
        await client.until_ready()
        for body in missing:
            assert (await client.post(body)).word == STORED
            assert (await client.post(event(kind="there"))).word == STORED
        await until_settled(client, 5)
        assert (await client.ready())[1]["status"] == "ready"
        await kafka_server.create_topic(f"{prefix}-missing")
        assert await until_settled(client, 10) == {("all", "events", "delivered", ""): 10}
    assert len(await kafka_records(kafka_server.bootstrap, f"{prefix}-there")) == 5
    stuck = await kafka_records(kafka_server.bootstrap, f"{prefix}-missing")
    assert [record.value for record in stuck] == missing


async def test_events_are_stored_where_no_broker_is_there_yet(
    gateways: Start, own_nats: NatsServer, unique: Unique, tmp_path: Path
) -> None:
    """A broker that is down does not stop the start, and no event is refused for it."""
    stream = await create_stream(own_nats.url, unique("yet"), "yet.>")
    own_nats.kill()
    gateway = gateways(
        {
            "brokers": {"bus": nats(own_nats)},
            "routes": [route("all", {"broker": "bus", "subject": "yet.{type}"})],
            "delivery": inbox(tmp_path),
        }
    )
    async with Client(gateway) as client:
        await client.until_ready("degraded")
        code, ready = await client.ready()
        assert (code, ready["broken"]) == (200, ["bus"])
        ids = [new_id() for _ in range(3)]
        for svix_id in ids:
            body = event()
            assert (await client.post(body, signed(body, svix_id))).word == STORED
        await asyncio.to_thread(own_nats.start)
        await client.until_ready()
        await until_settled(client, 3)
    assert await ids_in(own_nats, stream) == ids


@pytest.mark.parametrize("store", ["sqlite", "jetstream"])
async def test_a_copy_is_stored_while_it_waits_and_then_a_duplicate_over_a_restart(
    gateways: Start,
    nats_server: NatsServer,
    own_nats: NatsServer,
    unique: Unique,
    tmp_path: Path,
    store: str,
) -> None:
    stream = await create_stream(own_nats.url, unique("copy"), "copy.>", duplicate_window=SHORT)
    delivery = inbox(tmp_path)
    if store == "jetstream":
        place = {"store": "jetstream", "broker": "bus", "stream": unique("INBOX")}
        delivery["inbox"] = {**place, "max_bytes": "8MiB", "parked_max_bytes": "8MiB"}
    gateway = gateways(
        {
            "brokers": {"bus": nats(nats_server), "away": nats(own_nats)},
            "routes": [route("all", {"broker": "away", "subject": "copy.{type}"})],
            "delivery": delivery,
        }
    )
    # A lease of a gateway that was killed has to run out, which takes ten seconds.
    leave = gateway.kill if store == "sqlite" else gateway.end
    svix_id, body = new_id(), event()

    async def copies(client: Client, word: tuple[int, str]) -> None:
        answers = [await client.post(body, signed(body, svix_id)) for _ in range(2)]
        assert [answer.word for answer in answers] == [word, word]

    async with Client(gateway) as client:
        await client.until_ready()
        own_nats.kill()
        await client.until_ready("degraded")
        await copies(client, STORED)
    leave()
    await asyncio.to_thread(gateway.start)
    async with Client(gateway) as client:
        await client.until_ready("degraded")
        await copies(client, STORED)
        await asyncio.to_thread(own_nats.start)
        await until_settled(client, 1)
        await copies(client, DUPLICATE)
    leave()
    await asyncio.to_thread(gateway.start)
    async with Client(gateway) as client:
        await client.until_ready()
        await copies(client, DUPLICATE)
        assert await settled(client) == {}
    assert await ids_in(own_nats, stream) == [svix_id]
