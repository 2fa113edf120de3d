"""All rules over one config."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from gateway.config.findings import View
from gateway.config.models import GatewayConfig
from gateway.lint.conditions import by_types, check_condition
from gateway.lint.finding import Finding
from gateway.lint.overlaps import check_overlaps
from gateway.lint.patterns import check_patterns
from gateway.lint.redactions import check_redactions
from gateway.lint.route import RouteView, views
from gateway.lint.streams import check_streams
from gateway.lint.templates import check_templates
from gateway.lint.unrouted import check_unrouted
from gateway.routing.table import Table

__all__ = ["MAX_FINDINGS", "lint"]

MAX_FINDINGS = 1000
"""Where the search ends."""
MAX_EFFORT = 30_000
"""Expressions times the kinds of events that they are held to; some seconds at the most."""

_TOO_MANY = (
    "from this route on conditions and templates are not held to Clerk's schemas: there are too"
    " many; name the types that a route takes in its events, rather than by when"
)


def lint(config: GatewayConfig, table: Table, view: View) -> tuple[Finding, ...]:
    """Give what is odd about a valid config, in no order; `table` is compiled from it.

    No message holds what came from `${…}`.
    """
    found: list[Finding] = []
    secret = _secret_routes(config, view)
    for finding in _findings(config, table, view):
        found.append(_discreet(finding, secret, view))
        if len(found) >= MAX_FINDINGS:
            break
    return tuple(found)


def _findings(config: GatewayConfig, table: Table, view: View) -> Iterator[Finding]:
    routes = views(config, table)
    never: set[int] = set()
    left = MAX_EFFORT
    for at, route in enumerate(routes):
        effort = route.effort()
        if left >= 0 > left - effort:
            yield Finding("too-many", route.path, _TOO_MANY)
        left -= effort
        for finding in _of_route(route, with_schemas=left >= 0):
            never |= {at} if finding.rule == "never-matches" else set()
            yield finding
    yield from check_overlaps(routes, view)
    yield from check_streams(config, table)
    yield from check_unrouted(config, routes, never)


def _of_route(route: RouteView, *, with_schemas: bool) -> Iterator[Finding]:
    yield from check_patterns(route)
    when = route.route.when
    asked = by_types(when, route) if with_schemas and when is not None else ()
    yield from check_condition(route, asked)
    if with_schemas:
        yield from check_templates(route, asked)
        yield from check_redactions(route)


def _discreet(finding: Finding, secret: frozenset[str | int], view: View) -> Finding:
    """Say no more than the rule of what came from `${…}`; many messages name types of events."""
    path = finding.path
    in_route = path[0] == "routes" and len(path) > 2 and path[1] in secret
    if not in_route and not view.positions.is_interpolated(path):
        return finding
    field, _, _ = finding.message.partition(":")
    rule = finding.rule.replace("-", " ")
    message = f"{field}: {rule} (its value came from ${{…}} and is not shown)"
    return msgspec.structs.replace(finding, message=message, offset=0)


def _secret_routes(config: GatewayConfig, view: View) -> frozenset[str | int]:
    """Give the numbers of the routes whose types came from `${…}`."""
    return frozenset(
        at
        for at, route in enumerate(config.routes)
        for field in ("events", "exclude")
        for number in range(len(getattr(route, field)))
        if view.positions.is_interpolated(("routes", at, field, number))
    )
