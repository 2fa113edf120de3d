"""What the connections of one port share: their bounds, how many they are, what they hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

__all__ = ["Connections", "Waiting", "WireLimits"]


class WireLimits(msgspec.Struct, frozen=True):
    """Bounds of what a sender can make a port do; seconds, bytes and counts."""

    max_head: int
    """Bytes of request line and headers together."""
    max_headers: int
    header_timeout: float
    """Seconds from a request's first byte to the end of its head."""
    body_timeout: float
    """Seconds from a request's first byte to the end of its body."""
    idle_timeout: float
    """Seconds between requests, or without taking what is being answered."""
    max_pipelined: int
    """Requests of one connection that wait for the one that is being answered."""
    max_connections: int
    max_arriving: int
    """Bytes of bodies that have begun to arrive and are not whole, over all connections."""


class Waiting(Protocol):
    """A connection on which the next move is the sender's."""

    def give_up(self, reason: str) -> None:
        """Wait no longer; a request that has begun is answered 503 with this reason."""
        ...


class Connections:
    """The connections of one port of one process.

    When the port is full, the one that has waited longest for its sender gives way to a new one:
    who holds connections without sending cannot keep out those that do. A connection whose
    request is whole and is being worked on never gives way.
    """

    __slots__ = ("_on_change", "_waiting", "arriving", "limits", "open")

    def __init__(
        self, limits: WireLimits, on_change: Callable[[int], object] = lambda _: None
    ) -> None:
        """`on_change` is told how many connections are open, whenever one comes or goes."""
        self.limits = limits
        self._on_change = on_change
        self.open = 0
        self.arriving = 0
        """Bytes, of which `WireLimits.max_arriving` speaks."""
        self._waiting: dict[Waiting, None] = {}

    @property
    def is_over(self) -> bool:
        """Whether there are more than the limit, until those that gave way have gone."""
        return self.open > self.limits.max_connections

    def enter(self, connection: Waiting) -> bool:
        """Count a new connection, which waits; False where it has no place: close it."""
        self.open += 1
        self._on_change(self.open)
        if self.is_over:
            longest = next(iter(self._waiting), None)
            if longest is None:
                return False
            del self._waiting[longest]
            longest.give_up("overloaded")
        self._waiting[connection] = None
        return True

    def leave(self, connection: Waiting) -> None:
        """Forget a connection that has ended. Once for each that has entered."""
        self.open -= 1
        self._on_change(self.open)
        self._waiting.pop(connection, None)

    def give_up(self) -> None:
        """Wait for no sender any more: the process is about to end."""
        for connection in tuple(self._waiting):
            connection.give_up("closing")

    def wait(self, connection: Waiting) -> None:
        """Note that it waits for its sender from now on."""
        self._waiting[connection] = None

    def work(self, connection: Waiting) -> None:
        """Note that its request is whole: the next move is ours."""
        self._waiting.pop(connection, None)

    def arrive(self, size: int) -> bool:
        """Count bytes of a body that is not whole; False where they are too many together."""
        self.arriving += size
        return self.arriving <= self.limits.max_arriving

    def settle(self, size: int) -> None:
        """Count bytes off again: their body is whole, or given up."""
        self.arriving -= size
