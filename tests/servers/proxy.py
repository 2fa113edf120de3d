"""A TCP proxy before one port of this machine: the network between two processes, gone bad.

It lives on the event loop of its test. What it does to a connection it does to the bytes on their
way, so that neither end can tell it from a network that does the same.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, Self

from tests.servers.process import LOOPBACK, free_port

Direction = Literal["up", "down"]
"""`up` goes to the server, `down` to its client."""
BOTH: tuple[Direction, Direction] = ("up", "down")
_CHUNK = 64 * 1024


class Proxy:
    """Passes every connection on to a port, until told to do otherwise.

    Use it as an async context manager. What it was told holds for the connections there are and
    for those that come.
    """

    def __init__(self, target: int | Callable[[], int], port: int = 0) -> None:
        """`target` is the server's port, or gives it; `port` is the own one, 0 for any free."""
        self._target = target
        self.port = port or free_port()
        self._pipes: set[_Pipe] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._delay = 0.0
        self._gates = {direction: asyncio.Event() for direction in BOTH}
        self._left: dict[Direction, int | None] = {"up": None, "down": None}
        self.connections = 0
        """How many have come so far."""
        self.resets: list[float] = []
        """Event-loop times at which it has reset a connection."""

    async def __aenter__(self) -> Self:
        self.pass_on()
        self._server = await asyncio.start_server(self._accept, LOOPBACK, self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def open(self) -> int:
        """How many connections pass through it now."""
        return len(self._pipes)

    def pass_on(self) -> None:
        """Do nothing else any more; what was held back goes on, for TCP loses nothing."""
        self._delay = 0.0
        self._left = {"up": None, "down": None}
        for gate in self._gates.values():
            gate.set()

    def delay(self, seconds: float) -> None:
        """Let each piece wait before it goes on, so that less gets through, too."""
        self._delay = seconds

    def black_hole(self, *directions: Direction) -> None:
        """Let nothing through in these directions, and say nothing: connections stay open."""
        for direction in directions:
            self._gates[direction].clear()

    def reset(self) -> int:
        """Break off all connections with a RST to both ends, and give how many there were."""
        pipes = tuple(self._pipes)
        for pipe in pipes:
            pipe.reset()
        self.resets += [asyncio.get_running_loop().time()] * len(pipes)
        return len(pipes)

    def cut_after(self, size: int, direction: Direction) -> None:
        """Reset the connection that carries the byte after `size` more of them; then pass on."""
        self._left[direction] = size

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = self._target if isinstance(self._target, int) else self._target()
        try:
            behind = await asyncio.open_connection(LOOPBACK, port)
        except OSError:
            _reset(writer)
            return
        except asyncio.CancelledError:
            _reset(writer)
            raise
        pipe = _Pipe(self, (reader, writer), behind)
        self._pipes.add(pipe)
        try:
            await pipe.run()
        finally:
            self._pipes.discard(pipe)

    async def carry(self, chunk: bytes, direction: Direction) -> tuple[bytes, bool]:
        """Hold a piece back as long as it must be; give what of it goes on, and whether to cut."""
        if self._delay:
            await asyncio.sleep(self._delay)
        await self._gates[direction].wait()
        left = self._left[direction]
        if left is None or len(chunk) <= left:
            self._left[direction] = None if left is None else left - len(chunk)
            return chunk, False
        self._left[direction] = None
        self.resets.append(asyncio.get_running_loop().time())
        return chunk[:left], True


class _Pipe:
    """One connection, with both of its ends."""

    def __init__(
        self,
        proxy: Proxy,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Carry both ways until an end closes or breaks off."""
        up = self._carry(self._client[0], self._server[1], "up")
        down = self._carry(self._server[0], self._client[1], "down")
        self._tasks = [asyncio.create_task(up), asyncio.create_task(down)]
        try:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in self._tasks:
                task.cancel()
            for _, writer in (self._client, self._server):
                writer.close()

    def reset(self) -> None:
        """Send both ends a RST."""
        for _, writer in (self._client, self._server):
            _reset(writer)
        for task in self._tasks:
            task.cancel()

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction
    ) -> None:
        with suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                passed, cut = await self._proxy.carry(chunk, direction)
                writer.write(passed)
                await writer.drain()
                if cut:
                    self.reset()
                    return


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close at once and without a word of farewell (SO_LINGER of zero: socket(7))."""
    with suppress(OSError):
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
