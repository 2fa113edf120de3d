"""Streams of the file that no target uses, and subjects that none of its streams takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gateway.config.models import GatewayConfig, NatsConfig
from gateway.config.problems import DocumentPath
from gateway.lint.finding import Finding
from gateway.routing.table import Table
from gateway.routing.template import Template

__all__ = ["check_streams", "may_take"]

_Use = tuple[DocumentPath, str, bool]
"""Where a subject stands, its literal beginning, and whether that is the whole."""


def check_streams(config: GatewayConfig, table: Table) -> Iterator[Finding]:
    """Yield what does not fit between the streams of JetStream brokers and the targets."""
    uses = _uses(config, table)
    for name, broker in config.brokers.items():
        if broker.kind == "nats" and broker.jetstream and broker.streams:
            yield from _broker(("brokers", name, "streams"), broker, uses.get(name, ()))


def may_take(pattern: str, beginning: str, is_literal: bool) -> bool:
    """Tell whether a subject that begins so can match a stream's subject (`clerk.*.>`)."""
    wanted = pattern.split(".")
    tokens = beginning.split(".")
    whole = tokens if is_literal else tokens[:-1]
    for at, token in enumerate(whole):
        if at >= len(wanted):
            return False
        if wanted[at] == ">":
            return True
        if wanted[at] not in {"*", token}:
            return False
    rest = wanted[len(whole) :]
    if is_literal:
        return not rest
    # What follows is at least one token, which begins with what stands before the placeholder.
    return bool(rest) and (rest[0] in {"*", ">"} or rest[0].startswith(tokens[-1]))


def _uses(config: GatewayConfig, table: Table) -> dict[str, list[_Use]]:
    uses: dict[str, list[_Use]] = {}
    for at, route in enumerate(table.routes):
        for number, target in enumerate(route.targets):
            path: DocumentPath = ("routes", at, "targets", number, "subject")
            template: Template = target.destination
            uses.setdefault(target.broker, []).append((path, template.prefix, template.is_literal))
    letter = config.delivery.dead_letter
    if letter is not None:
        path = ("delivery", "dead_letter", "subject")
        uses.setdefault(letter.broker, []).append((path, letter.subject or "", True))
    return uses


def _broker(path: DocumentPath, broker: NatsConfig, uses: Sequence[_Use]) -> Iterator[Finding]:
    subjects = [subject for stream in broker.streams for subject in stream.subjects]
    places = dict.fromkeys((beginning, literal) for _, beginning, literal in uses)
    taken = {
        place: {subject for subject in dict.fromkeys(subjects) if may_take(subject, *place)}
        for place in places
    }
    used = frozenset[str]().union(*taken.values())
    for at, stream in enumerate(broker.streams):
        if not used & set(stream.subjects):
            yield Finding(
                "unused-stream",
                (*path, at),
                f"streams[{at}]: no target and no dead letter has a subject that it takes; remove"
                " it, or mend its subjects",
            )
    for where, beginning, literal in uses:
        if not taken[beginning, literal]:
            yield Finding(
                "no-stream",
                where,
                "subject: none of the streams in this file takes it; add it to one of them, or"
                " check --connect that the server has one",
            )
