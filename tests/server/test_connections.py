"""Which connection gives way when the port is full, and when too much arrives."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gateway.server.connections import Connections, WireLimits

LIMITS = WireLimits(
    max_head=1024,
    max_headers=10,
    header_timeout=1.0,
    body_timeout=1.0,
    idle_timeout=1.0,
    max_pipelined=2,
    max_connections=3,
    max_arriving=100,
)


class Sender:
    """A connection that notes whether it was ended."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.reason = ""

    @property
    def ended(self) -> bool:
        return bool(self.reason)

    def give_up(self, reason: str) -> None:
        self.reason = reason


def full(**limits: Any) -> tuple[Connections, list[Sender]]:
    """Give a port at its limit, and its connections in the order in which they came."""
    connections = Connections(msgspec.structs.replace(LIMITS, **limits))
    senders = [Sender(str(number)) for number in range(connections.limits.max_connections)]
    assert all(connections.enter(sender) for sender in senders)
    return connections, senders


def ended(senders: list[Sender]) -> list[str]:
    return [sender.name for sender in senders if sender.ended]


def test_the_one_that_has_waited_longest_gives_way() -> None:
    connections, senders = full()
    assert connections.enter(Sender("new"))
    assert ended(senders) == ["0"]
    assert senders[0].reason == "overloaded"


def test_at_the_end_all_that_wait_are_given_up_and_those_at_work_are_not() -> None:
    connections, senders = full()
    connections.work(senders[1])
    connections.give_up()
    assert [sender.reason for sender in senders] == ["closing", "", "closing"]


def test_one_that_works_does_not_give_way_and_waits_anew_afterwards() -> None:
    connections, senders = full()
    connections.work(senders[0])
    assert connections.enter(Sender("new"))
    assert ended(senders) == ["1"]
    connections.leave(senders[1])
    connections.wait(senders[0])
    assert connections.enter(Sender("newer"))
    assert ended(senders) == ["1", "2"]


def test_where_all_work_the_new_one_has_no_place() -> None:
    connections, senders = full()
    for sender in senders:
        connections.work(sender)
    new = Sender("new")
    assert not connections.enter(new)
    connections.leave(new)
    assert (ended(senders), connections.open) == ([], 3)


def test_whoever_has_left_makes_room() -> None:
    connections, senders = full()
    connections.leave(senders[1])
    assert connections.enter(Sender("new"))
    assert ended(senders) == []


def test_every_change_is_told() -> None:
    told: list[int] = []
    connections, sender = Connections(LIMITS, told.append), Sender("one")
    connections.enter(sender)
    connections.leave(sender)
    assert told == [1, 0]


def test_too_much_that_arrives_is_told_until_it_is_settled() -> None:
    connections, _ = full()
    assert connections.arrive(60)
    assert connections.arrive(40)
    assert not connections.arrive(1)
    connections.settle(41)
    assert connections.arrive(40)


@given(st.lists(st.tuples(st.sampled_from(["enter", "work", "wait", "leave"]), st.integers(0, 9))))
def test_no_more_are_open_than_the_limit_once_those_that_gave_way_have_gone(
    steps: list[tuple[str, int]],
) -> None:
    connections, here = Connections(LIMITS), dict[int, Sender]()
    for step, number in steps:
        if step == "enter" and number not in here:
            here[number] = Sender(str(number))
            if not connections.enter(here[number]):
                connections.leave(here.pop(number))
        elif number in here and step != "enter":
            getattr(connections, step)(here[number])
            if step == "leave":
                del here[number]
        for gone in [number for number, sender in here.items() if sender.ended]:
            connections.leave(here.pop(gone))
        assert connections.open == len(here) <= LIMITS.max_connections
