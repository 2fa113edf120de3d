"""What a connection may hold of what it was sent, and that it leaves nothing behind."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest

from gateway.server.connections import Connections
from tests.e2e.client import until
from tests.e2e.wire import connected
from tests.server.test_protocol import LIMITS, PARTIAL, SMALL, Served, serving, status

FLOOD = b"POST / HTTP/1.1\r\n" + b"a: b\r\n" * 30_000
UNFINISHED = b"POST / HTTP/1.1\r\nX: " + b"y" * 50_000


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Collect no garbage by itself."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[object]]:
    """Give the connections of all servers, as long as they are there."""
    entered: list[weakref.ref[object]] = []
    genuine = Connections.enter

    def enter(self: Connections, connection: object) -> bool:
        entered.append(weakref.ref(connection))
        return genuine(self, connection)  # type: ignore[arg-type]  # it is one

    monkeypatch.setattr(Connections, "enter", enter)
    return entered


async def until_left(served: Served) -> None:
    async def left() -> bool:
        return served.connections.open == 0

    await until(left, "the connection is closed")


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        pytest.param(SMALL, 200, id="answered"),
        pytest.param(SMALL * 20, 200, id="pipelined"),
        pytest.param(PARTIAL, None, id="given-up-in-a-body"),
        pytest.param(SMALL[:20], None, id="given-up-in-a-head"),
        pytest.param(FLOOD, 431, id="flood-of-headers"),
        pytest.param(UNFINISHED, 431, id="one-header"),
        pytest.param(b"\x16\x03\x01" + b"x" * 1000, 400, id="no-http"),
        pytest.param(b"CONNECT x:80 HTTP/1.1\r\n\r\n", 400, id="connect"),
        pytest.param(b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400, id="length"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            200,
            id="upgrade",
        ),
    ],
)
@pytest.mark.usefixtures("uncollected")
async def test_a_connection_is_freed_when_it_ends(
    entered: list[weakref.ref[object]], sent: bytes, expected: int | None
) -> None:
    """It may hold 256 kB, and garbage is collected by the number of objects, not by their size."""
    async with serving() as served:
        async with connected(served.port) as wire:
            await wire.send(sent)
            if expected is not None:
                assert await status(wire) == expected
        await until_left(served)

        async def freed() -> bool:
            return [ref() for ref in entered] == [None]

        await until(freed, "the connection is freed without a collection")


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("before", [b"", SMALL], ids=["first", "behind-a-request"])
@pytest.mark.parametrize("sent", [FLOOD, UNFINISHED], ids=["flood-of-headers", "one-header"])
async def test_a_head_that_is_refused_is_let_go(before: bytes, sent: bytes) -> None:
    """At once: the connection lingers, for as long as the sender likes and at most two seconds."""
    count = 20
    async with serving(max_connections=count) as served, AsyncExitStack() as crowd:
        wires = [await crowd.enter_async_context(connected(served.port)) for _ in range(count)]
        at_rest, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for wire in wires:
            await wire.send(before + sent)
            for _ in range(before.count(SMALL)):
                assert await status(wire) == 200
            assert await status(wire) == 431
        held, _ = tracemalloc.get_traced_memory()
        assert (held - at_rest) / count < LIMITS.max_head


async def test_an_unfinished_header_counts_where_it_begins_behind_a_request() -> None:
    """In one segment with it: nothing more has to come for the refusal."""
    async with serving() as served, connected(served.port) as wire:
        await wire.send(SMALL + UNFINISHED)
        assert [await status(wire) for _ in range(2)] == [200, 431]
        assert await wire.closed()
