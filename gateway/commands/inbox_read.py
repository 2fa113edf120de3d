"""What `gateway inbox list` and `show` print, of every place that can be read."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing

import click

from gateway import GatewayError
from gateway.app import Blueprint
from gateway.commands.inbox_places import How, open_places
from gateway.commands.inbox_select import Filter
from gateway.commands.inbox_view import (
    Row,
    escaped,
    item_json,
    row,
    show_json,
    show_text,
    table,
)
from gateway.delivery.inbox.letters import Item, ItemState

__all__ = ["LISTED", "list_items", "refuse_doubles", "show_item", "taken"]

LISTED = 1_000
"""Rows of a table, which is laid out as a whole."""


async def list_items(blueprint: Blueprint, wanted: Filter, limit: int | None, style: str) -> int:
    """Print a table, or a line of JSON for each item; give the exit code.

    Raises why a place could not be read, once what the others hold is printed.
    """
    most = limit if limit is not None or style == "json" else LISTED
    rows: list[Row] = []
    count, more, now = 0, False, time.time()
    away: GatewayError | None = None
    try:
        async with aclosing(_readable(blueprint, None, wanted)) as items:
            async for item in items:
                if most is not None and count >= most:
                    more = True
                    break
                count += 1
                if style == "json":
                    click.echo(item_json(item, now))
                else:
                    rows.append(row(item, now))
    except GatewayError as error:
        away = error
    if rows:
        click.echo("\n".join(table(rows)))
    if more and limit is None:
        click.echo(f"these are the first {LISTED:,}; --limit shows more", err=True)
    if away is not None:
        raise away
    if not count:
        click.echo("nothing is here that the filters take", err=True)
    return 0


async def show_item(
    blueprint: Blueprint, name: str, state: ItemState | None, style: str, *, body: bool
) -> int:
    """Print all about one item; give the exit code. Raises as `list_items`."""
    found: list[Item] = []
    away: GatewayError | None = None
    try:
        async for item in _readable(blueprint, {name}, Filter(state, kept=True)):
            found.append(item)  # noqa: PERF401 - what came before an error counts
    except GatewayError as error:
        away = error
    if found:
        refuse_doubles(Counter(item.id for item in found))
        now = time.time()
        if style == "json":
            click.echo(show_json(found[0], now, body=body))
        else:
            click.echo("\n".join(show_text(found[0], now, body=body)))
    if away is not None:
        raise away
    if not found:
        click.echo(f"nothing here has the id {escaped(name, 60)}", err=True)
        return 1
    return 0


async def _readable(
    blueprint: Blueprint, ids: Collection[str] | None, wanted: Filter
) -> AsyncGenerator[Item, None]:
    """Give what is in every place that can be read, then raise why another one cannot.

    What waits in the inbox is looked for while a broker is down, and the dead letter may be on it.
    """
    away: list[GatewayError] = []
    async with open_places(blueprint, wanted.state, How(), away) as places:
        for place in places:
            try:
                async for item in taken(place.items(ids), wanted):
                    yield item
            except GatewayError as error:
                away.append(error)
        for other in away[:-1]:
            click.echo(f"error: {other}", err=True)
        if away:
            raise away[-1]


async def taken(items: AsyncGenerator[Item, None], wanted: Filter) -> AsyncGenerator[Item, None]:
    """Give the items that a filter takes."""
    async for item in items:
        if wanted.takes(item):
            yield item


def refuse_doubles(counts: Counter[str]) -> None:
    """Raise `click.UsageError` for an id that counts twice: it is in two places."""
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise click.UsageError(f"{twice[0]} is in two places; say which one with --state")
