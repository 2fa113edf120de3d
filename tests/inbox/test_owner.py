"""The owner's socket: others store through it, operators act by it, and none can harm it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from gateway.delivery.inbox import owner as owner_module
from gateway.delivery.inbox import remote as remote_module
from gateway.delivery.inbox import wire
from gateway.delivery.inbox.member import ALONE, Member, store_at
from gateway.delivery.inbox.owner import Owner, socket_path
from gateway.delivery.inbox.record import Record
from gateway.delivery.inbox.remote import RemoteStore
from gateway.delivery.inbox.sqlite import SqliteStore
from gateway.delivery.inbox.store import (
    Bounds,
    InboxFullError,
    InboxUnavailableError,
    InboxUnusableError,
    Parked,
    Store,
)
from gateway.delivery.inbox.wire import Frames, Hello, Put, frame, read_answer
from tests.inbox.harness import (
    MIB,
    ROOMY,
    FeedLog,
    all_held,
    outcome,
    outcomes,
    record,
    takes,
    until,
)
from tests.inbox.sqlite_file import names, remove, write


def serves(store: Store) -> bool:
    """Tell whether a store takes records."""
    return takes(store) == "yes"


class Tree:
    """A store, its owner, and the clients that a test has made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket_path(path)
        self.feed = FeedLog()
        self.store = SqliteStore(path, ROOMY)
        self.owner = Owner(self.store, self.socket, "tree")
        self._clients: list[RemoteStore] = []

    async def start(self) -> None:
        """Own the file, and listen."""
        await self.store.start(self.feed)
        await self.owner.start()

    async def client(self) -> RemoteStore:
        """Give a worker's client that is connected."""
        client = RemoteStore(self.socket, "tree")
        self._clients.append(client)
        await client.start(FeedLog())
        await until(lambda: takes(client) == "yes")
        return client

    async def close(self) -> None:
        """End all, the clients first."""
        for client in self._clients:
            await client.close(5)
        await self.owner.close(5)
        await self.store.close(5)


@pytest.fixture
async def tree(tmp_path: Path) -> AsyncIterator[Tree]:
    tree = Tree(tmp_path / "inbox.db")
    await tree.start()
    yield tree
    await tree.close()


async def parked(tree: Tree, given: Record) -> str:
    """Store a record, park its target, and give the id of it."""
    assert await outcome(tree.store.put(given)) == "stored"
    ref = tree.feed.order[-1]
    aside = Parked(given, 0, "no_stream", "none takes it", 1_800_000_000.0)
    assert await outcome(tree.store.park(ref, 0, aside)) == "done"
    return next(one.id for one in await all_held(tree.store) if one.record == given)


# Storing.


async def test_workers_store_through_the_owner(tree: Tree) -> None:
    clients = [await tree.client() for _ in range(3)]
    futures = [client.put(record(number)) for number in range(300) for client in clients]
    told = await outcomes(futures)
    assert (told.count("stored"), told.count("pending")) == (300, 600)
    assert tree.store.usage.events == 300
    loaded = [await tree.store.load(ref) for ref in tree.feed.order]
    assert sorted(loaded, key=lambda one: one.stored_at) == [
        record(number) for number in range(300)
    ]
    await asyncio.gather(*(tree.store.settle(ref, 0) for ref in tree.feed.order))
    assert await outcome(clients[0].put(record(7))) == "finished"


async def test_puts_of_several_workers_share_commits(tree: Tree) -> None:
    clients = [await tree.client() for _ in range(4)]
    before = tree.store.commits
    for at in range(8):
        given = [record(number) for number in range(64 * at, 64 * (at + 1))]
        futures = [clients[number % 4].put(one) for number, one in enumerate(given)]
        assert await outcomes(futures) == ["stored"] * 64
    assert tree.store.commits - before <= 64


