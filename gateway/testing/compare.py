"""An expectation beside what came: where they differ, and which belongs to which."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from gateway.delivery.plan import Assignment, Refusal
from gateway.testing.models import Expectation
from gateway.testing.outcomes import Outcome

__all__ = ["ABSENT", "Difference", "differences", "fits", "nearest", "pairs", "same"]


class _Absent:
    """What stands where there is nothing; None is a value."""

    def __repr__(self) -> str:
        return "nothing"


ABSENT: Final = _Absent()


class Difference(msgspec.Struct, frozen=True):
    """One field that is not as expected."""

    field: str
    """In the words of the tests file: `key`, `header x-tenant`, `value data.id`."""
    expected: Any
    got: Any
    """`ABSENT` where there is nothing; of a header that is there twice all values."""
    header: str | None = None
    """The name where it is a header, whose value may be one that is not shown."""


def differences(expectation: Expectation, outcome: Outcome) -> tuple[Difference, ...]:
    """Give what of an expectation an outcome does not have; empty where it is as expected."""
    return tuple(_differences(expectation, outcome))


def fits(expectation: Expectation, outcome: Outcome) -> bool:
    """Tell whether an outcome is as expected; ends at the first difference."""
    return next(_differences(expectation, outcome), None) is None


def _differences(expectation: Expectation, outcome: Outcome) -> Iterator[Difference]:
    result = outcome.result
    if expectation.broker not in {None, result.broker}:
        yield Difference("broker", expectation.broker, result.broker)
    place, wanted = expectation.place
    if place != outcome.place:
        yield Difference(place, wanted, ABSENT)
        yield Difference(outcome.place, ABSENT, outcome.destination)
    elif not outcome.is_at(wanted):
        yield Difference(place, wanted, outcome.destination)
    if expectation.routes is not None and set(expectation.routes) != set(result.routes):
        yield Difference("routes", list(expectation.routes), list(result.routes))
    if isinstance(result, Refusal):
        if expectation.refused != result.reason:
            yield Difference("refused", expectation.refused or ABSENT, result.reason)
    elif expectation.refused is not None:
        yield Difference("refused", expectation.refused, ABSENT)
    else:
        yield from _record(expectation, outcome, result)


def _record(
    expectation: Expectation, outcome: Outcome, assignment: Assignment
) -> Iterator[Difference]:
    message = assignment.message
    if expectation.key not in {None, message.key}:
        yield Difference("key", expectation.key, message.key)
    for name, expected in expectation.headers.items():
        values = [value for header, value in outcome.headers if header == name]
        if values != ([] if expected is None else [expected]):
            got = (values if len(values) > 1 else values[0]) if values else ABSENT
            wanted = ABSENT if expected is None else expected
            yield Difference(f"header {name}", wanted, got, header=name)
    for path, expected in expectation.value.items():
        got = _value_at(path, outcome.value)
        if expected is None and got is ABSENT:
            continue
        if not same(expected, got):
            yield Difference(f"value {path}", ABSENT if expected is None else expected, got)


def same(one: Any, other: Any) -> bool:
    """Tell whether two JSON values are equal; `true` is not 1, and 1 is 1.0."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)


def _value_at(path: str, value: Any) -> Any:
    for step in path.split("."):
        if isinstance(value, dict):
            value = value.get(step, ABSENT)
        elif isinstance(value, list) and step.isascii() and step.isdigit() and len(step) < 10:
            value = value[int(step)] if int(step) < len(value) else ABSENT
        else:
            return ABSENT
    return value


def pairs(fitting: Sequence[Sequence[int]]) -> dict[int, int]:
    """Pair as many things as can be, by number, with one each of those that fit it.

    A vague expectation must not take the only record that a strict one could have: paths are
    augmented, breadth first (bipartite matching), which no order of the file can mislead.
    """
    found: dict[int, int] = {}
    taken: dict[int, int] = {}
    for start in range(len(fitting)):
        wanted_by: dict[int, int] = {}
        waiting = deque([start])
        while waiting:
            one = waiting.popleft()
            free = _claim(one, fitting[one], taken, wanted_by, waiting)
            if free is not None:
                _augment(start, free, wanted_by, found, taken)
                break
    return found


def _claim(
    one: int,
    fitting: Sequence[int],
    taken: Mapping[int, int],
    wanted_by: dict[int, int],
    waiting: deque[int],
) -> int | None:
    """Give one of `fitting` that nobody has; else ask those who have them to look elsewhere."""
    for other in fitting:
        if other not in wanted_by:
            wanted_by[other] = one
            if other not in taken:
                return other
            waiting.append(taken[other])
    return None


def _augment(
    start: int,
    free: int,
    wanted_by: Mapping[int, int],
    found: dict[int, int],
    taken: dict[int, int],
) -> None:
    """Hand on along the path that ends in `free`, back to `start`."""
    other, one = free, wanted_by[free]
    while True:
        before = found.get(one)
        found[one], taken[other] = other, one
        if one == start or before is None:
            return
        other, one = before, wanted_by[before]


def nearest(
    expectations: Sequence[int], others: Sequence[int], distance: Callable[[int, int], int | None]
) -> dict[int, int]:
    """Pair what is left, the least distance first; None is too far."""
    found: dict[int, int] = {}
    candidates = [
        (far, one, other)
        for one in expectations
        for other in others
        if (far := distance(one, other)) is not None
    ]
    for _, one, other in sorted(candidates):
        if one not in found and other not in found.values():
            found[one] = other
    return found
