"""What the brokers must have for a table: its destinations, as far as they are known beforehand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from gateway.brokers.base import Need
from gateway.routing.table import Route, Table
from gateway.routing.template import Template, sanitise, sanitise_type

__all__ = ["Types", "needs_of"]

Types = Mapping[str, Sequence[str]]
"""By source: the types that it is known to send as the event's `type`."""


class _Place(msgspec.Struct):
    """One destination, and what its routes make of it."""

    routes: dict[str, None] = msgspec.field(default_factory=dict)
    expected: dict[str, None] = msgspec.field(default_factory=dict)
    later: dict[str, None] = msgspec.field(default_factory=dict)


def needs_of(table: Table, record_bytes: int, types: Types | None = None) -> dict[str, list[Need]]:
    """Give what each broker must have, in file order; `record_bytes` at the most in a record.

    With `types` each need of a template also says what that renders for them, which takes some
    microseconds for each type, route and target.
    """
    places: dict[tuple[str, str, bool], _Place] = {}
    for route in table.routes:
        for target in route.targets:
            template = target.destination
            at = (target.broker, template.prefix, not template.is_literal)
            place = places.setdefault(at, _Place())
            place.routes[route.name] = None
            if types is not None and not template.is_literal:
                place.expected.update(dict.fromkeys(_expected(route, template, types)))
                place.later.update(dict.fromkeys(_later(route, template, types)))
    needs: dict[str, list[Need]] = {}
    for (broker, prefix, templated), place in places.items():
        need = Need(
            destination=prefix,
            templated=templated,
            record_bytes=record_bytes,
            used_by=f"route {', '.join(place.routes)}",
            expected=tuple(place.expected),
            later=tuple(form for form in place.later if form not in place.expected),
        )
        needs.setdefault(broker, []).append(need)
    return needs


def _expected(route: Route, template: Template, types: Types) -> Iterator[str]:
    exact = [text for text in route.events.texts if not text.endswith("*")]
    for source in _sources(route, types):
        if "type" not in template.paths:
            yield template.form(_names(source, route))
            continue
        for event_type in (*exact, *types[source]):
            if route.takes(source, event_type):
                yield template.form({**_names(source, route), "type": sanitise_type(event_type)})


def _later(route: Route, template: Template, types: Types) -> Iterator[str]:
    """What a type gives that nobody has heard of yet: an entity and a verb, as all have."""
    if "type" not in template.paths:
        return
    for source in _sources(route, types):
        for text in route.events.texts:
            if text.endswith("*"):
                form = "*.*" if text == "*" else text
                yield template.form({**_names(source, route), "type": form})


def _sources(route: Route, types: Types) -> list[str]:
    return [source for source in types if route.sources is None or source in route.sources]


def _names(source: str, route: Route) -> dict[str, str]:
    return {"source": sanitise(source), "route": sanitise(route.name)}
