"""Which items a command is about: the filters that all of them share."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import click
import msgspec

from gateway.config.units import parse_duration
from gateway.delivery.inbox.letters import Item, ItemState
from gateway.routing.match import Pattern

__all__ = ["STATES", "Filter", "filters", "instant"]

STATES: tuple[ItemState, ...] = ("pending", "parked", "dead-letter")
_PATTERN = re.compile(r"\*|[^*\s]+\.\*|[^*\s]+")

F = TypeVar("F", bound=Callable[..., Any])


class Filter(msgspec.Struct, frozen=True):
    """What an item must be to be listed, replayed or discarded; None asks for nothing."""

    state: ItemState | None = None
    type: Pattern | None = None
    route: str | None = None
    source: str | None = None
    since: float | None = None
    """Unix seconds, that moment included."""
    until: float | None = None
    """Unix seconds, that moment left out."""
    kept: bool = False
    """Whether letters count that are replayed or discarded and still there."""

    def takes(self, item: Item) -> bool:
        """Tell whether all of it fits."""
        metadata = item.metadata
        return (
            (self.state is None or item.state == self.state)
            and (self.kept or item.kept in {"", "partial"})
            and (self.route is None or self.route in item.routes)
            and (self.since is None or item.since >= self.since)
            and (self.until is None or item.since < self.until)
            and (self.source is None or self._source(item) == self.source)
            and (self.type is None or self.type.matches((metadata and metadata.type) or ""))
        )

    def _source(self, item: Item) -> str | None:
        return None if item.metadata is None else item.metadata.gateway_source


def instant(text: str, now: float) -> float | None:
    """Read `2h` (so long ago) or an RFC 3339 time as Unix seconds, or give None.

    A time without a zone is UTC; `now` is Unix seconds.
    """
    seconds = parse_duration(text)
    if seconds is not None:
        return now - seconds
    try:
        # A bare number is ISO 8601 as well: `20261125` is a day, and `2026` a typing error.
        time = datetime.fromisoformat(text) if "-" in text else None
    except ValueError:
        return None
    if time is None:
        return None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def filters(command: F) -> F:
    """Add the options that all commands share."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def _instant(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    read = instant(value, datetime.now(UTC).timestamp())
    if read is None:
        raise click.BadParameter(f"{value!r} is neither a duration (2h) nor an RFC 3339 time")
    return read


def _pattern(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Pattern | None:
    if value is None:
        return None
    if not _PATTERN.fullmatch(value):
        raise click.BadParameter(f"{value!r} is neither a type, nor prefix.*, nor *")
    return Pattern([value])


_OPTIONS = (
    click.option("--state", type=click.Choice(STATES), help="Only these."),
    click.option(
        "--type",
        "event_type",
        callback=_pattern,
        metavar="PATTERN",
        help="Only events of this type: user.created, user.*",
    ),
    click.option("--route", metavar="NAME", help="Only what this route did not deliver."),
    click.option("--source", metavar="NAME", help="Only what came by this source."),
    click.option(
        "--since",
        callback=_instant,
        metavar="2h|TIME",
        help="Only what is there for at most so long, or since a time in RFC 3339.",
    ),
    click.option(
        "--until",
        callback=_instant,
        metavar="2h|TIME",
        help="Only what is there for longer, or was before a time.",
    ),
)
