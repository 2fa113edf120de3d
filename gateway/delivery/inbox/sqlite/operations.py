"""What is asked of the writer, and how its outcome is told: values that cross the two threads.

The event loop makes an operation and never touches it again until the writer gives it back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.delivery.inbox.record import Record, Target
from gateway.delivery.inbox.store import Entry, InboxUnavailableError, Parked, Placed

if TYPE_CHECKING:
    from asyncio import Future

__all__ = [
    "Discard",
    "Operation",
    "Park",
    "Put",
    "Settle",
    "Unpark",
    "batches",
    "entry_of",
    "fail",
    "place_of",
    "resolve",
]

_BATCH = 100
"""Ids of an operator's request that are one transaction."""


class Put(msgspec.Struct, eq=False):
    """Store a record."""

    name: str
    record: Record
    encoded: bytes
    targets: tuple[Target, ...]
    packed: bytes
    """The targets, as they are stored."""
    owed: int
    size: int
    future: Future[Placed]
    ref: int = 0
    placed: Placed | None = None
    error: InboxUnavailableError | None = None


class Settle(msgspec.Struct, eq=False):
    """Keep what is still owed."""

    ref: int
    owed: int
    future: Future[None]
    size: int = 0
    error: InboxUnavailableError | None = None


class Park(msgspec.Struct, eq=False):
    """Set a target aside, and keep what is still owed."""

    ref: int
    owed: int
    parked: Parked
    encoded: bytes
    size: int
    future: Future[None]
    error: InboxUnavailableError | None = None


class Unpark(msgspec.Struct, eq=False):
    """Put parked targets back."""

    places: tuple[tuple[int, int], ...]
    """Ref and target of each."""
    rerouted: dict[tuple[int, int], Record]
    future: Future[int]
    size: int = 0
    done: int = 0
    entries: tuple[Entry, ...] = ()
    """What is to be dispatched now."""
    error: InboxUnavailableError | None = None


class Discard(msgspec.Struct, eq=False):
    """Drop waiting records, and parked targets."""

    refs: tuple[int, ...]
    places: tuple[tuple[int, int], ...]
    future: Future[int]
    size: int = 0
    done: int = 0
    dropped: tuple[tuple[bytes, int], ...] = ()
    """What was dropped: each record as it was stored, and its targets."""
    error: InboxUnavailableError | None = None


Operation = Put | Settle | Park | Unpark | Discard


def entry_of(put: Put) -> Entry:
    """Give what the dispatcher keeps of a record that was stored."""
    return Entry(put.ref, 0, put.record.stored_at, put.owed, put.targets, put.size)


def resolve(future: Future[Any], found: object) -> None:
    """Tell what was found to the one who waits, if anybody does."""
    if not future.done():
        future.set_result(found)


def fail(future: Future[Any], error: InboxUnavailableError) -> None:
    """Tell the one who waits, if anybody does, that it has failed."""
    if not future.done():
        future.set_exception(error)
        # Who asked may have gone; asyncio need not report what nobody waits for.
        future.exception()


def place_of(held: str) -> tuple[int, int] | None:
    """Read the id of what is parked: `<ref>.<target>`."""
    ref, dot, target = held.partition(".")
    if not dot or not (ref + target).isascii() or not (ref.isdigit() and target.isdigit()):
        return None
    return int(ref), int(target)


def batches(items: list[Any]) -> Iterator[list[Any]]:
    """Cut what an operator asks for into transactions."""
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]
