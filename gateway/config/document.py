"""From YAML text to plain values with positions, without YAML 1.1's surprises.

`composition` parses; what a plain scalar means is decided here, after the YAML 1.2 core schema:
`true` and `false` are the booleans, decimal numbers the numbers, and everything else is text:
`12:30`, `010`, `0x1F`, `2026-01-01`. Plain `yes`, `no`, `on`, `off`, `y` and `n` are errors,
because YAML 1.1 and 1.2 disagree on them. So are duplicate keys, keys that are not text, tags, and
the merge key `<<` (YAML 1.2 dropped it); anchors and aliases of whole values work.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

from gateway import GatewayError
from gateway.config.composition import MAX_DEPTH, MAX_NODES, Node, compose
from gateway.config.interpolation import Interpolated, Interpolator
from gateway.config.names import quoted_key
from gateway.config.problems import (
    MAX_PROBLEMS,
    ConfigError,
    DocumentPath,
    LineIndex,
    Position,
    Positions,
    Problem,
)
from gateway.config.syntax import SyntaxFault

__all__ = ["Document", "read_document"]

MAX_TEXT: Final = 4 * 1024 * 1024
"""Characters of all keys and values, each alias counted as what it stands for."""

_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS: Final = {
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}
_DISPUTED: Final = frozenset(
    "y Y yes Yes YES on On ON n N no No NO off Off OFF".split()  # noqa: SIM905 - easier to read
)
_MEANS_TRUE: Final = frozenset({"y", "yes", "on"})
_NUMBER_BEGINS: Final = frozenset("+-0123456789")
_INT: Final = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,17})")
_FLOAT: Final = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,18}")
_KINDS: Final = {
    "int": "a number",
    "float": "a number",
    "NoneType": "nothing",
    "bool": "true or false",
}


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML file as plain values: dict, list, str, int, float, bool and None."""

    value: Any = field(repr=False)
    positions: Positions
    problems: tuple[Problem, ...]
    failed: frozenset[DocumentPath]
    """Where the problems are: what stands in `value` there is not what was meant."""


def read_document(text: str, name: str, interpolator: Interpolator | None = None) -> Document:
    """Parse and interpolate. Raises `ConfigError` where the text is not one YAML document.

    Without an interpolator `$` is a character like any other. Everything else that is wrong is in
    the document's problems; from `MAX_PROBLEMS` on they are raised as well, and what follows is not
    looked at.
    """
    lines = LineIndex(text)
    builder = _Builder(text, lines, interpolator)
    try:
        value = builder.build(compose(text), (), 1)
    except SyntaxFault as fault:
        problem = Problem("error", (), *lines.position(fault.index), fault.problem)
        raise ConfigError(name, (problem,)) from None
    except _TooManyProblemsError:
        raise ConfigError(name, builder.problems) from None
    positions = Positions(builder.values, builder.keys, frozenset(builder.interpolated))
    return Document(value, positions, tuple(builder.problems), frozenset(builder.failed))


class _TooManyProblemsError(GatewayError):
    """The builder has enough."""


