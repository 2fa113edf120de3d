"""From the bytes of an input to what is done with them: decisions, requests, how they are sent.

atheris' own `FuzzedDataProvider` would do the first part, but only where there is an atheris;
an input must be replayable everywhere.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal, TypeVar

import msgspec

from fuzz.service import PATH
from fuzz.wire import Wire
from virtual.loop import Loop

__all__ = ["Choices", "End", "Headers", "Manner", "manner", "request", "send"]

Headers = list[tuple[bytes, bytes]]
End = Literal["wait", "shut", "leave", "reset"]
Pace = Literal["turn", "settle", "linger"]
T = TypeVar("T")

MAX_SENT = 128 * 1024
"""Bytes that one input may come to once a piece of it is repeated."""
MAX_PIECE = 64 * 1024
"""Bytes that one read of a socket may bring."""
LINGER = 3.0


class Choices:
    """Takes decisions off the front of an input. Past its end every byte is 0."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def byte(self) -> int:
        """Take one byte."""
        at, self._at = self._at, self._at + 1
        return self._data[at] if at < len(self._data) else 0

    def pick(self, options: Sequence[T]) -> T:
        """Take one of up to 256 options."""
        return options[self.byte() % len(options)]

    def text(self) -> bytes:
        """Take up to 255 bytes, led by their number."""
        size = self.byte()
        at, self._at = self._at, self._at + size
        return self._data[at : at + size]

    def rest(self) -> bytes:
        """Take all that is left."""
        return self._data[self._at :]


class Manner(msgspec.Struct, frozen=True):
    """How the bytes of a connection are sent."""

    places: tuple[int, ...]
    """Where they are split, in 256ths of the whole."""
    pace: Pace
    slow: bool
    """The client is slow to read."""
    end: End
    again: int
    """How often the second piece is sent once more."""

    def pieces(self, data: bytes) -> list[bytes]:
        """Split, repeat, and keep each piece to what one read may bring."""
        cuts = sorted({0, len(data), *(len(data) * place // 256 for place in self.places)})
        parts = [data[start:end] for start, end in itertools.pairwise(cuts)]
        if len(parts) > 1:
            times = min(self.again, (MAX_SENT - len(data)) // len(parts[1]))
            parts[1] *= 1 + max(0, times)
        return [
            part[at : at + MAX_PIECE] for part in parts for at in range(0, len(part), MAX_PIECE)
        ]


def manner(choices: Choices, ends: Sequence[End] = ("wait",), *, repeats: bool = False) -> Manner:
    """Decide how to send. Without `repeats` nothing is sent twice and no time passes between."""
    flags = choices.byte()
    paces: tuple[Pace, ...] = ("settle", "turn", "linger") if repeats else ("settle", "turn")
    return Manner(
        end=ends[flags % 4 % len(ends)],
        slow=flags & 0x04 != 0,
        pace=paces[(flags >> 3) % 4 % len(paces)],
        places=tuple(choices.byte() for _ in range(flags >> 5)),
        again=choices.byte() * 16 if repeats else 0,
    )


def send(loop: Loop, wire: Wire, data: bytes, how: Manner) -> int:
    """Play the client, up to its end; give the most bytes that came by one read."""
    largest = 0
    for piece in how.pieces(data):
        if not wire.arrive(piece):
            # A slow client blocks itself: it must read before it can go on.
            wire.drain()
            loop.pass_time(LINGER)
            if not wire.arrive(piece):
                break
        largest = max(largest, len(piece))
        if how.pace == "turn":
            loop.call_soon(loop.stop)
            loop.run_forever()
        else:
            loop.pass_time(LINGER if how.pace == "linger" else 0.0)
    if how.end == "reset":
        wire.break_off(ConnectionResetError())
    elif how.end == "leave":
        wire.break_off(None)
    elif how.end == "shut":
        wire.end()
    if how.pace == "turn" or how.end != "wait":
        loop.pass_time()
    wire.drain()
    return largest


def request(headers: Headers, body: bytes, framing: int) -> bytes:
    """Write a well-formed POST; `framing` is below 128 for a length, else the size of chunks."""
    announced, sent = _frame(body, framing)
    lines = [b"POST %b HTTP/1.1" % PATH.encode(), b"Host: gateway.example"]
    lines += [name + b": " + value for name, value in [*headers, announced]]
    return b"\r\n".join(lines) + b"\r\n\r\n" + sent


def _frame(body: bytes, framing: int) -> tuple[tuple[bytes, bytes], bytes]:
    if framing < 128:
        return (b"Content-Length", b"%d" % len(body)), body
    size = (framing - 127) * 8
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    sent = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return (b"Transfer-Encoding", b"chunked"), sent + b"0\r\n\r\n"
