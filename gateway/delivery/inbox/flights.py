"""Publishes that are on their way out of the inbox; each one ends, whatever its broker does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import msgspec

from gateway.brokers.base import Broker, Message, Receipt, Unknown
from gateway.delivery.inbox.lanes import Task
from gateway.delivery.inbox.record import Record
from gateway.delivery.inbox.terms import Reach
from gateway.delivery.plan import Refusal

__all__ = ["Flight", "Flights"]

_RETRY_WITHIN = 10.0
"""Seconds that a broker may try by itself. A record that fails then leaves its place to others."""
_MARGIN = 10.0
"""Seconds that a broker's answer may be later than its contract says."""


class Flight(msgspec.Struct, eq=False, gc=False):
    """A publish that is on its way."""

    task: Task
    record: Record
    refusal: Refusal | None
    """Why it is a dead letter."""
    late_at: float = 0.0
    """Event-loop time from which no answer is waited for."""
    has_landed: bool = False


class Flights:
    """All that are on their way, in the order in which they began."""

    def __init__(self, landed: Callable[[Flight, Receipt | BaseException], None]) -> None:
        """`landed` is told how each one ended, once."""
        self._landed = landed
        self._open: dict[Flight, None] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """How many are on their way."""
        return len(self._open)

    def begin(self, flight: Flight, broker: Broker, message: Message, reach: Reach) -> None:
        """Publish."""
        loop = asyncio.get_running_loop()
        within = min(_RETRY_WITHIN, reach.request_timeout)
        now = loop.time()
        flight.late_at = now + within + reach.request_timeout + _MARGIN
        self._open[flight] = None
        if self._sweeper is None:
            self._sweeper = loop.call_at(flight.late_at, self._sweep)
        ack = broker.publish(message, now + within)
        ack.add_done_callback(partial(self._answered, flight))

    def close(self) -> None:
        """Look no more for what is late."""
        if self._sweeper is not None:
            self._sweeper.cancel()

    def _sweep(self) -> None:
        """End what a broker never answers, against its contract; no lane waits for it for ever."""
        now = asyncio.get_running_loop().time()
        self._sweeper = None
        for flight in [flight for flight in self._open if flight.late_at <= now]:
            self._land(flight, _lost(flight))
        if self._open and self._sweeper is None:
            # They are in the order in which they began; the longest bound differs little.
            late_at = min(flight.late_at for flight in self._open)
            self._sweeper = asyncio.get_running_loop().call_at(late_at, self._sweep)

    def _answered(self, flight: Flight, ack: asyncio.Future[Receipt]) -> None:
        if not flight.has_landed:
            self._land(
                flight, _lost(flight) if ack.cancelled() else ack.exception() or ack.result()
            )

    def _land(self, flight: Flight, outcome: Receipt | BaseException) -> None:
        flight.has_landed = True
        del self._open[flight]
        self._landed(flight, outcome)


def _lost(flight: Flight) -> Unknown:
    return Unknown(flight.task.broker, flight.task.place.name, "no_ack")
