"""How often one client may guess the admin token."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.server.admin.throttle import Throttle, client_of


def spent(attempts: int, at: float = 0.0) -> Throttle:
    """Give a throttle whose client `a` has sent so many wrong tokens."""
    throttle = Throttle(attempts=10, refill=30.0, max_clients=4)
    for _ in range(attempts):
        throttle.failed("a", at)
    return throttle


@pytest.mark.parametrize(
    ("attempts", "now", "wait"),
    [
        (0, 0.0, 0.0),
        (9, 0.0, 0.0),
        (10, 0.0, 30.0),
        (10, 29.5, 0.5),
        (10, 30.0, 0.0),
        (10, 10_000.0, 0.0),
    ],
)
def test_ten_at_once(attempts: int, now: float, wait: float) -> None:
    assert spent(attempts).wait("a", now) == wait


def test_then_one_in_half_a_minute() -> None:
    throttle = spent(10)
    assert throttle.wait("a", 30.0) == 0
    throttle.failed("a", 30.0)
    assert throttle.wait("a", 30.0) == 30
    assert throttle.wait("a", 60.0) == 0


def test_all_are_back_after_a_pause() -> None:
    throttle = spent(10)
    for _ in range(9):
        throttle.failed("a", 300.0)
    assert throttle.wait("a", 300.0) == 0
    throttle.failed("a", 300.0)
    assert throttle.wait("a", 300.0) == 30


def test_other_clients_are_not_affected() -> None:
    throttle = spent(10)
    assert throttle.wait("b", 0.0) == 0
    throttle.failed("b", 0.0)
    assert throttle.wait("b", 0.0) == 0
    assert throttle.wait("a", 0.0) == 30


def test_to_wait_costs_nothing() -> None:
    throttle = spent(10)
    assert [throttle.wait("a", 0.0) for _ in range(100)] == [30.0] * 100
    assert [Throttle().wait(str(number), 0.0) for number in range(3)] == [0.0] * 3


def test_the_one_whose_last_wrong_token_is_the_longest_ago_is_forgotten() -> None:
    throttle = spent(10)
    for client in "bcd":
        throttle.failed(client, 1.0)
    throttle.failed("a", 30.0)
    throttle.failed("e", 31.0)
    assert len(throttle) == 4
    assert throttle.wait("a", 31.0) == 29


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.floats(0, 100)), max_size=200))
def test_whoever_waits_sends_no_more_than_was_agreed(steps: list[tuple[str, float]]) -> None:
    throttle = Throttle(attempts=3, refill=10.0, max_clients=100)
    now, sent = 0.0, dict.fromkeys("abcdefgh", 0)
    for client, pause in steps:
        now += pause
        wait = throttle.wait(client, now)
        assert 0 <= wait <= 10.0
        if wait == 0:
            throttle.failed(client, now)
            sent[client] += 1
            # A rounding error of one attempt in a day is no matter.
            assert sent[client] <= 3 + now / 10.0 + 1e-6


@given(st.lists(st.tuples(st.text(max_size=3), st.floats(0, 1e9)), max_size=50))
def test_the_table_is_bounded(failures: list[tuple[str, float]]) -> None:
    throttle = Throttle(max_clients=4)
    for client, now in failures:
        throttle.failed(client, now)
        assert len(throttle) <= 4


@pytest.mark.parametrize(
    ("peer", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::9", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("/run/gateway.sock", "unknown"),
        ("", "unknown"),
        (None, "unknown"),
    ],
)
def test_what_tells_clients_apart(peer: str | None, client: str) -> None:
    assert client_of(peer) == client
