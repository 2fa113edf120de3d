"""Which places of an event are not empty once a condition is known to be true, or false."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway.clerk.schemas import Steps
from gateway.routing.expressions import is_true

__all__ = ["NO_GUARD", "Guard", "implied", "place_of"]

Guard = Mapping[Steps, bool]
"""Places that are not null; True where they are not empty either."""
NO_GUARD: Final[Guard] = {}

Node = Mapping[str, Any]
_CHAINS: Final = frozenset({"subexpression", "index_expression", "pipe"})
_NEEDS_VALUES: Final = frozenset(
    {"contains", "starts_with", "ends_with", "length", "abs", "ceil", "floor", "keys", "values"}
)
"""Functions that fail for null, so that what follows has their arguments."""


def place_of(node: Node, base: Steps | None) -> Steps | None:
    """Give the place that an expression is, or None where it is something else."""
    if base is None:
        return None
    kind = node["type"]
    if kind in {"field", "index"}:
        return (*base, node["value"])
    if kind in {"current", "identity"}:
        return base
    if kind not in _CHAINS:
        return None
    place: Steps | None = base
    for child in node["children"]:
        place = place_of(child, place)
    return place


def implied(node: Node, truth: bool, base: Steps | None) -> Guard:
    """Give what must be there when the condition `node` over `base` is `truth`."""
    kind = node["type"]
    if kind == "not_expression":
        return implied(node["children"][0], not truth, base)
    if kind in {"and_expression", "or_expression"}:
        left, right = (implied(child, truth, base) for child in node["children"])
        return _either(left, right) if truth == (kind == "or_expression") else _both(left, right)
    if kind == "comparator":
        return _compared(node, truth, base)
    if kind == "function_expression" and node["value"] in _NEEDS_VALUES:
        return _called(node, truth, base)
    place = place_of(node, base)
    return _around({place: True}) if truth and place else NO_GUARD


def _called(node: Node, truth: bool, base: Steps | None) -> Guard:
    """A function that gave something had its arguments; `contains(['a', 'b'], x)` gives a value."""
    is_contains = node["value"] == "contains"
    needed = node["children"][:1] if is_contains else node["children"]
    found = {place: False for child in needed if (place := place_of(child, base))}
    if is_contains and truth:
        choices = _literals(node["children"][0])
        place = place_of(node["children"][-1], base)
        if place and choices and None not in choices:
            found[place] = all(map(is_true, choices))
    return _around(found)


def _literals(node: Node) -> list[Any]:
    """Give the elements of a list that is written out; none of anything else."""
    if node["type"] == "literal":
        return node["value"] if isinstance(node["value"], list) else []
    items = node["children"] if node["type"] == "multi_select_list" else []
    written = all(item["type"] == "literal" for item in items)
    return [item["value"] for item in items] if written else []


def _compared(node: Node, truth: bool, base: Steps | None) -> Guard:
    """`a == 'x'` needs an `a`, and so do `a != null` and every order that is true."""
    left, right = node["children"]
    if left["type"] == "literal":
        left, right = right, left
    if left["type"] == "function_expression":
        return implied(left, True, base)
    place = place_of(left, base)
    if not place:
        return NO_GUARD
    operator = node["value"]
    if operator not in {"eq", "ne"}:
        return _around({place: False}) if truth else NO_GUARD
    if right["type"] != "literal":
        return NO_GUARD
    equal = (operator == "eq") == truth
    literal = right["value"]
    if equal:
        return NO_GUARD if literal is None else _around({place: is_true(literal)})
    return _around({place: False}) if literal is None else NO_GUARD


def _around(places: dict[Steps, bool]) -> Guard:
    """Add what the places stand in: that is there, and not empty."""
    outer = {place[:end]: True for place in places for end in range(1, len(place))}
    return {**outer, **places}


def _both(left: Guard, right: Guard) -> Guard:
    return {place: left.get(place, False) or right.get(place, False) for place in {**left, **right}}


def _either(left: Guard, right: Guard) -> Guard:
    return {place: left[place] and right[place] for place in left if place in right}
