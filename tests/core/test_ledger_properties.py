"""Whatever comes in whatever order: nothing settled is repeated, nothing owed is lost.

The fan-out and its ledger run on a loop whose time the test sets, over a broker whose every answer
the test gives, beside a model that says what must be published when.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.brokers.base import BrokerError, Message, Receipt, Refused, Unavailable, Unknown
from gateway.delivery.fanout import FanOut, Outlets
from gateway.delivery.ledger import Ledger
from gateway.delivery.memory import Retention
from gateway.delivery.plan import Assignment, Plan
from gateway.delivery.settlement import Delivery, Settlement
from tests.core.builders import BODY, metadata

DEADLINE, WINDOW, INCOMPLETE_FOR = 10.0, 120.0, 200.0
EVENTS = st.sampled_from(["msg_a", "msg_b"])
TARGETS = st.lists(st.sampled_from(["t1", "t2"]), min_size=1, unique=True)
ANSWERS = st.sampled_from([None, None, None, Unavailable, Unknown, Refused])
STEPS = st.sampled_from([0.5, 6.0, 11.0, 119.0, 121.0, 199.0])


class Loop(asyncio.SelectorEventLoop):
    """A loop whose time stands still until it is moved."""

    now = 1000.0

    def time(self) -> float:
        return self.now

    def settle(self) -> None:
        """Do all that is ready, and what comes of it."""
        self.run_until_complete(_turns())


async def _turns() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


@dataclass
class Known:
    """What must be known of an event, from when it first came until it is forgotten."""

    since: float
    complete: bool = False
    settled: set[str] = field(default_factory=set)
    in_flight: set[str] = field(default_factory=set)

    def has_expired(self, now: float) -> bool:
        return now - self.since >= (WINDOW if self.complete else INCOMPLETE_FOR)


@dataclass(eq=False)
class Attempt:
    """One request, as the model sees it."""

    event: str
    targets: list[str]
    known: Known
    task: asyncio.Task[Delivery]
    until: float
    published: set[str] = field(default_factory=set)


@dataclass(eq=False)
class Publish:
    """A record that the broker has and has not answered."""

    event: str
    target: str
    future: asyncio.Future[Receipt]
    known: Known | None = None


class Broker:
    """Takes every record and answers none by itself."""

    def __init__(self) -> None:
        self.new: list[Publish] = []

    def publish(self, message: Message, _deadline: float) -> asyncio.Future[Receipt]:
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self.new.append(Publish(message.dedupe_id.split("/")[0], message.destination, future))
        return future


class Listener:
    """Counts late acks."""

    def settled(self, settlement: Settlement) -> None:
        """Need no note: the answers are compared."""

    def acked_late(self, settlement: Settlement) -> None:
        """Need no note: what it changes is the next attempt."""


def plan(event: str, targets: list[str]) -> Plan:
    assignments = tuple(
        Assignment(("r",), "b", Message(target, BODY, (), f"{event}/{target}"))
        for target in targets
    )
    return Plan("k", BODY, metadata(id=event), assignments, ())


class Deliveries(RuleBasedStateMachine):
    """Events, copies and retries; acks, failures, deadlines; time that passes."""

    max_bytes = 1024 * 1024

    def __init__(self) -> None:
        super().__init__()
        self.loop = Loop()
        self.broker = Broker()
        self.evicted: list[Any] = []
        self.attempts: list[Attempt] = []
        self.flying: list[Publish] = []
        self.known: dict[str, Known] = {}
        self.acked: set[tuple[str, str]] = set()

    @initialize()
    def begin(self) -> None:
        retention = Retention(WINDOW, INCOMPLETE_FOR, self.max_bytes)
        self.ledger = Ledger(retention, self.evicted.append)
        self.fan_out = FanOut(Listener(), self.ledger)
        self.outlets = Outlets({"b": self.broker}, None)  # type: ignore[dict-item]  # it publishes

    def teardown(self) -> None:
        for publish in list(self.flying):
            self.end(publish, None)
        self.pass_time(DEADLINE + 1)
        assert not self.attempts, "an answer did not come"
        self.loop.now += INCOMPLETE_FOR
        self.ledger.expire(self.loop.now, 1000)
        assert (self.ledger.complete, self.ledger.incomplete, self.ledger.size) == (0, 0, 0)
        self.loop.close()

    @rule(event=EVENTS, names=TARGETS)
    def arrive(self, event: str, names: list[str]) -> None:
        now = self.loop.now
        known = self.known.get(event)
        if known is None or known.has_expired(now) or not (known.settled or known.in_flight):
            known = self.known[event] = Known(now)
        elif not known.complete:
            known.since = now
        owed = [one for one in names if one not in known.settled | known.in_flight]
        delivering = self.fan_out.deliver(plan(event, names), self.outlets, now + DEADLINE)
        task = self.loop.create_task(delivering)
        attempt = Attempt(event, names, known, task, now + DEADLINE, set(owed))
        self.attempts.append(attempt)
        self.loop.settle()
        self.published([(event, one) for one in owed], known)
        self.collect()

    @precondition(lambda self: self.flying)
    @rule(pick=st.integers(0, 20), error=ANSWERS)
    def answer(self, pick: int, error: type[BrokerError] | None) -> None:
        self.end(self.flying[pick % len(self.flying)], error)

    @rule(seconds=STEPS)
    def pass_time(self, seconds: float) -> None:
        self.loop.now += seconds
        self.loop.settle()
        self.collect()

    @precondition(lambda self: self.attempts)
    @rule(pick=st.integers(0, 20))
    def cancel(self, pick: int) -> None:
        attempt = self.attempts.pop(pick % len(self.attempts))
        attempt.task.cancel()
        self.loop.settle()
        assert attempt.task.cancelled()

    @invariant()
    def it_is_bounded(self) -> None:
        assert 0 <= self.ledger.size <= self.max_bytes, self.ledger.size

    def end(self, publish: Publish, error: type[BrokerError] | None) -> None:
        """Answer a publish; where it fails, the first that waits for it tries by itself."""
        self.flying.remove(publish)
        known, expected = publish.known, []
        if known is not None:
            known.in_flight.discard(publish.target)
        if error is None:
            self.acked.add((publish.event, publish.target))
            publish.future.set_result(Receipt(publish.target))
            if known is not None:
                known.settled.add(publish.target)
        else:
            publish.future.set_exception(error("b", publish.target, "no_leader"))
            waiting = [
                one
                for one in self.attempts
                if one.known is known and publish.target in set(one.targets) - one.published
            ]
            for first in waiting[:1]:
                first.published.add(publish.target)
                expected.append((publish.event, publish.target))
        self.loop.settle()
        self.published(expected, known)
        self.collect()

    def published(self, expected: list[tuple[str, str]], known: Known | None) -> None:
        """Compare what was published now with what must have been, no more and no less."""
        new, self.broker.new = self.broker.new, []
        self.flying += new
        assert [(one.event, one.target) for one in new] == expected
        for one in new:
            one.known = known
            if known is not None:
                known.in_flight.add(one.target)

    def collect(self) -> None:
        """Look at the answers that have come."""
        for attempt in [one for one in self.attempts if one.task.done()]:
            self.attempts.remove(attempt)
            delivery, known = attempt.task.result(), attempt.known
            self.judge(attempt, delivery)
            if delivery.status != "failed" and not known.complete:
                known.complete, known.since = True, self.loop.now
            elif delivery.status == "failed" and known.complete:
                known.complete, known.since = False, self.loop.now
        for attempt in self.attempts:
            assert self.loop.now < attempt.until, "no answer by the deadline"

    def judge(self, attempt: Attempt, delivery: Delivery) -> None:
        told = {one.destination: one.status for one in delivery.settlements}
        assert list(told) == attempt.targets
        for target, status in told.items():
            if status != "failed":
                assert (attempt.event, target) in self.acked, "told as durable, and it is not"
        if "failed" in told.values():
            assert delivery.status == "failed"
        else:
            assert delivery.status == ("delivered" if attempt.published else "duplicate")


class Crowded(Deliveries):
    """A ledger with room for two events or so: it may repeat, and still loses nothing."""

    max_bytes = 2000

    def published(self, _expected: list[tuple[str, str]], _known: Known | None) -> None:
        new, self.broker.new = self.broker.new, []
        self.flying += new
        for attempt in self.attempts:
            attempt.published |= {one.target for one in new if one.event == attempt.event}

    def judge(self, attempt: Attempt, delivery: Delivery) -> None:
        if delivery.status == "duplicate":
            delivery = msgspec.structs.replace(delivery, status="delivered")
            attempt.published.add("any")
        super().judge(attempt, msgspec.structs.replace(delivery))


BOUNDED = settings(max_examples=60, stateful_step_count=40)
TestDeliveries = Deliveries.TestCase
TestDeliveries.settings = BOUNDED
TestCrowded = Crowded.TestCase
TestCrowded.settings = BOUNDED
