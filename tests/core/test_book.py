"""The book of a process tree: who has an event, what is written of it, for how long, how much."""

from __future__ import annotations

import gc
import tracemalloc
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.delivery.book import Book, Grant, Holder, Report
from gateway.delivery.memory import EntryState, Retention

WINDOW, INCOMPLETE_FOR = 120.0, 3600.0
AMPLE = 64 * 1024 * 1024
ONE, TWO, THREE = (1, 1), (2, 1), (3, 1)
NOTHING = Report()
OWED, DONE = Report(b"a"), Report(b"ab", True)


class Rig:
    """A book, its clock, and what it has evicted."""

    def __init__(self, max_bytes: int = AMPLE, window: float = WINDOW) -> None:
        self.evicted: list[EntryState] = []
        self.book = Book(Retention(window, INCOMPLETE_FOR, max_bytes), self.evicted.append)
        self.now = 1000.0

    def claim(self, holder: Holder, key: str = "k") -> Report | None:
        return self.book.claim(key, holder, self.now)

    def release(self, holder: Holder, report: Report, key: str = "k") -> Grant | None:
        return self.book.release(key, holder, report, self.now)

    def write(self, report: Report, key: str = "k") -> None:
        assert self.claim(ONE, key) is not None
        assert self.release(ONE, report, key) is None

    @property
    def counts(self) -> tuple[int, int]:
        return self.book.complete, self.book.incomplete


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_claim_is_given_once_and_passes_in_order_of_arrival(rig: Rig) -> None:
    assert rig.claim(ONE) == NOTHING
    assert rig.claim(TWO) is None
    assert rig.claim(THREE) is None
    assert rig.claim(ONE) == NOTHING
    assert rig.release(TWO, DONE) is None, "who waits has nothing to release"
    assert rig.release(ONE, OWED) == Grant(TWO, OWED)
    assert rig.release(ONE, DONE) is None, "it is another's now"
    assert rig.release(TWO, DONE) == Grant(THREE, DONE)
    assert rig.release(THREE, DONE) is None
    assert (rig.book.claimed, rig.counts) == (0, (1, 0))


def test_events_are_claimed_one_by_one(rig: Rig) -> None:
    assert rig.claim(ONE, "a") == NOTHING
    assert rig.claim(TWO, "b") == NOTHING
    assert rig.book.claimed == rig.book.incomplete == 2


@pytest.mark.parametrize(("report", "kept"), [(DONE, WINDOW), (OWED, INCOMPLETE_FOR)])
def test_an_event_is_remembered_for_its_time(rig: Rig, report: Report, kept: float) -> None:
    rig.write(report)
    rig.now += kept - 0.5
    found = rig.claim(TWO)
    assert found is not None
    assert (found.targets, found.complete) == (report.targets, report.complete)
    assert found.age == (kept - 0.5 if report.complete else 0.0)
    rig.release(TWO, found)
    # A copy does not keep a complete event alive; an attempt does an incomplete one.
    rig.now += 0.5
    assert rig.claim(TWO) == (NOTHING if report.complete else found)


def test_an_event_that_was_answered_a_while_before_its_release_is_that_old(rig: Rig) -> None:
    rig.write(Report(b"ab", True, age=100.0))
    rig.now += WINDOW - 100.5
    found = rig.claim(TWO)
    assert found is not None
    assert found.age == WINDOW - 0.5
    rig.release(TWO, found)
    rig.now += 0.5
    assert rig.claim(TWO) == NOTHING


@pytest.mark.parametrize("report", [NOTHING, Report(b"", True)])
def test_an_event_with_nothing_settled_takes_no_memory(rig: Rig, report: Report) -> None:
    rig.write(OWED)
    rig.claim(ONE)
    rig.release(ONE, report)
    assert (rig.counts, rig.book.size) == ((0, 0), 0)


