"""Inbox mode: an event is answered once it is stored, and dispatched in the background.

The same face as `FanOut`: a plan in, a `Delivery` out by the deadline. What the brokers do does
not matter to it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Literal

from gateway.brokers.base import State
from gateway.delivery.fanout import Outlets
from gateway.delivery.inbox.dispatcher import Dispatcher
from gateway.delivery.inbox.record import Record
from gateway.delivery.inbox.settling import unavailable
from gateway.delivery.inbox.store import (
    Bounds,
    InboxUnavailableError,
    Placed,
    Store,
    Usage,
    Writable,
)
from gateway.delivery.inbox.terms import Terms
from gateway.delivery.plan import Plan
from gateway.delivery.settlement import Delivery, Settlement

__all__ = ["Inbox"]

_DISPATCH_SHARE = 0.75
"""Of the time to close: what is on its way to the brokers; the rest is for the store."""

_Wait = asyncio.Future[Literal["stored", "pending", "finished"] | InboxUnavailableError]


class Inbox:
    """A store and the dispatcher that empties it."""

    __slots__ = ("_clock", "_dispatcher", "_open", "_store")

    def __init__(
        self, store: Store, dispatcher: Dispatcher, clock: Callable[[], float] = time.time
    ) -> None:
        """`clock` is Unix seconds."""
        self._store = store
        self._dispatcher = dispatcher
        self._clock = clock
        self._open: dict[_Wait, None] = {}

    @property
    def writable(self) -> Writable:
        """Whether the store takes records now."""
        return self._store.writable

    @property
    def usage(self) -> Usage:
        """What is in the store."""
        return self._store.usage

    @property
    def commits(self) -> int:
        """How often the store made something durable."""
        return self._store.commits

    @property
    def oldest_age(self) -> float:
        """Seconds since the oldest event that waits was stored; 0 where none waits."""
        return self._dispatcher.oldest_age()

    async def start(self) -> None:
        """Open the store and begin to dispatch what is there. Raises `InboxUnusableError`."""
        await self._store.start(self._dispatcher)
        self._dispatcher.start()

    def apply(self, terms: Terms, bounds: Bounds) -> None:
        """Dispatch and store by another config from now on."""
        self._dispatcher.apply(terms)
        self._store.bound(bounds)

    def broker_state(self, name: str, state: State) -> None:
        """Take the new state of a broker."""
        self._dispatcher.broker_state(name, state)

    async def deliver(self, plan: Plan, outlets: Outlets, deadline: float) -> Delivery:
        """Store an event; return when that is durable, or at the deadline.

        Where it goes is decided when it is dispatched, and not by `outlets`. A copy of an event
        that waits is `stored`, of one that was settled within the dedupe window `duplicate`; both
        name no target, for a reload may have given the plan others than are stored. What could
        not be stored is `failed` with the store's reason or `deadline`; it may be stored all
        the same, and the sender's retry is then a copy.
        """
        del outlets
        loop = asyncio.get_running_loop()
        wait: _Wait = loop.create_future()
        self._open[wait] = None
        # A future of its own: who stops waiting must not cancel what the store does.
        self._store.put(Record(plan, self._clock())).add_done_callback(partial(_placed, wait))
        timer = loop.call_at(deadline, _expire, wait)
        try:
            placed = await wait
        finally:
            timer.cancel()
            del self._open[wait]
        if isinstance(placed, InboxUnavailableError):
            return Delivery("failed", _settlements(plan, "failed", placed.reason))
        if placed == "stored":
            return Delivery("stored", _settlements(plan, "stored", ""))
        return Delivery("stored" if placed == "pending" else "duplicate", ())

    def give_up(self) -> None:
        """Answer all that is open as failed, now: the process is about to end."""
        for wait in tuple(self._open):
            _expire(wait)

    async def close(self, timeout: float) -> None:
        """Stop to dispatch, keep what became of what was on its way, and close the store.

        Takes at most `timeout` seconds. The brokers must be closed later.
        """
        await self._dispatcher.close(timeout * _DISPATCH_SHARE)
        await self._store.close(timeout * (1 - _DISPATCH_SHARE))


def _placed(wait: _Wait, placing: asyncio.Future[Placed]) -> None:
    error = asyncio.CancelledError() if placing.cancelled() else placing.exception()
    if wait.done():
        return
    if error is not None:
        wait.set_result(unavailable(error))
    else:
        wait.set_result(placing.result().state)


def _expire(wait: _Wait) -> None:
    if not wait.done():
        wait.set_result(InboxUnavailableError("the inbox", "deadline"))


def _settlements(
    plan: Plan, status: Literal["stored", "failed"], reason: str
) -> tuple[Settlement, ...]:
    """Give every target the event's own status; what is refused already shows its reason."""
    targets = [
        Settlement(one.routes, one.broker, one.message.destination, status, reason)
        for one in plan.assignments
    ]
    targets += [
        Settlement(one.routes, one.broker, one.destination, status, reason or one.reason)
        for one in plan.refusals
    ]
    return tuple(targets)
