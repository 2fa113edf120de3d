"""What the index of the inbox is made of: records that wait, lanes, and tasks. Pure values."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Literal

import msgspec

from gateway.delivery.inbox.store import Entry
from gateway.delivery.inbox.windows import Place
from gateway.delivery.plan import Refusal

__all__ = ["NO_BROKER", "Item", "Lane", "Task", "Waiting", "bits", "key_of"]

NO_BROKER = ""
"""Stands for the broker of a target that needs none: it was refused before it was stored, or has
outlived its age."""

Item = tuple[int, int]
"""A record's ref and the place of a target in it."""


class Lane(msgspec.Struct, eq=False, gc=False):
    """Records that go one after the other. Only `Lanes` changes it."""

    key: Hashable
    broker: str
    destination: str
    """Of the first one, when it was last looked at."""
    place: Place
    """Where the first one goes: elsewhere while it is a dead letter."""
    waiting: list[Item]
    """A heap."""
    state: Literal["new", "ready", "busy", "resting", "gone"] = "new"
    failures: int = 0
    rests_until: float = 0.0
    diverted: Item | None = None
    """The first one, where it goes elsewhere."""
    stale: int = 0
    """How many of those in `waiting` wait no longer; they are passed over."""


class Task(msgspec.Struct, frozen=True, eq=False, gc=False):
    """One target of a record that is to be served now; `settled`, `failed` or `divert` ends it."""

    ref: int
    at: int
    """The target's place in the record."""
    broker: str
    """What it goes to now: the target's own, the dead letter's, or `NO_BROKER`."""
    overdue: bool
    """It has outlived its age, and is to be a dead letter."""
    failures: int
    """How often it has failed in a row."""
    size: int
    lane: Lane
    place: Place
    epoch: int
    waiting: Waiting


class Waiting(msgspec.Struct, eq=False, gc=False):
    """A record of which something is owed."""

    entry: Entry
    owed: int
    begun: int = 0
    """Bitmask of the targets that are on their way."""
    refusals: dict[int, Refusal] | None = None
    """By the target's place, why its dead letter is on its way. Replaced as a whole."""
    overdue: bool = False


def key_of(entry: Entry, at: int) -> int:
    """Name a target's lane; partitions have nothing in common, not even the order of refs."""
    lane = entry.targets[at].lane
    return lane + (entry.partition << 64) if entry.partition else lane


def bits(mask: int) -> Iterator[int]:
    """Give the numbers of a mask's bits, the lowest first."""
    at = 0
    while mask:
        if mask & 1:
            yield at
        mask >>= 1
        at += 1
