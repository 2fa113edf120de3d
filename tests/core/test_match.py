"""Event type patterns."""

from __future__ import annotations

import pytest

from gateway.routing.match import Pattern


@pytest.mark.parametrize(
    ("patterns", "matching", "others"),
    [
        (["user.created"], ["user.created"], ["user.create", "user.created2", "User.created", ""]),
        (["user.*"], ["user.created", "user.a.b", "user."], ["user", "users.x", "auser.x", ""]),
        (["*"], ["user.created", "x", "", "*", "ключ"], []),
        (["a.b.*", "c"], ["a.b.c", "a.b.c.d", "c"], ["a.b", "a.c", "c.d"]),
        (["user.*", "user.created"], ["user.created", "user.x"], ["session.created"]),
        (["session.ended", "*"], ["session.ended", "anything"], []),
        ([], [], ["user.created", "", "*"]),
    ],
    ids=str,
)
def test_patterns(patterns: list[str], matching: list[str], others: list[str]) -> None:
    pattern = Pattern(patterns)
    assert [name for name in matching if not pattern.matches(name)] == []
    assert [name for name in others if pattern.matches(name)] == []
