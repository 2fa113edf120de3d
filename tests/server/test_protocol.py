"""What a sender can do to one connection, on a real socket, with an application that can wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
import pytest

from gateway.ingress import CONNECTION
from gateway.server.connections import Connections, WireLimits
from gateway.server.http import HttpServer, listen
from tests.e2e.client import until
from tests.e2e.wire import Wire, connected

LIMITS = WireLimits(
    max_head=16 * 1024,
    max_headers=10,
    header_timeout=30.0,
    body_timeout=30.0,
    idle_timeout=30.0,
    max_pipelined=4000,
    max_connections=3,
    max_arriving=1024 * 1024,
)
SMALL = b"POST / HTTP/1.1\r\nHost:x\r\n\r\n"
PARTIAL = b"POST /partial HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx"
PATIENCE = 20.0

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class Application:
    """Answers every request: `/held` once `go` is set, `/flood` with all that the system takes."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.flooded = asyncio.Event()
        """The system takes no more of an answer."""
        self.begun: list[str] = []
        self.woken = 0
        """How often a read of `/partial` has come back without the end of the body."""
        self.faults: list[tuple[int, str]] = []

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        self.begun.append(scope["path"])
        connection = scope["extensions"][CONNECTION]
        if scope["path"] == "/held":
            await self.go.wait()
        while (await receive()).get("more_body"):
            self.woken += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while scope["path"] == "/flood" and not connection.transport.get_write_buffer_size():
            await send({"type": "http.response.body", "body": b"x" * 8192, "more_body": True})
        self.flooded.set()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class Served:
    """A server on a port of its own."""

    def __init__(self, port: int, app: Application, connections: Connections) -> None:
        self.port = port
        self.app = app
        self.connections = connections


@asynccontextmanager
async def serving(**limits: Any) -> AsyncIterator[Served]:
    app, opened = Application(), [0]
    connections = Connections(msgspec.structs.replace(LIMITS, **limits), opened.append)

    def turned_away(status: int, reason: str, _: float) -> None:
        app.faults.append((status, reason))

    server = HttpServer(app, listen("test", "127.0.0.1", 0), connections, turned_away)
    await server.start()
    try:
        yield Served(server.port, app, connections)
    finally:
        app.go.set()
        await server.stop(1)
    assert (connections.open, connections.arriving) == (0, 0)
    assert max(opened) <= connections.limits.max_connections + 2


async def status(wire: Wire) -> int:
    """Read one answer in chunks, of which there are none."""
    reply = await wire.reply()
    if reply.headers.get("transfer-encoding") == "chunked":
        assert await wire.read(5) == b"0\r\n\r\n"
    return reply.status


async def test_an_answer_that_is_not_taken_does_not_hold_its_connection() -> None:
    """Not even the few bytes that are left of it when the connection closes behind it."""
    async with serving(idle_timeout=0.3) as served, connected(served.port) as wire:
        wire.stop_reading()
        await wire.send(b"GET /flood HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

        async def gone() -> bool:
            return served.connections.open == 0

        await until(gone, "the connection is given up")


async def test_who_takes_no_answers_gives_way() -> None:
    async with serving(max_connections=1) as served, connected(served.port) as wire:
        wire.stop_reading()
        await wire.send(b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.wait_for(served.app.flooded.wait(), PATIENCE)
        async with connected(served.port) as late:
            await late.send(SMALL)
            assert await status(late) == 200

            async def alone() -> bool:
                return served.connections.open == 1

            await until(alone, "the one that gave way has gone")


async def test_those_that_give_way_are_gone_at_once() -> None:
    """They do not linger for the sake of their answer: each holds an open file."""
    async with serving() as served, AsyncExitStack() as crowd:
        for _ in range(20):
            wire = await crowd.enter_async_context(connected(served.port))
            await wire.send(PARTIAL[:20])
            last = await crowd.enter_async_context(connected(served.port))
            await last.send(SMALL)
            assert await status(last) == 200


async def test_a_body_that_was_begun_behind_a_request_is_timed_from_its_turn() -> None:
    """Although its time had passed before: then nobody read."""
    async with serving(body_timeout=0.2) as served, connected(served.port) as wire:
        await wire.send(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n" + PARTIAL)
        await asyncio.sleep(0.5)
        served.app.go.set()

        async def woken() -> bool:
            return served.app.woken > 1

        await until(woken, "the read of the body is woken")


async def test_a_body_that_was_begun_behind_a_request_gives_way_from_its_turn() -> None:
    async with serving(max_connections=1) as served, connected(served.port) as wire:
        await wire.send(SMALL + PARTIAL)
        assert await status(wire) == 200
        async with connected(served.port) as late:
            await late.send(SMALL)
            assert await status(late) == 200


async def test_empty_lines_are_no_sign_of_life() -> None:
    async with serving(idle_timeout=0.3) as served, connected(served.port) as wire:
        await wire.send(SMALL)
        assert await status(wire) == 200
        await wire.send(b"\r\n")
        assert await wire.closed()


async def test_a_head_that_was_begun_behind_a_request_is_not_idle() -> None:
    async with serving(idle_timeout=0.2) as served, connected(served.port) as wire:
        await wire.send(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n" + SMALL[:20])

        async def begun() -> bool:
            return served.app.begun == ["/held"]

        await until(begun, "the first request is begun")
        served.app.go.set()
        assert await status(wire) == 200
        await asyncio.sleep(0.5)
        await wire.send(SMALL[20:])
        assert await status(wire) == 200


async def test_a_segment_of_upgrades_is_read_to_its_end() -> None:
    upgrade = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
    async with serving() as served, connected(served.port) as wire, asyncio.TaskGroup() as tasks:
        tasks.create_task(wire.send(upgrade * 2000))
        assert [await status(wire) for _ in range(2000)] == [200] * 2000
    assert served.app.faults == []


@pytest.mark.parametrize("target", [b"x:80", b"/", b"http://x/"])
async def test_a_connect_is_parsed_once(target: bytes) -> None:
    async with serving() as served, connected(served.port) as wire:
        await wire.send(b"CONNECT " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await wire.reply()).word == (400, "rejected")
        assert await wire.closed()
    assert (served.app.begun, served.app.faults) == ([], [(400, "malformed_http")])
