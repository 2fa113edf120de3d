"""Cross checks of the routes: names, sources, event patterns, and what `when` seems to mean."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from gateway.clerk.catalogue import CATALOGUE, did_you_mean
from gateway.config.findings import Finding, View
from gateway.config.models import GatewayConfig, RouteConfig
from gateway.config.names import listing
from gateway.config.problems import DocumentPath

__all__ = ["check_routes"]

_NEGATED_PATH: Final = re.compile(r'!\s*([A-Za-z_"][\w".]*\.[\w".]*)')


def check_routes(config: GatewayConfig, view: View) -> Iterator[Finding]:
    """Yield what is wrong or doubtful in the routes, their targets aside."""
    if not config.routes:
        yield Finding(("routes",), "no route: every event is unmatched; add one", "warning")
    first: dict[str, int] = {}
    for at, route in enumerate(config.routes):
        path: DocumentPath = ("routes", at)
        other = first.setdefault(route.name, at)
        if other != at:
            yield Finding(
                (*path, "name"),
                f"name: another route is called {view.show((*path, 'name'), route.name)}"
                f" ({view.where(('routes', other, 'name'))}); give each its own",
                uses=(("routes", other, "name"),),
            )
        yield from _route(path, route, view)


def _route(path: DocumentPath, route: RouteConfig, view: View) -> Iterator[Finding]:
    yield from _route_sources(path, route, view)
    for field in ("events", "exclude"):
        patterns: tuple[str, ...] = getattr(route, field)
        for at, pattern in enumerate(patterns):
            yield from _pattern((*path, field, at), pattern, view)
    if not route.targets:
        yield Finding((*path, "targets"), "targets: none; add a broker and a topic or subject")
    if route.when is not None:
        yield from _when((*path, "when"), route.when, view)


def _route_sources(path: DocumentPath, route: RouteConfig, view: View) -> Iterator[Finding]:
    known = view.positions.names(("sources",))
    if route.sources is None:
        if len(known) > 1:
            yield Finding(
                path,
                f"the route {view.show((*path, 'name'), route.name)} takes the events of every"
                f" source; write sources: [{listing(known)}] with those you mean",
                "warning",
            )
        return
    for at, source in enumerate(route.sources):
        if ("sources", source) not in view.positions:
            here = (*path, "sources", at)
            near = view.suggester.closest(source, known)
            hint = f"did you mean {near}?" if near else f"there is {listing(known) or 'none'}"
            yield Finding(
                here,
                f"sources[{at}]: no source is called {view.show(here, source)}; {hint}",
                uses=(("sources", source),),
            )
    if not route.sources:
        yield Finding(
            (*path, "sources"), "sources: the list is empty, so the route takes nothing; remove it"
        )


def _pattern(path: DocumentPath, pattern: str, view: View) -> Iterator[Finding]:
    name = f"{path[-2]}[{path[-1]}]"
    literal = pattern.removesuffix(".*")
    if pattern != "*" and ("*" in literal or not literal):
        shown = view.show(path, pattern)
        yield Finding(
            path, f"{name}: {shown} is no pattern; write a whole type, prefix.*, or * for all"
        )
        return
    near = did_you_mean(pattern) if view.suggester.may(len(CATALOGUE)) else None
    if near is not None:
        shown = view.show(path, pattern)
        yield Finding(
            path, f"{name}: Clerk is not known to send {shown}, did you mean {near}?", "warning"
        )


def _when(path: DocumentPath, when: str, view: View) -> Iterator[Finding]:
    match = _NEGATED_PATH.search(when)
    if match is None:
        return
    if view.positions.is_interpolated(path):
        message = "when: `!a.b` means `(!a).b` to JMESPath; write `!(a.b)`"
    else:
        inner = match[1]
        head, _, rest = inner.partition(".")
        message = f"when: `!{inner}` means `(!{head}).{rest}` to JMESPath; write `!({inner})`"
    yield Finding(path, message, "warning")
