"""Which subjects a pattern takes: pure functions over tokens."""

from __future__ import annotations

import re
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


def covers(wide: str, narrow: str) -> bool:
    """Whether `wide` takes every subject that `narrow` takes; both may hold wildcards.

    A `*` inside of a token of `narrow` stands for a part of it, as in a need's forms.
    """
    theirs = narrow.split(".")
    for at, part in enumerate(wide.split(".")):
        if part == ">":
            return len(theirs) > at
        if at >= len(theirs) or theirs[at] == ">" or part not in {"*", theirs[at]}:
            return False
    return len(theirs) == len(wide.split("."))


def overlaps(pattern: str, form: str) -> bool:
    """Whether `pattern` takes some of the subjects that a need's form stands for."""
    theirs = form.split(".")
    wanted = pattern.split(".")
    for at, part in enumerate(wanted):
        if part == ">":
            return len(theirs) > at
        if at >= len(theirs) or (part != "*" and not _stands_for(theirs[at], part)):
            return False
    return len(theirs) == len(wanted)


def _stands_for(token: str, other: str) -> bool:
    """Whether a token in which `*` stands for some letters may be `other`."""
    return re.fullmatch(re.escape(token).replace(r"\*", "[A-Za-z0-9_-]+"), other) is not None


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
