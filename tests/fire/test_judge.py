"""The reckoning finds what a row must not come to: else no row could fail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.fire.field import GATEWAY, Result, assert_in_order, judge
from tests.fire.load import Attempt, Load, Sent

Records = list[tuple[str, str]]
TAKEN = (200, "delivered")
FAILED = (503, "failed")


def sent(
    name: str, *attempts: Attempt, taken_at: int = 1, event_type: str = "user.updated"
) -> Sent:
    return Sent(name, event_type, "user_0", b"{}", list(attempts), taken_at)


def attempt(at: float, word: tuple[int, str] | None, **reasons: str) -> Attempt:
    """Give a post of one second; `reasons` are those of its targets, by broker."""
    targets = [{"broker": broker, "reason": reason} for broker, reason in reasons.items()]
    return Attempt(at, at + 1, word, tuple(targets))


def judged(
    event: Sent, events: int, bus: int, breaks: Mapping[str, list[float]] | None = None
) -> Result:
    """Judge one event that stands so many times in each broker."""
    load = Load(lambda: 0)
    load.events[event.id] = event
    record = (event.id, event.user)
    return judge(load, {"events": [record] * events, "bus": [record] * bus}, breaks or {})


def test_what_is_everywhere_is_well() -> None:
    result = judged(sent("a", attempt(0, TAKEN)), 1, 1)
    assert (result.lost, result.duplicates, result.unexplained) == ([], 0, [])


@pytest.mark.parametrize(
    ("events", "bus", "lost"),
    [(0, 1, ["a in events"]), (1, 0, ["a in bus"])],
    ids=["kafka", "nats"],
)
def test_what_was_answered_and_is_not_in_a_broker_is_lost(
    events: int, bus: int, lost: list[str]
) -> None:
    assert judged(sent("a", attempt(0, TAKEN)), events, bus).lost == lost


def test_what_was_not_answered_may_be_missing() -> None:
    assert judged(sent("a", attempt(0, FAILED), taken_at=-1), 0, 0).lost == []


def test_what_goes_to_one_broker_is_not_sought_in_the_other() -> None:
    assert judged(sent("a", attempt(0, TAKEN), event_type="role.updated"), 0, 1).lost == []


def test_what_nobody_sent_is_found() -> None:
    load = Load(lambda: 0)
    with pytest.raises(AssertionError, match="nobody sent"):
        judge(load, {"events": [("stranger", "user_0")], "bus": []}, {})


CASES: list[tuple[str, list[Attempt], dict[str, list[float]], bool]] = [
    ("nothing happened", [attempt(0, TAKEN)], {}, False),
    (
        "the other broker gave no ack",
        [attempt(0, FAILED, bus="no_ack"), attempt(2, TAKEN)],
        {},
        False,
    ),
    ("it was not sent", [attempt(0, FAILED, events="broker_down"), attempt(2, TAKEN)], {}, False),
    ("a break of the other broker", [attempt(0, TAKEN)], {"bus": [0.5]}, False),
    ("a break at another time", [attempt(0, TAKEN)], {"events": [3.0]}, False),
    ("a death at another time", [attempt(0, TAKEN)], {GATEWAY: [3.0]}, False),
    ("no ack came", [attempt(0, FAILED, events="no_ack"), attempt(2, TAKEN)], {}, True),
    ("none came in time", [attempt(0, FAILED, events="deadline"), attempt(2, TAKEN)], {}, True),
    ("no answer came", [attempt(0, None), attempt(2, TAKEN)], {}, True),
    ("its connection broke", [attempt(0, TAKEN)], {"events": [0.5]}, True),
    ("the gateway died", [attempt(0, FAILED), attempt(4, TAKEN)], {GATEWAY: [2.0]}, True),
]


@pytest.mark.parametrize(
    ("attempts", "breaks", "explained"),
    [case[1:] for case in CASES],
    ids=[case[0].replace(" ", "-") for case in CASES],
)
def test_what_is_there_twice_needs_a_reason(
    attempts: list[Attempt], breaks: dict[str, list[float]], explained: bool
) -> None:
    result = judged(sent("a", *attempts), 2, 1, breaks)
    assert result.duplicates == 1
    assert (result.unexplained == []) is explained


@pytest.mark.parametrize(
    ("order", "is_well"),
    [("abc", True), ("abcab", True), ("acb", False), ("bac", False)],
)
def test_order_is_that_of_the_answers(order: str, is_well: bool) -> None:
    load = Load(lambda: 0, senders=2)
    for place, name in enumerate("abc"):
        load.events[name] = sent(name, attempt(place, TAKEN), taken_at=place)
    records: dict[str, Any] = {"events": [(name, "user_0") for name in order]}
    if is_well:
        assert assert_in_order(load, records) == 3
        return
    with pytest.raises(AssertionError, match="user_0 in events"):
        assert_in_order(load, records)
