"""The JetStream store on a cluster of three servers, one of which is killed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest

from tests.inbox.harness import FeedLog, outcome, record, until
from tests.inbox.jetstream_place import STREAM, jetstream_store
from tests.servers.nats_cluster import NatsCluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[NatsCluster]:
    """Give a running cluster of the test's own."""
    cluster = NatsCluster(tmp_path)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


async def leader_of(url: str) -> str:
    """The server that leads the stream of what waits."""
    client = await nats.connect(url)
    try:
        info = await client.jetstream().stream_info(STREAM)
    finally:
        await client.close()
    assert info.config.num_replicas == 3
    assert info.cluster is not None
    return info.cluster.leader or ""


@pytest.mark.slow
async def test_what_was_acknowledged_survives_the_kill_of_the_leader(cluster: NatsCluster) -> None:
    store, feed = jetstream_store(*cluster.urls, lease=10.0), FeedLog()
    await store.start(feed)
    await until(lambda: len(store.partitions) == 16, 60)
    acknowledged: set[int] = set()
    numbers = iter(range(100_000))
    over = asyncio.Event()

    async def send() -> None:
        for number in numbers:
            if over.is_set():
                return
            if await outcome(store.put(record(number))) == "stored":
                acknowledged.add(number)
            await asyncio.sleep(0.01)

    async def more() -> None:
        enough = len(acknowledged) + 100
        await until(lambda: len(acknowledged) > enough, 60)

    senders = [asyncio.create_task(send()) for _ in range(8)]
    await more()
    leader = await leader_of(cluster.urls[0])
    killed = next(one for at, one in enumerate(cluster.servers) if leader == f"node-{at}")
    await asyncio.to_thread(killed.kill)
    await more()
    await asyncio.to_thread(killed.start)
    await more()
    over.set()
    await asyncio.gather(*senders)
    there = {one.record.plan.metadata.id async for one in store.held()}
    lost = {number for number in acknowledged if f"msg_{number:08}" not in there}
    print(f"kills 1, acknowledged {len(acknowledged)}, lost {len(lost)}")
    assert not lost
    # Each is fed, in order, and can be settled.
    await until(lambda: len(feed.entries) == len(there), 60)
    assert list(feed.entries) == sorted(feed.entries)
    assert await outcome(store.settle(next(iter(feed.entries)), 0)) == "done"
    await store.close(10)


@pytest.mark.slow
async def test_a_leader_without_a_quorum_does_not_agree_to_a_purge_of_nothing(
    cluster: NatsCluster,
) -> None:
    """What a holder relies on that could only read: a deposed leader would answer the question."""
    store = jetstream_store(*cluster.urls, lease=60.0)
    await store.start(FeedLog())
    client = await nats.connect(cluster.urls[0])
    context = client.jetstream()
    await until(lambda: len(store.partitions) == 16, 60)
    info = await context.stream_info(f"{STREAM}_STATE")
    assert info.cluster is not None
    leader = next(at for at in range(3) if info.cluster.leader == f"node-{at}")
    await client.close()
    client = await nats.connect(cluster.urls[leader])
    purge = f"$JS.API.STREAM.PURGE.{STREAM}_STATE"
    nothing = b'{"filter":"%s.progress.0.0.*"}' % STREAM.encode()
    assert b'"success":true' in (await client.request(purge, nothing, timeout=10)).data
    others = [one for at, one in enumerate(cluster.servers) if at != leader]
    for one in others:
        one.pause()
    try:
        last = b'{"last_by_subj":"%s.lease.0"}' % STREAM.encode()
        question = f"$JS.API.STREAM.MSG.GET.{STREAM}_STATE"
        assert b'"message"' in (await client.request(question, last, timeout=2)).data
        with pytest.raises(nats.errors.TimeoutError):
            await client.request(purge, nothing, timeout=2)
    finally:
        for one in others:
            one.resume()
    await client.close()
    await store.close(2)
