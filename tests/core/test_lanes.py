"""What waits takes turns, rests after failures, and keeps nothing else from going."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.delivery.inbox.ages import Ages
from gateway.delivery.inbox.lanes import NO_BROKER, Lanes, Task
from gateway.delivery.inbox.record import Target
from gateway.delivery.inbox.store import Entry
from gateway.delivery.inbox.windows import Backoff, Window

BACKOFF = Backoff(first=1.0, most=8.0)
WIDE = Window(10_000, 10_000_000)


class Rig:
    """Lanes, and how to fill them."""

    def __init__(self, window: Window = WIDE, *brokers: str) -> None:
        self.lanes = Lanes(BACKOFF)
        self.ref = 0
        for broker in brokers or ("events", "bus"):
            self.lanes.set_gate(broker, window, is_open=True)

    def add(
        self,
        key: int = 1,
        broker: str = "events",
        destination: str = "users",
        size: int = 1,
        order: str = "",
    ) -> int:
        self.ref += 1
        lane = hash((broker, order or destination, key)) & 2**64 - 1
        entry = Entry(self.ref, 0, float(self.ref), 1, (Target(broker, destination, lane),), size)
        self.lanes.add(entry)
        return self.ref

    def take(self, now: float = 0.0) -> list[Task]:
        """All that may go now."""
        found = []
        while (task := self.lanes.take(now)) is not None:
            found.append(task)
        return found

    def refs(self, now: float = 0.0) -> list[int]:
        return [task.ref for task in self.take(now)]


def test_a_lane_goes_on_when_the_one_before_is_settled() -> None:
    rig = Rig()
    first, second, other = rig.add(1), rig.add(1), rig.add(2)
    one, two = rig.take()
    assert (one.ref, two.ref) == (first, other)
    rig.lanes.acked(one)
    assert rig.refs() == []
    rig.lanes.settled(one)
    assert rig.refs() == [second]


def test_a_lane_leads_to_the_destination_of_its_first_record() -> None:
    rig = Rig()
    subjects = ("made", "changed", "changed", "gone")
    refs = [rig.add(1, "bus", subject, order="{type}") for subject in subjects]
    other = rig.add(2, "bus", "made")
    first, second = rig.take()
    assert [first.ref, second.ref] == [refs[0], other]
    assert first.place.name == "made"
    rig.lanes.settled(first)
    (changed,) = rig.take()
    assert (changed.ref, changed.place.name) == (refs[1], "changed")
    rig.lanes.failed(changed, 0.0, 1.0)
    # What is first now goes elsewhere, and is not held up by what was first.
    assert rig.lanes.withdrawn(refs[1])
    assert rig.lanes.withdrawn(refs[2])
    (gone,) = rig.take(8.0)
    assert (gone.ref, gone.place.name) == (refs[3], "gone")
    rig.lanes.settled(gone)
    rig.lanes.settled(second)
    assert len(rig.lanes) == 0


def test_a_ready_lane_whose_first_record_is_withdrawn_moves_to_the_next_ones_destination() -> None:
    rig = Rig(Window(1, 100))
    busy = rig.add(9, "bus", "made")
    (task,) = rig.take()
    refs = [rig.add(1, "bus", subject, order="{type}") for subject in ("made", "changed")]
    assert task.ref == busy
    assert rig.lanes.withdrawn(refs[0])
    rig.lanes.settled(task)
    (changed,) = rig.take()
    assert (changed.ref, changed.place.name) == (refs[1], "changed")


@pytest.mark.parametrize(
    ("failures", "jitter", "wait"),
    [(1, 0, 0.5), (1, 1, 1.0), (2, 1, 2.0), (3, 0, 2.0), (4, 1, 8.0), (9, 1, 8.0), (10**6, 0, 4.0)],
)
def test_a_rest_is_twice_as_long_after_each_failure(
    failures: int, jitter: float, wait: float
) -> None:
    assert BACKOFF.after(failures, jitter) == wait


def test_a_lane_that_fails_rests_and_the_others_go() -> None:
    rig = Rig()
    stuck = rig.add(1)
    (task,) = rig.take()
    rig.lanes.failed(task, 0.0, 1.0, ours=True)
    others = [rig.add(key) for key in range(2, 5)]
    assert rig.refs() == others
    assert rig.lanes.wakes_at() == 1.0
    assert rig.refs(0.99) == []
    (again,) = rig.take(1.0)
    assert (again.ref, again.failures) == (stuck, 1)
    rig.lanes.acked(again)
    assert again.lane.failures == 0


def test_what_is_slow_waits_the_longest_time_at_once() -> None:
    rig = Rig()
    ref = rig.add()
    (task,) = rig.take()
    rig.lanes.failed(task, 0.0, 1.0, ours=True, slowly=True)
    assert (rig.refs(7.9), rig.refs(8.0)) == ([], [ref])


def test_a_broker_that_is_down_is_not_tried_and_comes_back_at_once() -> None:
    rig = Rig()
    waiting = [rig.add(key) for key in range(100)]
    tasks = rig.take()
    rig.lanes.set_gate("events", WIDE, is_open=False)
    for task in tasks:
        rig.lanes.failed(task, 0.0, 1.0)
    assert rig.refs(1e9) == []
    assert rig.lanes.wakes_at() is None
    rig.lanes.set_gate("events", WIDE, is_open=True)
    assert sorted(rig.refs()) == waiting


def test_rests_are_over_when_the_broker_was_away() -> None:
    rig = Rig()
    ref = rig.add()
    (task,) = rig.take()
    rig.lanes.failed(task, 0.0, 1.0)
    assert rig.refs() == []
    rig.lanes.set_gate("events", WIDE, is_open=False)
    rig.lanes.set_gate("events", WIDE, is_open=True)
    assert rig.refs() == [ref]


def test_a_record_that_drives_its_broker_away_rests_all_the_same() -> None:
    rig = Rig()
    rig.add()
    tried = 0
    for _ in range(50):
        rig.lanes.set_gate("events", WIDE, is_open=True)
        for task in rig.take(0.0):
            tried += 1
            rig.lanes.set_gate("events", WIDE, is_open=False)
            rig.lanes.failed(task, 0.0, 1.0)
        rig.lanes.set_gate("events", WIDE, is_open=False)
    assert tried == 5


def test_a_dead_destination_is_asked_rarely_whatever_waits_for_it() -> None:
    rig = Rig()
    for key in range(10_000):
        rig.add(key, destination="missing")
    for task in rig.take():
        rig.lanes.failed(task, 0.0, 1.0)
    tried, now = 0, 1.0
    while now < 60.0:
        for task in rig.take(now):
            tried += 1
            rig.lanes.failed(task, now, 1.0)
        wakes_at = rig.lanes.wakes_at()
        assert wakes_at is not None
        now = max(now + 0.001, wakes_at)
    # A few records for each rest of up to 8 s, where each of 10,000 lanes could have been tried.
    assert 0 < tried < 60
    healthy = [rig.add(key, destination="users") for key in range(50)]
    assert set(healthy) <= set(rig.refs(now))


def test_a_stalled_destination_leaves_room_for_the_others() -> None:
    rig = Rig(Window(100, 10_000))
    for key in range(1000):
        rig.add(key, destination="stalled")
    stalled = rig.take()
    assert len(stalled) == 50
    for key in range(1000):
        rig.add(key, destination="users")
    assert len(rig.take()) == 33
    for key in range(1000):
        rig.add(key, destination="orgs", size=400)
    assert sum(task.size for task in rig.take()) <= 10_000 // 4


def test_a_destination_opens_as_fast_as_it_answers() -> None:
    rig = Rig()
    for key in range(2000):
        rig.add(key)
    first = rig.take()
    for task in first:
        rig.lanes.failed(task, 0.0, 0.0)
    rounds = []
    now = 100.0
    for _ in range(7):
        tasks = rig.take(now)
        rounds.append(len(tasks))
        for task in tasks:
            rig.lanes.acked(task)
            rig.lanes.settled(task)
    assert rounds[:4] == [16, 32, 64, 128]


def test_the_allowance_ends_when_it_is_as_large_as_the_window() -> None:
    rig = Rig(Window(20, 10_000))
    for key in range(40):
        rig.add(key)
    for task in rig.take():
        rig.lanes.failed(task, 0.0, 0.0)
    for _ in range(8):
        for task in rig.take(100.0):
            rig.lanes.acked(task)
            rig.lanes.settled(task)
    assert all(place.allowance is None for place in rig.lanes._gates["events"].places.values())
    assert len(rig.lanes) == 0


def test_lanes_destinations_and_brokers_take_turns() -> None:
    rig = Rig(Window(1, 100))
    for destination in ("users", "orgs"):
        for broker in ("events", "bus"):
            for key in (1, 2):
                for _ in range(3):
                    rig.add(key, broker, destination)
    order = []
    while tasks := rig.take():
        for task in tasks:
            order.append((task.broker, task.place.name, task.lane.key))
            rig.lanes.acked(task)
            rig.lanes.settled(task)
    assert len(order) == 24
    for count in (8, 16):
        assert set(Counter(order[:count]).values()) == {count // 8}


def test_a_record_that_is_larger_than_the_window_goes_alone() -> None:
    rig = Rig(Window(10, 100))
    small, large = rig.add(1), rig.add(2, size=1000)
    (first,) = rig.take()
    assert first.ref == small
    rig.lanes.settled(first)
    assert rig.refs() == [large]


def test_a_window_that_grows_lets_more_go() -> None:
    rig = Rig(Window(2, 100))
    for key in range(20):
        rig.add(key)
    before = len(rig.take())
    rig.lanes.set_gate("events", Window(20, 100), is_open=True)
    assert (before, len(rig.take())) == (1, 9)


def test_two_targets_of_one_record_in_one_lane_go_in_their_order() -> None:
    rig = Rig()
    target = Target("events", "users", 7)
    rig.lanes.add(Entry(1, 0, 0.0, 0b11, (target, target), 1))
    (first,) = rig.take()
    assert (first.at, rig.lanes.owed_after(first, 1)) == (0, 0b10)
    rig.lanes.settled(first)
    (second,) = rig.take()
    rig.lanes.settled(second)
    assert (second.at, len(rig.lanes)) == (1, 0)


def test_partitions_have_lanes_of_their_own() -> None:
    rig = Rig()
    for partition in (0, 1):
        rig.lanes.add(Entry(partition, partition, 0.0, 1, (Target("events", "users", 7),), 1))
    assert len(rig.take()) == 2


def test_a_letter_goes_before_the_rest_of_its_lane_and_by_its_own_broker() -> None:
    rig = Rig()
    first, second = rig.add(), rig.add()
    (task,) = rig.take()
    rig.lanes.divert(task, "bus")
    rig.lanes.set_gate("events", WIDE, is_open=False)
    (letter,) = rig.take()
    assert (letter.ref, letter.broker) == (first, "bus")
    rig.lanes.settled(letter)
    assert rig.refs() == []
    rig.lanes.set_gate("events", WIDE, is_open=True)
    assert rig.refs() == [second]


def test_a_lost_record_that_is_diverted_is_forgotten() -> None:
    rig = Rig()
    rig.add()
    (task,) = rig.take()
    task.waiting.overdue = True
    rig.lanes.lost(0)
    rig.lanes.divert(task, "bus")
    assert (rig.refs(), rig.lanes._lanes) == ([], {})


def test_an_overdue_record_leaves_its_lane_also_when_it_is_diverted() -> None:
    rig = Rig()
    first, second = rig.add(), rig.add()
    (task,) = rig.take()
    assert rig.lanes.expire(1.0, 10) == 1
    rig.lanes.divert(task, "bus")
    letter, next_one = rig.take()
    assert {letter.ref, next_one.ref} == {first, second}
    late = letter if letter.ref == first else next_one
    assert (late.broker, late.overdue) == ("bus", True)


def test_what_is_overdue_needs_no_broker() -> None:
    rig = Rig(WIDE, "events")
    rig.lanes.set_gate("events", WIDE, is_open=False)
    old, young = rig.add(), rig.add()
    assert rig.lanes.expire(float(old), 10) == 1
    (task,) = rig.take()
    assert (task.ref, task.broker, task.overdue) == (old, NO_BROKER, True)
    assert (rig.lanes.oldest(), rig.lanes.next_age()) == (old, young)


def test_withdrawing_much_leaves_nothing_behind() -> None:
    rig = Rig()
    rig.lanes.set_gate("events", WIDE, is_open=False)
    refs = [rig.add(at % 3) for at in range(300)]
    assert all(rig.lanes.withdrawn(ref) for ref in refs)
    assert not rig.lanes.withdrawn(refs[0])
    assert (len(rig.lanes), rig.lanes._lanes) == (0, {})
    assert rig.lanes.oldest() is None


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=200))
def test_ages_hold_about_as_many_as_there_are(steps: list[tuple[int, bool]]) -> None:
    ages, known = Ages(), set[int]()
    for ref in range(1000):
        known = {ref}
        ages.add(float(ref), ref, known)
    assert len(ages._heap) <= 2 * len(known) + 64
    assert ages.first(known) == 999.0


def test_a_lost_record_that_fails_is_forgotten() -> None:
    rig = Rig()
    rig.add()
    (task,) = rig.take()
    rig.lanes.lost(0)
    rig.lanes.failed(task, 0.0, 1.0)
    assert (rig.refs(1e9), rig.lanes._lanes) == ([], {})


def test_a_record_that_comes_back_while_it_is_on_its_way_goes_once_more_and_then_is_gone() -> None:
    rig = Rig()
    ref = rig.add()
    (before,) = rig.take()
    rig.lanes.lost(0)
    rig.lanes.add(before.waiting.entry)
    assert rig.refs() == []
    rig.lanes.failed(before, 0.0, 1.0)
    (again,) = rig.take(10.0)
    assert again.ref == ref
    rig.lanes.failed(again, 10.0, 1.0)
    assert rig.lanes.withdrawn(ref)
    assert (rig.refs(1e9), rig.lanes._lanes) == ([], {})


def test_an_ack_ends_the_rest_of_its_destination() -> None:
    rig = Rig()
    stuck = rig.add(1)
    rig.add(2)
    one, other = rig.take()
    rig.lanes.failed(one, 0.0, 1.0)
    fresh = rig.add(3)
    assert rig.refs() == []
    rig.lanes.acked(other)
    assert rig.refs() == [fresh]
    assert rig.refs(1.0) == [stuck]


def test_a_record_with_several_targets_of_one_lane_leaves_it_whole() -> None:
    rig = Rig()
    target = Target("events", "users", 7)
    rig.lanes.add(Entry(1, 0, 1.0, 0b111, (target, target, target), 1))
    assert rig.lanes.withdrawn(1)
    assert rig.take() == []
    assert len(rig.lanes) == 0
    # The lane may be begun anew.
    rig.lanes.add(Entry(2, 0, 2.0, 0b11, (target, target), 1))
    (first,) = rig.take()
    rig.lanes.settled(first)
    (second,) = rig.take()
    assert (first.at, second.at) == (0, 1)
