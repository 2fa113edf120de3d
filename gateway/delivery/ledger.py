"""The ledger: what is known of events that came before, so that no copy repeats what is done.

It knows events by source and svix-id, and their targets one by one. Pure: no I/O, and the time is
an argument, in seconds of one clock. It is a help and never a condition: what it has forgotten is
published again, and no event is refused for its sake.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from gateway.delivery.memory import Memory, Remembered
from gateway.delivery.settlement import Settlement

__all__ = ["Entry", "Ledger", "Waiter", "event_key"]

Waiter = Callable[[], None]
"""Called once when a publish that was waited for has ended."""

# What CPython takes for an entry with its key and its place in a dictionary, and for one target of
# it, texts apart. A test measures that the sum is never less than what is allocated.
_ENTRY_BYTES = 620
_TARGET_BYTES = 350
_CHARACTER_BYTES = 4
"""What a character takes at the most."""


def event_key(source: str, svix_id: str) -> str:
    """Name an event: the same in every process. A source's name has no blank."""
    return f"{source} {svix_id}"


class Entry(Remembered, eq=False, gc=False):
    """What is known of one event. Others read it, and only the ledger changes it."""

    targets: dict[str, Settlement | tuple[Waiter, ...]] = msgspec.field(default_factory=dict)
    """By the record's dedupe id: how it was settled, or who waits for the publish that is on its
    way. A target that is not in here is owed."""


class Ledger(Memory[Entry]):
    """Entries of events, the oldest first, bounded by bytes.

    An event is *complete* once a request for it was answered 2xx. Until then it is *incomplete*,
    also when a late ack has settled its last target: the sender does not know it yet, and its
    retry may be hours away. An event with nothing settled and nothing on its way is not kept.
    """

    __slots__ = ()

    def open(self, source: str, svix_id: str, now: float) -> Entry:
        """Begin an attempt to deliver an event, and give what is known of it; `close` ends it."""
        key = event_key(source, svix_id)
        entry = self._find(key, now)
        return self._add(Entry(key, now, _ENTRY_BYTES + len(key))) if entry is None else entry

    def reopen(self, entry: Entry, now: float) -> None:
        """Begin another attempt with the entry that an attempt of the event has now."""
        if entry.state == "incomplete":
            self._keep(entry, "incomplete", now)

    def learn(self, entry: Entry, targets: Mapping[str, Settlement], since: float | None) -> None:
        """Take what others have settled of an event; with `since`, when it was complete."""
        for target, settlement in targets.items():
            if target not in entry.targets:
                self._settle(entry, target, settlement)
        if since is not None and entry.state == "incomplete":
            self._keep(entry, "complete", since)

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
            self._settle(entry, target, settlement)
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

    def hand_over(self, entry: Entry) -> None:
        """Forget an entry of which others have been told all."""
        self._forget(entry)

    def _settle(self, entry: Entry, target: str, settlement: Settlement) -> None:
        entry.targets[target] = settlement
        texts = len(settlement.destination) + len(settlement.detail)
        self._grow(entry, _TARGET_BYTES + len(target) + _CHARACTER_BYTES * texts)
