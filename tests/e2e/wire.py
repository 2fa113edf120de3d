"""HTTP/1.1 by hand, for what no well-behaved client would send."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.e2e.client import signed
from tests.e2e.gateway_process import PATH

_PATIENCE = 20.0


@dataclass(frozen=True)
class Reply:
    """One answer as it came."""

    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object of the body."""
        content: dict[str, Any] = json.loads(self.raw)
        return content

    @property
    def word(self) -> tuple[int, str]:
        """The HTTP status and the body's own."""
        return self.status, self.body["status"]


class Wire:
    """One TCP connection to a gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, *pieces: bytes) -> None:
        """Send bytes, each piece in a segment of its own as far as the system lets us."""
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()

    async def reply(self, *, method: str = "POST") -> Reply:
        """Read one answer."""
        async with asyncio.timeout(_PATIENCE):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.rstrip("\r\n").split("\r\n")
            pairs = (line.split(": ", 1) for line in lines)
            headers = {name.lower(): value for name, value in pairs}
            length = 0 if method == "HEAD" else int(headers.get("content-length", 0))
            return Reply(int(first.split()[1]), headers, await self._reader.readexactly(length))

    async def read(self, size: int) -> bytes:
        """Read so many bytes."""
        async with asyncio.timeout(_PATIENCE):
            return await self._reader.readexactly(size)

    async def closed(self) -> bool:
        """Wait until the gateway closes; false where more bytes come instead."""
        async with asyncio.timeout(_PATIENCE):
            try:
                return await self._reader.read(1) == b""
            except ConnectionError:
                return True

    def stop_reading(self) -> None:
        """Take nothing more of what the gateway sends."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]  # a TCP transport has it

    def reset(self) -> None:
        """Break the connection off with a reset instead of an orderly end."""
        linger = struct.pack("ii", 1, 0)
        self._writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, linger
        )
        self._writer.transport.abort()

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            return


@asynccontextmanager
async def connected(
    port: int, host: str = "127.0.0.1", source: str | None = None, receive_buffer: int = 0
) -> AsyncIterator[Wire]:
    """Give a connection to one of the gateway's ports, from an address of this machine.

    A small receive buffer is soon full of answers that nobody takes.
    """
    end = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    end.setblocking(False)
    if receive_buffer:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    if source is not None:
        end.bind((source, 0))
    await asyncio.get_running_loop().sock_connect(end, (host, port))
    wire = Wire(*await asyncio.open_connection(sock=end))
    try:
        yield wire
    finally:
        await wire.close()


def head(
    headers: Mapping[str, str], method: str = "POST", target: str = PATH, version: str = "1.1"
) -> bytes:
    """Give a request line and headers."""
    lines = [f"{method} {target} HTTP/{version}", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def request(body: bytes, svix_id: str | None = None, **more: str) -> bytes:
    """Give a whole genuine request; `more` are headers, with `_` for `-`."""
    extra = {name.replace("_", "-"): value for name, value in more.items()}
    return head({**signed(body, svix_id), "Content-Length": str(len(body)), **extra}) + body
