"""Loading a config for a command, and telling what is wrong with it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from gateway.app import Blueprint, draw
from gateway.config import load_config
from gateway.observability.logs import configure

__all__ = ["load_blueprint"]


def load_blueprint(
    path: Path, env: Mapping[str, str] | None = None, *, stand_in: bool = False
) -> Blueprint:
    """Load, compile, set up logging, and print the warnings to standard error.

    `stand_in` lets brokers leave out their `servers`. Raises `ConfigError` with every fault.
    """
    environment = os.environ if env is None else env
    loaded = load_config(path, environment, allow_missing_servers=stand_in)
    blueprint = draw(loaded)
    for warning in loaded.warnings:
        sys.stderr.write(f"{warning}\n")
    configure(loaded.config.log.level, loaded.config.log.format)
    return blueprint
