"""The ledger that workers share, and that replicas share: one event is one record, whoever gets it.

Every test runs over two processes, to each of which a client of its own has its connections.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import nats
import pytest
from nats.js.api import DiscardPolicy

from tests.canaries import OTHER_SECRET, SECRET
from tests.e2e.client import Answer, Client, event, new_id, signed, until
from tests.e2e.conftest import Start
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.test_ledger import DEADLINE, config, frozen, stored
from tests.e2e.test_workers import until_workers
from tests.servers.kafka import KafkaAt, KafkaServer
from tests.servers.nats import NatsServer

CONNECTIONS = 6
FREEZE = 10.0


@dataclass
class Pair:
    """Two processes that share a ledger, and a client at each."""

    gateways: list[GatewayProcess]
    pids: list[int]
    clients: list[Client]

    async def count(self, name: str, label: str = "") -> float:
        """Add up a metric over both, or the samples of it that have a label."""
        total = 0.0
        for _, client in zip(self.gateways, self.clients, strict=False):
            samples = await client.samples(name)
            total += sum(value for labels, value in samples.items() if label in (*labels, ""))
        return total


Make = Callable[[dict[str, Any]], Awaitable[Pair]]


@pytest.fixture(params=["workers", "replicas"])
async def pairs(
    request: pytest.FixtureRequest, gateways: Start, own_nats: NatsServer
) -> AsyncIterator[Make]:
    """Start two workers of one tree, or two replicas over NATS: `pairs(config)`."""
    async with AsyncExitStack() as stack:

        async def start(written: dict[str, Any]) -> Pair:
            if request.param == "workers":
                gateway = gateways(written, workers=2)
                both, pids = [gateway], await until_workers(gateway, 2)
            else:
                both = [gateways(over_kv(written, own_nats)) for _ in range(2)]
                pids = [gateway.pid for gateway in both]
            entered = [Client(both[at % len(both)], CONNECTIONS) for at in range(2)]
            clients = [await stack.enter_async_context(client) for client in entered]
            for client, other in zip(clients, reversed(pids), strict=True):
                await client.until_ready()
                await connect_beside(client, other)
            return Pair(both, pids, clients)

        yield start


def over_kv(written: dict[str, Any], nats: NatsServer, **more: Any) -> dict[str, Any]:
    """Have a config's ledger in a bucket."""
    delivery = dict(written.get("delivery", {}))
    delivery["ledger"] = {"store": "nats-kv", "broker": "bus", **more}
    brokers = {**written["brokers"], "bus": {"kind": "nats", "servers": [nats.url]}}
    return {**written, "brokers": brokers, "delivery": delivery}


async def connect_beside(client: Client, other: int) -> None:
    """Open all connections of a client while a process takes none, so that the other has them."""

    async def delivers() -> bool:
        answers = await asyncio.gather(*(client.post() for _ in range(CONNECTIONS)))
        return {answer.word for answer in answers} == {(200, "delivered")}

    os.kill(other, signal.SIGSTOP)
    try:
        await until(delivers, "all its connections are to a process that delivers")
    finally:
        os.kill(other, signal.SIGCONT)


async def copies(pair: Pair, svix_id: str) -> list[Answer]:
    """Post an event at once by both endpoints, to both processes."""
    body = event()
    headers = [signed(body, svix_id, secret=secret) for secret in (SECRET, OTHER_SECRET)]
    posts = [client.post(body, one) for client, one in zip(pair.clients, headers, strict=True)]
    return await asyncio.gather(*posts)


async def test_copies_that_reach_two_processes_are_one_record(
    pairs: Make, kafka_server: KafkaAt, unique: Callable[[str], str]
) -> None:
    topic = await kafka_server.create_topic(unique("pair"), 3)
    pair = await pairs(config(kafka_server, topic))
    before = await stored(kafka_server, topic)
    ids = [new_id() for _ in range(40)]
    for svix_id in ids:
        answers = await copies(pair, svix_id)
        words = sorted(answer.word for answer in answers)
        assert words == [(200, "delivered"), (200, "duplicate")]
        assert answers[0].body["targets"] == answers[1].body["targets"]
    assert await pair.count("gateway_ledger_unshared_total") == 0
    assert await stored(kafka_server, topic) - before == Counter(ids)