def test_without_a_window_a_complete_event_is_forgotten_at_once() -> None:
    rig = Rig(window=0.0)
    rig.write(DONE)
    assert (rig.counts, rig.book.size) == ((0, 0), 0)


def test_who_waits_may_leave_the_line(rig: Rig) -> None:
    rig.claim(ONE)
    rig.claim(TWO)
    rig.claim(THREE)
    assert rig.book.withdraw("k", TWO, rig.now) is None
    assert rig.release(ONE, OWED) == Grant(THREE, OWED)
    assert rig.book.withdraw("k", (9, 9), rig.now) is None
    assert rig.book.withdraw("another", TWO, rig.now) is None


def test_a_claim_that_is_withdrawn_passes_on_with_what_was_written(rig: Rig) -> None:
    """The withdrawal crosses the grant: neither knows of the other's."""
    rig.write(OWED)
    rig.claim(ONE)
    rig.claim(TWO)
    assert rig.book.withdraw("k", ONE, rig.now) == Grant(TWO, OWED)
    assert rig.book.withdraw("k", TWO, rig.now) is None
    assert (rig.book.claimed, rig.counts) == (0, (0, 1))


def test_the_claims_of_a_process_that_is_gone_pass_on_and_what_it_wrote_stays(rig: Rig) -> None:
    rig.write(OWED, "told")
    for key in ("told", "new", "alone"):
        rig.claim((1, 7), key)
    rig.claim(TWO, "told")
    rig.claim((1, 8), "told")
    rig.claim(THREE, "told")
    rig.claim(TWO, "new")
    assert rig.book.give_up(1, rig.now) == [Grant(TWO, OWED), Grant(TWO, NOTHING)]
    assert rig.book.claimed == 2
    assert rig.release(TWO, DONE, "told") == Grant(THREE, DONE)
    assert rig.book.give_up(1, rig.now) == []


def test_a_full_book_lets_complete_events_go_first_and_the_oldest_before_the_others() -> None:
    rig = Rig(max_bytes=8000)
    rig.write(OWED, "first owed")
    for at in range(30):
        rig.write(DONE, f"done {at}")
        assert rig.book.size <= 8000
    assert set(rig.evicted) == {"complete"}
    assert rig.claim(ONE, "first owed") == OWED
    assert rig.claim(ONE, "done 0") == NOTHING
    assert rig.claim(ONE, "done 29") == DONE


def test_what_is_evicted_while_it_is_claimed_comes_back_with_its_release() -> None:
    rig = Rig(max_bytes=3000)
    rig.claim(ONE)
    for at in range(10):
        rig.write(OWED, f"other {at}")
    assert "incomplete" in rig.evicted
    rig.release(ONE, DONE)
    assert rig.claim(TWO) == DONE


def test_what_a_page_takes_is_not_more_than_is_counted(rig: Rig) -> None:
    text = b"x" * 200
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for at in range(5000):
        key = f"clerk msg_{at:024}"
        rig.book.claim(key, ONE, rig.now)
        rig.book.release(key, ONE, Report(bytes(bytearray(text))), rig.now)
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert taken <= rig.book.size
    assert rig.book.size < 2 * taken


@dataclass
class Event:
    """What the model knows of an event."""

    holder: Holder | None = None
    line: list[Holder] = field(default_factory=list)
    targets: bytes = b""
    complete: bool = False
    since: float = 0.0


