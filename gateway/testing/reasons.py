"""Why nothing came for an expectation: what the routes that could have published it made of it."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.event import Event
from gateway.routing.explain import Explanation, RouteExplanation
from gateway.routing.table import Route, Target
from gateway.testing.models import Expectation
from gateway.testing.rules import Setting
from gateway.testing.words import HIDDEN, shown

__all__ = ["could_publish", "reasons"]


def could_publish(target: Target, expectation: Expectation) -> bool:
    """Tell whether the record or refusal of a target could be the expected one, by its template."""
    wanted = expectation.topic if target.kind == "kafka" else expectation.subject
    if wanted is None or expectation.broker not in {None, target.broker}:
        return False
    template = target.destination
    if template.is_literal or expectation.refused is not None:
        return wanted == (template.prefix if template.is_literal else template.source)
    return wanted.startswith(template.prefix)


def reasons(
    expectation: Expectation, explanation: Explanation, event: Event, setting: Setting
) -> Iterator[str]:
    """Give a line for each route that does not take the event, though it could publish this."""
    routes = [told for told in explanation.routes if _could(told.route, expectation)]
    if not routes:
        yield f"no route has a target with this {expectation.place[0]}"
    for told in routes:
        reason = _reason(told, event, setting)
        if reason is not None:
            yield f"route {told.route.name} {reason}"


def _could(route: Route, expectation: Expectation) -> bool:
    if expectation.routes is not None and route.name not in expectation.routes:
        return False
    return any(could_publish(target, expectation) for target in route.targets)


def _reason(told: RouteExplanation, event: Event, setting: Setting) -> str | None:
    """Say what keeps a route from taking an event; None of one that takes it."""
    words = {
        "no_type": "takes no event without a type",
        "source": f"takes no events of source {event.source}",
        "events": f"does not take {shown(event.type)}: no entry of its events does",
        "exclude": f"does not take {shown(event.type)}: its exclude has {shown(told.pattern)}",
    }
    return _untrue(told, setting) if told.verdict == "when" else words.get(told.verdict)


def _untrue(told: RouteExplanation, setting: Setting) -> str:
    if told.route.when is None or setting.hides(told.route.name, "when"):
        return f"does not take it: its condition is not true; {HIDDEN}"
    saw = ", ".join(f"{one.path} is {shown(one.value)}" for one in told.saw)
    return f"does not take it: {told.route.when.source} is not true" + (saw and f"; {saw}")
