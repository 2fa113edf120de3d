"""A connection that is only memory."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from virtual.loop import Loop

__all__ = ["Wire"]


class Wire(asyncio.Transport):
    """One end of a connection; it behaves as asyncio's own transports of sockets do."""

    def __init__(self, loop: Loop, *, slow: bool) -> None:
        """A `slow` client lets the first bytes of an answer wait until `drain`."""
        super().__init__({"peername": ("192.0.2.1", 50000), "sockname": ("192.0.2.2", 8080)})
        self._loop = loop
        self._slow = slow
        self._clogged = False
        self._ended = False
        self._lost = False
        self._closing = False
        self._protocol: asyncio.Protocol | None = None
        self.reading = True
        self.written = bytearray()

    @property
    def is_lost(self) -> bool:
        """Whether the protocol was told that the connection is gone."""
        return self._lost

    def connect(self, protocol: asyncio.Protocol) -> None:
        """Open it."""
        self._protocol = protocol
        protocol.connection_made(self)

    def arrive(self, data: bytes) -> bool:
        """Let bytes arrive; False where they cannot, because nobody reads them."""
        if self._closing or not self.reading:
            return False
        self._loop.call_soon(self.held.data_received, data)
        return True

    def end(self) -> None:
        """The client sends no more, and reads on."""
        if not self._closing:
            self._loop.call_soon(self._end)

    def break_off(self, error: Exception | None) -> None:
        """The client has gone."""
        self._closing = True
        self._loop.call_soon(self._lose, error)

    def drain(self) -> None:
        """The client reads what has waited, and from now on at once."""
        self._slow = False
        if not self._clogged:
            return
        self._clogged = False
        self._loop.call_soon(self.held.resume_writing)
        if self._closing:
            self._loop.call_soon(self._lose, None)

    @property
    def held(self) -> asyncio.Protocol:
        """The protocol at this end."""
        assert self._protocol is not None
        return self._protocol

    def _end(self) -> None:
        if not self._lost and not self.held.eof_received():
            self.close()

    def _lose(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            self.held.connection_lost(error)

    # What the protocol calls.

    def write(self, data: Any) -> None:
        """Take what is answered."""
        if self._ended:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self._closing:
            return
        self.written += data
        if self._slow and not self._clogged:
            self._clogged = True
            self.held.pause_writing()

    def can_write_eof(self) -> bool:
        """As TCP can."""
        return True

    def write_eof(self) -> None:
        """End this direction."""
        self._ended = True

    def close(self) -> None:
        """Close once all is written."""
        if self._closing:
            return
        self._closing = True
        if not self._clogged:
            self._loop.call_soon(self._lose, None)

    def abort(self) -> None:
        """Close at once."""
        self.break_off(None)

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""
        return self._closing

    def pause_reading(self) -> None:
        """Let nothing more arrive."""
        self.reading = False

    def resume_reading(self) -> None:
        """Let it arrive again."""
        self.reading = True

    def is_reading(self) -> bool:
        """Whether bytes may arrive."""
        return self.reading and not self._closing

    def get_write_buffer_size(self) -> int:
        """What has been written and not read."""
        return len(self.written) if self._clogged else 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Without meaning here."""

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The protocol at this end."""
        return self.held

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand the connection to another protocol."""
        self._protocol = cast("asyncio.Protocol", protocol)
