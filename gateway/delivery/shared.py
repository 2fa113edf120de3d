"""A process's ledger beside those of others: it holds what is claimed, and what is unshared.

The attempts of one process share its claim on an event. It lasts for as long as one of them is
open or a publish of the event is on its way, so that a retry which reaches another process waits
for a late ack as one that reaches this process does. While it lasts, the truth is in this ledger;
with its release it is handed over. Where the others could not be told, this ledger remembers by
itself.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Protocol

from gateway.delivery.claims import Claims, Known, Unshared, UnsharedReason
from gateway.delivery.ledger import Entry, Ledger, event_key
from gateway.delivery.settlement import Settlement

__all__ = ["SharedLedger", "UnsharedListener", "Visit"]


class UnsharedListener(Protocol):
    """Told of each delivery of which other processes may not know."""

    def unshared(self, reason: UnsharedReason) -> None:
        """Take that a delivery goes on without the others, or that they were not told of it."""
        ...


class Visit:
    """One attempt's part in its process's claim on an event."""

    __slots__ = ("deadline", "hold", "opened")

    def __init__(self, hold: _Hold, deadline: float, opened: asyncio.Future[Entry | None]) -> None:
        self.hold = hold
        self.deadline = deadline
        self.opened = opened
        """What is known of the event; None where another process has the claim for too long."""

    def expire(self) -> None:
        """Wait no longer."""
        if not self.opened.done():
            self.opened.set_result(None)


class _Hold:
    """A claim of this process: asked for, given, or found to be unshared."""

    __slots__ = ("asking", "complete", "entry", "event", "since", "unshared", "visits", "waiting")

    def __init__(self, event: tuple[str, str], asking: asyncio.Future[Known]) -> None:
        self.event = event
        self.asking = asking
        self.entry: Entry | None = None
        """Once it is known whether the claim is ours."""
        self.unshared: UnsharedReason | None = None
        self.complete = False
        self.since = 0.0
        self.visits = 0
        self.waiting: list[Visit] = []

    @property
    def key(self) -> str:
        """The event's."""
        return event_key(*self.event)


class SharedLedger:
    """Claims events before they are delivered, and releases them when all has landed."""

    __slots__ = ("_counts_claimed", "_holds", "_ledger", "_listener", "claims")

    def __init__(
        self, ledger: Ledger, claims: Claims, listener: UnsharedListener, *, counts_claimed: bool
    ) -> None:
        """`counts_claimed`: nobody else counts what this process has claimed."""
        self._ledger = ledger
        self.claims = claims
        self._listener = listener
        self._counts_claimed = counts_claimed
        self._holds: dict[str, _Hold] = {}

    @property
    def complete(self) -> int:
        """How many complete events this process alone remembers."""
        return self._ledger.complete - self._counted_elsewhere("complete")

    @property
    def incomplete(self) -> int:
        """How many incomplete events this process alone remembers."""
        return self._ledger.incomplete - self._counted_elsewhere("incomplete")

    @property
    def size(self) -> int:
        """Bytes of this process, as estimated."""
        return self._ledger.size

    async def connect(self) -> None:
        """Begin to connect to what is shared."""
        await self.claims.start(self._lost)

    async def disconnect(self) -> None:
        """Hand over what is on its way, and disconnect."""
        await self.claims.close()

    def open(self, source: str, svix_id: str, deadline: float, now: float) -> Visit:
        """Begin an attempt to deliver an event, once nobody else does; `close` ends it."""
        key = event_key(source, svix_id)
        hold = self._holds.get(key)
        if hold is None:
            hold = self._holds[key] = _Hold((source, svix_id), self.claims.claim(key))
            hold.asking.add_done_callback(partial(self._answered, hold))
        visit = Visit(hold, deadline, asyncio.get_running_loop().create_future())
        hold.visits += 1
        if hold.entry is None:
            hold.waiting.append(visit)
        else:
            self._ledger.reopen(hold.entry, now)
            self._admit(hold, visit)
        return visit

    def close(self, visit: Visit, now: float, *, answered: bool | None) -> None:
        """End an attempt; see `Ledger.close`. None: it was cut short, or never begun."""
        hold = visit.hold
        hold.visits -= 1
        visit.expire()
        if hold.entry is None:
            # One that is answered already is taken, and then released at once.
            if hold.visits == 0 and hold.asking.cancel():
                self._drop(hold)
            return
        if answered is not None:
            self._ledger.close(hold.entry, now, answered=answered)
            if hold.complete != answered:
                hold.complete, hold.since = answered, now
        self._settle(hold)

    def landed(self, entry: Entry) -> None:
        """Take that a publish has ended whose attempt was answered before."""
        hold = self._holds.get(entry.key)
        if hold is not None and hold.entry is entry:
            self._settle(hold)

    def _answered(self, hold: _Hold, asking: asyncio.Future[Known]) -> None:
        """Take the claim, or that there is none; those who wait go on in order of arrival."""
        if asking.cancelled():
            return
        now = asyncio.get_running_loop().time()
        entry = hold.entry = self._ledger.open(*hold.event, now)
        error = asking.exception()
        if error is None:
            known = asking.result()
            since = now - known.age if known.complete else None
            self._ledger.learn(entry, known.targets, since)
        else:
            hold.unshared = error.reason if isinstance(error, Unshared) else "refused"
        hold.complete, hold.since = entry.state == "complete", entry.since
        waiting, hold.waiting = hold.waiting, []
        for visit in waiting:
            self._admit(hold, visit)
        if not hold.visits:
            self._settle(hold)

    def _admit(self, hold: _Hold, visit: Visit) -> None:
        if visit.opened.done():
            return
        if hold.unshared is not None:
            self._listener.unshared(hold.unshared)
        visit.opened.set_result(hold.entry)

    def _settle(self, hold: _Hold) -> None:
        """Release the claim if nothing of the event is open any more."""
        entry = hold.entry
        if hold.visits or entry is None or any(map(_is_flying, entry.targets.values())):
            return
        self._drop(hold)
        if hold.unshared is not None:
            if not entry.targets:
                self._ledger.hand_over(entry)
            return
        settled = {
            target: known
            for target, known in entry.targets.items()
            if isinstance(known, Settlement)
        }
        age = asyncio.get_running_loop().time() - hold.since if hold.complete else 0.0
        known = Known(settled, hold.complete, age)
        self.claims.release(hold.key, known, partial(self._released, entry))

    def _released(self, entry: Entry, saved: bool) -> None:
        if not saved:
            self._listener.unshared("not_saved")
            return
        hold = self._holds.get(entry.key)
        if hold is None or hold.entry is not entry:
            self._ledger.hand_over(entry)

    def _lost(self, key: str) -> None:
        hold = self._holds.get(key)
        if hold is not None and hold.entry is not None and hold.unshared is None:
            hold.unshared = "lost"
            self._listener.unshared("lost")

    def _drop(self, hold: _Hold) -> None:
        if self._holds.get(hold.key) is hold:
            del self._holds[hold.key]

    def _counted_elsewhere(self, state: str) -> int:
        if self._counts_claimed:
            return 0
        entries = [hold.entry for hold in self._holds.values() if hold.unshared is None]
        return sum(entry is not None and entry.state == state for entry in entries)


def _is_flying(known: object) -> bool:
    return isinstance(known, tuple)
