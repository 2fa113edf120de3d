"""Replicas of the gateway share the JetStream inbox: by stores in this process, and by processes.

What replicas in processes of their own do is in one file that all append to, in the order in which
they did it: see `jetstream_replica`.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest

from gateway.brokers.base import Message
from gateway.delivery.inbox.jetstream import JetStreamStore
from gateway.delivery.inbox.record import Record
from gateway.delivery.plan import Assignment, Plan
from tests.core.builders import metadata
from tests.inbox.harness import FeedLog, outcome, outcomes, until
from tests.inbox.jetstream_place import jetstream_store
from tests.servers.nats import NatsServer

ROOT = Path(__file__).parents[2]
LEASE = 3.0
USERS = 24


def record_of(user: int, number: int) -> Record:
    """An event of a user; each user is a lane."""
    about = metadata(id=f"msg_{user:03}_{number:05}")
    body, key = b'{"number":%d}' % number, f"user_{user}"
    message = Message("clerk.users", body, (), about.id, key)
    plan = Plan(key, body, about, (Assignment(("users",), "events", message),), ())
    return Record(plan, 1_800_000_000.0 + number)


class Stores:
    """Stores that share one inbox."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.open: list[JetStreamStore] = []
        self.feeds: list[FeedLog] = []
        self.twice: list[int] = []
        """Partitions that two held at once, as `watch` saw."""

    async def join(self) -> JetStreamStore:
        """Start another one."""
        store, feed = jetstream_store(self._url, lease=LEASE), FeedLog()
        await store.start(feed)
        self.open.append(store)
        self.feeds.append(feed)
        return store

    async def leave(self, at: int) -> None:
        """Close one in the orderly way."""
        await self.open.pop(at).close(5)
        self.feeds.pop(at)

    def shared_out(self) -> bool:
        """Whether each has its part, and all partitions have one holder."""
        held = [at for store in self.open for at in store.partitions]
        counts = [len(store.partitions) for store in self.open]
        return sorted(held) == list(range(16)) and max(counts) - min(counts) <= 1

    async def watch(self) -> None:
        """Look every millisecond whether a partition has two holders."""
        while True:
            held = Counter(at for store in self.open for at in store.partitions)
            self.twice += [at for at, count in held.items() if count > 1]
            await asyncio.sleep(0.001)

    def fed(self) -> list[int]:
        """The numbers that the feeds have now, of all stores."""
        return sorted(ref for feed in self.feeds for ref in feed.entries)


@pytest.fixture
async def stores(own_nats: NatsServer) -> AsyncIterator[Stores]:
    """Give what starts stores on the test's server."""
    stores = Stores(own_nats.url)
    yield stores
    for store in stores.open:
        await store.close(2)


async def test_partitions_move_to_who_joins_and_back_from_who_leaves(stores: Stores) -> None:
    first = await stores.join()
    assert first.partitions == set(range(16))
    given = [record_of(user, number) for number in range(5) for user in range(USERS)]
    assert set(await outcomes([first.put(one) for one in given])) == {"stored"}
    everything = stores.fed()
    assert len(everything) == len(given)
    watch = asyncio.create_task(stores.watch())
    for count in (2, 3):
        await stores.join()
        await until(stores.shared_out)
        # Each waiting record is with one replica, and none is with two.
        await until(lambda: stores.fed() == everything)
        assert len(stores.open) == count
    for _ in range(2):
        began = asyncio.get_running_loop().time()
        await stores.leave(0)
        await until(stores.shared_out)
        await until(lambda: stores.fed() == everything)
        # Handed over, not waited for until the lease ran out.
        assert asyncio.get_running_loop().time() - began < LEASE
    watch.cancel()
    assert stores.twice == []