async def test_what_the_store_refuses_is_told_as_it_is(tree: Tree) -> None:
    client = await tree.client()
    tree.store.bound(Bounds(100_000, MIB, 120.0))
    assert await outcome(client.put(record(2, size=50_000))) == "stored"
    future = client.put(record(1, size=80_000))
    with pytest.raises(InboxFullError) as caught:
        await future
    assert caught.value.max_bytes == 100_000
    await until(lambda: takes(client) == "full")
    tree.store.bound(ROOMY)
    await until(lambda: takes(client) == "yes")
    assert await outcome(client.put(record(1, size=80_000))) == "stored"
    await until(lambda: client.owner_usage == tree.store.usage)


async def test_a_record_too_large_for_a_frame_is_refused(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await tree.client()
    monkeypatch.setattr(wire, "MAX_FRAME", 10_000)
    with pytest.raises(InboxUnavailableError, match="more than a frame takes"):
        await client.put(record(1, size=20_000))
    assert await outcome(client.put(record(2))) == "stored"


async def test_requests_in_flight_have_a_bound_at_both_ends(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_module, "_IN_FLIGHT", 50)
    monkeypatch.setattr(owner_module, "_IN_FLIGHT", 4)
    client = await tree.client()
    futures = [client.put(record(number)) for number in range(80)]
    assert [future.done() for future in futures] == [False] * 50 + [True] * 30
    assert await outcomes(futures) == ["stored"] * 50 + ["overloaded"] * 30
    assert await outcome(client.put(record(99))) == "stored"


async def test_only_the_owner_dispatches(tree: Tree) -> None:
    client = await tree.client()
    assert await outcome(client.settle(1, 0)) == "inbox_unavailable"
    assert (
        await outcome(client.park(1, 0, Parked(record(1), 0, "x", "", 0.0))) == "inbox_unavailable"
    )
    with pytest.raises(InboxUnavailableError, match="its owner's to load"):
        await client.load(1)


# Operators.


async def test_an_operator_sees_shows_unparks_and_discards(tree: Tree) -> None:
    given = [record(number, refused=70) for number in range(40)]
    for one in given:
        assert await outcome(tree.store.put(one)) == "stored"
    aside = await parked(tree, record(99))
    client = RemoteStore(tree.socket)
    await client.connect()
    held = await all_held(client)
    assert held == await all_held(tree.store)
    assert len(held) == 41
    assert held[0].owed == (1 << 71) - 1
    assert await client.show([held[3].id, aside, "nothing"]) == [
        one for one in held if one.id in {held[3].id, aside}
    ]
    assert await client.discard([held[5].id, "nothing"]) == 1
    assert len(tree.feed.discards) == 1
    elsewhere = record(100, topics=("clerk.new",))
    assert await client.unpark([aside, "nothing"], rerouted={aside: elsewhere}) == 1
    assert await tree.store.load(tree.feed.order[-1]) == elsewhere
    assert await client.unpark([aside], rerouted={}) == 0
    await client.close(5)


async def test_a_list_that_is_not_read_on_holds_nothing_up(tree: Tree) -> None:
    for number in range(200):
        assert await outcome(tree.store.put(record(number, size=50_000))) == "stored"
    client = await tree.client()
    listing = client.held()
    assert (await anext(listing)).record == record(0, size=50_000)
    # The connection of the list stalls, and that of the puts is another one.
    assert await outcome(client.put(record(1_000))) == "stored"
    await listing.aclose()  # type: ignore[attr-defined]  # a generator, as the contract does not say
    assert len(await all_held(client)) == 201


async def test_where_no_owner_is_a_command_is_told(tmp_path: Path) -> None:
    client = RemoteStore(tmp_path / "inbox.db.sock")
    with pytest.raises(InboxUnavailableError, match="No such file"):
        await client.connect()
    with pytest.raises(InboxUnavailableError):
        await all_held(client)
    await client.close(1)


# Who may connect, and what may be sent.


async def test_the_socket_is_for_its_user_alone(tree: Tree) -> None:
    found = tree.socket.stat()
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o600
    await tree.owner.close(1)
    assert tree.socket.name not in names(tree.socket.parent)


async def test_another_user_is_refused_at_both_ends(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (owner_module, remote_module):
        with monkeypatch.context() as patched:
            patched.setattr(module, "peer_uid", lambda _: 12_345)
            client = RemoteStore(tree.socket)
            with pytest.raises(InboxUnavailableError):
                await client.connect()
            await client.close(1)


@pytest.mark.skipif(sys.platform != "linux", reason="SO_PEERCRED is Linux's")
def test_the_kernel_says_who_is_at_the_other_end() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        assert wire.peer_uid(ours) == os.geteuid()


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\xff\xff\xff",
        b"\0\0\0\x01x",
        frame(Put(1, b"x")),
        frame(Hello(wire.VERSION + 1)),
        frame(Hello(wire.VERSION)) + b"\xff\xff\xff\xff",
        frame(Hello(wire.VERSION)) + b"\0\0\0\x05hello",
        frame(Hello(wire.VERSION)) + frame(Hello(wire.VERSION)),
    ],
    ids=["http", "huge", "junk", "no hello", "version", "huge later", "junk later", "two hellos"],
)
async def test_what_is_no_request_ends_its_connection_alone(tree: Tree, sent: bytes) -> None:
    client = await tree.client()
    reader, writer = await asyncio.open_unix_connection(str(tree.socket))
    writer.write(sent)
    async with asyncio.timeout(20):
        while await reader.read(65536):
            pass
    writer.close()
    assert await outcome(client.put(record(1))) == "stored"


