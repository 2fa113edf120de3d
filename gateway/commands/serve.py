"""`gateway serve`: production."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import click
import uvloop

from gateway.app import Blueprint
from gateway.commands.loading import load_blueprint
from gateway.server.run import Following, serve

__all__ = ["serve_command"]


@click.command("serve")
@click.option(
    "--config",
    metavar="FILE",
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
    # Who asks for a look ends nothing: while it starts the kernel keeps the signal for `serve`.
    _block_hangups()
    uvloop.run(_serve(load_blueprint(config), workers, Following(os.environ, watch=watch)))


async def _serve(blueprint: Blueprint, workers: int, following: Following) -> None:
    try:
        await serve(blueprint, workers, following=following)
    finally:
        _block_hangups()  # for the loop takes its handler along when it closes


def _block_hangups() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
