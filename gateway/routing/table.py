"""The routing table: compiled once from the config, then asked for each event's plan.

Immutable and pure. "Which destinations" ends here; "send" begins in `gateway.delivery`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from itertools import chain
from typing import Any, Literal

import msgspec

from gateway.brokers.base import Message
from gateway.delivery.plan import Assignment, Plan, Refusal
from gateway.destinations import MAX_SUBJECT, MAX_TOPIC
from gateway.metadata import (
    Headers,
    Metadata,
    kafka_headers,
    nats_headers,
    structured_headers,
)
from gateway.routing.expressions import Expression, ExpressionError, is_true
from gateway.routing.index import PatternIndex
from gateway.routing.match import Pattern
from gateway.routing.payload import Payload, RedactPath, render_payload
from gateway.routing.routable import Routable
from gateway.routing.template import Template, TextTooLongError

__all__ = ["HEADROOM", "Kind", "Route", "Table", "Target", "Trace", "scope_of"]

Kind = Literal["kafka", "nats"]

HEADROOM = 8 * 1024
"""Bytes that key and headers of one record may have together, beside `max_body`."""

_OVER = f"key and headers are over {HEADROOM} bytes"
_MAX_CHARACTERS: dict[Kind, int] = {"kafka": MAX_TOPIC, "nats": MAX_SUBJECT}
_MAX_CACHED = 4096
"""Pairs of source and type whose candidates are remembered."""
_MAX_CACHED_ROUTES = 65_536
"""Candidates that they have together: with a thousand routes for `*` every type has as many."""


class Target(msgspec.Struct, frozen=True):
    """One compiled destination of a route."""

    broker: str
    kind: Kind
    destination: Template
    key: Template | None = None
    payload: Payload = "original"
    headers: tuple[tuple[str, Template], ...] = ()
    redact: tuple[RedactPath, ...] = ()


class Route(msgspec.Struct, frozen=True):
    """One compiled route."""

    name: str
    events: Pattern
    targets: tuple[Target, ...]
    exclude: Pattern = Pattern(())
    sources: frozenset[str] | None = None
    when: Expression | None = None
    reads_event: bool = True
    """Whether its condition or a template looks into the event; `False` saves the look."""

    def takes(self, source: str, event_type: str) -> bool:
        """Tell whether source and type fit; `when` is asked per event."""
        if self.sources is not None and source not in self.sources:
            return False
        return self.events.matches(event_type) and not self.exclude.matches(event_type)


class _Rendering(msgspec.Struct, frozen=True, gc=False):
    """What makes two records the same: equal renderings are published once."""

    broker: str
    kind: Kind
    destination: str
    key: str
    payload: Payload
    redact: tuple[RedactPath, ...]
    headers: Headers


_Outcome = _Rendering | Refusal
_Found = dict[_Rendering, tuple[str, tuple[str, ...]]]
"""Renderings with their `Assignment.order`, and the names of their routes."""


Trace = tuple[tuple[Route, tuple[Assignment | Refusal, ...] | None], ...]
"""Each candidate with what becomes of its targets, in file order; None where its condition is not
true. Targets that resolve to the same record have the same assignment."""


class Table:
    """All routes, in file order."""

    __slots__ = (
        "_cache",
        "_cached_routes",
        "_index",
        "_own_subject",
        "_reserved",
        "kinds",
        "routes",
    )

    def __init__(
        self,
        routes: tuple[Route, ...],
        reserved: frozenset[tuple[str, str]],
        own_subject: str | None = None,
    ) -> None:
        """Take compiled routes, and (broker, destination) pairs that no template may render.

        Nor may it render `own_subject` or one below it, on any NATS broker: two of them may be one
        cluster.
        """
        self.routes = routes
        self._own_subject = own_subject
        self.kinds: dict[str, Kind] = {
            target.broker: target.kind for route in routes for target in route.targets
        }
        """The kind of every broker that a route publishes to."""
        literal = {
            (target.broker, target.destination.prefix)
            for route in routes
            for target in route.targets
            if target.destination.is_literal
        }
        self._reserved = reserved | literal
        self._index = PatternIndex((route.events, route.sources) for route in routes)
        # Candidates by (source, type). Types are signed, so only a sender with the secret could
        # fill it; the bounds keep even that harmless.
        self._cache: dict[tuple[str, str], tuple[Route, ...]] = {}
        self._cached_routes = 0

    def candidates(self, source: str, event_type: str) -> tuple[Route, ...]:
        """Give the routes whose source, `events` and `exclude` fit, in file order."""
        found = self._cache.get((source, event_type))
        return self._find(source, event_type) if found is None else found

    def _find(self, source: str, event_type: str) -> tuple[Route, ...]:
        """Look up the candidates, and remember them."""
        fitting = [self.routes[at] for at in self._index.find(source, event_type)]
        found = tuple(route for route in fitting if not route.exclude.matches(event_type))
        self._cached_routes += len(found)
        if len(self._cache) >= _MAX_CACHED or self._cached_routes > _MAX_CACHED_ROUTES:
            self._cache.clear()
            self._cached_routes = len(found)
        self._cache[source, event_type] = found
        return found

    def plan(self, event: Routable) -> Plan:
        """Resolve an event to the records to publish, and the targets that must refuse it.

        Never raises for what an event holds: an expression that fails is a refusal.
        """
        found: _Found = {}
        refusals: list[Refusal] = []
        self._resolve(event, found, refusals)
        return _plan(event, _built(found, event), refusals)

    def trace(self, event: Routable) -> tuple[Plan, Trace]:
        """As `plan`, with what becomes of each target of each candidate, for who explains it.

        What the trace holds are the plan's own assignments and refusals, the same objects.
        """
        found: _Found = {}
        refusals: list[Refusal] = []
        resolved = self._resolve(event, found, refusals)
        made = _built(found, event)
        built = dict(zip(found, made, strict=True))
        trace = tuple(
            (
                route,
                None
                if outcomes is None
                else tuple(one if isinstance(one, Refusal) else built[one] for one in outcomes),
            )
            for route, outcomes in resolved
        )
        return _plan(event, made, refusals), trace

    def _resolve(
        self, event: Routable, found: _Found, refusals: list[Refusal]
    ) -> list[tuple[Route, list[_Outcome] | None]]:
        """Give what becomes of each candidate's targets, None where its condition is not true.

        Adds each rendering to `found`, where equal ones become one, and each refusal to `refusals`.
        """
        if event.type is None:
            return []
        candidates = self.candidates(event.source, event.type)
        # One for all: nothing that an expression gives is kept but texts.
        scope: dict[str, Any] = {}
        resolved: list[tuple[Route, list[_Outcome] | None]] = []
        for route in candidates:
            if route.reads_event:
                scope = scope or scope_of(event, "")
                scope["route"] = route.name
            outcomes = self._outcomes(route, event, scope)
            resolved.append((route, outcomes))
            if outcomes is not None:
                _gather(route, outcomes, found, refusals)
        return resolved

    def _outcomes(
        self, route: Route, event: Routable, scope: Mapping[str, Any]
    ) -> list[_Outcome] | None:
        try:
            if route.when is not None and not is_true(route.when.evaluate(scope)):
                return None
        except ExpressionError as error:
            why = str(error)
            return [_refusal(route, target, "expression", why) for target in route.targets]
        return [self._outcome(route, target, event, scope) for target in route.targets]

    def _outcome(
        self, route: Route, target: Target, event: Routable, scope: Mapping[str, Any]
    ) -> _Outcome:
        try:
            rendering = _render(target, event, scope)
        except ExpressionError as error:
            return _refusal(route, target, "expression", str(error))
        except TextTooLongError:
            return _too_large((route.name,), target.broker, _destination(target, scope), _OVER)
        if target.destination.is_literal:
            return rendering
        fault = self._fault(target, rendering)
        return rendering if fault is None else _refusal(route, target, "destination", fault)

    def _fault(self, target: Target, rendering: _Rendering) -> str | None:
        """Say why a rendered destination is refused, without its value."""
        destination = rendering.destination
        if len(destination) > _MAX_CHARACTERS[target.kind]:
            return f"longer than {_MAX_CHARACTERS[target.kind]} characters"
        if (target.broker, destination) in self._reserved:
            return "the same as a destination that the config names for something else"
        own = self._own_subject
        if own is not None and target.kind == "nats" and f"{destination}.".startswith(f"{own}."):
            return "a subject of the inbox"
        return None


def _gather(route: Route, outcomes: list[_Outcome], found: _Found, refusals: list[Refusal]) -> None:
    """Add what becomes of one route's targets; equal renderings become one."""
    for at, outcome in enumerate(outcomes):
        if isinstance(outcome, Refusal):
            refusals.append(outcome)
            continue
        known = found.get(outcome)
        if known is None:
            found[outcome] = (_order(route.targets[at]), (route.name,))
        elif route.name not in known[1]:
            found[outcome] = (known[0], (*known[1], route.name))


