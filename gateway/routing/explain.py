"""Why each route of a table takes an event or does not, and what is published for it.

Pure, and made of the table's own plan: what is told here is what the running gateway does.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from gateway.delivery.plan import Assignment, Plan, Refusal
from gateway.routing.expressions import Expression, ExpressionError
from gateway.routing.paths import Steps, path_text, paths_read, value_at
from gateway.routing.routable import Routable
from gateway.routing.table import Route, Table, Target, scope_of

__all__ = ["Condition", "End", "Explanation", "RouteExplanation", "Saw", "Verdict", "explain"]

Condition = Literal["true", "false", "failed"]
"""What a route's `when` came to; `failed`: the expression raised, or went over its bound."""

Verdict = Literal["matches", "source", "events", "exclude", "when", "no_type"]
"""`matches`, or the first thing that keeps the route from taking the event."""


class Saw(msgspec.Struct, frozen=True):
    """What a condition found at one place of the event. It may hold personal data."""

    path: str
    """As JMESPath has it: `data.public_metadata.tier`."""
    value: Any
    """None also where there is nothing."""


class End(msgspec.Struct, frozen=True):
    """What becomes of one target of a route that matches."""

    at: int
    """The target's number in its route, from 0."""
    target: Target
    result: Assignment | Refusal
    """Targets that resolve to the same record have the same assignment, which is published once."""
    own_key: bool
    """Whether the target's own template gave the record's key; else it is the event's default."""


class RouteExplanation(msgspec.Struct, frozen=True):
    """One route's answer to an event."""

    route: Route
    verdict: Verdict
    pattern: str | None
    """The entry of `events` that takes the type, or with `exclude` the entry that takes it away."""
    saw: tuple[Saw, ...]
    """What the condition read, where it was asked."""
    condition: Condition | None
    """What it came to, where it was asked."""
    ends: tuple[End, ...]
    """With `matches` one for each target, in file order; else none.

    A condition that fails is a refusal of all of the route's targets, and so `matches` too.
    """


class Explanation(msgspec.Struct, frozen=True):
    """A table's answer to an event."""

    routes: tuple[RouteExplanation, ...]
    """Every route, in file order."""
    plan: Plan
    """What the running gateway would carry out; its parts are the results of the routes' ends."""


def explain(table: Table, event: Routable) -> Explanation:
    """Tell what each route makes of an event, and why. Never raises for what an event holds."""
    plan, trace = table.trace(event)
    results = {route.name: outcomes for route, outcomes in trace}
    routes = tuple(_explain_route(route, event, results) for route in table.routes)
    return Explanation(routes, plan)


_Results = dict[str, tuple[Assignment | Refusal, ...] | None]


def _explain_route(route: Route, event: Routable, results: _Results) -> RouteExplanation:
    verdict, pattern = _candidacy(route, event)
    if verdict != "matches":
        return RouteExplanation(route, verdict, pattern, (), None, ())
    scope = scope_of(event, route.name)
    saw = () if route.when is None else _saw(route.when, scope)
    outcomes = results[route.name]
    if outcomes is None:
        return RouteExplanation(route, "when", pattern, saw, "false", ())
    ends = tuple(
        End(at, target, result, isinstance(result, Assignment) and _has_own_key(target, scope))
        for at, (target, result) in enumerate(zip(route.targets, outcomes, strict=True))
    )
    condition = None if route.when is None else _came_to(route.when, scope)
    return RouteExplanation(route, "matches", pattern, saw, condition, ends)


def _came_to(when: Expression, scope: dict[str, Any]) -> Condition:
    """Tell a condition that is true from one that failed: both have the route's targets settled."""
    try:
        when.evaluate(scope)
    except ExpressionError:
        return "failed"
    return "true"


def _has_own_key(target: Target, scope: dict[str, Any]) -> bool:
    return target.key is not None and target.key.text(scope) != ""


def _candidacy(route: Route, event: Routable) -> tuple[Verdict, str | None]:
    if event.type is None:
        return "no_type", None
    if route.sources is not None and event.source not in route.sources:
        return "source", None
    pattern = route.events.matching(event.type)
    if pattern is None:
        return "events", None
    excluding = route.exclude.matching(event.type)
    return ("matches", pattern) if excluding is None else ("exclude", excluding)


def _saw(condition: Expression, scope: dict[str, Any]) -> tuple[Saw, ...]:
    """Give what stands at each place that the condition reads, as far as it is one place."""
    places = dict.fromkeys(_single(steps) for steps in paths_read(condition))
    return tuple(Saw(path_text(steps), value_at(steps, scope)) for steps in places)


def _single(steps: Steps) -> Steps:
    """Cut a path where it goes on into every element of a list."""
    return steps[: steps.index(None)] if None in steps else steps
