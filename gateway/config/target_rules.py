"""Cross checks of where records go: broker, topic or subject, headers, and equal destinations."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from gateway.config.findings import Finding, View
from gateway.config.models import DeadLetterConfig, GatewayConfig, TargetConfig
from gateway.config.names import listing
from gateway.config.problems import DocumentPath
from gateway.destinations import (
    literal_beginning,
    subject_problem,
    template_problem,
    topic_problem,
)

__all__ = ["broker_findings", "check_targets"]

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 7230, section 3.2.6
_RESERVED_PREFIXES: Final = ("ce_", "ce-", "svix-", "webhook-", "gateway-", "nats-")
_RESERVED: Final = frozenset({"content-type", "traceparent", "tracestate"})
_FIELDS: Final = {"kafka": "topic", "nats": "subject"}


def unknown_broker(
    here: DocumentPath, name: str, view: View, fitting: Sequence[str] | None = None
) -> Finding:
    """Say that there is no broker of a name, and which one may be meant.

    `fitting` are those that could stand there, where not every broker could.
    """
    known = view.positions.names(("brokers",))
    near = view.suggester.closest(name, known)
    there = known if fitting is None else fitting
    hint = f"did you mean {near}?" if near else f"there is {listing(there) or 'none'}"
    return Finding(
        here,
        f"broker: no broker is called {view.show(here, name)}; {hint}",
        uses=(("brokers", name),),
    )


def broker_findings(
    path: DocumentPath,
    target: TargetConfig | DeadLetterConfig,
    config: GatewayConfig,
    view: View,
) -> Iterator[Finding]:
    """Yield what is wrong between a target, or the dead letter, and its broker."""
    kind = _kind(target.broker, config)
    if kind is None:
        yield unknown_broker((*path, "broker"), target.broker, view)
        return
    wanted = _FIELDS[kind]
    other = "subject" if wanted == "topic" else "topic"
    uses = ((*path, "broker"), ("brokers", target.broker, "kind"))
    what = "Kafka" if kind == "kafka" else "NATS"
    if getattr(target, other) is not None:
        hint = f"write {wanted}" if getattr(target, wanted) is None else "remove it"
        yield Finding(
            (*path, other),
            f"{other}: {target.broker} is {what}, which has no {other}s; {hint}",
            uses=uses,
        )
    elif getattr(target, wanted) is None:
        yield Finding(
            path, f"{wanted} is missing: {target.broker} is {what}; add {wanted}", uses=uses
        )


def check_targets(config: GatewayConfig, view: View) -> Iterator[Finding]:
    """Yield what is wrong or doubtful in the targets of all routes."""
    for at, route in enumerate(config.routes):
        for number, target in enumerate(route.targets):
            yield from _target(("routes", at, "targets", number), target, config, view)
    yield from _collisions(config, view)


def _target(
    path: DocumentPath, target: TargetConfig, config: GatewayConfig, view: View
) -> Iterator[Finding]:
    yield from broker_findings(path, target, config, view)
    for field, kind in (("topic", "kafka"), ("subject", "nats")):
        text: str | None = getattr(target, field)
        if text is not None:
            yield from _destination((*path, field), text, kind)
    for name in target.headers:
        problem = _header_problem(name)
        if problem is not None:
            yield Finding((*path, "headers", name), f"headers: {problem}")
    if target.redact and target.payload == "original":
        yield Finding(
            (*path, "redact"),
            "redact: not with payload: original, whose bytes are never changed; write payload:"
            " data or payload: cloudevents",
            uses=((*path, "payload"),),
        )


def _collisions(config: GatewayConfig, view: View) -> Iterator[Finding]:
    """Yield the targets whose literal destination another one, or the dead letter, has."""
    first: dict[tuple[str, str], tuple[DocumentPath, TargetConfig]] = {}
    for at, route in enumerate(config.routes):
        for number, target in enumerate(route.targets):
            path: DocumentPath = ("routes", at, "targets", number)
            place = _literal_place(target, config)
            if place is None:
                continue
            yield from _beside_dead_letter(path, place, config)
            other_path, other = first.setdefault(place, (path, target))
            differing = _differing(target, other)
            if differing:
                here, there = view.positions.value(path), view.where(other_path)
                yield Finding(
                    path,
                    f"this target (line {here.line} column {here.col}) and the one at {there} have"
                    f" the same destination and not the same {differing}; make them equal, or give"
                    " one a destination of its own",
                    uses=(other_path,),
                )


def _kind(broker: str, config: GatewayConfig) -> str | None:
    found = config.brokers.get(broker)
    return None if found is None else found.kind


def _destination(path: DocumentPath, text: str, kind: str) -> Iterator[Finding]:
    beginning, is_literal = literal_beginning(text)
    if not is_literal:
        problem = template_problem(beginning, kind)
    else:
        problem = topic_problem(beginning) if kind == "kafka" else subject_problem(beginning)
    if problem is not None:
        yield Finding(path, f"{path[-1]}: {problem}")
    if not is_literal and "unsafe_metadata" in text:
        yield Finding(
            path,
            f"{path[-1]}: end users write unsafe_metadata, and so could choose where their events"
            " go; use public_metadata",
            "warning",
        )


def _header_problem(name: str) -> str | None:
    """Say why a target cannot have an extra header of this name. Names are never secret."""
    lower = name.lower()
    if not _TOKEN.fullmatch(name):
        return f'"{name}" is no header name; write letters, digits and -'
    if lower in _RESERVED or lower.startswith(_RESERVED_PREFIXES):
        return f'"{name}" is set by the gateway itself; choose another name'
    return None


def _literal_place(target: TargetConfig, config: GatewayConfig) -> tuple[str, str] | None:
    """Give (broker, destination), or None for a template or a target without one."""
    kind = _kind(target.broker, config)
    text = target.topic if kind == "kafka" else target.subject
    if kind is None or text is None:
        return None
    literal, is_literal = literal_beginning(text)
    return (target.broker, literal) if is_literal else None


def _differing(target: TargetConfig, other: TargetConfig) -> str:
    if target is other:
        return ""
    fields = {
        "payload": target.payload != other.payload,
        "redact": set(target.redact) != set(other.redact),
        "key": target.key != other.key,
        "headers": target.headers != other.headers,
    }
    return ", ".join(field for field, differs in fields.items() if differs)


def _beside_dead_letter(
    path: DocumentPath, place: tuple[str, str], config: GatewayConfig
) -> Iterator[Finding]:
    letter = config.delivery.dead_letter
    if letter is None or letter.broker != place[0]:
        return
    field = _FIELDS[config.brokers[letter.broker].kind]
    name: str | None = getattr(letter, field)
    # The discarded and replayed letters are kept in `<dead letter>.state`.
    if name is not None and place[1] in {name, f"{name}.state"}:
        yield Finding(
            (*path, field),
            f"{field}: this is the dead letter's own; write another",
            uses=(("delivery", "dead_letter"),),
        )
