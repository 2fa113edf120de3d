"""How much is in the streams: what the server told, and has acknowledged since. Pure."""

from __future__ import annotations

from gateway.delivery.inbox.store import Bounds, Usage

__all__ = ["Meter"]


class Meter:
    """The usage of an inbox, right to the last ack of this process; others' come by looking."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.is_bounded = False
        """The server holds the streams to `bounds` now."""
        self.writes = 0
        """How often the server has said that something is durable."""
        self.has_room = True
        """The account and the server took what was written last; a limit of theirs is no bound."""
        self._usage = Usage(0, 0, 0, 0)
        self._refused = 0

    @property
    def usage(self) -> Usage:
        """What is in there now."""
        return self._usage

    @property
    def is_full(self) -> bool:
        """Whether what was refused last would be refused now."""
        if not self.has_room:
            return True
        return bool(self._refused) and self._usage.bytes + self._refused > self.bounds.max_bytes

    def looked(self, usage: Usage) -> None:
        """Take what the server tells."""
        self._usage = usage

    def may_not_fit(self, size: int) -> bool:
        """Whether a bound that the server does not know yet refuses so much."""
        return not self.is_bounded and self._usage.bytes + size > self.bounds.max_bytes

    def refused(self, size: int) -> None:
        """Note that so much found no room; what could never fit says nothing of the others."""
        if size < self.bounds.max_bytes:
            self._refused = size

    def stored(self, size: int) -> None:
        """Note that a message waits."""
        self.has_room = True
        self._change(events=1, size=size)

    def finished(self, size: int) -> None:
        """Note that a message waits no more."""
        self._change(events=-1, size=-size)

    def parked(self, size: int) -> None:
        """Note that a target was parked."""
        self._change(parked=1, parked_size=size)

    def unparked(self, size: int) -> None:
        """Note that a target is parked no more."""
        self._change(parked=-1, parked_size=-size)

    def _change(
        self, *, events: int = 0, size: int = 0, parked: int = 0, parked_size: int = 0
    ) -> None:
        self.writes += 1
        before = self._usage
        self._usage = Usage(
            max(0, before.events + events),
            max(0, before.bytes + size),
            max(0, before.parked + parked),
            max(0, before.parked_bytes + parked_size),
        )
