"""Several processes and one book: whoever gets a copy or a retry, nothing settled is repeated.

Processes, their fan-outs and ledgers are the real ones, on a loop whose time the test sets. What
they say to the book and it to them waits on its way for as long as the test wants.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.brokers.base import BrokerError, Message, Receipt
from gateway.delivery.book import Book, Grant, Report
from gateway.delivery.claims import Known, Unshared, UnsharedReason
from gateway.delivery.fanout import FanOut, Outlets
from gateway.delivery.ledger import Ledger
from gateway.delivery.memory import Retention
from gateway.delivery.settlement import Delivery, Settlement
from gateway.delivery.shared import SharedLedger
from tests.core.test_ledger_properties import ANSWERS, DEADLINE, EVENTS, TARGETS, Loop, plan

LONG = 1_000_000.0
RETENTION = Retention(LONG, LONG, 1024 * 1024)
STEPS = st.sampled_from([0.5, 6.0, 11.0])
PROCESSES = st.integers(0, 2)


class Wire:
    """One process's claims on the book; what is said arrives when it is delivered."""

    def __init__(self, process: int, world: Processes) -> None:
        self.process = process
        self.world = world
        self.to_book: deque[Callable[[], object]] = deque()
        self.from_book: deque[Callable[[], object]] = deque()
        self.numbers = 0
        self.asked: dict[int, tuple[str, asyncio.Future[Known]]] = {}
        self.held: dict[str, int] = {}
        self.cut = False
        self.on_lost: Callable[[str], None] = lambda _: None

    async def start(self, on_lost: Callable[[str], None]) -> None:
        self.on_lost = on_lost

    def claim(self, key: str) -> asyncio.Future[Known]:
        future: asyncio.Future[Known] = self.world.loop.create_future()
        if self.cut:
            future.set_exception(Unshared("unreachable"))
            return future
        self.numbers += 1
        number = self.numbers
        self.asked[number] = key, future
        future.add_done_callback(partial(self.settled, number))
        self.to_book.append(partial(self.world.claim, self, key, number))
        return future

    def release(self, key: str, known: Known, done: Callable[[bool], None]) -> None:
        number = self.held.pop(key, None)
        if number is None or self.cut:
            done(False)
            return
        targets = msgspec.msgpack.encode(known.targets) if known.targets else b""
        report = Report(targets, known.complete, known.age)
        self.to_book.append(partial(self.world.release, self, key, number, report))
        done(True)

    async def close(self) -> None:
        """Need no end."""

    def settled(self, number: int, future: asyncio.Future[Known]) -> None:
        key, _ = self.asked.pop(number)
        if future.cancelled():
            self.to_book.append(partial(self.world.withdraw, self, key, number))

    def granted(self, number: int, report: Report) -> None:
        key, future = self.asked.get(number, ("", None))
        if future is None or future.done():
            return
        self.held[key] = number
        targets: dict[str, Settlement] = {}
        if report.targets:
            targets = msgspec.msgpack.decode(report.targets, type=dict[str, Settlement])
        future.set_result(Known(targets, report.complete, report.age))

    def lose(self) -> None:
        """Lose the connection to the book, for good."""
        self.cut = True
        self.to_book.clear()
        self.from_book.clear()
        for _, future in tuple(self.asked.values()):
            if not future.done():
                future.set_exception(Unshared("unreachable"))
        held, self.held = self.held, {}
        for key in held:
            self.on_lost(key)


class Listener:
    """Counts what went on unshared."""

    def __init__(self) -> None:
        self.unshared_for: list[UnsharedReason] = []

    def settled(self, settlement: Settlement) -> None:
        """Need no note: the answers are compared."""

    def acked_late(self, settlement: Settlement) -> None:
        """Need no note: what it changes is the next attempt."""

    def unshared(self, reason: UnsharedReason) -> None:
        self.unshared_for.append(reason)


@dataclass(eq=False)
class Publish:
    """A record that the broker has and has not answered."""

    process: int
    event: str
    target: str
    future: asyncio.Future[Receipt]


