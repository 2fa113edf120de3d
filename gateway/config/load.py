"""From a file to a checked config: everything that is wrong with it at once, each at its place."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from gateway.config.document import read_document
from gateway.config.examine import PathFault, cross_check, examine, locate
from gateway.config.files import FileContent, FileReader, read_file, read_regular
from gateway.config.findings import Finding, View
from gateway.config.interpolation import Interpolator
from gateway.config.models import GatewayConfig
from gateway.config.problems import (
    ConfigError,
    DocumentPath,
    LineIndex,
    Positions,
    Problem,
    Severity,
)
from gateway.config.rules import check

__all__ = [
    "Check",
    "LoadedConfig",
    "PathFault",
    "check_again",
    "load_config",
    "load_config_text",
    "named_files",
    "read_again",
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
    checks: tuple[Check, ...] = field(default=(), repr=False)
    """What was run beside our own checks."""

    def locate(
        self,
        path: DocumentPath,
        message: str,
        severity: Severity = "error",
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
            return _load(text, name, Interpolator(env, read), allow_missing_servers, tuple(checks))
    except ConfigError as error:
        told = error
    raise without_frames(told)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the garbage collector out.

    What is made while a file is loaded stays, so that of a large one it would look through
    hundreds of thousands of objects time and again and find nothing: a fifth of the time.
    There is one collector for all threads: who loads beside the main one leaves it alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def read_again(name: str) -> SecretStr:
    """Read the text of a config file that may have changed, as `load_config` does.

    Only a regular file is one: a pipe could keep the reader waiting for ever. Raises `ConfigError`.
    """
    try:
        content = read_regular(name, MAX_FILE)
    except (OSError, ValueError) as error:
        raise _unreadable(name, _why(error)) from None
    if content is None:
        raise _unreadable(name, "is not a file")
    return _decoded(name, content, "config")


def named_files(text: SecretStr, env: Mapping[str, str]) -> tuple[str, ...]:
    """Give the names in the `${file:…}` of a config's text; nothing is read.

    Where the text is no YAML these are the ones that stand before the fault.
    """
    interpolator = Interpolator(env, lambda _: FileContent())
    with suppress(ConfigError):
        read_document(text.get_secret_value().removeprefix("\ufeff"), "", interpolator)
    return tuple(interpolator.files)


def check_again(loaded: LoadedConfig, config: GatewayConfig) -> None:
    """Check a config of which parts are not what the file says. Raises `ConfigError`."""
    found = cross_check(config, View(loaded.positions), check, loaded.checks)
    if any(problem.severity == "error" for problem in found):
        raise ConfigError(loaded.path, found)


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
    checks: tuple[Check, ...],
) -> LoadedConfig:
    content = text.get_secret_value().removeprefix("\ufeff")
    document = read_document(content, name, interpolator)
    view = View(document.positions, allow_missing_servers)
    config, problems = examine(GatewayConfig, document, view, check, checks)
    if config is None or any(problem.severity == "error" for problem in problems):
        raise ConfigError(name, problems)
    return LoadedConfig(
        name, config, tuple(problems), document.positions, text, interpolator.files, checks
    )


def read_text(name: str, what: str = "config") -> SecretStr:
    """Read a YAML file of at most 1 MiB; `what` it should be, in words.

    Raises `ConfigError` for one that cannot be read, is too large, or is not UTF-8 text.
    """
    try:
        with Path(name).open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:
        raise _unreadable(name, _why(error)) from None
    return _decoded(name, content, what)


def _why(error: OSError | ValueError) -> str:
    strerror = error.strerror if isinstance(error, OSError) else "this is not a file name"
    return f"cannot be read: {strerror}"


def _decoded(name: str, content: bytes, what: str) -> SecretStr:
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
