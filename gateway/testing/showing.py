"""What a test that passes has shown of a table, so that coverage counts nothing else.

Routes that resolve to the same record publish it once, so that the record may come although one of
them left the event. Only a test that names the `routes` of a record shows all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from gateway.event import Event
from gateway.routing.explain import Explanation
from gateway.routing.expressions import ExpressionError
from gateway.routing.table import Route, Target, scope_of
from gateway.testing.models import Expectation
from gateway.testing.outcomes import Outcome

__all__ = ["reached", "untrue"]

Matched = Mapping[int, int]
"""Numbers of expectations, and of the outcomes that are as they expect."""


def reached(
    expected: Sequence[Expectation], outcomes: Sequence[Outcome], matched: Matched
) -> frozenset[tuple[str, int]]:
    """Give the targets, by route and number, whose records had to come."""
    return frozenset(
        target
        for one, other in matched.items()
        if expected[one].refused is None and _is_held(expected[one], outcomes[other])
        for target in outcomes[other].targets
    )


def untrue(
    explanation: Explanation,
    event: Event,
    expected: Sequence[Expectation],
    outcomes: Sequence[Outcome],
    matched: Matched,
) -> frozenset[str]:
    """Give the routes that took the event but for their condition, and would have been seen.

    One would not be where its records could be the same as those of another route, which come and
    whose `routes` the test does not name.
    """
    open_places = {
        (outcomes[other].result.broker, outcomes[other].destination)
        for one, other in matched.items()
        if expected[one].routes is None
    }
    return frozenset(
        told.route.name
        for told in explanation.routes
        if told.verdict == "when" and not _places(told.route, event) <= open_places
    )


def _is_held(expectation: Expectation, outcome: Outcome) -> bool:
    return expectation.routes is not None or len({name for name, _ in outcome.targets}) == 1


def _places(route: Route, event: Event) -> set[tuple[str, str]]:
    return set(_rendered(route, event))


def _rendered(route: Route, event: Event) -> Iterator[tuple[str, str]]:
    """Yield where the route's targets would lead; a refusal is a place of its own."""
    scope = scope_of(event, route.name)
    for target in route.targets:
        yield target.broker, _destination(target, scope)


def _destination(target: Target, scope: dict[str, object]) -> str:
    try:
        return target.destination.destination(scope)
    except ExpressionError:
        return target.destination.source
