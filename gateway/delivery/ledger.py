"""The ledger: what is known of events that came before, so that no copy repeats what is done.

It knows events by source and svix-id, and their targets one by one. Pure: no I/O, and the time is
an argument, in seconds of one clock. It is a help and never a condition: what it has forgotten is
published again, and no event is refused for its sake.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Literal

import msgspec

from gateway.delivery.settlement import Settlement

__all__ = ["Entry", "EntryState", "Ledger", "Retention", "Waiter"]

EntryState = Literal["complete", "incomplete"]
Waiter = Callable[[], None]
"""Called once when a publish that was waited for has ended."""

# What CPython takes for an entry with its key and its place in a dictionary, and for one target of
# it, texts apart. A test measures that the sum is never less than what is allocated.
_ENTRY_BYTES = 620
_TARGET_BYTES = 350
_CHARACTER_BYTES = 4
"""What a character takes at the most."""

_LOOK_EVERY = 64
"""Events between looks for what has expired: what nobody asks for may wait that long."""
_EXPIRED_PER_LOOK = 256
"""How many entries a look clears away at the most: more than have come since the last one."""
_ROOM = 64
"""A full ledger is emptied by one part in so many at once, because each pass has its cost."""


class Retention(msgspec.Struct, frozen=True):
    """How long the ledger remembers, in seconds, and how large it may be."""

    window: float
    """For a complete event, since it was answered; 0 forgets it at once."""
    incomplete_for: float
    """For an event that has not been answered 2xx, since its last attempt."""
    max_bytes: int


class Entry(msgspec.Struct, eq=False, gc=False):
    """What is known of one event. Others read it, and only the ledger changes it.

    The garbage collector need not look at it: what waits for a publish is let go when that lands.
    """

    key: str
    since: float
    """When its last attempt began, or when it was complete."""
    size: int
    state: Literal["complete", "incomplete", "forgotten"] = "incomplete"
    targets: dict[str, Settlement | tuple[Waiter, ...]] = {}
    """By the record's dedupe id: how it was settled, or who waits for the publish that is on its
    way. A target that is not in here is owed."""


class Ledger:
    """Entries of events, the oldest first, bounded by bytes.

    An event is *complete* once a request for it was answered 2xx. Until then it is *incomplete*,
    also when a late ack has settled its last target: the sender does not know it yet, and its
    retry may be hours away. An event with nothing settled and nothing on its way is not kept.
    """

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
        self._complete: dict[str, Entry] = {}
        self._incomplete: dict[str, Entry] = {}
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

    def open(self, source: str, svix_id: str, now: float) -> Entry:
        """Begin an attempt to deliver an event, and give what is known of it; `close` ends it."""
        self._opened += 1
        if self._opened % _LOOK_EVERY == 0:
            self.expire(now, _EXPIRED_PER_LOOK)
        key = f"{source} {svix_id}"
        entry = self._complete.get(key) or self._incomplete.get(key)
        if entry is not None:
            if not self._is_expired(entry, now):
                if entry.state == "incomplete":
                    self._keep(entry, "incomplete", now)
                return entry
            self._forget(entry)
        size = _ENTRY_BYTES + len(key)
        entry = self._incomplete[key] = Entry(key, now, size)
        self.size += size
        if self.size > self._retention.max_bytes:
            self._make_room()
        return entry

    def embark(self, entry: Entry, target: str) -> None:
        """Say that a target's record is on its way; `land` must follow."""
        if target not in entry.targets:
            entry.targets[target] = ()

    def join(self, entry: Entry, target: str, waiter: Waiter) -> None:
        """Wait for the publish of a target that is on its way."""
        waiters = entry.targets.get(target, ())
        if isinstance(waiters, tuple):
            entry.targets[target] = (*waiters, waiter)

    def land(self, entry: Entry, target: str, settlement: Settlement | None) -> None:
        """Say how a publish ended: the target is settled by it, or with None still owed.

        Those who wait for it are called, and may `embark` the target again.
        """
        targets = entry.targets
        waiters = targets.get(target, ())
        if isinstance(waiters, Settlement):
            return
        if settlement is not None:
            targets[target] = settlement
            texts = len(settlement.destination) + len(settlement.detail)
            size = _TARGET_BYTES + len(target) + _CHARACTER_BYTES * texts
            entry.size += size
            if entry.state != "forgotten":
                self.size += size
                if self.size > self._retention.max_bytes:
                    self._make_room()
        else:
            targets.pop(target, None)
        for waiter in waiters:
            waiter()
        if not targets:
            self._forget(entry)

    def close(self, entry: Entry, now: float, *, answered: bool) -> None:
        """End an attempt; `answered` says that the sender gets a 2xx and will not try again."""
        if entry.state == "forgotten":
            return
        if not entry.targets or (answered and self._retention.window == 0):
            self._forget(entry)
        elif answered and entry.state == "incomplete":
            self._keep(entry, "complete", now)
        elif not answered and entry.state == "complete":
            # Another config has given a complete event a target more, which is owed.
            self._keep(entry, "incomplete", now)

    def expire(self, now: float, most: int) -> None:
        """Forget what is past its time, `most` entries of each state at the most."""
        for entries in (self._complete, self._incomplete):
            for entry in list(islice(entries.values(), most)):
                if not self._is_expired(entry, now):
                    break
                self._forget(entry)

    def _is_expired(self, entry: Entry, now: float) -> bool:
        retention = self._retention
        kept = retention.window if entry.state == "complete" else retention.incomplete_for
        return now - entry.since >= kept

    def _keep(self, entry: Entry, state: EntryState, now: float) -> None:
        """Remember an entry from now on as what it is now."""
        del (self._complete if entry.state == "complete" else self._incomplete)[entry.key]
        entry.state = state
        entry.since = now
        (self._complete if state == "complete" else self._incomplete)[entry.key] = entry

    def _make_room(self) -> None:
        """Evict the oldest: complete ones first, whose copies are rare, and for a short time."""
        most = self._retention.max_bytes
        goal = most - most // _ROOM
        states: tuple[EntryState, ...] = ("complete", "incomplete")
        for state, entries in zip(states, (self._complete, self._incomplete), strict=True):
            left, evicted = self.size, list[Entry]()
            for entry in entries.values():
                if left <= goal:
                    break
                left -= entry.size
                evicted.append(entry)
            for entry in evicted:
                self._forget(entry)
                self._on_evicted(state)

    def _forget(self, entry: Entry) -> None:
        """Let go of an entry; an attempt that has it may use it to its end."""
        if entry.state == "forgotten":
            return
        del (self._complete if entry.state == "complete" else self._incomplete)[entry.key]
        entry.state = "forgotten"
        self.size -= entry.size