class _Builder:
    """Makes values of nodes, and notes where each is."""

    def __init__(self, text: str, lines: LineIndex, interpolator: Interpolator | None) -> None:
        self.values: dict[DocumentPath, Position] = {}
        self.keys: dict[DocumentPath, Position] = {}
        self.interpolated: set[DocumentPath] = set()
        self.failed: set[DocumentPath] = set()
        self.problems: list[Problem] = []
        self._text = text
        self._lines = lines
        self._interpolator = interpolator
        self._count = 0
        self._characters = 0

    def build(self, node: Node, path: DocumentPath, depth: int) -> Any:
        """Make the value of `node`. Raises `SyntaxFault` when a bound is passed."""
        self._count += 1
        if depth > MAX_DEPTH or self._count > MAX_NODES:
            raise self._overgrown(node)
        if node.kind == "scalar":
            self._weigh(node)
            self.values[path] = self._position(node)
            return self._scalar(node, path)
        self.values[path] = self._position(node)
        if node.kind == "list":
            return [
                self.build(child, (*path, at), depth + 1) for at, child in enumerate(node.value)
            ]
        return self._mapping(node, path, depth)

    def _weigh(self, node: Node) -> None:
        """Count a scalar's text before anything looks through it."""
        self._characters += len(node.value)
        if self._characters > MAX_TEXT:
            raise self._overgrown(node)

    def _overgrown(self, node: Node) -> SyntaxFault:
        # Without aliases the file itself is too small for this.
        return SyntaxFault(
            f"aliases make this more than {MAX_DEPTH} levels, {MAX_NODES} values or"
            f" {MAX_TEXT // 1024**2} MiB of text",
            node.start,
        )

    def _mapping(self, node: Node, path: DocumentPath, depth: int) -> dict[str, Any]:
        built: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, path)
            if key is None:
                continue
            at = self._position(key_node)
            if key in built:
                first = self.keys[(*path, key)]
                self._problem(
                    path,
                    at,
                    f"{quoted_key(key) or 'this key'} is here twice, first on line {first.line}"
                    f" column {first.col}; remove one",
                )
                continue
            self.keys[(*path, key)] = at
            built[key] = self.build(value_node, (*path, key), depth + 1)
        return built

    def _key(self, node: Node, path: DocumentPath) -> str | None:
        """Give the key, or note why there is none."""
        if node.kind == "scalar":
            self._weigh(node)
        problem = _key_problem(node)
        if problem is None:
            return str(node.value)
        self._problem(path, self._position(node), problem)
        return None

    def _scalar(self, node: Node, path: DocumentPath) -> Any:
        text = str(node.value)
        if self._interpolator is not None and "$" in text:
            return self._expanded(text, path, self._interpolator)
        if node.style:
            return text
        if text in _DISPUTED:
            boolean = "true" if text.lower() in _MEANS_TRUE else "false"
            self._fail(
                path,
                f"{text} is a boolean in one YAML and text in another; write {boolean},"
                f' or "{text}" for text',
            )
            return text
        return _core(text)

    def _expanded(self, text: str, path: DocumentPath, interpolator: Interpolator) -> str:
        expansion = interpolator.expand(text)
        for fault in expansion.faults:
            self.failed.add(path)
            self._problem(path, self._offset(path, fault.offset), fault.message)
        if isinstance(expansion.text, Interpolated) or expansion.text != text:
            # Offsets into the value are not columns of the file any more.
            at = self.values[path]
            self.values[path] = Position(at.line, at.col)
        if isinstance(expansion.text, Interpolated) or expansion.faults:
            self.interpolated.add(path)
        return expansion.text

    def _fail(self, path: DocumentPath, message: str) -> None:
        self.failed.add(path)
        self._problem(path, self.values[path], message)

    def _problem(self, path: DocumentPath, at: Position, message: str) -> None:
        self.problems.append(Problem("error", path, at.line, at.col, message))
        if len(self.problems) >= MAX_PROBLEMS:
            raise _TooManyProblemsError

    def _offset(self, path: DocumentPath, offset: int) -> Position:
        at = self.values[path]
        return at if at.text_col is None else Position(at.line, at.text_col + offset)

    def _position(self, node: Node) -> Position:
        line, col = self._lines.position(node.start)
        if node.kind != "scalar":
            return Position(line, col)
        quote = 1 if node.style else 0
        raw = self._text[node.start + quote : node.end - quote]
        exact = raw == node.value and "\n" not in raw
        return Position(line, col, col + quote if exact else None)


def _key_problem(node: Node) -> str | None:
    if node.kind != "scalar":
        return "a key must be text, not a list or a mapping"
    text = str(node.value)
    return None if node.style else _plain_key_problem(text)


def _plain_key_problem(text: str) -> str | None:
    if text == "<<":
        return "the merge key << is not supported; write the keys here as well"
    if text in _DISPUTED:
        return f'YAML 1.1 reads the key {text} as a boolean; write "{text}"'
    value = _core(text)
    if isinstance(value, str):
        return None
    return f"a key must be text, this is {_KINDS[type(value).__name__]}; put it in quotes"


def _core(text: str) -> str | int | float | bool | None:
    """Give the value of a plain scalar by YAML 1.2's core schema, decimal numbers only."""
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if text[0] not in _NUMBER_BEGINS:
        return text
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
