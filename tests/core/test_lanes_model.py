"""The index of what waits, beside a plain model that looks at everything each time."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.delivery.inbox.lanes import NO_BROKER, Lanes, Task
from gateway.delivery.inbox.record import Target
from gateway.delivery.inbox.store import Entry
from gateway.delivery.inbox.windows import Backoff, Window

BROKERS = ("events", "bus")
LETTERS = "letters"
BACKOFF = Backoff(first=1.0, most=8.0)
TARGETS = (
    *(
        Target(broker, f"t{at}", 10 * at + key)
        for at, broker in enumerate(BROKERS)
        for key in (1, 2)
    ),
    Target("events", "t9", 91),
    Target("events", "t8", 91),
    Target("", "refused", 99),
)
Key = tuple[int, int]


class Waits:
    """One record, as the model has it."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.owed = {at for at in range(len(entry.targets)) if entry.owed >> at & 1}
        self.overdue = False


class LanesBesideAModel(RuleBasedStateMachine):
    """Arrivals, answers, outages, withdrawals, leases and time, in any order."""

    @initialize(records=st.integers(1, 4), size=st.integers(10, 60))
    def begin(self, records: int, size: int) -> None:
        self.lanes = Lanes(BACKOFF)
        self.window = Window(records, size)
        self.now = 0.0
        self.ref = 0
        self.known: dict[int, Waits] = {}
        self.begun: dict[Key, Task] = {}
        self.stale: list[Task] = []
        self.diverted: dict[Key, str] = {}
        self.up = set(BROKERS) | {LETTERS}
        for broker in (*BROKERS, LETTERS, NO_BROKER):
            self.lanes.set_gate(broker, self.window, is_open=True)

    @rule(
        chosen=st.lists(st.sampled_from(TARGETS), min_size=1, max_size=3),
        partition=st.integers(0, 1),
        size=st.integers(1, 30),
        spare=st.integers(0, 7),
    )
    def arrive(self, chosen: list[Target], partition: int, size: int, spare: int) -> None:
        owed = ((1 << len(chosen)) - 1) & ~spare or 1
        self.ref += 1
        entry = Entry(self.ref, partition, self.now, owed, tuple(chosen), size)
        self.known[self.ref] = Waits(entry)
        self.lanes.add(entry)
        self.lanes.add(entry)

    def take(self) -> Task | None:
        task = self.lanes.take(self.now)
        if task is None:
            return None
        item = (task.ref, task.at)
        waits = self.known[task.ref]
        # Owed, not on its way already, and nothing before it in its lane.
        assert task.at in waits.owed
        assert item not in self.begun
        assert task.overdue in {waits.overdue, False}
        if not task.overdue:
            assert not waits.overdue
            lane = self.lane_of(item)
            assert item == min(self.waiting_in(lane))
            begun = [one for one, other in self.begun.items() if not other.overdue]
            assert lane not in map(self.lane_of, begun)
        assert task.broker == self.gate_of(item)
        assert task.broker in {*self.up, NO_BROKER}
        self.begun[item] = task
        return task

    @rule()
    def take_one(self) -> None:
        self.take()

    @rule()
    def take_all(self) -> None:
        while self.take() is not None:
            pass

    def pick(self, at: int) -> tuple[Key, Task]:
        return list(self.begun.items())[at % len(self.begun)]

    @precondition(lambda self: self.begun)
    @rule(at=st.integers(0, 99), acked=st.booleans())
    def settle(self, at: int, acked: bool) -> None:
        item, task = self.pick(at)
        assert self.lanes.owed_after(task, 1 << task.at) == sum(
            1 << one for one in self.known[task.ref].owed - {task.at}
        )
        if acked:
            self.lanes.acked(task)
        self.lanes.settled(task)
        self.end(item)
        self.diverted.pop(item, None)
        waits = self.known[task.ref]
        waits.owed.discard(task.at)
        if not waits.owed:
            del self.known[task.ref]

    @precondition(lambda self: self.begun)
    @rule(at=st.integers(0, 99), ours=st.booleans(), slowly=st.booleans(), chance=st.floats(0, 1))
    def fail(self, at: int, ours: bool, slowly: bool, chance: float) -> None:
        item, task = self.pick(at)
        self.lanes.failed(task, self.now, chance, ours=ours, slowly=slowly)
        self.end(item)
        if self.known[task.ref].overdue and not task.overdue:
            self.diverted.pop(item, None)

    @precondition(lambda self: self.begun)
    @rule(at=st.integers(0, 99))
    def divert(self, at: int) -> None:
        item, task = self.pick(at)
        self.lanes.divert(task, LETTERS)
        self.end(item)
        self.diverted[item] = LETTERS

    def end(self, item: Key) -> None:
        del self.begun[item]

    @rule(broker=st.sampled_from((*BROKERS, LETTERS)))
    def outage(self, broker: str) -> None:
        self.up ^= {broker}
        self.lanes.set_gate(broker, self.window, is_open=broker in self.up)

    @rule(seconds=st.floats(0.1, 20.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.known)
    @rule(at=st.integers(0, 99))
    def withdraw(self, at: int) -> None:
        ref = list(self.known)[at % len(self.known)]
        free = not any(one == ref for one, _ in self.begun)
        assert self.lanes.withdrawn(ref) is free
        if free:
            self.forget(ref)
            assert not self.lanes.withdrawn(ref)

    @rule(partition=st.integers(0, 1))
    def lose(self, partition: int) -> None:
        self.lanes.lost(partition)
        gone = {r for r, waits in self.known.items() if waits.entry.partition == partition}
        for item in [one for one in self.begun if one[0] in gone]:
            task = self.begun.pop(item)
            assert not self.lanes.is_current(task)
            self.stale.append(task)
        for ref in gone:
            self.forget(ref)

    @precondition(lambda self: self.stale)
    @rule(how=st.sampled_from(["settled", "failed", "divert"]))
    def end_what_is_lost(self, how: str) -> None:
        task = self.stale.pop()
        if how == "settled":
            self.lanes.settled(task)
        elif how == "failed":
            self.lanes.failed(task, self.now, 0.5)
        else:
            self.lanes.divert(task, LETTERS)

    @rule(age=st.floats(0, 30), at_most=st.integers(1, 3))
    def expire(self, age: float, at_most: int) -> None:
        until = self.now - age
        old = sorted(
            (waits.entry.stored_at, ref)
            for ref, waits in self.known.items()
            if not waits.overdue and waits.entry.stored_at <= until
        )[:at_most]
        assert self.lanes.expire(until, at_most) == len(old)
        for _, ref in old:
            self.known[ref].overdue = True
            for item in [one for one in self.diverted if one[0] == ref and one not in self.begun]:
                del self.diverted[item]

    @rule()
    def recall(self) -> None:
        self.lanes.recall()
        for item in [one for one in self.diverted if one not in self.begun]:
            self.diverted[item] = NO_BROKER

    def forget(self, ref: int) -> None:
        del self.known[ref]
        for item in [one for one in self.diverted if one[0] == ref]:
            del self.diverted[item]

    def lane_of(self, item: Key) -> tuple[int, int]:
        entry = (self.known[item[0]]).entry
        return entry.partition, entry.targets[item[1]].lane

    def waiting_in(self, lane: tuple[int, int]) -> Iterator[Key]:
        for ref, waits in self.known.items():
            for at in waits.owed:
                if not waits.overdue and self.lane_of((ref, at)) == lane:
                    yield (ref, at)

    def gate_of(self, item: Key) -> str:
        if item in self.diverted:
            return self.diverted[item]
        waits = self.known[item[0]]
        return NO_BROKER if waits.overdue else waits.entry.targets[item[1]].broker

    @invariant()
    def counts_and_ages_agree(self) -> None:
        if not hasattr(self, "known"):
            return
        assert len(self.lanes) == len(self.known)
        ages = [waits.entry.stored_at for waits in self.known.values()]
        assert self.lanes.oldest() == min(ages, default=None)
        young = [w.entry.stored_at for w in self.known.values() if not w.overdue]
        assert self.lanes.next_age() == min(young, default=None)

    @invariant()
    def windows_hold(self) -> None:
        if not hasattr(self, "known"):
            return
        tasks = [*self.begun.values(), *self.stale]
        for broker in (*BROKERS, LETTERS, NO_BROKER):
            there = [task for task in tasks if task.broker == broker]
            assert len(there) <= self.window.records
            assert len(there) <= 1 or sum(task.size for task in there) <= self.window.bytes

    def teardown(self) -> None:
        """Whatever happened, all goes in the end: nothing is forgotten, nothing is stuck."""
        if not hasattr(self, "known"):
            return
        for task in self.stale:
            self.lanes.settled(task)
        for broker in (*BROKERS, LETTERS):
            self.up.add(broker)
            self.lanes.set_gate(broker, self.window, is_open=True)
        for _ in range(10_000):
            while self.begun:
                self.settle(0, acked=True)
            if not self.known:
                break
            if self.take() is None and not self.begun:
                wakes_at = self.lanes.wakes_at()
                assert wakes_at is not None, "something waits, and nothing will ever wake it"
                self.now = max(self.now, wakes_at)
        assert not self.known
        # Nothing is kept of what has gone, but for rests that are not over yet.
        assert not self.lanes._lanes
        assert all(not gate.places for gate in self.lanes._gates.values())
        assert all((gate.records, gate.bytes) == (0, 0) for gate in self.lanes._gates.values())


# The same steps each time: some branches are reached by these alone, and `make coverage` asks for
# all of them. The simulation tries others each time.
LanesBesideAModel.TestCase.settings = settings(
    max_examples=200, stateful_step_count=40, deadline=None, derandomize=True, database=None
)
TestLanesBesideAModel = LanesBesideAModel.TestCase
