"""The limit on repeated log lines."""

from __future__ import annotations

from gateway.observability.limit import RateLimit


def test_five_lines_per_reason_in_ten_seconds() -> None:
    limit = RateLimit()
    assert [limit.take("a", n) for n in range(7)] == [0, 0, 0, 0, 0, None, None]
    assert limit.take("b", 6) == 0


def test_the_next_window_s_first_line_tells_what_was_held_back() -> None:
    limit = RateLimit()
    for _ in range(8):
        limit.take("a", 0)
    assert limit.take("a", 9.999) is None
    assert limit.take("a", 10) == 4
    assert limit.take("a", 10) == 0


def test_what_nobody_told_is_overdue_once() -> None:
    limit = RateLimit()
    for _ in range(7):
        limit.take("a", 0)
    limit.take("quiet", 0)
    assert limit.overdue(9.999) == []
    assert limit.overdue(10) == [("a", 2)]
    assert limit.overdue(30) == []
    assert limit.take("a", 30) == 0


def test_reasons_are_bounded() -> None:
    limit = RateLimit()
    taken = [limit.take(f"reason {n}", 0) for n in range(1001)]
    assert taken == [0] * 1000 + [None]
    limit.overdue(10)
    assert limit.take("reason 1000", 10) == 0
