"""Publish one event to all its targets at once, and say what became of each by the deadline.

The deadline is this module's own timer: a broker's client waits longer, and an ack that comes
after the answer still counts, so a publish is never cancelled. One dead target delays no
other: every target settles by itself.

Copies of one event are one delivery: the ledger knows what is settled and what is on its way, and
an attempt publishes only the rest. Where other processes share the ledger, an attempt begins once
its process has the claim on the event.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import msgspec

from gateway.brokers.base import Broker, BrokerError, Message, Receipt, Refused
from gateway.delivery.dead_letter import DeadLetter
from gateway.delivery.ledger import Entry, Ledger
from gateway.delivery.plan import Assignment, Plan, Refusal
from gateway.delivery.settlement import Delivery, Settlement, Status
from gateway.delivery.shared import SharedLedger, Visit

__all__ = ["FanOut", "Outlets", "SettlementListener"]

_RESOLUTION = 0.02
"""Seconds by which an answer may come after its deadline."""


class Outlets(msgspec.Struct, frozen=True):
    """Where records may go: never changed, but replaced as a whole by a new config."""

    brokers: Mapping[str, Broker]
    """By name in the config."""
    dead_letter: DeadLetter | None


class SettlementListener(Protocol):
    """Told of every target once it is settled, and of acks that came after the answer.

    What another copy of the event has settled is not told again.
    """

    def settled(self, settlement: Settlement) -> None:
        """Take the settlement of one target of an answered event."""
        ...

    def acked_late(self, settlement: Settlement) -> None:
        """Take a settlement that came after its target was reported as failed."""
        ...


class FanOut:
    """Delivers plans to the brokers."""

    __slots__ = ("_attempts", "_loop", "_sweeper", "ledger", "listener", "shared")

    def __init__(
        self, listener: SettlementListener, ledger: Ledger, shared: SharedLedger | None = None
    ) -> None:
        """`shared` is over `ledger`; None where no other process delivers the same events."""
        self.listener = listener
        self.ledger = ledger
        self.shared = shared
        self._attempts: dict[_Attempt | Visit, None] = {}
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
        """Publish to every target that is owed; return when all are settled, or at the deadline.

        `outlets` has every broker of the plan. `deadline` is event-loop time in seconds. What is
        open then is `failed` with the reason `deadline`. Raises nothing for what a broker does.
        """
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        if self.shared is not None:
            return await self._deliver_shared(self.shared, plan, outlets, deadline, loop)
        metadata = plan.metadata
        entry = self.ledger.open(metadata.gateway_source, metadata.id, loop.time())
        delivery = await self._attempt(plan, outlets, entry, deadline, loop)
        self.ledger.close(entry, loop.time(), answered=delivery.status != "failed")
        return delivery

    async def _deliver_shared(
        self,
        shared: SharedLedger,
        plan: Plan,
        outlets: Outlets,
        deadline: float,
        loop: asyncio.AbstractEventLoop,
    ) -> Delivery:
        """Wait for the claim on the event, at the most until the deadline, and deliver."""
        metadata = plan.metadata
        visit = shared.open(metadata.gateway_source, metadata.id, deadline, loop.time())
        answered: bool | None = None
        self._attempts[visit] = None
        self._watch_deadlines(loop)
        try:
            try:
                entry = await visit.opened
            finally:
                del self._attempts[visit]
            if entry is None:
                return self._held_elsewhere(plan)
            delivery = await self._attempt(plan, outlets, entry, deadline, loop)
            answered = delivery.status != "failed"
            return delivery
        finally:
            shared.close(visit, loop.time(), answered=answered)

    async def _attempt(
        self,
        plan: Plan,
        outlets: Outlets,
        entry: Entry,
        deadline: float,
        loop: asyncio.AbstractEventLoop,
    ) -> Delivery:
        attempt = _Attempt(self, entry, outlets, plan, deadline, loop)
        attempt.start()
        self._attempts[attempt] = None
        self._watch_deadlines(loop)
        try:
            await attempt.settled
        finally:
            attempt.answered = True
            del self._attempts[attempt]
        return attempt.report()

    def _held_elsewhere(self, plan: Plan) -> Delivery:
        """Answer for an event that another process delivers for longer than the deadline."""
        targets = (*(_given_up(assignment, "") for assignment in plan.assignments), *plan.refusals)
        settlements = tuple(_settlement(target, "failed", "in_progress") for target in targets)
        for settlement in settlements:
            self.listener.settled(settlement)
        return Delivery("failed", settlements)

    def _watch_deadlines(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._sweeper is None:
            self._sweeper = loop.call_later(_RESOLUTION, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Expire what is due. One timer for all: an event in time pays for none of its own."""
        now = loop.time()
        for attempt in [attempt for attempt in self._attempts if attempt.deadline <= now]:
            attempt.expire()
        self._sweeper = None
        if self._attempts:
            self._watch_deadlines(loop)


