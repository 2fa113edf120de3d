"""What the commands that make a sample event share: its options, and a word on its type."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import click

from gateway.clerk.catalogue import ALSO_SEEN, CATALOGUE, did_you_mean
from gateway.commands.answers import plain

__all__ = ["note_type", "set_option"]


def _pairs(
    _ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]
) -> Mapping[str, str]:
    pairs = {}
    for value in values:
        path, equals, text = value.partition("=")
        if not equals:
            raise click.BadParameter(f"{value!r} is not PATH=VALUE, such as data.id=user_1")
        pairs[path] = text
    return MappingProxyType(pairs)


set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    callback=_pairs,
    metavar="PATH=VALUE",
    help="Change the sample: --set data.id=user_1 --set data.public_metadata.tier=pro. "
    "A value that is JSON is taken as JSON.",
)


def note_type(event_type: str) -> None:
    """Say on standard error when a type is none of the catalogue's: it is taken all the same."""
    if event_type in CATALOGUE:
        return
    known = "has no published schema" if event_type in ALSO_SEEN else "is not in Clerk's catalogue"
    close = did_you_mean(event_type)
    hint = f" Did you mean {close}?" if close else ""
    click.echo(f"note: {plain(event_type)} {known}; its sample is a plain event.{hint}", err=True)
