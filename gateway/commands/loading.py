"""Loading a config for a command, and telling what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from gateway.app import Blueprint, draw, load
from gateway.config import LoadedConfig
from gateway.config.findings import View
from gateway.config.problems import Problem, render
from gateway.lint.lint import lint
from gateway.observability.logs import configure

__all__ = ["deep_check", "load_blueprint", "print_problems", "print_warnings"]


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
    print_problems(loaded, loaded.warnings)


def deep_check(blueprint: Blueprint) -> tuple[Problem, ...]:
    """Give the warnings of a config and what is odd about its routes, in file order."""
    loaded = blueprint.loaded
    odd = lint(loaded.config, blueprint.table, View(loaded.positions))
    found = [
        loaded.locate(one.path, f"{one.message} [{one.rule}]", one.severity, one.offset)
        for one in odd
    ]
    return tuple(sorted((*loaded.warnings, *found), key=lambda one: (one.line, one.col)))


def print_problems(loaded: LoadedConfig, problems: Sequence[Problem]) -> None:
    """Print problems of a config to standard error, each at its place."""
    for line in render(loaded.path, problems):
        click.echo(line, err=True)