class _Attempt:
    """One request's event on its way; lives until its last broker has answered.

    It publishes a target itself once at the most. While another attempt's publish of that target
    is on its way it waits for that, and publishes only if that ends with the target still owed: so
    a retry that comes while a broker is frozen does not double what thaws.
    """

    __slots__ = (
        "__weakref__",
        "_entry",
        "_ledger",
        "_listener",
        "_open",
        "_outlets",
        "_plan",
        "_published",
        "_settlements",
        "_shared",
        "_targets",
        "answered",
        "deadline",
        "settled",
    )

    def __init__(
        self,
        fan_out: FanOut,
        entry: Entry,
        outlets: Outlets,
        plan: Plan,
        deadline: float,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._listener = fan_out.listener
        self._ledger = fan_out.ledger
        self._shared = fan_out.shared
        self._entry = entry
        self._outlets = outlets
        self._plan = plan
        self.deadline = deadline
        self._targets = plan.target_ids()
        self._open = len(self._targets)
        self._settlements: list[Settlement | None] = [None] * self._open
        self._published = False
        self.answered = False
        self.settled: asyncio.Future[None] = loop.create_future()

    def start(self) -> None:
        """Publish to every target that is owed, and send the letters of what is refused already."""
        known = self._entry.targets
        for at, assignment in enumerate(self._plan.assignments):
            if known and self._targets[at] in known:
                self._pursue(at)
            else:
                self._publish(at, assignment.broker, assignment.message, partial(self._acked, at))
        for at in range(len(self._plan.assignments), len(self._targets)):
            self._pursue(at)
        if self._open == 0 and not self.settled.done():
            self.settled.set_result(None)

    def _pursue(self, at: int) -> None:
        """Take what the ledger knows of a target, or wait for its publish, or publish it."""
        target = self._targets[at]
        known = self._entry.targets.get(target)
        if isinstance(known, Settlement):
            self._put(at, known)
            return
        if known is not None:
            # A copy that was answered is not kept for the sake of what it waited for.
            self._ledger.join(self._entry, target, partial(_landed, weakref.ref(self), at))
            return
        assignments = self._plan.assignments
        if at >= len(assignments):
            self._refuse(at, self._plan.refusals[at - len(assignments)])
            return
        assignment = assignments[at]
        self._publish(at, assignment.broker, assignment.message, partial(self._acked, at))

    def landed(self, at: int) -> None:
        """Go on with a target, now that another attempt's publish of it has ended."""
        if self._settlements[at] is None and not self.answered:
            self._pursue(at)

    def _publish(
        self,
        at: int,
        broker: str,
        message: Message,
        done: Callable[[asyncio.Future[Receipt]], object],
    ) -> None:
        self._outlets.brokers[broker].publish(message, self.deadline).add_done_callback(done)
        self._published = True
        self._ledger.embark(self._entry, self._targets[at])

    def _acked(self, at: int, ack: asyncio.Future[Receipt]) -> None:
        assignment = self._plan.assignments[at]
        error = ack.exception()
        if error is None:
            self._land(at, _delivered(assignment, ack.result()))
        elif isinstance(error, Refused):
            self._refuse(at, _given_up(assignment, error.reason, error.detail))
        else:
            self._land(at, _settlement(_given_up(assignment, *_why(error)), "failed"))

    def _refuse(self, at: int, refusal: Refusal) -> None:
        """Send the dead letter, unless the answer is out: then the sender's retry will."""
        dead_letter = self._outlets.dead_letter
        if dead_letter is None or self.answered:
            self._land(at, _settlement(refusal, "failed"))
            return
        letter = dead_letter.letter(self._plan, refusal, self._targets[at])
        self._publish(at, dead_letter.broker, letter, partial(self._lettered, at, refusal))

    def _lettered(self, at: int, refusal: Refusal, ack: asyncio.Future[Receipt]) -> None:
        error = ack.exception()
        if error is None:
            self._land(at, _settlement(refusal, "dead_lettered"))
            return
        reason, detail = _why(error)
        if isinstance(error, Refused):
            reason = "dead_letter_refused"
        self._land(at, _settlement(refusal, "failed", reason, detail))

    def _land(self, at: int, settlement: Settlement) -> None:
        """Settle a target by what this attempt did for it, and tell those who wait for it."""
        is_settled = settlement.status != "failed"
        if self._settlements[at] is None:
            self._listener.settled(settlement)
            self._put(at, settlement)
        elif is_settled:
            # The deadline settled it as failed; the ledger spares the sender's retry the repeat.
            self._listener.acked_late(settlement)
        self._ledger.land(self._entry, self._targets[at], settlement if is_settled else None)
        if self._shared is not None and self.answered:
            self._shared.landed(self._entry)

    def _put(self, at: int, settlement: Settlement) -> None:
        self._settlements[at] = settlement
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
                settlement = _settlement(target, "failed", "deadline")
                self._listener.settled(settlement)
                self._put(at, settlement)

    def report(self) -> Delivery:
        """Say what became of the event; all its targets are settled."""
        settlements = tuple([s for s in self._settlements if s is not None])
        statuses = [settlement.status for settlement in settlements]
        if "failed" in statuses:
            return Delivery("failed", settlements)
        if settlements and not self._published:
            return Delivery("duplicate", settlements)
        return Delivery(
            "dead_lettered" if "dead_lettered" in statuses else "delivered", settlements
        )


def _landed(attempt: weakref.ref[_Attempt], at: int) -> None:
    """Tell an attempt, if anybody still waits for it, that what it waited for has landed."""
    waiting = attempt()
    if waiting is not None:
        waiting.landed(at)


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