class Books(RuleBasedStateMachine):
    """Processes that claim, release, withdraw and die, beside a model."""

    max_bytes = AMPLE

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig()
        self.numbers = 0
        self.events: dict[str, Event] = {}

    @initialize()
    def begin(self) -> None:
        self.rig = Rig(self.max_bytes)

    def teardown(self) -> None:
        for process in (1, 2, 3):
            self.give_up(process)
        self.rig.now += INCOMPLETE_FOR
        self.rig.book.expire(self.rig.now, 1000)
        assert (self.rig.counts, self.rig.book.size, self.rig.book.claimed) == ((0, 0), 0, 0)

    @rule(process=st.sampled_from([1, 2, 3]), key=st.sampled_from("ab"))
    def claim(self, process: int, key: str) -> None:
        self.numbers += 1
        holder = (process, self.numbers)
        event = self.events.setdefault(key, Event())
        found = self.rig.claim(holder, key)
        if event.holder is None:
            event.holder = holder
            self.shown(event, found)
        else:
            assert found is None
            event.line.append(holder)

    @precondition(lambda self: any(event.holder for event in self.events.values()))
    @rule(pick=st.integers(0, 9), settled=st.sampled_from([b"", b"a", b"b"]), done=st.booleans())
    def release(self, pick: int, settled: bytes, done: bool) -> None:
        held = [(key, one) for key, one in self.events.items() if one.holder is not None]
        key, event = held[pick % len(held)]
        assert event.holder is not None
        event.targets += settled
        if done != event.complete:
            event.since = self.rig.now
        event.complete = done and bool(event.targets)
        if not event.complete:
            event.since = self.rig.now
        age = self.rig.now - event.since if event.complete else 0.0
        report = Report(event.targets, event.complete, age)
        self.passed_on(event, self.rig.release(event.holder, report, key))

    @precondition(lambda self: any(event.holder for event in self.events.values()))
    @rule(pick=st.integers(0, 9), waiting=st.booleans())
    def withdraw(self, pick: int, waiting: bool) -> None:
        held = [(key, one) for key, one in self.events.items() if one.holder is not None]
        key, event = held[pick % len(held)]
        assert event.holder is not None
        if waiting and event.line:
            gone = event.line.pop(pick % len(event.line))
            assert self.rig.book.withdraw(key, gone, self.rig.now) is None
        else:
            self.passed_on(event, self.rig.book.withdraw(key, event.holder, self.rig.now))

    @rule(process=st.sampled_from([1, 2, 3]))
    def give_up(self, process: int) -> None:
        grants = {grant.holder: grant for grant in self.rig.book.give_up(process, self.rig.now)}
        for event in self.events.values():
            event.line = [one for one in event.line if one[0] != process]
            if event.holder is not None and event.holder[0] == process:
                first = event.line[0] if event.line else None
                self.passed_on(event, None if first is None else grants.pop(first))
        assert grants == {}

    @rule(seconds=st.sampled_from([0.5, 60.0, WINDOW, INCOMPLETE_FOR]))
    def pass_time(self, seconds: float) -> None:
        self.rig.now += seconds

    @invariant()
    def it_counts_what_it_has(self) -> None:
        assert 0 <= self.rig.book.size <= self.max_bytes
        held = sum(event.holder is not None for event in self.events.values())
        assert self.rig.book.claimed == held

    def passed_on(self, event: Event, grant: Grant | None) -> None:
        event.holder = None
        if event.line:
            event.holder = event.line.pop(0)
            assert grant is not None
            assert grant.holder == event.holder
            self.shown(event, grant.report)
        else:
            assert grant is None

    def shown(self, event: Event, found: Report | None) -> None:
        """Compare what a new holder is told."""
        now = self.rig.now
        if now - event.since >= (WINDOW if event.complete else INCOMPLETE_FOR):
            event.targets, event.complete = b"", False
        age = now - event.since if event.complete else 0.0
        assert found == Report(event.targets, event.complete, age)
        if not event.complete:
            event.since = now


class Crowded(Books):
    """A book with room for two pages or so: it may forget, and invents nothing."""

    max_bytes = 1200

    def shown(self, event: Event, found: Report | None) -> None:
        assert found is not None
        if found.targets != event.targets:
            assert found == NOTHING
            event.targets, event.complete = b"", False
        super().shown(event, found)


BOUNDED = settings(max_examples=80, stateful_step_count=40)
TestBooks = Books.TestCase
TestBooks.settings = BOUNDED
TestCrowded = Crowded.TestCase
TestCrowded.settings = BOUNDED
