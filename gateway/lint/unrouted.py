"""Events of Clerk's that no route takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from gateway.clerk.catalogue import CATALOGUE
from gateway.config.models import GatewayConfig
from gateway.lint.finding import Finding, names
from gateway.lint.route import RouteView

__all__ = ["check_unrouted"]

_MAX_NAMED: Final = 4
_FATE: Final = {
    "accept": "they are answered 200 and go nowhere (unmatched: accept)",
    "dead_letter": "they go to the dead letter (unmatched: dead_letter)",
    "reject": "they are answered 422, and sent again in vain (unmatched: reject)",
}


def check_unrouted(
    config: GatewayConfig, views: Sequence[RouteView], never: Iterable[int]
) -> Iterator[Finding]:
    """Yield one finding for all types that go nowhere. `never` are routes that take nothing."""
    clerk = {name for name, source in config.sources.items() if source.kind == "clerk"}
    if not clerk or not views:
        return
    dead = set(never)
    taken = {
        one
        for at, view in enumerate(views)
        if at not in dead and clerk & set(view.sources)
        for one in view.types
    }
    unrouted = [one for one in CATALOGUE if one not in taken]
    if unrouted:
        yield Finding(
            "unrouted-events",
            ("routes",),
            f"no route takes {len(unrouted)} of Clerk's {len(CATALOGUE)} event types:"
            f" {names(_grouped(unrouted), _MAX_NAMED)}; {_FATE[config.unmatched]}; add a route if"
            " you want them",
        )


def _grouped(types: Sequence[str]) -> list[str]:
    """Write `entity.*` for an entity of which all types are among these."""
    groups: dict[str, list[str]] = {}
    for one in types:
        groups.setdefault(CATALOGUE[one].entity, []).append(one)
    found: list[str] = []
    for entity, members in groups.items():
        whole = [one for one in CATALOGUE.values() if one.entity == entity]
        is_whole = len(members) == len(whole) > 1
        found.extend([f"{entity}.*"] if is_whole else members)
    return found
