"""From a file to a checked config: everything that is wrong with it at once, each at its place."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal, Protocol

from pydantic import SecretStr

from gateway.config.document import Document, read_document
from gateway.config.files import FileContent, FileReader, read_file
from gateway.config.findings import Finding, View
from gateway.config.interpolation import Interpolator
from gateway.config.misplaced import without_secrets
from gateway.config.models import GatewayConfig
from gateway.config.problems import (
    MAX_PROBLEMS,
    ConfigError,
    DocumentPath,
    LineIndex,
    Positions,
    Problem,
)
from gateway.config.repair import Repairs, repair
from gateway.config.rules import check
from gateway.config.validation import validate

__all__ = ["Check", "LoadedConfig", "PathFault", "load_config", "load_config_text"]

MAX_FILE: Final = 1024 * 1024
"""Bytes of a config file."""


class PathFault(Protocol):
    """What another package finds wrong in a config: `gateway.routing.compile.Fault` is one."""

    @property
    def path(self) -> DocumentPath:
        """Where in the config."""
        ...

    @property
    def message(self) -> str:
        """What is wrong, and what would be right."""
        ...

    @property
    def offset(self) -> int:
        """Characters into the value, 0-based."""
        ...


Check = Callable[[GatewayConfig], Iterable[PathFault]]
"""A check of another package, told beside ours. The config may have names that lead nowhere."""


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
        return _locate(self.positions, Finding(path, message, severity), offset)


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
            _read(name), name, env, allow_missing_servers=allow_missing_servers, checks=checks
        )
    except ConfigError as error:
        told = error
    raise _without_frames(told)


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
        return _load(text, name, Interpolator(env, read), allow_missing_servers, checks)
    except ConfigError as error:
        told = error
    raise _without_frames(told)


def _without_frames(error: ConfigError) -> ConfigError:
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
    config, problems = _examine(document, view, checks)
    if config is None or any(problem.severity == "error" for problem in problems):
        raise ConfigError(name, problems)
    return LoadedConfig(name, config, tuple(problems), document.positions, text, interpolator.files)


def _examine(
    document: Document, view: View, checks: Iterable[Check]
) -> tuple[GatewayConfig | None, list[Problem]]:
    """Give the config, or what could be saved of it, and all problems in order."""
    problems = list(document.problems)
    repairs = Repairs(document.failed)
    result = validate(document.value, view.suggester)
    config: GatewayConfig | None
    if isinstance(result, GatewayConfig):
        config = result
    else:
        for fault in result:
            path = fault.place.path
            if not repairs.touch(path):
                at = view.positions.key(path) if fault.at_key else view.positions.value(path)
                problems.append(Problem("error", path, at.line, at.col, fault.message))
        config = repair(document.value, result, repairs)
    if config is not None:
        problems += _limited(_cross_check(config, view, checks, repairs))
    # Through an alias one place in the file can be wrong several times in the same way.
    told = (replace(one, message=without_secrets(one.message)) for one in problems)
    unique = {(problem.line, problem.col, problem.message): problem for problem in told}
    return config, sorted(unique.values(), key=lambda problem: (problem.line, problem.col))


def _limited(problems: Iterable[Problem]) -> Iterator[Problem]:
    """End after so many errors, and leave out the warnings after as many of them."""
    count = {"error": 0, "warning": 0}
    for problem in problems:
        count[problem.severity] += 1
        if count[problem.severity] <= MAX_PROBLEMS:
            yield problem
        if count["error"] >= MAX_PROBLEMS:
            return


def _cross_check(
    config: GatewayConfig, view: View, checks: Iterable[Check], repairs: Repairs
) -> Iterator[Problem]:
    for finding in check(config, view):
        if not any(repairs.touch(path) for path in (finding.path, *finding.uses)):
            yield _locate(view.positions, finding)
    for other in checks:
        for fault in other(config):
            if not repairs.touch(fault.path):
                finding = Finding(fault.path, _discreet(view, fault))
                yield _locate(view.positions, finding, fault.offset)


def _discreet(view: View, fault: PathFault) -> str:
    """Cut off what may quote a value that came from `${…}`: what stands after the first colon."""
    if not view.positions.is_interpolated(fault.path):
        return fault.message
    return f"{fault.message.partition(':')[0]} (its value came from ${{…}} and is not shown)"


def _locate(positions: Positions, finding: Finding, offset: int = 0) -> Problem:
    at = positions.value(finding.path)
    exact = offset and at.text_col is not None and finding.path in positions
    col = (at.text_col or 0) + offset if exact else at.col
    return Problem(finding.severity, finding.path, at.line, col, finding.message)


def _read(name: str) -> SecretStr:
    try:
        with Path(name).open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except OSError as error:
        raise _unreadable(name, f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise _unreadable(name, "cannot be read: this is not a file name") from None
    if len(content) > MAX_FILE:
        raise _unreadable(name, "is larger than 1 MiB; this is not a config file")
    try:
        return SecretStr(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8", "replace").removeprefix("\ufeff")
        line, col = LineIndex(before).position(len(before))
        problem = Problem("error", (), line, col, "not UTF-8 text; save the file as UTF-8")
        raise ConfigError(name, (problem,)) from None


def _unreadable(name: str, what: str) -> ConfigError:
    return ConfigError(name, (Problem("error", (), 0, 0, what),))