async def test_every_replica_stores_and_the_holder_is_fed(stores: Stores) -> None:
    await stores.join()
    await stores.join()
    await until(stores.shared_out)
    given = [record_of(user, number) for number in range(5) for user in range(USERS)]
    puts = [stores.open[at % 2].put(one) for at, one in enumerate(given)]
    assert set(await outcomes(puts)) == {"stored"}
    await until(lambda: len(stores.fed()) == len(given))
    assert all(feed.entries for feed in stores.feeds)
    for store, feed in zip(stores.open, stores.feeds, strict=True):
        assert {one.partition for one in feed.entries.values()} <= store.partitions
    # Copies are known to all of them.
    assert await outcome(stores.open[1].put(given[0])) == "pending"
    # Only the holder settles.
    ref = next(iter(stores.feeds[0].entries))
    assert await outcome(stores.open[1].settle(ref, 0)) == "inbox_unavailable"
    assert await outcome(stores.open[0].settle(ref, 0)) == "done"


async def test_what_is_on_its_way_is_waited_for_before_a_partition_moves(stores: Stores) -> None:
    first = await stores.join()
    given = [record_of(user, 0) for user in range(USERS)]
    await outcomes([first.put(one) for one in given])
    feed = stores.feeds[0]
    busy = max(one.partition for one in feed.entries.values())
    feed.publishing.update(ref for ref, one in feed.entries.items() if one.partition == busy)
    second = await stores.join()
    # All but one of its share.
    await until(lambda: len(second.partitions) == 7)
    assert busy in first.partitions
    # What is stored there meanwhile waits for nobody's feed: it is the next one's.
    assert not first._when_fed(busy, 10**18, lambda: None)
    for ref in feed.publishing:
        assert await outcome(first.settle(ref, 0)) == "done"
    await until(lambda: busy in second.partitions)
    assert stores.shared_out()


# Processes.