class Broker:
    """One process's client: takes every record and answers none by itself."""

    def __init__(self, world: Processes, process: int) -> None:
        self.world = world
        self.process = process

    def publish(self, message: Message, _deadline: float) -> asyncio.Future[Receipt]:
        future: asyncio.Future[Receipt] = self.world.loop.create_future()
        event, target = message.dedupe_id.split("/")
        self.world.published(Publish(self.process, event, target, future))
        return future


@dataclass(eq=False)
class Attempt:
    """One request."""

    process: int
    event: str
    targets: list[str]
    task: asyncio.Task[Delivery]
    until: float


@dataclass
class Process:
    """One process as it runs now."""

    wire: Wire
    listener: Listener
    ledger: Ledger
    fan_out: FanOut
    outlets: Outlets
    attempts: list[Attempt] = field(default_factory=list)


class Processes(RuleBasedStateMachine):
    """Copies and retries at three processes; acks, failures, deadlines, deaths."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = Loop()
        self.book = Book(RETENTION, lambda _: None)
        self.count = 0
        self.processes: list[Process] = []
        self.flying: list[Publish] = []
        self.acked: set[tuple[str, str]] = set()
        self.unsure: set[tuple[str, str]] = set()
        """May be doubled: a process that had it is gone, or could not tell of it."""

    @initialize()
    def begin(self) -> None:
        self.processes = [self.born() for _ in range(3)]

    def born(self) -> Process:
        self.count += 1
        number = self.count
        wire, listener = Wire(number, self), Listener()
        ledger = Ledger(RETENTION, lambda _: None)
        shared = SharedLedger(ledger, wire, listener, counts_claimed=False)
        self.loop.run_until_complete(shared.connect())
        outlets = Outlets({"b": Broker(self, number)}, None)  # type: ignore[dict-item]  # it publishes
        return Process(wire, listener, ledger, FanOut(listener, ledger, shared), outlets)

    def teardown(self) -> None:
        self.deliver_all()
        self.loop.now += DEADLINE + 1
        self.settle()
        self.deliver_all()
        for publish in list(self.flying):
            self.end(publish, None)
        self.deliver_all()
        assert not self.flying
        for process in self.processes:
            assert not process.attempts, "an answer did not come"
            if not process.wire.cut:
                counts = process.ledger.complete, process.ledger.incomplete, process.ledger.size
                assert counts == (0, 0, 0), "what was shared stayed here"
        assert self.book.claimed == 0
        self.loop.close()

    @rule(at=PROCESSES, event=EVENTS, names=TARGETS)
    def arrive(self, at: int, event: str, names: list[str]) -> None:
        process = self.processes[at]
        until = self.loop.now + DEADLINE
        delivering = process.fan_out.deliver(plan(event, names), process.outlets, until)
        task = self.loop.create_task(delivering)
        process.attempts.append(Attempt(at, event, names, task, until))
        self.settle()

    @rule(at=PROCESSES, most=st.integers(1, 3), back=st.booleans())
    def transmit(self, at: int, most: int, back: bool) -> None:
        wire = self.processes[at].wire
        self.carry(wire.from_book if back else wire.to_book, most)

    @rule()
    def deliver_all(self) -> None:
        while any(one.wire.to_book or one.wire.from_book for one in self.processes):
            for process in self.processes:
                self.carry(process.wire.to_book, 100)
                self.carry(process.wire.from_book, 100)

    @precondition(lambda self: self.flying)
    @rule(pick=st.integers(0, 20), error=ANSWERS)
    def answer(self, pick: int, error: type[BrokerError] | None) -> None:
        self.end(self.flying[pick % len(self.flying)], error)

    @rule(seconds=STEPS)
    def pass_time(self, seconds: float) -> None:
        self.loop.now += seconds
        self.settle()

    @rule(at=PROCESSES, pick=st.integers(0, 20))
    def cancel(self, at: int, pick: int) -> None:
        attempts = self.processes[at].attempts
        if attempts:
            attempt = attempts.pop(pick % len(attempts))
            attempt.task.cancel()
            self.settle()
            assert attempt.task.cancelled()

    @invariant()
    def nothing_is_unshared_for_nothing(self) -> None:
        for process in self.processes:
            assert process.wire.cut or not process.listener.unshared_for

    def settle(self) -> None:
        self.loop.settle()
        for process in self.processes:
            for attempt in [one for one in process.attempts if one.task.done()]:
                process.attempts.remove(attempt)
                self.judge(attempt, attempt.task.result())
            for attempt in process.attempts:
                assert self.loop.now < attempt.until, "no answer by the deadline"

    def judge(self, attempt: Attempt, delivery: Delivery) -> None:
        told = {one.destination: one.status for one in delivery.settlements}
        assert list(told) == attempt.targets
        for target, status in told.items():
            if status != "failed":
                assert (attempt.event, target) in self.acked, "told as durable, and it is not"
        assert (delivery.status == "failed") == ("failed" in told.values())

    def published(self, publish: Publish) -> None:
        """Judge every publish as it is made."""
        place = publish.event, publish.target
        if place not in self.unsure:
            assert place not in self.acked, "published again"
            flying = [one for one in self.flying if (one.event, one.target) == place]
            assert not flying, "published while it was on its way"
        self.flying.append(publish)

    def end(self, publish: Publish, error: type[BrokerError] | None) -> None:
        self.flying.remove(publish)
        if error is None:
            self.acked.add((publish.event, publish.target))
            publish.future.set_result(Receipt(publish.target))
        else:
            publish.future.set_exception(error("b", publish.target, "no_leader"))
        self.settle()

    def carry(self, messages: deque[Callable[[], object]], most: int) -> None:
        for _ in range(min(most, len(messages))):
            messages.popleft()()
            self.settle()

    def claim(self, wire: Wire, key: str, number: int) -> None:
        report = self.book.claim(key, (wire.process, number), self.loop.now)
        if report is not None:
            wire.from_book.append(partial(wire.granted, number, report))

    def release(self, wire: Wire, key: str, number: int, report: Report) -> None:
        self.tell(self.book.release(key, (wire.process, number), report, self.loop.now))

    def withdraw(self, wire: Wire, key: str, number: int) -> None:
        self.tell(self.book.withdraw(key, (wire.process, number), self.loop.now))

    def tell(self, grant: Grant | None) -> None:
        if grant is None:
            return
        process, number = grant.holder
        wire = next(one.wire for one in self.processes if one.wire.process == process)
        wire.from_book.append(partial(wire.granted, number, grant.report))


class Mortals(Processes):
    """The same, and processes die, or lose the book."""

    @rule(at=PROCESSES)
    def die(self, at: int) -> None:
        gone = self.processes[at]
        self.forsaken(gone)
        for attempt in gone.attempts:
            attempt.task.cancel()
        gone.attempts.clear()
        self.loop.settle()
        for publish in [one for one in self.flying if one.process == gone.wire.process]:
            self.flying.remove(publish)
        gone.wire.cut = True
        self.processes[at] = self.born()
        for grant in self.book.give_up(gone.wire.process, self.loop.now):
            self.tell(grant)

    @rule(at=PROCESSES)
    def lose_the_book(self, at: int) -> None:
        process = self.processes[at]
        if process.wire.cut:
            return
        self.forsaken(process)
        process.wire.lose()
        for grant in self.book.give_up(process.wire.process, self.loop.now):
            self.tell(grant)
        self.settle()

    def forsaken(self, _process: Process) -> None:
        """From here on only answers are judged: anything may be doubled."""
        self.unsure |= {(event, one) for event in ("msg_a", "msg_b") for one in ("t1", "t2")}


BOUNDED = settings(max_examples=60, stateful_step_count=40)
TestProcesses = Processes.TestCase
TestProcesses.settings = BOUNDED
TestMortals = Mortals.TestCase
TestMortals.settings = BOUNDED
