"""Who dispatches which partition: the book of sessions and leases, without a server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.delivery.inbox.jetstream.leases import Book, Sign, quota

TERM = 10.0
ALIVE, ENDED = Sign(TERM), Sign(TERM, ended=True)
DOUBTED = Sign(TERM, doubted=True)


@pytest.mark.parametrize(
    ("replicas", "shares"),
    [(1, [16]), (2, [8, 8]), (3, [6, 5, 5]), (5, [4, 3, 3, 3, 3]), (17, [1] * 16 + [0])],
)
def test_shares_are_even_and_add_up(replicas: int, shares: list[int]) -> None:
    sessions = [f"s{at:02}" for at in range(replicas)]
    assert [quota(sessions, one, 16) for one in sessions] == shares


def test_a_session_is_ended_when_it_was_silent_for_its_whole_term() -> None:
    book = Book(4, TERM)
    book.saw_session("me", 1, ALIVE, 0.0)
    book.saw_session("other", 2, ALIVE, 3.0)
    assert book.steps("me", 8.0).doubt == {}
    assert book.steps("me", 8.1).doubt == {"other": 2}
    assert book.steps("me", 99.0).end == {}
    book.saw_session("other", 3, DOUBTED, 8.1)
    assert book.steps("me", 13.1).end == {}
    assert (book.steps("me", 13.2).end, book.steps("me", 13.2).doubt) == ({"other": 3}, {})
    book.saw_session("other", 4, ALIVE, 13.2)
    assert book.steps("me", 18.1) == book.steps("me", 13.2)


def test_no_silence_counts_while_nobody_can_write() -> None:
    book = Book(4, TERM)
    book.saw_session("me", 1, ALIVE, 0.0)
    book.saw_session("other", 2, ALIVE, 0.0)
    book.saw_session("third", 3, DOUBTED, 0.0)
    book.excuse(90.0)
    assert (book.steps("me", 95.0).doubt, book.steps("me", 95.0).end) == ({}, {})
    assert book.steps("me", 95.1).doubt == {"other": 2}
    assert book.steps("me", 95.1).end == {"third": 3}


def test_its_own_term_counts_not_the_observers() -> None:
    book = Book(4, TERM)
    book.saw_session("me", 1, ALIVE, 0.0)
    book.saw_session("other", 2, Sign(60.0), 0.0)
    assert book.term("other") == 60.0
    assert book.steps("me", 30.0).doubt == {}
    assert book.steps("me", 30.1).doubt == {"other": 2}


def test_the_leases_of_a_silent_session_are_not_free_before_it_is_ended() -> None:
    book = Book(2, TERM)
    book.saw_session("me", 1, ALIVE, 0.0)
    book.saw_session("other", 2, ALIVE, 0.0)
    book.saw_lease(0, 3, "other", 0.0)
    book.saw_lease(1, 4, "other", 0.0)
    assert book.steps("me", 99.0).take == {}
    book.saw_session("other", 5, ENDED, 99.0)
    assert book.steps("me", 99.0).take == {0: 3, 1: 4}


def test_a_lease_of_a_session_that_was_never_seen_gets_a_whole_term() -> None:
    # The reader may be behind, and the session's first message replaced by a newer one.
    book = Book(1, TERM)
    book.saw_session("me", 1, ALIVE, 0.0)
    book.saw_lease(0, 2, "unseen", 5.0)
    assert book.steps("me", 10.0) == book.steps("me", 5.0)
    # The doubt follows no message: the server refuses it if there is one.
    assert book.steps("me", 10.1).doubt == {"unseen": 0}


def test_what_is_older_than_what_is_known_is_passed_over() -> None:
    book = Book(1, TERM)
    book.saw_lease(0, 7, "b", 0.0)
    book.saw_lease(0, 6, "a", 0.0)
    assert book.lease(0).session == "b"
    book.saw_session("b", 9, ENDED, 0.0)
    book.saw_session("b", 8, ALIVE, 0.0)
    assert "b" not in book.alive()


def test_an_ended_session_is_forgotten_once_no_lease_names_it() -> None:
    book = Book(1, TERM)
    book.saw_session("me", 1, ALIVE, 0.0)
    book.saw_session("old", 2, ENDED, 0.0)
    book.saw_lease(0, 3, "old", 0.0)
    assert book.steps("me", 0.0).forget == {}
    book.saw_lease(0, 4, "me", 0.0)
    assert book.steps("me", 0.0).forget == {"old": 2}


class Cluster:
    """Replicas that all see one book at once."""

    def __init__(self, partitions: int) -> None:
        self.book = Book(partitions, TERM)
        self.alive: list[str] = []
        self._silent: set[str] = set()
        self._seq = 0
        self._now = 0.0

    def change(self, change: str) -> None:
        """Let a replica join, leave or die."""
        if change == "join":
            self.alive.append(f"s{self._next():03}")
        elif self.alive:
            name = self.alive.pop(0)
            if change == "leave":
                self.book.saw_session(name, self._next(), ENDED, self._now)
            else:
                self._silent.add(name)
        self._now += TERM + 1
        for name in self.alive:
            self.book.saw_session(name, self._next(), ALIVE, self._now)

    def round(self) -> None:
        """Let each do what there is to do for it."""
        for name in self.alive:
            steps = self.book.steps(name, self._now)
            assert set(steps.doubt) | set(steps.end) <= self._silent
            for asked in steps.doubt:
                self.book.saw_session(asked, self._next(), DOUBTED, self._now - TERM)
            for gone in steps.end:
                self.book.saw_session(gone, self._next(), ENDED, self._now)
            for taken in steps.take:
                assert self.book.lease(taken).session not in self.alive
                self.book.saw_lease(taken, self._next(), name, self._now)
            for given_back in steps.give:
                self.book.saw_lease(given_back, self._next(), "", self._now)

    def _next(self) -> int:
        self._seq += 1
        return self._seq


@given(st.integers(1, 16), st.lists(st.sampled_from(["join", "leave", "die"]), max_size=12))
def test_whoever_comes_and_goes_all_partitions_are_shared_out(
    partitions: int, changes: list[str]
) -> None:
    cluster = Cluster(partitions)
    for change in ["join", *changes]:
        cluster.change(change)
        # One to doubt, one to end and to give back, one to take what is free by then.
        cluster.round()
        cluster.round()
        cluster.round()
        held = [len(cluster.book.held_by(name)) for name in cluster.alive]
        if held:
            assert sum(held) == partitions
            assert max(held) - min(held) <= 1


def test_a_step_names_the_message_that_it_follows_from() -> None:
    """What comes between the decision and the write must make the server refuse the write."""
    book = Book(1, TERM)
    book.saw_session("me", 1, ALIVE, 0.0)
    book.saw_session("other", 2, DOUBTED, 0.0)
    book.saw_lease(0, 3, "", 0.0)
    steps = book.steps("me", TERM + 1)
    book.saw_session("other", 4, ALIVE, TERM + 1)
    book.saw_lease(0, 5, "other", TERM + 1)
    assert (steps.end, steps.take) == ({"other": 2}, {0: 3})
