"""The account's storage is full, by streams that are not the inbox's: what waits is dispatched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest
from nats.js import JetStreamContext
from nats.js.errors import APIError

from gateway.delivery.inbox.jetstream import JetStreamStore
from gateway.delivery.inbox.jetstream.layout import Layout
from gateway.delivery.inbox.record import targets
from gateway.delivery.inbox.store import Bounds, InboxFullError, Writable
from tests.brokers.nats.support import jetstream
from tests.inbox.harness import MIB, FeedLog, outcome, record, until
from tests.inbox.jetstream_place import STREAM, jetstream_store
from tests.servers.nats import NatsServer

LEASE = 3.0
FILLER = "FILLER"
BOUNDS = Bounds(MIB, MIB, 60.0)
ACCOUNT = {"jetstream": {"max_file": 4 * MIB}, "users": [{"user": "u", "password": "p"}]}


@pytest.fixture
def small(new_nats: Callable[..., NatsServer]) -> NatsServer:
    """A server whose account has room for the inbox, and little more."""
    return new_nats(options={"accounts": {"A": ACCOUNT}, "no_auth_user": "u"})


async def fill(server: NatsServer) -> None:
    """Fill the account by a stream of somebody else's."""
    async with jetstream(server) as there:
        await there.add_stream(name=FILLER, subjects=["filler"])
        with pytest.raises(APIError, match="exceeded"):
            await to_the_brim(there)


async def to_the_brim(there: JetStreamContext) -> None:
    """Publish until there is no room for one byte. Always raises `APIError`."""
    for size in (256 * 1024, 16 * 1024, 1024, 128):
        with suppress(APIError):
            while True:
                await there.publish("filler", b"x" * size)
    while True:
        await there.publish("filler", b"")


async def make_room(server: NatsServer) -> None:
    """Take away what `fill` stored."""
    async with jetstream(server) as there:
        await there.purge_stream(FILLER)


async def opened(server: NatsServer) -> tuple[JetStreamStore, FeedLog]:
    """Start a store."""
    store, feed = jetstream_store(server.url, bounds=BOUNDS, lease=LEASE), FeedLog()
    await store.start(feed)
    return store, feed


def two_in_one_partition() -> tuple[str, ...]:
    """Topics whose lanes fall into one partition."""
    for at in range(1, 1000):
        topics = ("clerk.topic0", f"clerk.topic{at}")
        if len(Layout(STREAM).shares(one := record(1, topics=topics), targets(one))) == 1:
            return topics
    raise AssertionError("no two lanes share a partition")


async def test_what_waits_is_dispatched_and_removed(small: NatsServer) -> None:
    store, feed = await opened(small)
    assert await outcome(store.put(record(1))) == "stored"
    await fill(small)
    await asyncio.sleep(2 * LEASE)  # of signs of life that the server refuses
    assert store.partitions == set(range(16))
    assert feed.order
    for ref in feed.order:
        assert await outcome(store.settle(ref, 0)) == "done"
    assert store.usage.events == 0
    await store.close(2)


async def test_who_is_doubted_and_cannot_answer_stops(small: NatsServer) -> None:
    """Room for the doubt may have come and gone, and be there again for the end."""
    store, _ = await opened(small)
    async with jetstream(small) as there:
        await there.add_stream(name=FILLER, subjects=["filler"])
        with suppress(APIError):
            while True:
                await there.publish("filler", b"x" * 128 * 1024)
        state = f"{STREAM}_STATE"
        there_is = (await there.stream_info(state, subjects_filter=f"{STREAM}.session.*")).state
        (told,) = there_is.subjects or {}
        doubt = b'{"term":%f,"doubted":true}' % LEASE
        await there.publish(told, doubt)
        with suppress(APIError):
            await to_the_brim(there)
        assert (await there.get_last_msg(state, told)).data == doubt
    await until(lambda: not store.partitions, 2 * LEASE)
    await make_room(small)
    await until(lambda: len(store.partitions) == 16)
    await store.close(2)


async def test_it_says_that_it_is_full_until_there_is_room(small: NatsServer) -> None:
    store, _ = await opened(small)
    await fill(small)
    await until(lambda: store.writable is Writable.FULL)
    with pytest.raises(InboxFullError, match="or of its account, is full"):
        await store.put(record(1))
    assert store.writable is Writable.FULL
    await make_room(small)
    # Nothing is put meanwhile: who is not ready is sent nothing.
    await until(lambda: store.writable is Writable.YES)
    assert await outcome(store.put(record(1))) == "stored"
    await store.close(2)


async def test_what_is_settled_is_finished_without_room_to_note_a_part_of_it(
    small: NatsServer,
) -> None:
    store, feed = await opened(small)
    assert await outcome(store.put(record(1, topics=two_in_one_partition()))) == "stored"
    await until(lambda: bool(feed.order))
    await fill(small)
    ref = feed.order[0]
    assert feed.entries[ref].owed == 0b11
    assert await outcome(store.settle(ref, 0b10)) == "inbox_unavailable"
    assert await outcome(store.settle(ref, 0b01)) == "done"
    assert await outcome(store.settle(ref, 0b10)) == "done"
    assert store.usage.events == 0
    await store.close(2)


async def test_no_partition_has_two_holders_while_room_comes_and_goes(small: NatsServer) -> None:
    stores = [(await opened(small))[0] for _ in range(2)]

    def shared_out() -> bool:
        return sorted(at for one in stores for at in one.partitions) == list(range(16))

    await until(shared_out)
    twice: list[frozenset[int]] = []

    async def watch() -> None:
        while True:
            if both := stores[0].partitions & stores[1].partitions:
                twice.append(both)
            await asyncio.sleep(0.001)

    watching = asyncio.create_task(watch())
    async with jetstream(small) as there:
        await there.add_stream(name=FILLER, subjects=["filler"])
    for lasts in (0.2, 0.5, 0.9, 1.3):
        with pytest.raises(APIError):
            async with jetstream(small) as there:
                await to_the_brim(there)
        await asyncio.sleep(lasts * LEASE)
        await make_room(small)
        await asyncio.sleep(0.1 * LEASE)
    await until(shared_out)
    watching.cancel()
    assert not twice
    for store in stores:
        await store.close(2)


async def test_who_joins_takes_its_share_when_there_is_room(small: NatsServer) -> None:
    first, _ = await opened(small)
    await fill(small)
    await until(lambda: first.writable is Writable.FULL)
    second = jetstream_store(small.url, bounds=BOUNDS, lease=LEASE)
    starting = asyncio.create_task(second.start(FeedLog()))
    await asyncio.sleep(LEASE)
    assert first.partitions == set(range(16))
    assert not second.partitions
    await make_room(small)
    await until(lambda: len(first.partitions) == len(second.partitions) == 8)
    await starting
    for store in (first, second):
        await store.close(2)
