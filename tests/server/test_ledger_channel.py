"""The channels between a supervisor's book and its workers, over real pairs of sockets."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator

import msgspec
import pytest

from gateway.brokers.base import Receipt
from gateway.delivery.claims import Known, Unshared
from gateway.delivery.memory import Retention
from gateway.delivery.settlement import Settlement
from gateway.server import ledger_channel
from gateway.server.ledger_channel import BookClient, BookKeeper

RETENTION = Retention(window=120.0, incomplete_for=3600.0, max_bytes=1024 * 1024)
PLACE = Receipt("clerk.users", partition=3, offset=7)
DONE = Known({"t": Settlement(("r",), "b", "clerk.users", "delivered", receipt=PLACE)}, True)
NOTHING = Known()
SOON = 5.0


class Rig:
    """A book, and workers that come and go."""

    def __init__(self) -> None:
        self.keeper = BookKeeper(RETENTION)
        self.keeper.start()
        self.lost: list[str] = []
        self.saved: list[bool] = []
        self.clients: list[BookClient] = []

    async def worker(self) -> BookClient:
        ours, theirs = socket.socketpair()
        await self.keeper.serve(ours, len(self.clients))
        return await self.client(theirs)

    async def client(self, end: socket.socket) -> BookClient:
        client = BookClient(end)
        await client.start(self.lost.append)
        self.clients.append(client)
        return client

    async def stranger(self) -> socket.socket:
        """Give the bare other end of a channel."""
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        await self.keeper.serve(ours, 99)
        return theirs


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    yield made
    for client in made.clients:
        await client.close()
    made.keeper.stop()


def frame(message: list[object]) -> bytes:
    """Give one message as it stands on a channel."""
    written = msgspec.msgpack.encode([message])
    return struct.pack("!I", len(written)) + written


async def given(claim: asyncio.Future[Known]) -> Known:
    async with asyncio.timeout(SOON):
        return await claim


async def exchange(rig: Rig) -> None:
    """Let everything that was said before arrive: the book answers in order."""
    for at, client in enumerate(rig.clients):
        if not client._end.ended:
            key = f"echo {at}"
            await given(client.claim(key))
            client.release(key, NOTHING, rig.saved.append)


async def test_a_claim_waits_for_the_other_worker_and_brings_what_it_knows(rig: Rig) -> None:
    one, two = await rig.worker(), await rig.worker()
    assert await given(one.claim("k")) == NOTHING
    waiting = two.claim("k")
    await exchange(rig)
    assert not waiting.done()
    one.release("k", DONE, rig.saved.append)
    known = await given(waiting)
    assert (known.targets, known.complete) == (DONE.targets, True)
    assert 0 <= known.age < SOON
    assert all(rig.saved)


async def test_a_worker_that_is_gone_gives_up_its_claims(rig: Rig) -> None:
    one, two = await rig.worker(), await rig.worker()
    await given(one.claim("told"))
    one.release("told", DONE, rig.saved.append)
    await given(one.claim("told"))
    await given(one.claim("new"))
    waiting = [two.claim("told"), two.claim("new")]
    await exchange(rig)
    await one.close()
    assert (await given(waiting[0])).targets == DONE.targets
    assert await given(waiting[1]) == NOTHING


async def test_a_worker_that_is_frozen_does_not_keep_what_others_wait_for(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_channel, "_TICK", 0.05)
    one, two = await rig.worker(), await rig.worker()
    await given(one.claim("k"))
    await given(one.claim("unwanted"))
    frozen = one._end._transport
    assert frozen is not None
    frozen.pause_reading()
    assert await given(two.claim("k")) == NOTHING
    two.release("k", DONE, rig.saved.append)
    frozen.resume_reading()
    async with asyncio.timeout(SOON):
        while len(rig.lost) < 2:
            await exchange(rig)
    assert sorted(rig.lost) == ["k", "unwanted"]
    assert (await given(one.claim("k"))).complete


async def test_a_worker_that_is_alive_keeps_what_others_wait_for(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_channel, "_TICK", 0.01)
    one, two = await rig.worker(), await rig.worker()
    await given(one.claim("k"))
    waiting = two.claim("k")
    await asyncio.wait([waiting], timeout=2.0)
    assert not waiting.done()
    one.release("k", DONE, rig.saved.append)
    assert (await given(waiting)).complete
    assert (rig.lost, rig.saved) == ([], [True])


async def test_who_stands_in_line_at_a_frozen_supervisor_goes_on_unshared(rig: Rig) -> None:
    one, two = await rig.worker(), await rig.worker()
    await given(one.claim("k"))
    waiting = two.claim("k")
    await exchange(rig)
    for end in rig.keeper._ends.values():
        assert end._transport is not None
        end._transport.pause_reading()
    with pytest.raises(Unshared, match="timeout"):
        await given(waiting)
    for end in rig.keeper._ends.values():
        assert end._transport is not None
        end._transport.resume_reading()
    one.release("k", DONE, rig.saved.append)
    await exchange(rig)
    assert (await given(two.claim("k"))).complete


async def test_who_no_longer_waits_leaves_the_line(rig: Rig) -> None:
    one, two, three = await rig.worker(), await rig.worker(), await rig.worker()
    await given(one.claim("k"))
    impatient = two.claim("k")
    await exchange(rig)
    waiting = three.claim("k")
    impatient.cancel()
    await exchange(rig)
    one.release("k", NOTHING, rig.saved.append)
    assert await given(waiting) == NOTHING


async def test_a_grant_that_crosses_the_withdrawal_goes_to_the_next(rig: Rig) -> None:
    one, two = await rig.worker(), await rig.worker()
    crossed = one.claim("k")
    crossed.cancel()
    again = two.claim("k")
    assert await given(again) == NOTHING
    own = one.claim("k")
    await exchange(rig)
    assert not own.done()
    two.release("k", DONE, rig.saved.append)
    assert (await given(own)).complete


async def test_when_the_supervisor_is_gone_nothing_is_shared(rig: Rig) -> None:
    one, two = await rig.worker(), await rig.worker()
    await given(one.claim("held"))
    waiting = two.claim("held")
    await exchange(rig)
    rig.keeper.stop()
    with pytest.raises(Unshared, match="unreachable"):
        await given(waiting)
    with pytest.raises(Unshared, match="unreachable"):
        await given(two.claim("another"))
    assert rig.lost == ["held"]
    one.release("held", DONE, rig.saved.append)
    assert rig.saved[-1] is False


async def test_a_supervisor_that_does_not_answer_is_not_waited_for(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_channel, "_LOOK_EVERY", 0.01)
    ours, theirs = socket.socketpair()
    client = await rig.client(theirs)
    with pytest.raises(Unshared, match="timeout"):
        await given(client.claim("k"))
    silent = client.claim("another")
    assert isinstance(silent.exception(), Unshared), "not even for a moment"
    # It wakes up, reads what came, and is asked again.
    await rig.keeper.serve(ours, 0)
    async with asyncio.timeout(SOON):
        while True:
            try:
                assert await client.claim("later") == NOTHING
            except Unshared:
                await asyncio.sleep(0.01)
            else:
                return


async def test_a_worker_that_does_not_read_is_cut_off(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_channel, "_MAX_UNREAD", 64 * 1024)
    one = await rig.worker()
    large = Settlement(("r",), "b", "d", "failed", "x", "y" * 100_000)
    await given(one.claim("large"))
    one.release("large", Known({"t": large}), rig.saved.append)
    deaf = await rig.stranger()
    loop = asyncio.get_running_loop()
    with pytest.raises(OSError):  # noqa: PT011, PT012 - whichever of a closed socket's it is
        async with asyncio.timeout(SOON):
            for number in range(1, 10_000):
                for message in (["claim", number, "large"], ["withdraw", number, "large"]):
                    await loop.sock_sendall(deaf, frame(message))
                await asyncio.sleep(0)
    deaf.close()
    assert (await given(one.claim("large"))).targets["t"] == large


@pytest.mark.parametrize(
    "sent",
    [
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x02\xc1\xc1",
        frame(["granted", 1, [b"", False, 0.0]]),
        frame(["held", 1]),
        frame(["claim", "one", "k"]),
    ],
)
async def test_what_is_no_message_of_a_worker_ends_its_channel_alone(rig: Rig, sent: bytes) -> None:
    one = await rig.worker()
    stranger = await rig.stranger()
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(stranger, sent)
    async with asyncio.timeout(SOON):
        assert await loop.sock_recv(stranger, 1) == b""
    stranger.close()
    assert await given(one.claim("k")) == NOTHING
