"""What an expression can give, told without an event: abstract interpretation of its syntax tree.

Where an event is read, `Facts` say what may be there. The answer errs on the safe side: what it
leaves out cannot happen as long as the facts are true and the evaluation stays within its bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any, Final, Protocol

import msgspec

from gateway.clerk.schemas import Steps
from gateway.lint.functions import FAILURES, call, compute, exists, misfits
from gateway.lint.guards import NO_GUARD, Guard, implied
from gateway.lint.outcome import (
    ANYTHING,
    BOOLEAN,
    ERROR,
    MAX_VALUES,
    NOTHING,
    Outcome,
    falsy,
    join,
    of_kinds,
    of_values,
    truths,
    truthy,
    with_error,
)
from gateway.routing.expressions import Expression

__all__ = ["UNORDERED", "Comparison", "Facts", "Findings", "Risk", "interpret"]

Node = Mapping[str, Any]

_EVENT: Final = Outcome(frozenset({"object"}), False, None, ())
_BOOLEAN: Final = of_kinds(*BOOLEAN)
_CHAINS: Final = frozenset({"subexpression", "index_expression", "pipe"})


class Facts(Protocol):
    """What is known of the events that an expression is asked about."""

    def at(self, place: Steps, sure: int) -> Outcome:
        """Tell what may be at a place, when something is there at its first `sure` steps."""
        ...

    def may_equal(self, place: Steps, value: object) -> bool:
        """Tell whether what is at a place may equal a value."""
        ...


class Comparison(msgspec.Struct, frozen=True):
    """A place that is compared with a literal by `==` or `!=`."""

    place: Steps
    literal: str | int | float | bool | None


class Risk(msgspec.Struct, frozen=True):
    """A function that fails for what its argument may be."""

    function: str
    place: Steps | None
    """Where the argument stands in the event, if it does."""
    kinds: frozenset[str]
    """The types that the function does not take; none where there is no such function."""


UNORDERED: Final = Risk("", None, frozenset({"number", "string"}))
"""An order, by `<` and the like, between text and a number: no function, and it fails."""


class Findings(msgspec.Struct, frozen=True):
    """What was learnt of an expression."""

    outcome: Outcome
    comparisons: Mapping[Comparison, bool]
    """Those that are reached, and whether they can be equal."""
    risks: tuple[Risk, ...]
    asked: Mapping[tuple[Steps, int], Outcome]
    """What the facts said. Of other facts that say the same all of this is true too."""


def interpret(expression: Expression, facts: Facts, guard: Guard = NO_GUARD) -> Findings:
    """Tell what an expression can give for events of which `facts` and `guard` are true."""
    walk = _Walk(facts)
    outcome = walk.visit(expression.tree, _EVENT, guard)
    return Findings(outcome, walk.comparisons, tuple(walk.risks), walk.asked)


class _Walk:
    """Goes through one tree."""

    def __init__(self, facts: Facts) -> None:
        self.comparisons: dict[Comparison, bool] = {}
        self.risks: dict[Risk, None] = {}
        self.asked: dict[tuple[Steps, int], Outcome] = {}
        self._facts = facts

    def visit(self, node: Node, base: Outcome, guard: Guard) -> Outcome:
        """Give what `node` can be where `@` is `base`."""
        kind = node["type"]
        if kind == "literal":
            return of_values((node["value"],))
        if kind in {"current", "identity"}:
            return base
        if kind in {"field", "index"}:
            return self._step(node, base, guard)
        if kind in _CHAINS:
            for child in node["children"]:
                base = self.visit(child, base, guard)
            return base
        if kind == "expref":
            return of_kinds("expref", blank=False)
        handler = getattr(self, f"_visit_{kind}", None)
        return ANYTHING if handler is None else handler(node, base, guard)

    def _step(self, node: Node, base: Outcome, guard: Guard) -> Outcome:
        """Go into an object by a name, or into a list by a number."""
        if ("object" if node["type"] == "field" else "array") not in base.kinds:
            return with_error(NOTHING, base) if base.kinds != {"error"} else ERROR
        if base.place is None:
            return with_error(ANYTHING, base)
        return with_error(self._at((*base.place, node["value"]), guard), base)

    def _ask(self, place: Steps, guard: Guard) -> Outcome:
        sure = _sure(place, guard)
        self.asked[place, sure] = answer = self._facts.at(place, sure)
        return Outcome(
            answer.kinds, answer.may_be_blank, answer.values, place, answer.is_left_blank
        )

    def _at(self, place: Steps, guard: Guard) -> Outcome:
        found = self._ask(place, guard)
        if place not in guard or found.kinds == {"null"}:
            return found
        values = found.values
        kept = None if values is None else tuple(value for value in values if value is not None)
        blank = found.may_be_blank and not guard[place]
        left_blank = found.is_left_blank and not guard[place]
        return Outcome(found.kinds - {"null"}, blank, kept, place, left_blank)

    def _visit_comparator(self, node: Node, base: Outcome, guard: Guard) -> Outcome:
        left, right = (self.visit(child, base, guard) for child in node["children"])
        operator = node["value"]
        return with_error(self._compare(operator, left, right), left, right)

    def _compare(self, operator: str, left: Outcome, right: Outcome) -> Outcome:
        if ERROR.kinds in (left.kinds, right.kinds):
            return ERROR
        known = _compute_comparison(operator, left, right)
        if operator in {"eq", "ne"}:
            possible = self._may_be_equal(left, right)
            self._note(left, right, possible)
            if not possible:
                return of_values((operator == "ne",))
            return known or _BOOLEAN
        ordered = known or _ordered(left, right)
        if ordered.kinds - {"null"} == {"error"}:
            self.risks.setdefault(UNORDERED)
        return ordered

    def _may_be_equal(self, left: Outcome, right: Outcome) -> bool:
        if not (left.kinds & right.kinds) - {"error"}:
            return False
        for place, literal in ((left.place, right.values), (right.place, left.values)):
            if place is not None and literal is not None and len(literal) == 1:
                return self._facts.may_equal(place, literal[0])
        return True

    def _note(self, left: Outcome, right: Outcome, possible: bool) -> None:
        if left.place is None:
            left, right = right, left
        if left.place is None or right.place is not None or not right.values:
            return
        literal = right.values[0]
        if len(right.values) == 1 and not isinstance(literal, list | dict):
            comparison = Comparison(left.place, literal)
            self.comparisons[comparison] = self.comparisons.get(comparison, False) or possible

    def _visit_and_expression(self, node: Node, base: Outcome, guard: Guard) -> Outcome:
        return self._junction(node, base, guard, going_on=True)

    def _visit_or_expression(self, node: Node, base: Outcome, guard: Guard) -> Outcome:
        return self._junction(node, base, guard, going_on=False)

    def _junction(self, node: Node, base: Outcome, guard: Guard, *, going_on: bool) -> Outcome:
        """`going_on` is what the left side must be for the right one to be asked."""
        first, second = node["children"]
        left = self.visit(first, base, guard)
        possible = truths(left) if left.kinds != {"error"} else frozenset[bool]()
        parts = [ERROR] if "error" in left.kinds else []
        if (not going_on) in possible:
            parts.append(falsy(left) if going_on else truthy(left))
        if going_on in possible:
            more = implied(first, going_on, base.place)
            parts.append(self.visit(second, base, {**guard, **more} if more else guard))
        return join(parts) if parts else ERROR

    def _visit_not_expression(self, node: Node, base: Outcome, guard: Guard) -> Outcome:
        inner = self.visit(node["children"][0], base, guard)
        if inner.kinds == {"error"}:
            return ERROR
        return with_error(of_values([not truth for truth in sorted(truths(inner))]), inner)

    def _visit_function_expression(self, node: Node, base: Outcome, guard: Guard) -> Outcome:
        arguments = [self.visit(child, base, guard) for child in node["children"]]
        name = node["value"]
        found = call(name, arguments)
        if not exists(name, len(arguments)):
            self.risks.setdefault(Risk(name, None, frozenset()))
        elif "error" in found.kinds:
            for at, kinds in misfits(name, arguments).items():
                self.risks.setdefault(Risk(name, arguments[at].place, kinds))
        return found

    def _visit_multi_select_list(self, node: Node, base: Outcome, guard: Guard) -> Outcome:
        return self._select("array", node["children"], base, guard)

    def _visit_multi_select_dict(self, node: Node, base: Outcome, guard: Guard) -> Outcome:
        return self._select(
            "object", [pair["children"][0] for pair in node["children"]], base, guard
        )

    def _select(self, kind: str, nodes: list[Node], base: Outcome, guard: Guard) -> Outcome:
        inner = [self.visit(child, base, guard) for child in nodes]
        made = of_kinds(kind, blank=False)
        if "null" in base.kinds:
            made = join([made, NOTHING])
        if base.kinds == {"null"}:
            return NOTHING
        fails = "null" not in base.kinds and any(one.kinds == {"error"} for one in inner)
        return ERROR if fails else with_error(made, base, *inner)

    def _visit_slice(self, node: Node, base: Outcome, _: Guard) -> Outcome:
        return self._list_of(base, base.place, fails=node["children"][2] == 0)

    def _visit_flatten(self, node: Node, base: Outcome, guard: Guard) -> Outcome:
        inner = self.visit(node["children"][0], base, guard)
        return self._list_of(inner, inner.place)

    def _list_of(self, base: Outcome, place: Steps | None, *, fails: bool = False) -> Outcome:
        """Give what is made of a list, or null of anything else."""
        if base.kinds == {"error"}:
            return ERROR
        if "array" not in base.kinds:
            return with_error(NOTHING, base)
        kinds = frozenset({"array"}) | (frozenset({"null"}) if base.kinds - {"array"} else set())
        made = Outcome(kinds, True, None, place)
        return with_error(made, base, *([ERROR] if fails else ()))

    def _visit_projection(self, node: Node, base: Outcome, guard: Guard) -> Outcome:
        return self._project(node, base, guard, "array")

    def _visit_filter_projection(self, node: Node, base: Outcome, guard: Guard) -> Outcome:
        return self._project(node, base, guard, "array")

    def _visit_value_projection(self, node: Node, base: Outcome, guard: Guard) -> Outcome:
        return self._project(node, base, guard, "object")

    def _project(self, node: Node, base: Outcome, guard: Guard, kind: str) -> Outcome:
        """The third child is a condition, by which elements are taken."""
        items, right, *conditions = node["children"]
        inner = self.visit(items, base, guard)
        if inner.kinds == {"error"}:
            return ERROR
        if kind not in inner.kinds:
            return with_error(NOTHING, inner)
        element = ANYTHING
        if inner.place is not None and kind == "array":
            place = (*inner.place, None)
            element = self._ask(place, guard)
        made, taken = [inner], guard
        for condition in conditions:
            made.append(self.visit(condition, element, guard))
            taken = {**guard, **implied(condition, True, element.place)}
            if True not in truths(made[-1]):
                return (
                    with_error(of_values(([],)), *made)
                    if inner.kinds == {"array"}
                    else (
                        with_error(Outcome(frozenset({"array", "null"}), True, ([], None)), *made)
                    )
                )
        made.append(self.visit(right, element, taken))
        kinds = {"array"} | ({"null"} if inner.kinds - {kind, "error"} else set())
        return with_error(Outcome(frozenset(kinds)), *made)


def _sure(place: Steps, guard: Guard) -> int:
    """Give how many steps before the last lead to something: where an element is, its list is."""
    steps = range(len(place) - 1, 0, -1)
    return next((n for n in steps if place[n] is None or place[:n] in guard), 0)


def _compute_comparison(operator: str, left: Outcome, right: Outcome) -> Outcome | None:
    """Compare the values where they are known."""
    if left.values is None or right.values is None:
        return None
    if len(left.values) * len(right.values) > MAX_VALUES:
        return None
    results: list[Any] = []
    parts: list[Outcome] = []
    for values in product(left.values, right.values):
        children = [{"type": "literal", "value": value, "children": []} for value in values]
        try:
            results.append(compute({"type": "comparator", "value": operator, "children": children}))
        except FAILURES:
            parts.append(ERROR)
    unique = [value for value in (True, False, None) if value in results]
    return join([*parts, of_values(unique)]) if unique else ERROR


def _ordered(left: Outcome, right: Outcome) -> Outcome:
    """Give what `<` and the like can be: null for what has no order; text and number fail."""
    orders = [outcome.kinds & {"number", "string"} for outcome in (left, right)]
    parts = []
    if orders[0] & orders[1]:
        parts.append(_BOOLEAN)
    if any(outcome.kinds - {"number", "string", "error"} for outcome in (left, right)):
        parts.append(NOTHING)
    if orders[0] and orders[1] and len(orders[0] | orders[1]) > 1:
        parts.append(ERROR)
    return join(parts) if parts else ERROR