async def test_what_a_frozen_kafka_acks_late_is_not_doubled_by_another_process(
    pairs: Make, own_kafka: KafkaServer, unique: Callable[[str], str]
) -> None:
    """As Svix does: 503 at the deadline, the frozen publish lands later, the retry is elsewhere."""
    topic = await own_kafka.create_topic(unique("frozen"), 3)
    pair = await pairs(config(own_kafka, topic))
    before = await stored(own_kafka, topic)
    first, other = pair.clients
    ids, body = [new_id() for _ in range(CONNECTIONS)], event()
    reasons: Counter[str] = Counter()
    words: Counter[tuple[int, str]] = Counter()

    async def post_until_taken(svix_id: str) -> None:
        async def is_taken() -> bool:
            answer = await other.post(body, signed(body, svix_id))
            words[answer.word] += 1
            reasons[answer.body.get("reason", "")] += answer.status != 200
            return answer.status == 200

        await until(is_taken, "the event is taken")

    async with frozen(own_kafka):
        posts = [first.post(body, signed(body, svix_id)) for svix_id in ids]
        answers = await asyncio.gather(*posts)
        assert {answer.word for answer in answers} == {(503, "failed")}
        retries = [asyncio.create_task(post_until_taken(svix_id)) for svix_id in ids]
        await asyncio.sleep(FREEZE - DEADLINE)
    await asyncio.gather(*retries)
    # What was on the wire when it froze is waited for; what was not has ended at its deadline.
    assert reasons["in_progress"] >= 1, reasons
    assert words[200, "duplicate"] + words[200, "delivered"] == len(ids)
    assert words[200, "duplicate"] >= 1, words
    assert await pair.count("gateway_late_acks_total") >= 1
    assert await pair.count("gateway_ledger_unshared_total") == 0
    assert await stored(own_kafka, topic) - before == Counter(ids)


async def test_a_resend_after_the_window_is_published_again(
    pairs: Make, kafka_server: KafkaAt, unique: Callable[[str], str]
) -> None:
    topic = await kafka_server.create_topic(unique("resend"))
    pair = await pairs(config(kafka_server, topic, delivery={"dedupe": {"window": "2s"}}))
    svix_id, body = new_id(), event()
    words: list[tuple[int, str]] = []

    async def has_passed() -> bool:
        client = pair.clients[len(words) % 2]
        words.append((await client.post(body, signed(body, svix_id))).word)
        return words.count((200, "delivered")) == 2

    await until(has_passed, "the window is over")
    assert set(words) == {(200, "delivered"), (200, "duplicate")}
    assert (await stored(kafka_server, topic))[svix_id] == 2


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_retry_delivers_when_the_process_that_had_the_event_is_killed(
    pairs: Make, own_kafka: KafkaServer, unique: Callable[[str], str], blow: signal.Signals
) -> None:
    """A worker's claims end with it, or when it is frozen; a replica's with its lease."""
    topic = await own_kafka.create_topic(unique("killed"))
    pair = await pairs(config(own_kafka, topic))
    svix_id, body = new_id(), event()
    async with frozen(own_kafka):
        first = asyncio.create_task(pair.clients[0].post(body, signed(body, svix_id)))

        async def is_in_flight() -> bool:
            return await pair.count("gateway_broker_in_flight_records", "events") == 1

        await until(is_in_flight, "the record is on its way")
        early = await pair.clients[1].post(body, signed(body, svix_id))
        assert early.body["reason"] == "in_progress"
        os.kill(pair.pids[0], blow)
        if blow is signal.SIGSTOP:
            first.cancel()
        await asyncio.gather(first, return_exceptions=True)

    async def is_taken() -> bool:
        return (await pair.clients[1].post(body, signed(body, svix_id))).status == 200

    try:
        await until(is_taken, "the event is taken")
    finally:
        if blow is signal.SIGSTOP:
            os.kill(pair.pids[0], signal.SIGCONT)
    # The broker may have taken the killed one's record, too: nobody could know.
    assert 1 <= (await stored(own_kafka, topic))[svix_id] <= 2


@pytest.mark.parametrize("trouble", ["killed", "frozen"])
async def test_a_bucket_that_cannot_be_reached_holds_up_nothing_for_long(
    gateways: Start,
    kafka_server: KafkaAt,
    own_nats: NatsServer,
    unique: Callable[[str], str],
    trouble: str,
) -> None:
    topic = await kafka_server.create_topic(unique("unreachable"))
    gateway = gateways(over_kv(config(kafka_server, topic), own_nats))
    async with Client(gateway) as client:
        await client.until_ready()
        await client.until_delivered()
        before = await stored(kafka_server, topic)
        if trouble == "killed":
            own_nats.kill()
            await client.until_ready("degraded")
        else:
            own_nats.pause()
        ids, body = [new_id() for _ in range(10)], event()
        try:
            for svix_id in ids:
                answer = await client.post(body, signed(body, svix_id))
                assert answer.word == (200, "delivered")
                # What it remembers by itself.
                copy = await client.post(body, signed(body, svix_id))
                assert copy.word == (200, "duplicate")
            unshared = await client.samples("gateway_ledger_unshared_total")
        finally:
            own_nats.resume()
    assert sum(unshared.values()) >= 2 * len(ids)
    assert unshared[("unreachable",)] + unshared[("timeout",)] == sum(unshared.values())
    assert await stored(kafka_server, topic) - before == Counter(ids)


