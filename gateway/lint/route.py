"""A route as the linter sees it: what it takes, and what is known of those events."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import msgspec

from gateway.clerk.catalogue import ALSO_SEEN, CATALOGUE
from gateway.clerk.schemas import Steps, lookup, same_data
from gateway.config.models import GatewayConfig, RouteConfig
from gateway.config.problems import DocumentPath
from gateway.lint.outcome import ANYTHING, NOTHING, Outcome, by_json_types, of_kinds, of_values
from gateway.routing.expressions import Expression
from gateway.routing.table import Route, Table

__all__ = ["OWN_NAMES", "ByType", "Certain", "RouteView", "views"]

OWN_NAMES = frozenset({"source", "route", "svix_id"})
"""What expressions see beside the event's own fields; see `gateway.routing.table.scope_of`."""
_KNOWN = (*CATALOGUE, *ALSO_SEEN)


class RouteView(msgspec.Struct, frozen=True):
    """One route, and the events that it takes."""

    path: DocumentPath
    config: RouteConfig
    route: Route
    sources: tuple[str, ...]
    """Those whose events it takes."""
    events: frozenset[str]
    exclude: frozenset[str]
    types: tuple[str, ...]
    """Of Clerk's known types those that it takes, and any that it names whole."""
    exact: tuple[str, ...] | None
    """All types that it can take, where `events` has no wildcard."""
    has_schemas: bool
    """Whether all its sources are Clerk's, so that the schemas hold for what it takes."""
    has_type: bool
    """Whether `type` is the event's type: a source may find that elsewhere."""
    has_dead_letter: bool
    """Whether what a target refuses is kept."""

    def groups(self, expression: Expression) -> Iterable[tuple[str, ...]]:
        """Group its types by what an expression may tell apart.

        Nothing where the schemas do not hold.
        """
        if not self.has_schemas:
            return ()
        return _single(self.types) if "type" in expression.fields else _alike(self.types)

    def effort(self) -> int:
        """Give about how much there is to do to hold the route to the schemas."""
        templates = [
            template
            for target in self.route.targets
            for template in (
                target.destination,
                target.key,
                *(value for _, value in target.headers),
            )
            if template is not None
        ]
        expressions = [part for one in templates for part in one.parts if not isinstance(part, str)]
        if self.route.when is not None:
            expressions.append(self.route.when)
        return sum(len(tuple(self.groups(one))) for one in expressions if one.path != "type")


@lru_cache(maxsize=1024)
def _single(types: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return tuple((one,) for one in types)


@lru_cache(maxsize=1024)
def _alike(types: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    groups: dict[str, list[str]] = {}
    for one in types:
        groups.setdefault(same_data(one), []).append(one)
    return tuple(map(tuple, groups.values()))


class Certain(msgspec.Struct, frozen=True):
    """What is true of every event that a route takes, whoever sends what."""

    view: RouteView

    def at(self, place: Steps, _sure: int = 0) -> Outcome:
        """As `Facts.at`."""
        view = self.view
        if place == ("type",) and view.has_type:
            return of_kinds("string", blank=False) if view.exact is None else of_values(view.exact)
        return _own(place, view) or ANYTHING

    def may_equal(self, place: Steps, value: object) -> bool:
        """As `Facts.may_equal`."""
        view = self.view
        if place == ("type",) and view.has_type and view.exact is None:
            return (
                isinstance(value, str)
                and bool(value)
                and view.route.events.matches(value)
                and not view.route.exclude.matches(value)
            )
        values = self.at(place).values
        return values is None or value in values


class ByType(msgspec.Struct, frozen=True):
    """What Clerk's schemas say of the events of one type that a route takes."""

    view: RouteView
    event_type: str

    def at(self, place: Steps, sure: int = 0) -> Outcome:
        """As `Facts.at`."""
        return _own(place, self.view) or _by_schema(self.event_type, place, sure)

    def may_equal(self, place: Steps, value: object) -> bool:
        """As `Facts.may_equal`."""
        values = self.at(place).values
        return values is None or value in values


@lru_cache(maxsize=32_768)
def _by_schema(event_type: str, place: Steps, sure: int) -> Outcome:
    if place == ("type",):
        return of_values((event_type,))
    found = lookup(event_type, place, sure)
    if found is None:
        return ANYTHING
    if found.kinds == {"null"}:
        return NOTHING
    kinds, left_blank = by_json_types(found.kinds), found.is_left_blank
    return Outcome(kinds, found.may_be_blank, found.values, is_left_blank=left_blank)


def _own(place: Steps, view: RouteView) -> Outcome | None:
    if place[-1] not in OWN_NAMES or len(place) > 1:
        return None
    if place == ("source",):
        return of_values(view.sources)
    if place == ("route",):
        return of_values((view.route.name,))
    return of_kinds("string", blank=False)


def views(config: GatewayConfig, table: Table) -> tuple[RouteView, ...]:
    """Look at every route, in file order."""
    cache: dict[Any, tuple[str, ...]] = {}
    return tuple(
        _view(("routes", at), route, compiled, config, cache)
        for at, (route, compiled) in enumerate(zip(config.routes, table.routes, strict=True))
    )


def _view(
    path: DocumentPath,
    config: RouteConfig,
    route: Route,
    whole: GatewayConfig,
    cache: dict[Any, tuple[str, ...]],
) -> RouteView:
    names = tuple(whole.sources if config.sources is None else dict.fromkeys(config.sources))
    sources = [whole.sources[name] for name in names]
    events, exclude = frozenset(config.events), frozenset(config.exclude)
    has_type = all(source.type == "type" for source in sources)
    if (events, exclude) not in cache:
        cache[events, exclude] = _types(config, route)
    return RouteView(
        path=path,
        config=config,
        route=route,
        sources=names,
        events=events,
        exclude=exclude,
        types=cache[events, exclude],
        exact=_exact(config, route),
        has_schemas=has_type and all(source.kind == "clerk" for source in sources),
        has_type=has_type,
        has_dead_letter=whole.delivery.dead_letter is not None,
    )


def _exact(config: RouteConfig, route: Route) -> tuple[str, ...] | None:
    if any(pattern.endswith("*") for pattern in config.events):
        return None
    return tuple(dict.fromkeys(one for one in config.events if not route.exclude.matches(one)))


def _types(config: RouteConfig, route: Route) -> tuple[str, ...]:
    named = [pattern for pattern in config.events if not pattern.endswith("*")]
    taken = (
        one
        for one in (*_KNOWN, *named)
        if route.events.matches(one) and not route.exclude.matches(one)
    )
    return tuple(dict.fromkeys(taken))
