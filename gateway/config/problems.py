"""What is wrong with a config file, and where: positions as editors count them."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from gateway import GatewayError

__all__ = [
    "MAX_PROBLEMS",
    "ConfigError",
    "DocumentPath",
    "LineIndex",
    "Position",
    "Positions",
    "Problem",
    "Severity",
    "render",
]

MAX_PROBLEMS: Final = 1000
"""Where the search for errors ends, and as many warnings are kept."""
_MAX_SHOWN: Final = 100
_MAX_MESSAGE: Final = 1000
"""Characters of a message, which may quote a key or a name of any length."""
_LINE_END: Final = re.compile("\r\n?|\n")

DocumentPath = tuple[str | int, ...]
"""The way to a value: `("routes", 0, "when")`."""

Severity = Literal["error", "warning", "note"]
"""A note is worth to be known and may well be meant."""


class Position(msgspec.Struct, frozen=True, gc=False):
    """A place in the file; line and column count from 1."""

    line: int
    col: int
    text_col: int | None = None
    """The column of the value's first character, where each character of the value is one
    character on this line of the file: no escapes, no `${…}`."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to tell about a config file. Never holds a secret or a value of the environment."""

    severity: Severity
    path: DocumentPath
    line: int
    """From 1; 0 where the problem is the file as such."""
    col: int
    message: str
    """What is wrong, and what would be right."""

    def render(self, file: str) -> str:
        """Give `file:line:col: message`, which editors and terminals make clickable."""
        place = f"{file}:{self.line}:{self.col}" if self.line else file
        severity = "" if self.severity == "error" else f"{self.severity}: "
        message = self.message
        if len(message) > _MAX_MESSAGE:
            message = f"{message[:_MAX_MESSAGE]}…"
        return f"{place}: {severity}{message}"


def render(file: str, problems: Sequence[Problem]) -> list[str]:
    """Give a line for each of the first hundred problems, and one that counts the others."""
    lines = [problem.render(file) for problem in problems[:_MAX_SHOWN]]
    more = len(problems) - _MAX_SHOWN
    if more > 0:
        least = "at least " if len(problems) >= MAX_PROBLEMS else ""
        lines.append(f"{file}: and {least}{more} more")
    return lines


class ConfigError(GatewayError):
    """A config file that cannot be used. Its message has a line for each problem, in order."""

    def __init__(self, path: str, problems: Iterable[Problem]) -> None:
        self.path = path
        """The file's name, as it was given."""
        self.problems = tuple(sorted(problems, key=_place))
        """Errors, and the warnings that were found beside them."""
        super().__init__("\n".join(render(path, self.problems)))


def _place(problem: Problem) -> tuple[int, int]:
    return problem.line, problem.col


class Positions:
    """Where each key and value of a document is. Immutable; holds no values."""

    __slots__ = ("_interpolated", "_keys", "_names", "_values")

    def __init__(
        self,
        values: Mapping[DocumentPath, Position],
        keys: Mapping[DocumentPath, Position],
        interpolated: frozenset[DocumentPath],
    ) -> None:
        self._values = dict(values)
        self._keys = dict(keys)
        self._interpolated = interpolated
        self._names: dict[DocumentPath, list[str]] = {}
        for path in self._keys:
            self._names.setdefault(path[:-1], []).append(str(path[-1]))

    def __contains__(self, path: DocumentPath) -> bool:
        return path in self._values

    def value(self, path: DocumentPath) -> Position:
        """Give the place of the value, or of the closest thing around it that is in the file."""
        for length in range(len(path), -1, -1):
            found = self._values.get(path[:length])
            if found is not None:
                return found
        return Position(1, 1)

    def key(self, path: DocumentPath) -> Position:
        """Give the place of the value's key, or of the value where it has none."""
        return self._keys.get(path) or self.value(path)

    def names(self, path: DocumentPath) -> tuple[str, ...]:
        """Give the keys of the mapping at `path`, in file order."""
        return tuple(self._names.get(path, ()))

    def is_interpolated(self, path: DocumentPath) -> bool:
        """Tell whether the value, or what it is a part of, came from `${…}`: do not print it."""
        interpolated = self._interpolated
        return bool(interpolated) and any(
            path[:length] in interpolated for length in range(len(path) + 1)
        )


class LineIndex:
    """Gives line and column, both from 1, of a character's index in a text."""

    __slots__ = ("_starts",)

    def __init__(self, text: str) -> None:
        self._starts = [0, *(end.end() for end in _LINE_END.finditer(text))]

    def position(self, index: int) -> tuple[int, int]:
        """Give (line, column) of the character at `index`."""
        line = bisect_right(self._starts, index)
        return line, index - self._starts[line - 1] + 1
