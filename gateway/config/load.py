"""From a file to a checked config: everything that is wrong with it at once, each at its place."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from pydantic import SecretStr

from gateway.config.document import read_document
from gateway.config.examine import PathFault, examine, locate
from gateway.config.files import FileContent, FileReader, read_file
from gateway.config.findings import Finding, View
from gateway.config.interpolation import Interpolator
from gateway.config.models import GatewayConfig
from gateway.config.problems import ConfigError, DocumentPath, LineIndex, Positions, Problem
from gateway.config.rules import check

__all__ = [
    "Check",
    "LoadedConfig",
    "PathFault",
    "load_config",
    "load_config_text",
    "read_text",
    "without_frames",
]

Check = Callable[[GatewayConfig], Iterable[PathFault]]
"""A check of another package, told beside ours. The config may have names that lead nowhere."""

MAX_FILE: Final = 1024 * 1024
"""Bytes of a config file."""


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A config that may run, and where everything in it stands."""

    path: str
    """The file's name, as it was given."""
    config: GatewayConfig
    warnings: tuple[Problem, ...]
    positions: Positions = field(repr=False)
    text: SecretStr
    """The file as it was read, for a worker process to load the same. It may hold a secret."""
    files: Mapping[str, FileContent] = field(default_factory=dict)
    """What each `${file:…}` gave, by the name that stands there."""

    def locate(
        self,
        path: DocumentPath,
        message: str,
        severity: Literal["error", "warning"] = "error",
        offset: int = 0,
    ) -> Problem:
        """Make a problem of a place in the config, `offset` characters into its value.

        For what is not in the file the place is what would hold it. The offset counts only
        where each character of the value is one of the file: no escapes, no `${…}`.
        """
        return locate(self.positions, Finding(path, message, severity), offset)


def load_config(
    path: str | os.PathLike[str],
    env: Mapping[str, str] = os.environ,
    *,
    allow_missing_servers: bool = False,
    checks: Iterable[Check] = (),
) -> LoadedConfig:
    """Read, interpolate and check a config file of at most 1 MiB.

    `env` is what `${V}` is looked up in. `allow_missing_servers` lets brokers have no `servers`.
    `checks` are run beside our own, even on what is left of a faulty config.
    Raises `ConfigError` with every problem, also for a file that cannot be read.
    """
    name = os.fspath(path)
    try:
        return load_config_text(
            read_text(name), name, env, allow_missing_servers=allow_missing_servers, checks=checks
        )
    except ConfigError as error:
        told = error
    raise without_frames(told)


def load_config_text(
    text: str | SecretStr,
    name: str,
    env: Mapping[str, str],
    *,
    allow_missing_servers: bool = False,
    checks: Iterable[Check] = (),
    read: FileReader = read_file,
) -> LoadedConfig:
    """As `load_config`, of text that `name` stands for in messages.

    `read` gives what each `${file:…}` holds.
    """
    text = SecretStr(text) if isinstance(text, str) else text
    try:
        with _uncollected():
            return _load(text, name, Interpolator(env, read), allow_missing_servers, checks)
    except ConfigError as error:
        told = error
    raise without_frames(told)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the garbage collector out.

    What is made while a file is loaded stays, so that of a large one it would look through
    hundreds of thousands of objects time and again and find nothing: a fifth of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def without_frames(error: ConfigError) -> ConfigError:
    """Take off the frames it came from: their locals hold the file, and error reporters send them.

    The problems say where in the file each fault is; where in our code it was found helps nobody.
    """
    error.__context__ = None
    return error.with_traceback(None)


def _load(
    text: SecretStr,
    name: str,
    interpolator: Interpolator,
    allow_missing_servers: bool,
    checks: Iterable[Check],
) -> LoadedConfig:
    content = text.get_secret_value().removeprefix("\ufeff")
    document = read_document(content, name, interpolator)
    view = View(document.positions, allow_missing_servers)
    config, problems = examine(GatewayConfig, document, view, check, checks)
    if config is None or any(problem.severity == "error" for problem in problems):
        raise ConfigError(name, problems)
    return LoadedConfig(name, config, tuple(problems), document.positions, text, interpolator.files)


def read_text(name: str, what: str = "config") -> SecretStr:
    """Read a YAML file of at most 1 MiB; `what` it should be, in words.

    Raises `ConfigError` for one that cannot be read, is too large, or is not UTF-8 text.
    """
    try:
        with Path(name).open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except OSError as error:
        raise _unreadable(name, f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise _unreadable(name, "cannot be read: this is not a file name") from None
    if len(content) > MAX_FILE:
        raise _unreadable(name, f"is larger than 1 MiB; this is not a {what} file")
    try:
        return SecretStr(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8", "replace").removeprefix("\ufeff")
        line, col = LineIndex(before).position(len(before))
        problem = Problem("error", (), line, col, "not UTF-8 text; save the file as UTF-8")
        raise ConfigError(name, (problem,)) from None


def _unreadable(name: str, what: str) -> ConfigError:
    return ConfigError(name, (Problem("error", (), 0, 0, what),))
