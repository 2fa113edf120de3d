"""What the file of the inbox holds, in which version, and how an older one becomes this one."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import msgspec

from gateway.delivery.inbox.record import Target

__all__ = [
    "APPLICATION_ID",
    "OVERHEAD",
    "SCHEMA",
    "Schema",
    "pack_owed",
    "pack_targets",
    "unpack_owed",
    "unpack_targets",
]

APPLICATION_ID = 0x434B4557
"""`CKEW`, in the header of every file of ours (https://www.sqlite.org/pragma.html#pragma_application_id)."""

OVERHEAD = 256
"""Bytes that a record counts beyond its own: its row, its name in the index, its share of pages."""

_INT64 = 2**63


class Schema(msgspec.Struct, frozen=True):
    """A version of the file, and the ways that lead to it."""

    version: int
    create: tuple[str, ...]
    """The statements that make an empty file one of this version."""
    migrations: Mapping[int, tuple[str, ...]]
    """By the version that is found: the statements that make it the next one."""


SCHEMA = Schema(
    version=1,
    create=(
        # One small row for each event, so that a start reads no body, and what is finished keeps
        # nothing but its name. `finished_at` is null while it waits. The numbers only grow.
        """CREATE TABLE event (
            ref INTEGER PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            stored_at REAL NOT NULL,
            finished_at REAL,
            owed NOT NULL,
            size INTEGER NOT NULL,
            targets BLOB NOT NULL
        )""",
        # Bodies in order of arrival: what is settled in that order frees whole pages.
        "CREATE TABLE body (ref INTEGER PRIMARY KEY, record BLOB NOT NULL)",
        """CREATE TABLE parked (
            id INTEGER PRIMARY KEY,
            ref INTEGER NOT NULL,
            target INTEGER NOT NULL,
            reason TEXT NOT NULL,
            detail TEXT NOT NULL,
            parked_at REAL NOT NULL,
            size INTEGER NOT NULL,
            record BLOB NOT NULL,
            UNIQUE (ref, target)
        )""",
        # `next_ref` is ahead of every number given, so that none is given twice.
        """CREATE TABLE state (
            id INTEGER PRIMARY KEY CHECK (id = 0),
            next_ref INTEGER NOT NULL,
            probe BLOB
        )""",
        "INSERT INTO state VALUES (0, 1, NULL)",
    ),
    migrations={},
)
"""The version that this code reads and writes."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[str, str, int]]).decode


def pack_targets(targets: tuple[Target, ...]) -> bytes:
    """Give what stands beside a record, so that it need not be decoded at the start."""
    return _encode([(one.broker, one.destination, one.lane) for one in targets])


def unpack_targets(packed: bytes) -> tuple[Target, ...]:
    """Read what `pack_targets` gave. Names are shared: a million events have few of them."""
    return tuple(
        Target(sys.intern(broker), sys.intern(destination), lane)
        for broker, destination, lane in _decode(packed)
    )


def pack_owed(owed: int) -> int | bytes:
    """Give a bitmask as a column takes it: SQLite's integers have 63 bits to use."""
    return owed if owed < _INT64 else owed.to_bytes((owed.bit_length() + 7) // 8, "big")


def unpack_owed(packed: int | bytes) -> int:
    """Read what `pack_owed` gave."""
    return packed if isinstance(packed, int) else int.from_bytes(packed, "big")
