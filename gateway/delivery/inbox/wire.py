"""What the owner of an inbox and other processes say to each other on its Unix socket.

Frames of MessagePack, each behind its length in four bytes, big-endian. The first of each side is a
`Hello`: processes of two versions of the gateway do not guess at each other's words.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import Iterator

import msgspec

from gateway import GatewayError
from gateway.delivery.inbox.record import decode, encode
from gateway.delivery.inbox.store import Held

__all__ = [
    "MAX_FRAME",
    "VERSION",
    "Answer",
    "Count",
    "Discard",
    "End",
    "Failed",
    "Frames",
    "Hello",
    "Item",
    "List",
    "Outgoing",
    "Put",
    "Request",
    "State",
    "Stored",
    "Unpark",
    "WireError",
    "frame",
    "item_of",
    "peer_uid",
    "read_answer",
    "read_request",
]

VERSION = 1
"""Of the words on the socket."""
MAX_FRAME = 32 * 1024 * 1024
"""Bytes of one frame: far beyond a record, whose body has `server.max_body` once per rendering."""
_LENGTH = struct.Struct(">I")
_UCRED = struct.Struct("3i")


class WireError(GatewayError):
    """What was read is no frame of ours, or too large."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(problem)


class Hello(msgspec.Struct, frozen=True, tag="hello", array_like=True):
    """Who speaks, and how."""

    version: int
    tree: str = ""
    """Of a worker: the name of its process tree, which is the owner's too. Empty for a command."""


class Put(msgspec.Struct, frozen=True, tag="put", array_like=True):
    """Store a record; answered by `Stored` or `Failed`."""

    id: int
    record: bytes


class List(msgspec.Struct, frozen=True, tag="list", array_like=True):
    """Give what is held; answered by an `Item` for each, and `End`."""

    id: int
    ids: list[str] | None
    """These only; None is all."""


class Unpark(msgspec.Struct, frozen=True, tag="unpark", array_like=True):
    """As `Store.unpark`; answered by `Count` or `Failed`."""

    id: int
    ids: list[str]
    rerouted: dict[str, bytes]


class Discard(msgspec.Struct, frozen=True, tag="discard", array_like=True):
    """As `Store.discard`; answered by `Count` or `Failed`."""

    id: int
    ids: list[str]


class Stored(msgspec.Struct, frozen=True, tag="stored", array_like=True):
    """What became of a record."""

    id: int
    state: str


class Failed(msgspec.Struct, frozen=True, tag="failed", array_like=True):
    """What an `InboxUnavailableError` holds."""

    id: int
    reason: str
    detail: str
    max_bytes: int
    """Of an `InboxFullError`; else 0."""


class Count(msgspec.Struct, frozen=True, tag="count", array_like=True):
    """How many."""

    id: int
    count: int


class Item(msgspec.Struct, frozen=True, tag="item", array_like=True):
    """One `Held`."""

    id: int
    held: str
    state: str
    record: bytes
    owed: bytes
    """The bitmask, big-endian: MessagePack's integers have 64 bits."""
    size: int
    reason: str
    detail: str
    held_since: float

    def value(self) -> Held:
        """Give what it stands for. Raises `RecordError`."""
        return Held(
            id=self.held,
            state="parked" if self.state == "parked" else "pending",
            record=decode(self.record),
            owed=int.from_bytes(self.owed, "big"),
            size=self.size,
            reason=self.reason,
            detail=self.detail,
            held_since=self.held_since,
        )


class End(msgspec.Struct, frozen=True, tag="end", array_like=True):
    """There are no more items."""

    id: int


class State(msgspec.Struct, frozen=True, tag="state", array_like=True):
    """What the store says of itself; told on every change."""

    writable: str
    events: int
    bytes: int
    parked: int
    parked_bytes: int
    commits: int


Request = Hello | Put | List | Unpark | Discard
Answer = Hello | Stored | Failed | Count | Item | End | State

_encode = msgspec.msgpack.Encoder().encode
_decode_request = msgspec.msgpack.Decoder(Request).decode
_decode_answer = msgspec.msgpack.Decoder(Answer).decode


def frame(message: Request | Answer) -> bytes:
    """Give the bytes to send. Raises `WireError` for what is too large."""
    encoded = _encode(message)
    if len(encoded) > MAX_FRAME:
        raise WireError(f"{len(encoded)} bytes are more than a frame takes")
    return _LENGTH.pack(len(encoded)) + encoded


def read_request(encoded: bytes) -> Request:
    """Read a frame that came to the owner. Raises `WireError`."""
    try:
        request: Request = _decode_request(encoded)
    except msgspec.DecodeError as error:
        raise WireError("no request of this version") from error
    return request


def read_answer(encoded: bytes) -> Answer:
    """Read a frame that came from the owner. Raises `WireError`."""
    try:
        answer: Answer = _decode_answer(encoded)
    except msgspec.DecodeError as error:
        raise WireError("no answer of this version") from error
    return answer


def item_of(number: int, held: Held) -> Item:
    """Give what stands for one held record on the socket."""
    owed = held.owed.to_bytes((held.owed.bit_length() + 7) // 8, "big")
    return Item(
        *(number, held.id, held.state, encode(held.record), owed, held.size),
        *(held.reason, held.detail, held.held_since),
    )


class Frames:
    """Cuts a stream of bytes into frames; holds one that is incomplete, at most `MAX_FRAME`."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take bytes, and give the frames that are whole. Raises `WireError`."""
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while len(buffer) - start >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(buffer, start)
                if length > MAX_FRAME:
                    raise WireError(f"a frame of {length} bytes")
                end = start + _LENGTH.size + length
                if len(buffer) < end:
                    return
                yield bytes(buffer[start + _LENGTH.size : end])
                start = end
        finally:
            del buffer[:start]


class Outgoing:
    """Sends frames, all those of one round of the event loop together."""

    __slots__ = ("_unsent", "_writer")

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._unsent: list[bytes] = []

    def send(self, encoded: bytes) -> None:
        """Send a frame at the end of this round."""
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self.flush)
        self._unsent.append(encoded)

    def flush(self) -> None:
        """Send now what is to be sent, unless the connection has ended."""
        unsent, self._unsent = self._unsent, []
        if unsent and not self._writer.is_closing():
            self._writer.write(b"".join(unsent))


def peer_uid(connected: socket.socket) -> int | None:
    """Give the user of the process at the other end; None where the platform does not tell."""
    if sys.platform != "linux":
        return None
    found = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(found)[1])
