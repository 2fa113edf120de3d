"""Publish one event to all its targets at once, and say what became of each by the deadline.

The deadline is this module's own timer: a broker's client waits longer, and an ack that comes
after the answer still counts, so a publish is never cancelled. One dead target delays no
other: every target settles by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, Protocol

import msgspec

from gateway.brokers.base import Broker, BrokerError, Message, Receipt, Refused
from gateway.delivery.dead_letter import DeadLetter
from gateway.delivery.plan import Assignment, Plan, Refusal

__all__ = ["Delivery", "FanOut", "Outlets", "Settlement", "SettlementListener", "Status"]

_RESOLUTION = 0.02
"""Seconds by which an answer may come after its deadline."""

Status = Literal["delivered", "duplicate", "dead_lettered", "failed"]


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """What became of one target. `failed` is not final: the sender's retry tries again."""

    routes: tuple[str, ...]
    broker: str
    destination: str
    status: Status
    reason: str = ""
    """A bounded word; empty for `delivered`."""
    detail: str = ""
    """For the operator's log only."""
    receipt: Receipt | None = None


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """What became of an event: its status on the wire, and each target."""

    status: Literal["delivered", "dead_lettered", "failed"]
    settlements: tuple[Settlement, ...]


class Outlets(msgspec.Struct, frozen=True):
    """Where records may go: never changed, but replaced as a whole by a new config."""

    brokers: Mapping[str, Broker]
    """By name in the config."""
    dead_letter: DeadLetter | None


class SettlementListener(Protocol):
    """Told of every target once it is settled, and of acks that came after the answer."""

    def settled(self, settlement: Settlement) -> None:
        """Take the settlement of one target of an answered event."""
        ...

    def acked_late(self, settlement: Settlement) -> None:
        """Take a settlement that came after its target was reported as failed."""
        ...


