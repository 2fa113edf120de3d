"""Which subjects a pattern takes: pure functions over tokens."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.brokers.base import Need


def matches(pattern: str, subject: str) -> bool:
    """Whether a subscription to `pattern` gets what is published to `subject`."""
    wanted, parts = pattern.split("."), subject.split(".")
    for at, part in enumerate(wanted):
        if part == ">":
            return len(parts) > at
        if at >= len(parts) or part not in ("*", parts[at]):
            return False
    return len(wanted) == len(parts)


def may_match(pattern: str, prefix: str) -> bool:
    """Whether some subject that begins with the text `prefix` matches `pattern`."""
    wanted, (*whole, begun) = pattern.split("."), prefix.split(".")
    for at, part in enumerate(whole):
        if at >= len(wanted):
            return False
        if wanted[at] == ">":
            return True
        if wanted[at] not in ("*", part):
            return False
    if len(wanted) <= len(whole):
        return False
    last = wanted[len(whole)]
    return last in {"*", ">"} or last.startswith(begun)


def takes(pattern: str, need: Need) -> bool:
    """Whether `pattern` takes a need's subject, or for a template some of its subjects."""
    if need.templated:
        return may_match(pattern, need.destination)
    return matches(pattern, need.destination)


def filter_of(need: Need) -> str:
    """The narrowest pattern with which a server can look for a need's subjects."""
    if not need.templated:
        return need.destination
    whole, dot, _ = need.destination.rpartition(".")
    return f"{whole}{dot}>"


def distinct(patterns: Iterable[str]) -> list[str]:
    """`patterns`, each a subject or one that ends in `>`, without those that another holds."""
    unique = list(dict.fromkeys(patterns))
    return [
        pattern
        for pattern in unique
        if not any(other != pattern and matches(other, pattern) for other in unique)
    ]
