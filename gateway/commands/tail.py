"""`gateway tail`: what arrives at the targets, read back from the brokers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path

import click
from rich.console import Console

from gateway.app import Blueprint, make_broker
from gateway.brokers.base import Arrival, Need, Unavailable
from gateway.commands.arrivals import arrival_json, arrival_line
from gateway.commands.loading import load_blueprint

__all__ = ["follow", "tail_command"]

Show = Callable[[Arrival], None]


@click.command("tail")
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(path_type=Path),
    required=True,
    help="The YAML file in use.",
)
@click.option("--route", help="Only what this route published.")
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="json holds the whole record, personal data included.",
)
@click.pass_context
def tail_command(context: click.Context, config: Path, route: str | None, style: str) -> None:
    """Print what arrives at the targets from now on, until Ctrl-C."""
    blueprint = load_blueprint(config)
    names = [known.name for known in blueprint.table.routes]
    if route is not None and route not in names:
        message = f"there is no route {route}; the config has {', '.join(names) or 'none'}"
        raise click.BadParameter(message, context, param_hint="--route")
    console = Console(highlight=False, soft_wrap=True)

    def show(arrival: Arrival) -> None:
        if route is not None and route not in _routes(arrival):
            return
        if style == "json":
            click.echo(arrival_json(arrival))
        else:
            console.print(arrival_line(arrival))

    ends: list[BaseException] = []
    try:
        asyncio.run(_tail(blueprint, show))
    except* (Unavailable, BrokenPipeError) as group:
        ends.extend(group.exceptions)
    for end in ends:
        if isinstance(end, BrokenPipeError):
            # Whoever reads the output has left; click ends every command alike then.
            raise end
        click.echo(f"error: {end}", err=True)
    if ends:
        context.exit(3)


async def follow(
    broker: str,
    blueprint: Blueprint,
    needs: Sequence[Need],
    show: Show,
    following: asyncio.Event | None = None,
) -> None:
    """Show what arrives in one broker, for ever; `following` is set once nothing can be missed.

    Raises `Unavailable`.
    """
    config = blueprint.config.brokers[broker]
    client = make_broker(broker, config, needs, lambda _name, _state: None)
    arrivals = await client.tail(needs)
    if following is not None:
        following.set()
    async with aclosing(arrivals):
        async for arrival in arrivals:
            show(arrival)


async def _tail(blueprint: Blueprint, show: Show) -> None:
    needs = blueprint.needs()
    following = [asyncio.Event() for _ in needs]
    async with asyncio.TaskGroup() as tasks:
        for (broker, wanted), begun in zip(needs.items(), following, strict=True):
            tasks.create_task(follow(broker, blueprint, wanted, show, begun))
        for begun in following:
            await begun.wait()
        # Who sends an event after this line sees it.
        click.echo("waiting for events; Ctrl-C ends", err=True)


def _routes(arrival: Arrival) -> list[str]:
    headers = dict(arrival.headers)
    return headers.get("gateway-route", "").split(",")