async def test_what_was_unshared_is_shared_once_the_bucket_can_be_reached(
    gateways: Start, kafka_server: KafkaAt, own_nats: NatsServer, unique: Callable[[str], str]
) -> None:
    topic = await kafka_server.create_topic(unique("again"))
    written = over_kv(config(kafka_server, topic), own_nats)
    svix_id, body = new_id(), event()
    async with AsyncExitStack() as stack:
        both = [await stack.enter_async_context(Client(gateways(written))) for _ in range(2)]
        for client in both:
            await client.until_ready()
            await client.until_delivered()
        own_nats.kill()
        await both[0].until_ready("degraded")
        assert (await both[0].post(body, signed(body, svix_id))).word == (200, "delivered")
        await asyncio.to_thread(own_nats.start)
        for client in both:
            await client.until_ready()
        await until_shared(both)
        # The first tells of it when it is asked, and then the other knows, too.
        for client in both:
            assert (await client.post(body, signed(body, svix_id))).word == (200, "duplicate")
    assert (await stored(kafka_server, topic))[svix_id] == 1


async def until_shared(clients: list[Client]) -> None:
    """Wait until both have what one of them delivers."""

    async def is_shared() -> bool:
        body, svix_id = event(), new_id()
        words = [(await client.post(body, signed(body, svix_id))).word for client in clients]
        return words == [(200, "delivered"), (200, "duplicate")]

    await until(is_shared, "the ledger is shared")


async def test_a_full_bucket_refuses_nothing(
    gateways: Start, kafka_server: KafkaAt, own_nats: NatsServer, unique: Callable[[str], str]
) -> None:
    topic = await kafka_server.create_topic(unique("full"))
    gateway = gateways(over_kv(config(kafka_server, topic), own_nats, max_bytes="8KiB"))
    async with Client(gateway) as client:
        await client.until_ready()
        await client.until_delivered()
        ids, body = [new_id() for _ in range(60)], event()
        for svix_id in ids:
            answer = await client.post(body, signed(body, svix_id))
            assert answer.word == (200, "delivered")
        # What the bucket did not take the gateway remembers by itself, in as many bytes.
        assert (await client.post(body, signed(body, ids[-1]))).word == (200, "duplicate")
        unshared = await client.samples("gateway_ledger_unshared_total")
    assert unshared[("full",)] >= 1
    assert sum(unshared.values()) == unshared[("full",)] + unshared[("not_saved",)]
    assert (await stored(kafka_server, topic)).keys() >= set(ids)


async def test_the_bucket_is_made_bounded_and_lets_complete_events_go(
    gateways: Start, kafka_server: KafkaAt, own_nats: NatsServer, unique: Callable[[str], str]
) -> None:
    topic = await kafka_server.create_topic(unique("bucket"))
    written = config(kafka_server, topic, delivery={"dedupe": {"window": "1s"}})
    gateway = gateways(over_kv(written, own_nats, bucket="LEDGER", max_bytes="1MiB"))
    async with Client(gateway) as client:
        await client.until_ready()
        await client.until_delivered()
    made = await nats.connect(own_nats.url)
    try:
        info = await made.jetstream().stream_info("KV_LEDGER")
        assert (info.config.max_bytes, info.config.max_msgs_per_subject) == (1024 * 1024, 1)
        assert info.config.max_age == 30 * 3600
        assert info.config.discard == DiscardPolicy.NEW

        async def is_empty() -> bool:
            return (await made.jetstream().stream_info("KV_LEDGER")).state.messages == 0

        await until(is_empty, "the complete events are gone")
    finally:
        await made.close()


async def test_workers_share_one_set_of_ledger_metrics(
    gateways: Start, kafka_server: KafkaAt, unique: Callable[[str], str]
) -> None:
    topic = await kafka_server.create_topic(unique("counted"))
    gateway = gateways(config(kafka_server, topic), workers=2)
    await until_workers(gateway, 2)
    async with Client(gateway) as client:
        await client.until_ready()
        await client.until_delivered()
        for _ in range(12):
            async with Client(gateway) as anew:
                await anew.until_delivered()

        async def are_counted() -> bool:
            events = await client.samples("gateway_ledger_events")
            delivered = (await client.counted())["clerk", "delivered", ""]
            assert delivered >= 13
            return (events[("complete",)], events[("incomplete",)]) == (delivered, 0)

        await until(are_counted, "each event is counted once")
        text = (await client.admin("/metrics")).text
        assert (await client.samples("gateway_ledger_bytes"))[()] > 12 * 500
    families = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")]
    assert len(families) == len(set(families))
