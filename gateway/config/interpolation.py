"""`${…}` in the text of a config value, replaced after the YAML is parsed.

    ${V}          the environment variable V, which must be set
    ${V:-d}       V, or d where V is unset or empty
    ${V:?m}       V, or an error that says m where V is unset or empty
    ${file:/p}    the content of the file /p, without the newline at its end
    $$            one $

What was put in is never looked at again, and never part of a message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway import GatewayError
from gateway.config.files import FileContent, FileReader, read_file

__all__ = ["MAX_TOTAL", "Expansion", "Fault", "Interpolated", "Interpolator"]

MAX_TOTAL: Final = 4 * 1024 * 1024
"""Characters that all values together may bring in."""

_MAX_FAULTS: Final = 20
"""Told of one value."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_SYNTAX: Final = "write ${NAME}, ${NAME:-default}, ${NAME:?message} or ${file:/path}; $$ is one $"


class Interpolated(str):
    """Text that holds something from outside the config file: perhaps a secret."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Interpolated('**********')"


@dataclass(frozen=True, slots=True)
class Fault:
    """A `${…}` that cannot be replaced."""

    offset: int
    """Where it begins in the value's text, 0-based."""
    message: str


@dataclass(frozen=True, slots=True)
class Expansion:
    """A value's text with everything replaced that could be."""

    text: str = field(repr=False)
    faults: tuple[Fault, ...]


class _UnresolvedError(GatewayError):
    """One `${…}` that gives nothing; the message is for the user."""


class Interpolator:
    """Replaces `${…}` from one environment; keeps count of what it brought in."""

    def __init__(self, env: Mapping[str, str], read: FileReader = read_file) -> None:
        """Take what `${V}` is looked up in, and what gives the content of a `${file:…}`."""
        self._env = env
        self._read = read
        self._files: dict[str, FileContent] = {}
        self._left = MAX_TOTAL

    @property
    def files(self) -> Mapping[str, FileContent]:
        """Every file that was named so far, and what it gave."""
        return dict(self._files)

    def expand(self, source: str) -> Expansion:
        """Replace every `${…}` and `$$`. The text is `Interpolated` where there was a `${…}`."""
        parts: list[str] = []
        faults: list[Fault] = []
        interpolated = False
        at = 0
        while (dollar := source.find("$", at)) >= 0:
            parts.append(source[at:dollar])
            following = source[dollar + 1 : dollar + 2]
            if following != "{":
                parts.append("$")
                at = dollar + (2 if following == "$" else 1)
                continue
            interpolated = True
            end = _closing_brace(source, dollar + 1)
            if len(faults) >= _MAX_FAULTS:
                return Expansion("", tuple(faults))
            if end < 0:
                faults.append(Fault(dollar, "${ is not closed; write ${NAME}, or $${ for the text"))
                return Expansion("", tuple(faults))
            try:
                parts.append(self._resolve(source[dollar + 2 : end]))
            except _UnresolvedError as error:
                faults.append(Fault(dollar, str(error)))
            at = end + 1
        text = "".join((*parts, source[at:]))
        return Expansion(Interpolated(text) if interpolated else text, tuple(faults))

    def _resolve(self, inside: str) -> str:
        # Past the bound no more files are read.
        text = self._lookup(inside) if self._left >= 0 else ""
        self._left -= len(text)
        if self._left < 0:
            raise _UnresolvedError(f"all ${{…}} together give more than {MAX_TOTAL} characters")
        return text

    def _lookup(self, inside: str) -> str:
        if inside.startswith("file:"):
            return self._file(inside.removeprefix("file:"))
        name, operator, argument = inside[:0], "", ""
        match = _NAME.match(inside)
        if match is not None:
            name, rest = match[0], inside[match.end() :]
            operator, argument = rest[:2], rest[2:]
        if not name or operator not in {"", ":-", ":?"}:
            raise _UnresolvedError(f"not a known form of ${{…}}; {_SYNTAX}")
        if "${" in argument:
            raise _UnresolvedError(f"${{…}} cannot stand inside another; {_SYNTAX}")
        return self._variable(name, operator, argument)

    def _variable(self, name: str, operator: str, argument: str) -> str:
        value = self._env.get(name)
        if value is not None and _SURROGATE.search(value):
            raise _UnresolvedError(f"the variable {name} is not UTF-8 text")
        if operator == "":
            if value is None:
                raise _UnresolvedError(
                    f"the variable {name} is not set; set it, or write ${{{name}:-default}}"
                )
            return value
        if value:
            return value
        if operator == ":-":
            return argument
        state = "not set" if value is None else "empty"
        raise _UnresolvedError(f"the variable {name} is {state}: {argument or 'set it'}")

    def _file(self, name: str) -> str:
        if not name:
            raise _UnresolvedError("${file:} names no file; write ${file:/run/secrets/name}")
        if name not in self._files:
            self._files[name] = self._read(name)
        content = self._files[name]
        if content.problem:
            raise _UnresolvedError(content.problem)
        return content.text.get_secret_value()


def _closing_brace(source: str, opening: int) -> int:
    """Give the index of the brace that closes the one at `opening`, or -1.

    Braces inside are counted, so that a default may be a template: `${T:-clerk.{type}}`.
    """
    depth = 0
    for at in range(opening, len(source)):
        if source[at] == "{":
            depth += 1
        elif source[at] == "}":
            depth -= 1
            if depth == 0:
                return at
    return -1
