"""The ledger: what it remembers, for how long, in how many bytes."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from gateway.brokers.base import Receipt
from gateway.delivery.ledger import Entry, Ledger
from gateway.delivery.memory import EntryState, Retention
from gateway.delivery.settlement import Settlement

WINDOW, INCOMPLETE_FOR = 120.0, 3600.0
AMPLE = 64 * 1024 * 1024
FINE = Settlement(("users",), "events", "clerk.users", "delivered")


class Rig:
    """A ledger, its clock, and what it has evicted."""

    def __init__(self, max_bytes: int = AMPLE, window: float = WINDOW) -> None:
        self.evicted: list[EntryState] = []
        self.retention = Retention(window, INCOMPLETE_FOR, max_bytes)
        self.ledger = Ledger(self.retention, self.evicted.append)
        self.now = 1000.0

    def deliver(self, name: str, *, settled: int = 1, owed: int = 0) -> Entry:
        """Deliver an event, whose sender is answered 2xx if nothing is owed."""
        entry = self.ledger.open("clerk", name, self.now)
        for at in range(settled + owed):
            target = f"{name}.{at}"
            self.ledger.embark(entry, target)
            self.ledger.land(entry, target, FINE if at < settled else None)
        self.ledger.close(entry, self.now, answered=not owed)
        return entry

    def knows(self, name: str, source: str = "clerk") -> int:
        """Give how many targets of an event are settled, as a copy sees it, which then fails."""
        entry = self.ledger.open(source, name, self.now)
        settled = len(entry.targets)
        self.ledger.close(entry, self.now, answered=settled > 0 and entry.state == "complete")
        return settled

    @property
    def counts(self) -> tuple[int, int]:
        """How many complete and how many incomplete entries there are."""
        return self.ledger.complete, self.ledger.incomplete


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.mark.parametrize(("owed", "kept"), [(0, WINDOW), (1, INCOMPLETE_FOR)])
def test_an_event_is_remembered_for_its_time(rig: Rig, owed: int, kept: float) -> None:
    rig.deliver("msg_1", owed=owed)
    assert rig.counts == ((1, 0) if owed == 0 else (0, 1))
    rig.now += kept - 0.001
    entry = rig.ledger.open("clerk", "msg_1", rig.now)
    assert entry.targets == {"msg_1.0": FINE}
    # A copy does not keep a complete event alive; an attempt does an incomplete one.
    rig.ledger.close(entry, rig.now, answered=owed == 0)
    rig.now += 0.001
    assert rig.knows("msg_1") == (1 if owed else 0)
    rig.now += kept
    assert rig.knows("msg_1") == 0
    assert (rig.counts, rig.ledger.size, rig.evicted) == ((0, 0), 0, [])


def test_events_are_known_by_source_and_id(rig: Rig) -> None:
    rig.deliver("msg_1")
    assert rig.knows("msg_1", "other") == 0
    assert rig.knows("msg_2") == 0
    assert rig.knows("msg_1") == 1


def test_a_window_of_nothing_forgets_what_is_complete_and_not_what_is_owed() -> None:
    rig = Rig(window=0.0)
    rig.deliver("msg_1")
    rig.deliver("msg_2", owed=1)
    assert rig.counts == (0, 1)


def test_an_event_with_nothing_settled_is_not_kept(rig: Rig) -> None:
    rig.deliver("msg_1", settled=0, owed=3)
    assert (rig.counts, rig.ledger.size) == ((0, 0), 0)


def test_what_settles_after_the_answer_is_kept_for_the_retry(rig: Rig) -> None:
    entry = rig.ledger.open("clerk", "msg_1", rig.now)
    rig.ledger.embark(entry, "a")
    rig.ledger.close(entry, rig.now, answered=False)
    rig.ledger.land(entry, "a", FINE)
    rig.now += INCOMPLETE_FOR - 1
    assert rig.ledger.open("clerk", "msg_1", rig.now).targets == {"a": FINE}


def test_what_fails_after_the_answer_leaves_nothing(rig: Rig) -> None:
    entry = rig.ledger.open("clerk", "msg_1", rig.now)
    rig.ledger.embark(entry, "a")
    rig.ledger.close(entry, rig.now, answered=False)
    rig.ledger.land(entry, "a", None)
    assert (rig.counts, rig.ledger.size) == ((0, 0), 0)


def test_a_settled_target_stays_settled(rig: Rig) -> None:
    entry = rig.deliver("msg_1")
    rig.ledger.land(entry, "msg_1.0", None)
    assert entry.targets == {"msg_1.0": FINE}


def test_those_who_wait_are_called_once_in_their_order(rig: Rig) -> None:
    called: list[str] = []
    entry = rig.ledger.open("clerk", "msg_1", rig.now)
    rig.ledger.embark(entry, "a")
    for name in "xyz":
        rig.ledger.join(entry, "a", partial(called.append, name))
    rig.ledger.land(entry, "a", FINE)
    rig.ledger.land(entry, "a", FINE)
    assert called == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("before", "gone", "left"),
    [
        pytest.param([("c1", 0), ("c2", 0), ("i1", 1)], ["complete"], (1, 1), id="complete-first"),
        pytest.param([("i1", 1), ("c1", 0), ("c2", 0)], ["complete"], (1, 1), id="however-old"),
        pytest.param([("i1", 1), ("i2", 1), ("i3", 1)], ["incomplete"], (0, 2), id="then-others"),
    ],
)
def test_when_it_is_full_the_oldest_go(
    rig: Rig, before: list[tuple[str, int]], gone: list[str], left: tuple[int, int]
) -> None:
    for name, owed in before:
        rig.deliver(name, owed=owed)
    oldest = next(name for name, owed in before if (owed == 0) == (gone == ["complete"]))
    rig.ledger.retain(Retention(WINDOW, INCOMPLETE_FOR, rig.ledger.size - 1))
    assert (rig.evicted, rig.counts) == (gone, left)
    rig.ledger.retain(rig.retention)
    assert [rig.knows(name) for name, _ in before] == [int(name != oldest) for name, _ in before]


def test_an_evicted_event_is_delivered_to_its_end_and_disturbs_no_other() -> None:
    rig = Rig(max_bytes=1)
    first = rig.ledger.open("clerk", "msg_1", rig.now)
    rig.ledger.embark(first, "a")
    assert (first.state, rig.evicted) == ("forgotten", ["incomplete"])
    rig.ledger.retain(Retention(WINDOW, INCOMPLETE_FOR, AMPLE))
    second = rig.ledger.open("clerk", "msg_1", rig.now)
    assert second is not first
    rig.ledger.embark(second, "a")
    size = rig.ledger.size
    rig.ledger.land(first, "a", FINE)
    rig.ledger.close(first, rig.now, answered=True)
    assert (rig.counts, rig.ledger.size) == ((0, 1), size)
    assert second.targets == {"a": ()}


def test_what_nobody_asks_for_expires_all_the_same(rig: Rig) -> None:
    for number in range(2000):
        rig.deliver(f"msg_{number}")
    rig.now += WINDOW
    for number in range(2000):
        rig.deliver(f"later_{number}", owed=1)
    assert rig.counts == (0, 2000)
    assert rig.evicted == []
    rig.now += INCOMPLETE_FOR
    rig.ledger.expire(rig.now, 500)
    assert rig.counts == (0, 1500)


MANY = 3000
TEXT = "clerk.users.with-a-name-of-its-own-"


def one_delivered(number: int) -> tuple[str, list[Settlement | None]]:
    receipt = Receipt("clerk.users", 3, 1_000_000 + number)
    return f"msg_{number:027d}", [
        Settlement(("r",), "e", "clerk.users", "delivered", "", "", receipt)
    ]


def many_rendered(number: int) -> tuple[str, list[Settlement | None]]:
    names = [f"{TEXT}{number}-{at}" for at in range(8)]
    receipts = [Receipt(name, stream="S", seq=number + 1000) for name in names]
    return f"msg_{number}", [
        Settlement(("r",), "e", name, "delivered", "", "", receipt)
        for name, receipt in zip(names, receipts, strict=True)
    ]


def wide_letters(number: int) -> tuple[str, list[Settlement | None]]:
    name, why = f"süß-\U0001f600-{number}" * 3, f"\U0001f600 {number} " * 40
    return f"{number}", [Settlement(("r",), "e", name, "dead_lettered", "too_large", why), None]


def on_its_way(number: int) -> tuple[str, list[Settlement | None]]:
    return f"msg_{number:040d}", [None]


@pytest.mark.parametrize("make", [one_delivered, many_rendered, wide_letters, on_its_way])
@pytest.mark.parametrize("answered", [True, False])
def test_it_takes_no_more_than_it_says(
    rig: Rig, make: Callable[[int], tuple[str, list[Settlement | None]]], answered: bool
) -> None:
    """And not much less, or memory that was granted would lie idle."""
    tracemalloc.start()
    try:
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(MANY):
            name, settlements = make(number)
            entry = rig.ledger.open("clerk", name, rig.now)
            for at, settlement in enumerate(settlements):
                target: Any = f"{name}.{number:016x}{at}"
                rig.ledger.embark(entry, target)
                if settlement is not None:
                    rig.ledger.land(entry, target, settlement)
            rig.ledger.close(entry, rig.now, answered=answered)
        del entry, settlements, settlement, target, name
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken <= rig.ledger.size, f"{taken / MANY:.0f} bytes an event"
    assert rig.ledger.size < 2.5 * taken, f"{taken / MANY:.0f} of {rig.ledger.size / MANY:.0f}"
