"""Claims that replicas share in a bucket, on a real server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from gateway.brokers.base import Receipt
from gateway.brokers.nats.bucket import Bucket, BucketError, BucketSettings
from gateway.config.models import NatsConfig
from gateway.delivery.claims import Known, Unshared
from gateway.delivery.leases import Leases
from gateway.delivery.memory import Retention
from gateway.delivery.settlement import Settlement
from tests.brokers.nats.support import jetstream
from tests.servers.nats import NatsServer

BUCKET = "GATEWAY_LEDGER"
RETENTION = Retention(window=120.0, incomplete_for=3600.0, max_bytes=1024 * 1024)
PLACE = Receipt("clerk.users", partition=3, offset=7)
DONE = Known({"t": Settlement(("r",), "b", "clerk.users", "delivered", receipt=PLACE)}, True)
SOON = 30.0

Replica = Callable[[], Awaitable[Leases]]


class Told:
    """What a replica was told of its claims."""

    def __init__(self) -> None:
        self.lost: list[str] = []
        self.saved: asyncio.Queue[bool] = asyncio.Queue()

    async def release(self, leases: Leases, key: str, known: Known) -> bool:
        """Release a claim, and say whether others were told."""
        leases.release(key, known, self.saved.put_nowait)
        async with asyncio.timeout(SOON):
            return await self.saved.get()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
async def replica(own_nats: NatsServer, told: Told) -> AsyncIterator[Replica]:
    """Start replicas: `await replica()`."""
    started: list[Leases] = []

    async def start() -> Leases:
        bucket = bucket_of(own_nats)
        leases = Leases(bucket, RETENTION, 1.0)
        started.append(leases)
        await leases.start(told.lost.append)
        async with asyncio.timeout(SOON):
            while not bucket.up:  # noqa: ASYNC110 - it is looked at from outside
                await asyncio.sleep(0.01)
        return leases

    yield start
    for leases in started:
        await leases.close()


def bucket_of(server: NatsServer) -> Bucket:
    """Give a bucket on the server, not connected."""
    broker = NatsConfig.model_validate({"kind": "nats", "servers": [server.url]})
    return Bucket("bus", broker, BucketSettings(BUCKET, 1024 * 1024, 3600.0))


async def given(claim: asyncio.Future[Known]) -> Known:
    async with asyncio.timeout(SOON):
        return await claim


async def test_what_an_operator_deletes_is_a_new_event(
    own_nats: NatsServer, replica: Replica, told: Told
) -> None:
    """A deleted key is one with a marker and nothing in it."""
    one = await replica()
    assert await given(one.claim("k")) == Known()
    assert await told.release(one, "k", DONE)
    async with jetstream(own_nats) as there:
        bucket = await there.key_value(BUCKET)
        (key,) = await bucket.keys()
        await bucket.delete(key)
        assert await given(one.claim("k")) == Known()
        assert await told.release(one, "k", DONE)
        await bucket.purge(key)
    assert await given(one.claim("k")) == Known()
    assert await told.release(one, "k", DONE)
    assert (await given(one.claim("k"))).complete


async def test_a_bucket_made_by_hand_is_told_what_it_lacks(own_nats: NatsServer) -> None:
    bucket = bucket_of(own_nats)
    async with jetstream(own_nats) as there:
        await there.add_stream(
            name=f"KV_{BUCKET}",
            subjects=[f"$KV.{BUCKET}.>"],
            max_msgs_per_subject=5,
            max_age=60,
        )
    assert [(one.severity, one.message) for one in await bucket.check()] == [
        ("ok", "is there"),
        ("warning", "keeps a history, which nobody reads; set history to 1"),
        ("warning", "forgets before delivery.ledger.incomplete_for; raise max_age"),
        ("warning", "has no bound; set max_bytes"),
        (
            "warning",
            "keeps complete events for max_age and is full sooner; set allow_msg_ttl"
            " (nats-server 2.11)",
        ),
        ("warning", "fewer than 3 replicas: without its server nothing is shared"),
    ]


async def test_a_bucket_of_ours_lacks_replicas_only(replica: Replica) -> None:
    leases = await replica()
    assert [one.message for one in await leases.bucket.check()] == [
        "is there",
        "fewer than 3 replicas: without its server nothing is shared",
    ]


async def test_a_bucket_that_is_deleted_is_made_anew(
    own_nats: NatsServer, replica: Replica, told: Told
) -> None:
    one, two = await replica(), await replica()
    assert await given(one.claim("held")) == Known()
    async with jetstream(own_nats) as there:
        await there.delete_key_value(BUCKET)
    await until_shared(one)
    await until_shared(two)
    assert await given(one.claim("k")) == Known()
    assert await told.release(one, "k", DONE)
    assert (await given(two.claim("k"))).complete


async def until_shared(leases: Leases) -> None:
    """Claim this and that until a claim is given."""
    async with asyncio.timeout(SOON):
        for number in range(1_000_000):
            try:
                await leases.claim(f"try {id(leases)} {number}")
            except Unshared:
                await asyncio.sleep(0.05)
            else:
                return


async def test_clocks_that_differ_by_minutes_forget_nothing_and_keep_nothing_longer(
    replica: Replica, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = await replica()
    await given(here.claim("ours"))
    assert await told.release(here, "ours", DONE)
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + 600.0)
    ahead = await replica()
    known = await given(ahead.claim("ours"))
    assert known.complete
    assert known.age < SOON
    await given(ahead.claim("theirs"))
    assert await told.release(ahead, "theirs", DONE)
    monkeypatch.setattr(time, "time", clock)
    known = await given(here.claim("theirs"))
    assert known.complete
    assert 0.0 <= known.age < SOON
    monkeypatch.setattr(time, "time", lambda: clock() - 600.0)
    stale = await replica()
    await given(stale.claim("old"))
    assert await told.release(stale, "old", Known(DONE.targets, True, 110.0))
    monkeypatch.setattr(time, "time", clock)
    known = await given(here.claim("old"))
    assert known.complete
    assert 109.0 <= known.age < 120.0


async def test_a_renewal_whose_answer_was_lost_does_not_lose_the_claim(
    replica: Replica, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has the write; its answer came too late."""
    one, two = await replica(), await replica()
    await given(one.claim("k"))
    put, lost = one.bucket.put, asyncio.Event()

    async def lose(key: str, value: bytes, over: int, ttl: float | None = None) -> int:
        number = await put(key, value, over, ttl)
        if lost.is_set():
            return number
        lost.set()
        raise BucketError(BUCKET, "timeout", "no answer in time")

    monkeypatch.setattr(one.bucket, "put", lose)
    async with asyncio.timeout(SOON):
        await lost.wait()
    waiting = two.claim("k")
    await asyncio.wait([waiting], timeout=2.5)
    assert not waiting.done()
    assert told.lost == []
    assert await told.release(one, "k", DONE)
    assert (await given(waiting)).complete
