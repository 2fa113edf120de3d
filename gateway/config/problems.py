"""What is wrong with a config file, and where: positions as editors count them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from gateway import GatewayError

__all__ = ["ConfigError", "DocumentPath", "LineIndex", "Position", "Positions", "Problem"]

DocumentPath = tuple[str | int, ...]
"""The way to a value: `("routes", 0, "when")`."""

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Position:
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
        warning = "warning: " if self.severity == "warning" else ""
        return f"{place}: {warning}{self.message}"


class ConfigError(GatewayError):
    """A config file that cannot be used. Its message has a line for each problem, in order."""

    def __init__(self, path: str, problems: Iterable[Problem]) -> None:
        self.path = path
        """The file's name, as it was given."""
        self.problems = tuple(sorted(problems, key=_place))
        """Errors, and the warnings that were found beside them."""
        super().__init__("\n".join(problem.render(path) for problem in self.problems))


def _place(problem: Problem) -> tuple[int, int]:
    return problem.line, problem.col


class Positions:
    """Where each key and value of a document is. Immutable; holds no values."""

    __slots__ = ("_interpolated", "_keys", "_values")

    def __init__(
        self,
        values: Mapping[DocumentPath, Position],
        keys: Mapping[DocumentPath, Position],
        interpolated: frozenset[DocumentPath],
    ) -> None:
        self._values = dict(values)
        self._keys = dict(keys)
        self._interpolated = interpolated

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
        length = len(path) + 1
        return tuple(str(key[-1]) for key in self._keys if len(key) == length and key[:-1] == path)

    def is_interpolated(self, path: DocumentPath) -> bool:
        """Tell whether the value, or what it is a part of, came from `${…}`: do not print it."""
        return any(path[:length] in self._interpolated for length in range(len(path) + 1))


class LineIndex:
    """Gives line and column, both from 1, of a character's index in a text."""

    __slots__ = ("_starts",)

    def __init__(self, text: str) -> None:
        self._starts = [0]
        for at, char in enumerate(text):
            if char == "\n" or (char == "\r" and text[at + 1 : at + 2] != "\n"):
                self._starts.append(at + 1)

    def position(self, index: int) -> tuple[int, int]:
        """Give (line, column) of the character at `index`."""
        line = bisect_right(self._starts, index)
        return line, index - self._starts[line - 1] + 1
