"""What is remembered of events, the oldest first, bounded by time and by bytes.

Pure: no I/O, and the time is an argument, in seconds of one clock. The ledger of a process and the
book of a process tree differ in what they keep of an event, and agree in how long.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Generic, Literal, TypeVar

import msgspec

__all__ = ["EntryState", "Memory", "Remembered", "Retention"]

EntryState = Literal["complete", "incomplete"]

_LOOK_EVERY = 64
"""Events between looks for what has expired: what nobody asks for may wait that long."""
_EXPIRED_PER_LOOK = 256
"""How many entries a look clears away at the most: more than have come since the last one."""
_ROOM = 64
"""A full memory is emptied by one part in so many at once, because each pass has its cost."""


class Retention(msgspec.Struct, frozen=True):
    """How long events are remembered, in seconds, and in how many bytes."""

    window: float
    """For a complete event, since it was answered; 0 forgets it at once."""
    incomplete_for: float
    """For an event that has not been answered 2xx, since its last attempt."""
    max_bytes: int


class Remembered(msgspec.Struct, eq=False, gc=False):
    """What every memory knows of an event. Only the memory changes it.

    The garbage collector need not look at it: what waits for a publish is let go when that lands.
    """

    key: str
    since: float
    """When its last attempt began, or when it was complete."""
    size: int
    state: Literal["complete", "incomplete", "forgotten"] = "incomplete"


E = TypeVar("E", bound=Remembered)


class Memory(Generic[E]):
    """Entries of events by key, complete and incomplete ones, bounded by a `Retention`."""

    __slots__ = (
        "_complete",
        "_incomplete",
        "_on_evicted",
        "_opened",
        "_retention",
        "size",
    )

    def __init__(self, retention: Retention, on_evicted: Callable[[EntryState], None]) -> None:
        """`on_evicted` is told of each entry that had to go before its time."""
        self._retention = retention
        self._on_evicted = on_evicted
        # Each in the order of `since`: what moves on is taken out and put in anew.
        self._complete: dict[str, E] = {}
        self._incomplete: dict[str, E] = {}
        self._opened = 0
        self.size = 0
        """Bytes, as estimated."""

    @property
    def complete(self) -> int:
        """How many complete events are remembered."""
        return len(self._complete)

    @property
    def incomplete(self) -> int:
        """How many incomplete events are remembered, those that are being delivered included."""
        return len(self._incomplete)

    def retain(self, retention: Retention) -> None:
        """Remember by other bounds from now on."""
        self._retention = retention
        self._make_room()

    def expire(self, now: float, most: int) -> None:
        """Forget what is past its time, `most` entries of each state at the most."""
        for entries in (self._complete, self._incomplete):
            for entry in list(islice(entries.values(), most)):
                if not self._is_expired(entry, now):
                    break
                self._forget(entry)

    def _find(self, key: str, now: float) -> E | None:
        """Give what is remembered of an event, from now on as its last attempt."""
        self._opened += 1
        if self._opened % _LOOK_EVERY == 0:
            self.expire(now, _EXPIRED_PER_LOOK)
        entry = self._complete.get(key) or self._incomplete.get(key)
        if entry is None:
            return None
        if self._is_expired(entry, now):
            self._forget(entry)
            return None
        if entry.state == "incomplete":
            self._keep(entry, "incomplete", now)
        return entry

    def _add(self, entry: E) -> E:
        """Remember a new event, which is incomplete."""
        self._incomplete[entry.key] = entry
        self.size += entry.size
        if self.size > self._retention.max_bytes:
            self._make_room()
        return entry

    def _grow(self, entry: E, size: int) -> None:
        """Count what an entry takes more, or with a negative size less."""
        entry.size += size
        if entry.state != "forgotten":
            self.size += size
            if self.size > self._retention.max_bytes:
                self._make_room()

    def _is_expired(self, entry: E, now: float) -> bool:
        retention = self._retention
        kept = retention.window if entry.state == "complete" else retention.incomplete_for
        return now - entry.since >= kept

    def _keep(self, entry: E, state: EntryState, since: float) -> None:
        """Remember an entry from now on as what it is now."""
        del (self._complete if entry.state == "complete" else self._incomplete)[entry.key]
        entry.state = state
        entry.since = since
        (self._complete if state == "complete" else self._incomplete)[entry.key] = entry

    def _make_room(self) -> None:
        """Evict the oldest: complete ones first, whose copies are rare, and for a short time."""
        most = self._retention.max_bytes
        goal = most - most // _ROOM
        states: tuple[EntryState, ...] = ("complete", "incomplete")
        for state, entries in zip(states, (self._complete, self._incomplete), strict=True):
            left, evicted = self.size, list[E]()
            for entry in entries.values():
                if left <= goal:
                    break
                left -= entry.size
                evicted.append(entry)
            for entry in evicted:
                self._forget(entry)
                self._on_evicted(state)

    def _forget(self, entry: E) -> None:
        """Let go of an entry; who has it may use it to its end."""
        if entry.state == "forgotten":
            return
        del (self._complete if entry.state == "complete" else self._incomplete)[entry.key]
        entry.state = "forgotten"
        self.size -= entry.size
