"""Loading a config for a command, and telling what is wrong with it."""

from __future__ import annotations

import os
from pathlib import Path

import click

from gateway.app import Blueprint, draw, load
from gateway.config import LoadedConfig
from gateway.config.problems import render
from gateway.observability.logs import configure

__all__ = ["load_blueprint", "print_warnings"]


def load_blueprint(path: Path) -> Blueprint:
    """Load, compile, set up logging, and print the warnings to standard error.

    Raises `ConfigError` with every fault.
    """
    loaded = load(path, os.environ)
    blueprint = draw(loaded)
    print_warnings(loaded)
    configure(loaded.config.log.level, loaded.config.log.format)
    return blueprint


def print_warnings(loaded: LoadedConfig) -> None:
    """Tell on standard error what is odd in a config that works."""
    for line in render(loaded.path, loaded.warnings):
        click.echo(line, err=True)
