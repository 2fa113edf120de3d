"""How much may be on its way to a broker, and to each destination of it. Pure: time is an argument.

A broker's window is a little less than the broker's own caps, so that it never answers
`overloaded`. A destination has a share of it that leaves room for the others, and an allowance:
unlimited until something fails there, then some few records that find out whether it works
again. Each ack adds one, so that it opens as fast as it answers. So a destination that is stuck
neither fills the window nor is asked again and again for every record that waits for it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from gateway.delivery.inbox.lane import Lane

__all__ = ["Backoff", "Gate", "Place", "Window"]

_CAUTIOUS = 16
"""Records that may be on their way to a destination after its first failure; then ever fewer."""


class Window(msgspec.Struct, frozen=True):
    """What may be on its way to one broker."""

    records: int
    bytes: int


class Backoff(msgspec.Struct, frozen=True):
    """How long to wait after a failure, in seconds: twice as long after each."""

    first: float = 0.2
    most: float = 60.0

    def after(self, failures: int, jitter: float) -> float:
        """Give the wait after so many failures in a row; `jitter` is a random number, 0 to 1.

        Between half and all of the doubled time, so that lanes which failed together do not
        come again together.
        """
        whole = min(self.most, self.first * 2.0 ** min(failures - 1, 30))
        return whole * (0.5 + jitter / 2)


class Place(msgspec.Struct, eq=False):
    """One destination of a broker that records wait for."""

    gate: Gate
    name: str
    ready: deque[Lane] = msgspec.field(default_factory=deque)
    """Lanes whose first record may go, each in its turn."""
    lanes: int = 0
    """How many lanes lead here."""
    records: int = 0
    bytes: int = 0
    failures: int = 0
    """In a row, counted once for all that were on their way together."""
    allowance: int | None = None
    """How many may be on their way of those that began after the last failure; None for no end."""
    epoch: int = 0
    """Counts the failures, so that a record knows whether it began before the last one."""
    recent: int = 0
    """How many of those are on their way now."""
    rests_until: float | None = None
    in_turn: bool = False

    def has_room(self, size: int) -> bool:
        """Tell whether one more record of `size` bytes may go there now."""
        if self.rests_until is not None:
            return False
        if self.allowance is not None and self.recent >= self.allowance:
            return False
        window, sharers = self.gate.window, len(self.gate.places) + 1
        if self.records >= max(1, window.records // sharers):
            return False
        return self.records == 0 or self.bytes + size <= window.bytes // sharers

    def offer(self) -> None:
        """Take a turn if there is something to send."""
        if self.ready and not self.in_turn:
            self.in_turn = True
            self.gate.turn.append(self)

    def begin(self, size: int) -> int:
        """Count a record that goes there; give the epoch it began in."""
        self.records += 1
        self.bytes += size
        self.recent += 1
        self.gate.records += 1
        self.gate.bytes += size
        return self.epoch

    def end(self, size: int, epoch: int) -> None:
        """Count a record no longer."""
        self.records -= 1
        self.bytes -= size
        self.gate.records -= 1
        self.gate.bytes -= size
        if epoch == self.epoch:
            self.recent -= 1
        self.offer()

    def worked(self) -> None:
        """Trust the destination more: it has acknowledged a record."""
        self.failures = 0
        self.rests_until = None
        if self.allowance is not None:
            self.allowance += 1
            if self.allowance >= self.gate.window.records:
                self.allowance = None
        self.offer()

    def failed(self, epoch: int) -> bool:
        """Trust it less; False where that is known since the record began."""
        if epoch != self.epoch:
            return False
        self.epoch += 1
        self.recent = 0
        self.failures += 1
        before = 2 * _CAUTIOUS if self.allowance is None else self.allowance
        self.allowance = max(1, min(before, 2 * _CAUTIOUS) // 2)
        return True

    def forgive(self) -> None:
        """Forget what has failed: the broker is another than before."""
        self.failures = 0
        self.allowance = None
        self.rests_until = None
        self.offer()


class Gate(msgspec.Struct, eq=False):
    """One broker that records wait for."""

    name: str
    window: Window
    is_open: bool = False
    """Whether the broker is up; while it is not, nothing is tried."""
    places: dict[str, Place] = {}
    turn: deque[Place] = msgspec.field(default_factory=deque)
    """Destinations that have something to send, each in its turn."""
    records: int = 0
    bytes: int = 0

    def has_room(self, size: int) -> bool:
        """Tell whether one more record of `size` bytes may go to the broker now."""
        if self.records == 0:
            return True
        return self.records < self.window.records and self.bytes + size <= self.window.bytes