async def test_a_record_of_another_form_is_refused_alone(tree: Tree) -> None:
    reader, writer = await asyncio.open_unix_connection(str(tree.socket))
    writer.write(frame(Hello(wire.VERSION)) + frame(Put(1, b"\x91\x63")) + frame(Put(2, b"x")))
    frames, seen = Frames(), list[wire.Answer]()
    async with asyncio.timeout(20):
        while sum(isinstance(one, wire.Failed) for one in seen) < 2:
            data = await reader.read(65536)
            assert data
            seen += map(read_answer, frames.feed(data))
    assert [one.id for one in seen if isinstance(one, wire.Failed)] == [1, 2]
    writer.close()


def test_frames_come_out_whole_however_they_are_cut() -> None:
    sent = [frame(Put(number, b"x" * number)) for number in range(50)]
    stream = b"".join(sent)
    for step in (1, 3, 7, 64, len(stream)):
        frames = Frames()
        pieces = [stream[at : at + step] for at in range(0, len(stream), step)]
        assert [one for piece in pieces for one in frames.feed(piece)] == [one[4:] for one in sent]


async def test_what_a_dead_owner_left_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "inbox.db"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(socket_path(path)))
    left.close()
    tree = Tree(path)
    await tree.start()
    await tree.client()
    await tree.close()
    write(socket_path(path), b"a file")
    other = Tree(path)
    with pytest.raises(InboxUnusableError, match="no socket stands there"):
        await other.start()
    await other.store.close(5)


# The owner's end.


async def test_an_owner_that_closes_serves_what_workers_have_in_hand(tree: Tree) -> None:
    client = await tree.client()
    futures = [client.put(record(number)) for number in range(200)]
    closing = asyncio.create_task(tree.owner.close(30))
    assert await outcomes(futures) == ["stored"] * 200
    done, _ = await asyncio.wait((closing,), timeout=0.1)
    assert not done
    await client.close(5)
    await closing


async def test_a_worker_of_another_gateway_is_refused(tree: Tree) -> None:
    client = RemoteStore(tree.socket, "another")
    with pytest.raises(InboxUnavailableError, match="it ended the connection"):
        await client.connect()
    await client.close(1)


async def test_an_owner_does_not_wait_for_a_command(tree: Tree) -> None:
    client = RemoteStore(tree.socket)
    await client.connect()
    async with asyncio.timeout(5):
        await tree.owner.close(60)
    await client.close(1)


