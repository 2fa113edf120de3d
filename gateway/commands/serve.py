"""`gateway serve`: production."""

from __future__ import annotations

import os
from pathlib import Path

import click
import uvloop

from gateway.commands.loading import load_blueprint
from gateway.server.run import Following, serve

__all__ = ["serve_command"]


@click.command("serve")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    required=True,
    help="The YAML file with sources, brokers and routes.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Processes that share the port; one per core that is to be used.",
)
@click.option(
    "--watch/--no-watch",
    default=True,
    show_default=True,
    help="Follow the config, and the files that it names; without it they are read on SIGHUP only.",
)
def serve_command(config: Path, workers: int, *, watch: bool) -> None:
    """Receive webhooks and publish them, until SIGTERM.

    Faults in the config stop the start; a broker that is down does not: the gateway answers 503
    and recovers by itself. A changed config, or `${file:…}`, counts within seconds, on SIGHUP at
    once; a bad one keeps the last good one.
    """
    following = Following(os.environ, watch=watch)
    uvloop.run(serve(load_blueprint(config), workers, following=following))