class FanOut:
    """Delivers plans to the brokers."""

    __slots__ = ("_attempts", "_loop", "_sweeper", "listener")

    def __init__(self, listener: SettlementListener) -> None:
        self.listener = listener
        self._attempts: dict[_Attempt, None] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        # Asked for once: before Python 3.12 each asking is a system call.
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def unanswered(self) -> int:
        """How many events are being delivered now."""
        return len(self._attempts)

    def give_up(self) -> None:
        """Settle all that is open as failed, now: the process is about to end."""
        for attempt in tuple(self._attempts):
            attempt.expire()

    async def deliver(self, plan: Plan, outlets: Outlets, deadline: float) -> Delivery:
        """Publish to every target and return when all are settled, or at the deadline.

        `outlets` has every broker of the plan. `deadline` is event-loop time in seconds. What is
        open then is `failed` with the reason `deadline`. Raises nothing for what a broker does.
        """
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        attempt = _Attempt(self.listener, outlets, plan, deadline, self._loop)
        attempt.start()
        self._attempts[attempt] = None
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(_RESOLUTION, self._sweep, self._loop)
        try:
            await attempt.settled
        finally:
            attempt.answered = True
            del self._attempts[attempt]
        return attempt.report()

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Expire what is due. One timer for all: an event in time pays for none of its own."""
        now = loop.time()
        for attempt in [attempt for attempt in self._attempts if attempt.deadline <= now]:
            attempt.expire()
        self._sweeper = None
        if self._attempts:
            self._sweeper = loop.call_later(_RESOLUTION, self._sweep, loop)


class _Attempt:
    """One event on its way; lives until its last broker has answered."""

    __slots__ = (
        "_listener",
        "_open",
        "_outlets",
        "_plan",
        "_settlements",
        "answered",
        "deadline",
        "settled",
    )

    def __init__(
        self,
        listener: SettlementListener,
        outlets: Outlets,
        plan: Plan,
        deadline: float,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._listener = listener
        self._outlets = outlets
        self._plan = plan
        self.deadline = deadline
        self._open = len(plan.assignments) + len(plan.refusals)
        self._settlements: list[Settlement | None] = [None] * self._open
        self.answered = False
        self.settled: asyncio.Future[None] = loop.create_future()

    def start(self) -> None:
        """Publish to every target, and send the dead letters of what is refused already."""
        for at, assignment in enumerate(self._plan.assignments):
            self._publish(assignment.broker, assignment.message, partial(self._acked, at))
        for at, refusal in enumerate(self._plan.refusals, len(self._plan.assignments)):
            self._refuse(at, refusal)
        if self._open == 0 and not self.settled.done():
            self.settled.set_result(None)

    def _publish(
        self, broker: str, message: Message, done: Callable[[asyncio.Future[Receipt]], object]
    ) -> None:
        self._outlets.brokers[broker].publish(message, self.deadline).add_done_callback(done)

    def _acked(self, at: int, ack: asyncio.Future[Receipt]) -> None:
        assignment = self._plan.assignments[at]
        error = ack.exception()
        if error is None:
            self._settle(at, _delivered(assignment, ack.result()))
        elif isinstance(error, Refused):
            self._refuse(at, _given_up(assignment, error.reason, error.detail))
        else:
            self._settle(at, _settlement(_given_up(assignment, *_why(error)), "failed"))

    def _refuse(self, at: int, refusal: Refusal) -> None:
        """Send the dead letter, unless the answer is out: then the sender's retry will."""
        dead_letter = self._outlets.dead_letter
        if dead_letter is None or self.answered:
            self._settle(at, _settlement(refusal, "failed"))
            return
        letter = dead_letter.letter(self._plan, refusal)
        self._publish(dead_letter.broker, letter, partial(self._lettered, at, refusal))

    def _lettered(self, at: int, refusal: Refusal, ack: asyncio.Future[Receipt]) -> None:
        error = ack.exception()
        if error is None:
            self._settle(at, _settlement(refusal, "dead_lettered"))
            return
        reason, detail = _why(error)
        if isinstance(error, Refused):
            reason = "dead_letter_refused"
        self._settle(at, _settlement(refusal, "failed", reason, detail))

    def _settle(self, at: int, settlement: Settlement) -> None:
        if self._settlements[at] is not None:
            # The deadline settled it as failed; the sender retries, the ack is only counted.
            if settlement.status != "failed":
                self._listener.acked_late(settlement)
            return
        self._settlements[at] = settlement
        self._listener.settled(settlement)
        self._open -= 1
        if self._open == 0 and not self.settled.done():
            self.settled.set_result(None)

    def expire(self) -> None:
        """Answer for what is still open."""
        self.answered = True
        assignments, refusals = self._plan.assignments, self._plan.refusals
        targets = [_given_up(assignment, "deadline") for assignment in assignments]
        for at, target in enumerate((*targets, *refusals)):
            if self._settlements[at] is None:
                self._settle(at, _settlement(target, "failed", "deadline"))

    def report(self) -> Delivery:
        settlements = tuple(s for s in self._settlements if s is not None)
        statuses = {settlement.status for settlement in settlements}
        if "failed" in statuses:
            return Delivery("failed", settlements)
        return Delivery(
            "dead_lettered" if "dead_lettered" in statuses else "delivered", settlements
        )


def _delivered(assignment: Assignment, receipt: Receipt) -> Settlement:
    return Settlement(
        assignment.routes,
        assignment.broker,
        receipt.destination,
        "duplicate" if receipt.duplicate else "delivered",
        receipt=receipt,
    )


def _why(error: BaseException) -> tuple[str, str]:
    reason = error.reason if isinstance(error, BrokerError) else "broker_error"
    return reason, str(error)


def _given_up(assignment: Assignment, reason: str, detail: str = "") -> Refusal:
    destination = assignment.message.destination
    return Refusal(assignment.routes, assignment.broker, destination, reason, detail)


def _settlement(target: Refusal, status: Status, reason: str = "", detail: str = "") -> Settlement:
    return Settlement(
        target.routes,
        target.broker,
        target.destination,
        status,
        reason or target.reason,
        detail or target.detail,
    )