class Replica:
    """A process that dispatches."""

    def __init__(self, url: str, name: str, log: Path, lease: float) -> None:
        self.name = name
        command = [sys.executable, "-m", "tests.inbox.jetstream_replica"]
        self._process = subprocess.Popen(
            [*command, url, name, str(log), str(lease)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    async def ready(self) -> None:
        """Wait until it dispatches."""
        assert self._process.stdout is not None
        told = await asyncio.to_thread(self._process.stdout.readline)
        assert told.startswith(b"holds")

    def signal(self, number: signal.Signals) -> None:
        """Freeze it, wake it, or kill it."""
        self._process.send_signal(number)

    def end(self) -> None:
        """Kill it, if it lives, and wait for its end."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


class Log:
    """What all replicas did, in order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()
        self._read = 0
        self._lines: list[list[str]] = []

    def lines(self) -> list[list[str]]:
        """The words of each line."""
        with self.path.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        self._read += len(new)
        self._lines += [line.split() for line in new.decode().splitlines()]
        return self._lines

    def landed(self) -> dict[str, list[str]]:
        """By lane, the ids in the order in which they landed."""
        lanes: dict[str, list[str]] = {}
        for words in self.lines():
            if words[1] == "lands":
                lanes.setdefault(words[3], []).append(words[4])
        return lanes

    def count(self) -> int:
        """How many different events landed."""
        return len({one for ids in self.landed().values() for one in ids})


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """Give the file of the test."""
    return Log(tmp_path / "dispatched.txt")


Starter = Callable[..., Replica]


@pytest.fixture
def replica(own_nats: NatsServer, log: Log) -> Iterator[Starter]:
    """Give what starts replicas; they end with the test."""
    replicas: list[Replica] = []

    def start(name: str, lease: float = LEASE) -> Replica:
        replicas.append(Replica(own_nats.url, name, log.path, lease))
        return replicas[-1]

    yield start
    for one in replicas:
        one.end()


async def send(url: str, numbers: Sequence[int], stop: asyncio.Event | None = None) -> int:
    """Store events of all users, in order for each; give how many were acknowledged."""
    store, count = jetstream_store(url, dispatches=False), 0
    await store.start(FeedLog())
    for number in numbers:
        told = await outcomes([store.put(record_of(user, number)) for user in range(USERS)])
        assert set(told) == {"stored"}
        count += len(told)
        await asyncio.sleep(0.05)  # no faster than they are dispatched on a busy machine
        if stop is not None and stop.is_set():
            break
    await store.close(5)
    return count


def check(log: Log, stored: int, *, at_most_again: int) -> None:
    """Nothing is lost; repeated is only what was on its way; no lane went back."""
    lanes = log.landed()
    assert log.count() == stored
    again = sum(len(ids) - len(set(ids)) for ids in lanes.values())
    print(f"stored {stored}, landed {log.count()}, lost {stored - log.count()}, again {again}")
    assert again <= at_most_again
    for ids in lanes.values():
        assert ids == sorted(ids)


async def test_a_killed_replica_is_replaced_and_no_lane_goes_back(
    own_nats: NatsServer, replica: Starter, log: Log
) -> None:
    first = replica("a")
    await first.ready()
    second = replica("b")
    await second.ready()
    stop = asyncio.Event()
    sending = asyncio.create_task(send(own_nats.url, range(400), stop))
    # Both have work, so that both have something on its way.
    await until(lambda: {words[0] for words in log.lines() if words[1] == "lands"} == {"a", "b"})
    first.signal(signal.SIGKILL)
    before = log.count()
    await until(lambda: log.count() > before + 10 * USERS)
    stop.set()
    stored = await sending
    await until(lambda: log.count() == stored, 90)
    check(log, stored, at_most_again=USERS)
    counts = Counter(words[0] for words in log.lines() if words[1] == "lands")
    assert min(counts["a"], counts["b"]) > 0


async def test_a_frozen_replica_begins_nothing_when_it_wakes(
    own_nats: NatsServer, replica: Starter, log: Log
) -> None:
    first = replica("a")
    await first.ready()
    second = replica("b")
    await second.ready()
    stop = asyncio.Event()
    sending = asyncio.create_task(send(own_nats.url, range(100_000), stop))
    await until(lambda: {words[0] for words in log.lines() if words[1] == "lands"} == {"a", "b"})
    first.signal(signal.SIGSTOP)
    frozen = len(log.lines())
    of_a = {words[2] for words in log.lines() if words[:2] == ["a", "begins"]}
    # The other one has taken over when it dispatches what was the first one's.
    await until(
        lambda: any(words[2] in of_a for words in log.lines()[frozen:] if words[1] == "begins"),
        60,
    )
    first.signal(signal.SIGCONT)
    await until(lambda: any(words[:2] == ["a", "lost"] for words in log.lines()[frozen:]))
    # It shares the work again.
    await until(lambda: any(words[:2] == ["a", "begins"] for words in log.lines()[frozen:]), 60)
    stop.set()
    stored = await sending
    await until(lambda: log.count() == stored, 90)
    after = [words for words in log.lines()[frozen:] if words[0] == "a"]
    lost = next(at for at, words in enumerate(after) if words[1] == "lost")
    # What was on its way lands, once per lane at the most; nothing else begins before it knows.
    woke = after[:lost]
    assert [words for words in woke if words[1] == "begins"] == []
    print(f"on its way when it froze: {len(woke)}")
    lanes = log.landed()
    late = {words[3]: words[4] for words in woke}
    assert len(late) == len(woke)
    again = {lane: [one for one in ids if one != late.get(lane)] for lane, ids in lanes.items()}
    assert all(ids == sorted(ids) for ids in again.values())
    assert log.count() == stored


async def test_replicas_that_join_and_leave_under_load_lose_and_reorder_nothing(
    own_nats: NatsServer, replica: Starter, log: Log
) -> None:
    # Long leases: none runs out here, however busy the machine is.
    first = replica("a", 60.0)
    await first.ready()
    stop = asyncio.Event()
    sending = asyncio.create_task(send(own_nats.url, range(100_000), stop))
    others = [replica(name, 60.0) for name in "bc"]
    for other in others:
        await other.ready()
    names = {"a", "b", "c"}
    await until(lambda: {words[0] for words in log.lines() if words[1] == "lands"} == names, 60)
    stop.set()
    stored = await sending
    await until(lambda: log.count() == stored, 90)
    # Handed over when nothing was on its way: nothing is repeated.
    check(log, stored, at_most_again=0)
