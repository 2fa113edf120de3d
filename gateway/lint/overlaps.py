"""Routes and targets that add nothing, because another publishes the same for the same events.

Equal renderings of one event are published once (`gateway.routing.table`). So a target is needless
where another with the same rendering takes all of its events; what is told here can all be removed
at once, since each has one that stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

from gateway.config.findings import View
from gateway.lint.finding import Finding
from gateway.lint.patterns import ancestors, takes_all_of
from gateway.lint.route import RouteView
from gateway.routing.expressions import Expression
from gateway.routing.table import Target
from gateway.routing.template import Template

__all__ = ["check_overlaps"]

MAX_COMPARISONS: Final = 50_000
"""Patterns that are looked up to compare routes; some tenths of a second."""

_TOO_MANY: Final = (
    "so many routes publish the same that not all could be compared with each other; name the types"
    " that a route takes in its events, rather than by exclude"
)

_Place = tuple[int, int]
"""The numbers of a route and of a target in it."""
_Covered = dict[_Place, int]
"""The number of the route that publishes the same."""


def check_overlaps(views: Sequence[RouteView], view: View) -> Iterator[Finding]:
    """Yield the routes and targets without which the same would be published."""
    twice = {place: original for route in enumerate(views) for place, original in _twice(*route)}
    for (at, number), first in twice.items():
        path = (*views[at].path, "targets", number)
        there = view.where((*views[at].path, "targets", first))
        message = f"publishes the same as the target at {there}, which is done once; remove one"
        yield Finding("duplicate-target", path, f"this target {message}")
    covered, left = _covered(views, twice)
    if left < 0:
        yield Finding("too-many", ("routes",), _TOO_MANY)
    for at, route in enumerate(views):
        own = [n for n in range(len(route.route.targets)) if (at, n) not in twice]
        hidden = {n: covered[at, n] for n in own if (at, n) in covered}
        if own and len(hidden) == len(own):
            yield _of_route(views, at, sorted(set(hidden.values())), view)
            continue
        for number, by in hidden.items():
            path = (*route.path, "targets", number)
            yield Finding(
                "shadowed-target",
                path,
                f"this target adds nothing: {_called(views, by, view)} takes all of these events"
                " and publishes the same; remove it, or give it another destination, key, payload"
                " or header",
            )


def _of_route(views: Sequence[RouteView], at: int, by: Sequence[int], view: View) -> Finding:
    same = [other for other in by if _signature(views[other]) == _signature(views[at])]
    if len(by) == len(same) == 1 and _renderings(views[at]) == _renderings(views[by[0]]):
        called = _called(views, by[0], view)
        message = f"this route is the same as {called} under another name; remove one"
        return Finding("duplicate-route", views[at].path, message)
    others = " and ".join(_called(views, other, view) for other in by[:3])
    takes = "takes" if len(by) == 1 else "take"
    publishes = "publishes" if len(by) == 1 else "publish"
    return Finding(
        "shadowed-route",
        views[at].path,
        f"this route adds nothing: {others} {takes} all of its events and {publishes} the same;"
        " remove it, or give it another destination, key, payload or header",
    )


def _called(views: Sequence[RouteView], at: int, view: View) -> str:
    path = views[at].path
    if view.positions.is_interpolated((*path, "name")):
        return f"the route at {view.where(path)}"
    return f'the route "{views[at].route.name}" ({view.where(path)})'


def _twice(at: int, route: RouteView) -> Iterator[tuple[_Place, int]]:
    first: dict[Any, int] = {}
    for number, target in enumerate(route.route.targets):
        original = first.setdefault(_rendering(target), number)
        if original != number:
            yield (at, number), original


def _covered(views: Sequence[RouteView], twice: dict[_Place, int]) -> tuple[_Covered, int]:
    """Find for each target another route that makes it needless, and the steps that are left."""
    groups: dict[Any, list[_Place]] = {}
    for at, route in enumerate(views):
        for number, target in enumerate(route.route.targets):
            if (at, number) not in twice and not _reads_route(target):
                groups.setdefault(_rendering(target), []).append((at, number))
    found: _Covered = {}
    left = MAX_COMPARISONS
    for places in groups.values():
        if len(places) > 1:
            left = _compare(views, places, found, left)
    return found, left


def _compare(
    views: Sequence[RouteView], places: Sequence[_Place], found: _Covered, left: int
) -> int:
    first: dict[Any, int] = {}
    different: list[_Place] = []
    for at, number in places:
        other = first.setdefault(_signature(views[at]), at)
        if other == at:
            different.append((at, number))
        else:
            found[at, number] = other
    index: dict[tuple[str, str], list[int]] = {}
    for at, _ in different:
        for pattern in views[at].events:
            index.setdefault((pattern, _tree(views[at].route.when)), []).append(at)
    for at, number in different:
        for other in _candidates(views[at], index):
            left -= 1 + len(views[at].events) + len(views[other].exclude)
            if left < 0:
                return left
            if other != at and _is_needless(views, at, other):
                found[at, number] = other
                break
    return left


def _candidates(route: RouteView, index: dict[tuple[str, str], list[int]]) -> Iterator[int]:
    """Give the routes that take its first pattern: whoever takes all it takes is among these."""
    conditions = dict.fromkeys(("", _tree(route.route.when)))
    for above in ancestors(route.config.events[0]):
        for condition in conditions:
            yield from index.get((above, condition), ())


def _is_needless(views: Sequence[RouteView], at: int, beside: int) -> bool:
    """Of two that take the same the first stays."""
    wide, narrow = views[beside], views[at]
    return _covers(wide, narrow) and (beside < at or not _covers(narrow, wide))


def _covers(wide: RouteView, narrow: RouteView) -> bool:
    if not set(narrow.sources) <= set(wide.sources):
        return False
    asked = wide.route.when
    if asked is not None and (_tree(asked) != _tree(narrow.route.when) or "route" in asked.fields):
        return False
    return takes_all_of(wide.events, wide.exclude, narrow)


def _signature(route: RouteView) -> tuple[Any, ...]:
    """Give what decides which events a route takes."""
    when = route.route.when
    own = route.route.name if when is not None and "route" in when.fields else ""
    return (route.events, route.exclude, frozenset(route.sources), _tree(when), own)


def _renderings(route: RouteView) -> frozenset[Any]:
    return frozenset(map(_rendering, route.route.targets))


def _rendering(target: Target) -> tuple[Any, ...]:
    """Give what makes two targets publish the same, as written."""
    key = None if target.key is None else _parts(target.key)
    headers = tuple((name, _parts(value)) for name, value in target.headers)
    place = (target.broker, _parts(target.destination))
    return (*place, key, target.payload, target.redact, headers)


def _parts(template: Template) -> tuple[str, ...]:
    return tuple(f"={part}" if isinstance(part, str) else _tree(part) for part in template.parts)


@lru_cache(maxsize=8192)
def _tree(expression: Expression | None) -> str:
    return "" if expression is None else repr(expression.tree)


def _reads_route(target: Target) -> bool:
    templates = (target.destination, target.key, *(value for _, value in target.headers))
    return any(template is not None and "route" in template.fields for template in templates)