def _built(found: _Found, event: Routable) -> list[Assignment | Refusal]:
    return [_build(rendering, routes, order, event) for rendering, (order, routes) in found.items()]


def _plan(event: Routable, built: list[Assignment | Refusal], refusals: list[Refusal]) -> Plan:
    assignments = tuple([one for one in built if isinstance(one, Assignment)])
    if len(assignments) < len(built):
        refusals += [one for one in built if isinstance(one, Refusal)]
    return Plan(event.key, event.body, event.metadata, assignments, tuple(refusals))


def scope_of(event: Routable, route: str) -> dict[str, Any]:
    """Give what expressions see of an event that a route takes: four names shadow its own.

    A source may name its type elsewhere than in `type`; `{type}` is the event's type all the same.
    """
    return {
        **event.document,
        "type": event.type,
        "source": event.source,
        "route": route,
        "svix_id": event.svix_id,
    }


def _refusal(route: Route, target: Target, reason: str, why: str) -> Refusal:
    return Refusal((route.name,), target.broker, target.destination.source, reason, why[:512])


def _render(target: Target, event: Routable, scope: Mapping[str, Any]) -> _Rendering:
    destination = _destination(target, scope)
    key = target.key.text(scope) if target.key is not None else ""
    return _Rendering(
        broker=target.broker,
        kind=target.kind,
        destination=destination,
        key=key or event.key,
        payload=target.payload,
        redact=target.redact,
        headers=tuple((name, value.header(scope)) for name, value in target.headers)
        if target.headers
        else (),
    )