async def test_the_first_of_a_tree_has_the_file_and_the_others_its_socket(tmp_path: Path) -> None:
    path = tmp_path / "inbox.db"
    first = store_at(path, ROOMY, Member(0, "tree"))
    others = [store_at(path, ROOMY, Member(worker, "tree")) for worker in (1, 2)]
    for other in others:
        await other.start(FeedLog())
    assert await outcome(others[0].put(record(1))) == "inbox_unavailable"
    await first.start(FeedLog())
    for other in others:
        await until(partial(serves, other))
        assert await outcome(other.put(record(1))) in {"stored", "pending"}
    assert first.usage.events == 1
    # It closes when they have gone.
    closing = asyncio.create_task(first.close(60))
    assert await outcome(others[0].put(record(2))) == "stored"
    for other in others:
        assert not closing.done()
        await other.close(5)
    await closing
    assert set(names(tmp_path)) == {"inbox.db", "inbox.db.lock"}
    # What stands where the socket would be is told, and the file is let go.
    write(socket_path(path), b"a file")
    with pytest.raises(InboxUnusableError):
        await store_at(path, ROOMY, ALONE).start(FeedLog())
    remove(socket_path(path))
    again = store_at(path, ROOMY, ALONE)
    await again.start(FeedLog())
    await again.close(5)


def test_a_missing_directory_is_told_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(InboxUnusableError, match="its directory does not exist"):
        store_at(tmp_path / "missing" / "inbox.db", ROOMY, Member(1, "tree"))


class OwnerProcess:
    """An owner in a process of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Run it until it is ready."""
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.inbox.owner_process", str(self._path)),
            stdout=asyncio.subprocess.PIPE,
        )
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            assert (await self.process.stdout.readline()).startswith(b"ready ")

    async def end(self, number: signal.Signals) -> None:
        """Send it a signal, and wait for its end."""
        assert self.process is not None
        self.process.send_signal(number)
        async with asyncio.timeout(30):
            await self.process.wait()


async def test_what_an_owner_that_is_killed_had_acknowledged_is_there(tmp_path: Path) -> None:
    path, stored, unknown = tmp_path / "inbox.db", set[int](), set[int]()
    owner, client = OwnerProcess(path), RemoteStore(socket_path(path), "tree")
    await client.start(FeedLog())
    assert await outcome(client.put(record(0))) == "inbox_unavailable"
    for at in range(1, 4):
        await owner.start()
        await until(lambda: takes(client) == "yes")
        futures = {
            number: client.put(record(number)) for number in range(1000 * at, 1000 * at + 500)
        }
        # Some are acknowledged, and some are on their way.
        await next(iter(futures.values()))
        await owner.end(signal.SIGKILL)
        for number, future in futures.items():
            word = await outcome(future)
            assert word in {"stored", "inbox_unavailable"}
            (stored if word == "stored" else unknown).add(number)
            if word != "stored":
                assert "it may be stored all the same" in str(future.exception())
        await until(lambda: takes(client) == "no")
        # Nothing is sent, and nothing waits, while there is no owner.
        assert client.put(record(999_999)).done()
    await owner.start()
    await until(lambda: takes(client) == "yes")
    told = {number: await outcome(client.put(record(number))) for number in stored | unknown}
    assert {told[number] for number in stored} == {"pending"}
    assert {told[number] for number in unknown} <= {"pending", "stored"}
    await client.close(5)
    await owner.end(signal.SIGTERM)


async def test_an_owner_that_hangs_fails_nothing_before_its_time_and_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_module, "_STALLED", 0.1)
    path = tmp_path / "inbox.db"
    owner, client = OwnerProcess(path), RemoteStore(socket_path(path), "tree")
    await owner.start()
    await client.start(FeedLog())
    await until(lambda: takes(client) == "yes")
    assert owner.process is not None
    owner.process.send_signal(signal.SIGSTOP)
    future = client.put(record(1))
    done, _ = await asyncio.wait((future,), timeout=0.3)
    assert not done
    await until(lambda: takes(client) == "no")
    assert not future.done()
    owner.process.send_signal(signal.SIGCONT)
    assert await outcome(future) == "stored"
    assert takes(client) == "yes"
    await client.close(5)
    await owner.end(signal.SIGTERM)
    assert owner.process.returncode == 0
