"""The proxy does to a connection what it was told to, and nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable

import pytest

from tests.servers.process import LOOPBACK, free_port
from tests.servers.proxy import BOTH, Direction, Proxy

PATIENCE = 20.0
A_WHILE = 0.2
"""Seconds in which a byte would have come, if it was to come at all."""


class Echo:
    """A server that sends back what it gets, and remembers it."""

    def __init__(self) -> None:
        self.got = bytearray()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(1 << 16):
                self.got += chunk
                writer.write(chunk)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


class Line:
    """A connection through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, text: bytes) -> None:
        self.writer.write(text)

    async def read(self, size: int) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readexactly(size)


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
async def proxy(echo: Echo) -> AsyncIterator[Proxy]:
    server = await asyncio.start_server(echo.serve, LOOPBACK, 0)
    async with Proxy(server.sockets[0].getsockname()[1]) as proxy:
        yield proxy
    server.close()
    await server.wait_closed()


@pytest.fixture
async def line(proxy: Proxy) -> AsyncIterator[Line]:
    line = Line(*await asyncio.open_connection(LOOPBACK, proxy.port))
    yield line
    line.writer.close()


async def nothing_comes(read: Awaitable[bytes]) -> bool:
    try:
        async with asyncio.timeout(A_WHILE):
            await read
    except TimeoutError:
        return True
    return False


async def test_it_passes_on(proxy: Proxy, line: Line, echo: Echo) -> None:
    text = bytes(range(256)) * 4000
    line.send(text)
    assert await line.read(len(text)) == text
    assert echo.got == text
    assert (proxy.connections, proxy.resets) == (1, [])


async def test_an_end_that_closes_closes_the_other(line: Line) -> None:
    line.send(b"x")
    await line.read(1)
    line.writer.write_eof()
    async with asyncio.timeout(PATIENCE):
        assert await line.reader.read(1) == b""


async def test_it_delays(proxy: Proxy, line: Line) -> None:
    proxy.delay(A_WHILE)
    began = time.monotonic()
    line.send(b"slow")
    assert await line.read(4) == b"slow"
    assert time.monotonic() - began >= 2 * A_WHILE


async def test_it_resets_what_there_is(proxy: Proxy, line: Line) -> None:
    line.send(b"x")
    await line.read(1)
    assert proxy.reset() == 1
    with pytest.raises(ConnectionResetError):
        await line.read(1)
    assert len(proxy.resets) == 1


@pytest.mark.parametrize("direction", BOTH)
async def test_a_black_hole_keeps_what_goes_in(
    proxy: Proxy, line: Line, echo: Echo, direction: Direction
) -> None:
    proxy.black_hole(direction)
    line.send(b"lost?")
    assert await nothing_comes(line.read(1))
    assert bool(echo.got) is (direction == "down")
    proxy.pass_on()
    assert await line.read(5) == b"lost?"


@pytest.mark.parametrize("direction", BOTH)
async def test_it_cuts_after_so_many_bytes(
    proxy: Proxy, line: Line, echo: Echo, direction: Direction
) -> None:
    proxy.cut_after(3, direction)
    line.send(b"ab")
    assert await line.read(2) == b"ab"
    line.send(b"cdef")
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await line.read(4)
    assert bytes(echo.got).startswith(b"abcdef" if direction == "down" else b"ab")
    assert b"d" not in echo.got or direction == "down"
    assert len(proxy.resets) == 1


async def test_who_is_behind_it_may_be_away() -> None:
    async with Proxy(free_port()) as proxy:
        line = Line(*await asyncio.open_connection(LOOPBACK, proxy.port))
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await line.read(1)
        line.writer.close()