def _destination(target: Target, scope: Mapping[str, Any]) -> str:
    template = target.destination
    return template.prefix if template.is_literal else template.destination(scope)


def _order(target: Target) -> str:
    """Give `Assignment.order`: a literal subject and a topic have nothing beside them."""
    template = target.destination
    return template.source if target.kind == "nats" and not template.is_literal else ""


def _build(
    rendering: _Rendering, routes: tuple[str, ...], order: str, event: Routable
) -> Assignment | Refusal:
    headers = _headers(rendering, event.metadata, ",".join(routes))
    if _bytes(rendering.key + "".join(chain.from_iterable(headers))) > HEADROOM:
        return _too_large(routes, rendering.broker, rendering.destination, _OVER)
    try:
        value = render_payload(event, rendering.payload, rendering.redact, rendering.key)
    except RecursionError:
        # What could just be decoded may be too deep for the encoder.
        why = "nested too deeply to be encoded anew"
        return _too_large(routes, rendering.broker, rendering.destination, why)
    message = Message(
        destination=rendering.destination,
        value=value,
        headers=headers,
        dedupe_id=_dedupe_id(rendering, event),
        key=rendering.key,
    )
    return Assignment(routes, rendering.broker, message, order, rendering.kind)


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def _too_large(routes: tuple[str, ...], broker: str, destination: str, detail: str) -> Refusal:
    return Refusal(routes, broker, destination, "too_large", detail)


def _headers(rendering: _Rendering, metadata: Metadata, routes: str) -> Headers:
    if rendering.payload == "cloudevents":
        standard = structured_headers(metadata, routes)
    elif rendering.kind == "kafka":
        standard = kafka_headers(metadata, rendering.key, routes)
    else:
        standard = nats_headers(metadata, rendering.key, routes)
    return standard + rendering.headers


def _dedupe_id(rendering: _Rendering, event: Routable) -> str:
    """Name the record: same for every attempt, another for every other record of the event.

    Made of rendered values only, so that a reload, a renamed route or a replica changes nothing.
    The default key is left out: it follows from the event.
    """
    key = "" if rendering.key == event.key else rendering.key
    parts = (
        event.source,
        rendering.broker,
        rendering.destination,
        key,
        rendering.payload,
        rendering.redact,
        rendering.headers,
    )
    return f"{event.svix_id}.{_digest(parts)}"


@lru_cache(maxsize=4096)
def _digest(parts: tuple[object, ...]) -> str:
    return hashlib.blake2b(msgspec.json.encode(parts), digest_size=8).hexdigest()
