"""From the config's routes to the compiled table; every fault at once, each with its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from gateway import GatewayError
from gateway.destinations import continuation_problem
from gateway.routing.expressions import Expression, ExpressionSyntaxError, compiled
from gateway.routing.match import Pattern
from gateway.routing.table import Kind, Route, Table, Target
from gateway.routing.template import Template, TemplateSyntaxError, compiled_template

if TYPE_CHECKING:
    from gateway.config.models import GatewayConfig, RouteConfig, TargetConfig

__all__ = ["Fault", "TableError", "compile_expression", "compile_table", "find_faults"]

ConfigPath = tuple[str | int, ...]


class Fault(msgspec.Struct, frozen=True):
    """One thing that cannot be compiled."""

    path: ConfigPath
    """Where in the config: `("routes", 0, "when")`."""
    message: str
    offset: int
    """Characters into the value, 0-based."""


class TableError(GatewayError):
    """The routing table has faults. Give each `Fault.path` to the config to learn its line."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        self.faults = faults
        super().__init__("; ".join(f"{_dotted(f.path)}: {f.message}" for f in faults))


def compile_table(config: GatewayConfig) -> Table:
    """Compile all routes of a valid config, or raise `TableError` with every fault."""
    faults: list[Fault] = []
    routes = _routes(config, faults)
    if faults:
        raise TableError(tuple(faults))
    return Table(routes, _reserved(config), _own_subject(config))


def find_faults(config: GatewayConfig) -> tuple[Fault, ...]:
    """Give what keeps a config's expressions and templates from being compiled.

    The config may have other faults: names that lead nowhere are passed over.
    """
    faults: list[Fault] = []
    for name, source in config.sources.items():
        compile_expression(source.type, ("sources", name, "type"), faults)
    _routes(config, faults)
    return tuple(faults)


def compile_expression(source: str, path: ConfigPath, faults: list[Fault]) -> Expression:
    """Compile one expression; on a fault note it and give the expression `@`."""
    try:
        return compiled(source)
    except ExpressionSyntaxError as error:
        faults.append(Fault(path, str(error), error.offset))
        return compiled("@")


def _reserved(config: GatewayConfig) -> frozenset[tuple[str, str]]:
    """Give the destinations that are not a route's: the dead letter and its state topic."""
    letter = config.delivery.dead_letter
    if letter is None:
        return frozenset()
    destination = letter.topic or letter.subject or ""
    return frozenset({(letter.broker, destination), (letter.broker, f"{destination}.state")})


def _own_subject(config: GatewayConfig) -> str | None:
    """Give the subject below which nothing but the inbox publishes."""
    delivery = config.delivery
    is_stream = delivery.mode == "inbox" and delivery.inbox.store == "jetstream"
    return delivery.inbox.stream if is_stream else None


def _routes(config: GatewayConfig, faults: list[Fault]) -> tuple[Route, ...]:
    kinds: dict[str, Kind] = {name: broker.kind for name, broker in config.brokers.items()}
    return tuple(
        _route(route, ("routes", at), kinds, faults) for at, route in enumerate(config.routes)
    )


def _route(
    route: RouteConfig, path: ConfigPath, kinds: Mapping[str, Kind], faults: list[Fault]
) -> Route:
    when = route.when
    condition = None if when is None else compile_expression(when, (*path, "when"), faults)
    targets = tuple(
        _target(target, (*path, "targets", at), kinds.get(target.broker, "kafka"), faults)
        for at, target in enumerate(route.targets)
    )
    return Route(
        name=route.name,
        events=Pattern(route.events),
        exclude=Pattern(route.exclude),
        sources=None if route.sources is None else frozenset(route.sources),
        when=condition,
        targets=targets,
        reads_event=condition is not None or not all(map(_is_constant, targets)),
    )


def _is_constant(target: Target) -> bool:
    """Tell whether nothing of the target is a template."""
    return target.destination.is_literal and target.key is None and not target.headers


def _target(target: TargetConfig, path: ConfigPath, kind: Kind, faults: list[Fault]) -> Target:
    field = "topic" if kind == "kafka" else "subject"
    destination = (target.topic if kind == "kafka" else target.subject) or ""
    key = target.key
    return Target(
        broker=target.broker,
        kind=kind,
        destination=_destination(destination, kind, (*path, field), faults),
        key=None if key is None else _template(key, (*path, "key"), faults),
        payload=target.payload,
        # In one order, whatever the file's: it makes no other record, and no other dedupe id.
        headers=tuple(
            (name, _template(value, (*path, "headers", name), faults))
            for name, value in sorted(target.headers.items())
        ),
        redact=tuple(tuple(field.split(".")) for field in sorted(set(target.redact))),
    )


def _destination(source: str, kind: Kind, path: ConfigPath, faults: list[Fault]) -> Template:
    """Compile a topic or subject, and fault what no broker could have behind a placeholder.

    What stands before the first one is a matter of the config's own rules.
    """
    template = _template(source, path, faults)
    behind = [part for part in template.parts[1:] if isinstance(part, str)]
    ends = bool(behind) and template.parts[-1] is behind[-1]
    problem = continuation_problem(behind, kind, ends=ends)
    if problem is not None:
        faults.append(Fault(path, f"{path[-1]}: {problem}", 0))
    return template


def _template(source: str, path: ConfigPath, faults: list[Fault]) -> Template:
    try:
        return compiled_template(source)
    except TemplateSyntaxError as error:
        faults.append(Fault(path, str(error), error.offset))
        return Template("")


def _dotted(path: ConfigPath) -> str:
    return ".".join(str(part) for part in path)
