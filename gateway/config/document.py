"""From YAML text to plain values with positions, without YAML 1.1's surprises.

The parser is PyYAML's, in Python: its C twin counts columns differently and cannot be bounded.
What a plain scalar means is decided here, after the YAML 1.2 core schema: `true` and `false` are
the booleans, decimal numbers the numbers, and everything else is text: `12:30`, `010`, `0x1F`,
`2026-01-01`. Plain `yes`, `no`, `on`, `off`, `y` and `n` are errors, because YAML 1.1 and 1.2
disagree on them. So are duplicate keys, keys that are not text, tags, and the merge key `<<`
(YAML 1.2 dropped it); anchors and aliases of whole values work.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from gateway.config.interpolation import Interpolated, Interpolator
from gateway.config.names import quoted_key
from gateway.config.problems import (
    ConfigError,
    DocumentPath,
    LineIndex,
    Position,
    Positions,
    Problem,
)

__all__ = ["Document", "read_document"]

MAX_DEPTH: Final = 32
"""Levels of mappings and lists."""
MAX_NODES: Final = 100_000
"""Keys and values, each alias counted as what it stands for."""

_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS: Final = {
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}
_DISPUTED: Final = re.compile(r"y|Y|yes|Yes|YES|on|On|ON|n|N|no|No|NO|off|Off|OFF")
_MEANS_TRUE: Final = frozenset({"y", "yes", "on"})
_INT: Final = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,17})")
_FLOAT: Final = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,18}")
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_KINDS: Final = {
    "int": "a number",
    "float": "a number",
    "NoneType": "nothing",
    "bool": "true or false",
}


@dataclass(frozen=True, slots=True)
class Document:
    """A config file as plain values: dict, list, str, int, float, bool and None."""

    value: Any = field(repr=False)
    positions: Positions
    problems: tuple[Problem, ...]
    failed: frozenset[DocumentPath]
    """Where the problems are: what stands in `value` there is not what was meant."""


def read_document(text: str, name: str, interpolator: Interpolator) -> Document:
    """Parse and interpolate. Raises `ConfigError` where the text is not one YAML document.

    Everything else that is wrong is in the document's problems.
    """
    lines = LineIndex(text)
    try:
        root = _compose(text)
        if root is None:
            raise yaml.MarkedYAMLError(problem="the file is empty; `gateway init` writes one")
        builder = _Builder(text, lines, interpolator)
        value = builder.build(root, (), 1)
    except yaml.YAMLError as error:
        raise ConfigError(name, (_syntax_problem(error, text, lines),)) from None
    except (ValueError, OverflowError):
        # PyYAML lets these escape: `"\UFFFFFFFF"`, or a directive with a number of 5000 digits.
        problem = Problem("error", (), 1, 1, "not YAML: a character or number that cannot be")
        raise ConfigError(name, (problem,)) from None
    positions = Positions(builder.values, builder.keys, frozenset(builder.interpolated))
    return Document(value, positions, tuple(builder.problems), frozenset(builder.failed))


class _Loader(yaml.SafeLoader):
    """PyYAML's composer with bounds, and without tags."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._count = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs leave it out
        if getattr(event, "tag", None) is not None:
            raise _refusal("tags such as !name are not used here; remove it", event.start_mark)
        self._count += 1
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _refusal(f"nested more than {MAX_DEPTH} levels deep", event.start_mark)
        if self._count > MAX_NODES:
            raise _refusal(f"more than {MAX_NODES} keys and values", event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _compose(text: str) -> yaml.Node | None:
    loader = _Loader(text)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


def _refusal(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


class _Builder:
    """Makes values of nodes, and notes where each is."""

    def __init__(self, text: str, lines: LineIndex, interpolator: Interpolator) -> None:
        self.values: dict[DocumentPath, Position] = {}
        self.keys: dict[DocumentPath, Position] = {}
        self.interpolated: set[DocumentPath] = set()
        self.failed: set[DocumentPath] = set()
        self.problems: list[Problem] = []
        self._text = text
        self._lines = lines
        self._interpolator = interpolator
        self._count = 0

    def build(self, node: yaml.Node, path: DocumentPath, depth: int) -> Any:
        """Make the value of `node`. Raises `yaml.MarkedYAMLError` when a bound is passed."""
        self._count += 1
        if depth > MAX_DEPTH or self._count > MAX_NODES:
            problem = f"aliases make this more than {MAX_DEPTH} levels or {MAX_NODES} values"
            raise _refusal(problem, node.start_mark)
        self.values[path] = self._position(node)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [
                self.build(child, (*path, at), depth + 1) for at, child in enumerate(node.value)
            ]
        return self._mapping(node, path, depth)

    def _mapping(self, node: yaml.Node, path: DocumentPath, depth: int) -> dict[str, Any]:
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

    def _key(self, node: yaml.Node, path: DocumentPath) -> str | None:
        """Give the key, or note why there is none."""
        problem = _key_problem(node)
        if problem is None:
            return str(node.value)
        self._problem(path, self._position(node), problem)
        return None

    def _scalar(self, node: yaml.ScalarNode, path: DocumentPath) -> Any:
        text = str(node.value)
        if _SURROGATE.search(text):
            self._fail(path, "holds half of a character pair; write the character itself")
            return ""
        if "$" in text:
            return self._expanded(text, path)
        if node.style is not None:
            return text
        if _DISPUTED.fullmatch(text):
            boolean = "true" if text.lower() in _MEANS_TRUE else "false"
            self._fail(
                path,
                f"{text} is a boolean in one YAML and text in another; write {boolean},"
                f' or "{text}" for text',
            )
            return text
        return _core(text)

    def _expanded(self, text: str, path: DocumentPath) -> str:
        expansion = self._interpolator.expand(text)
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

    def _offset(self, path: DocumentPath, offset: int) -> Position:
        at = self.values[path]
        return at if at.text_col is None else Position(at.line, at.text_col + offset)

    def _position(self, node: yaml.Node) -> Position:
        start, end = node.start_mark.index, node.end_mark.index
        line, col = self._lines.position(start)
        if not isinstance(node, yaml.ScalarNode):
            return Position(line, col)
        quote = 0 if node.style is None else 1
        raw = self._text[start + quote : end - quote]
        exact = raw == node.value and "\n" not in raw
        return Position(line, col, col + quote if exact else None)


def _key_problem(node: yaml.Node) -> str | None:
    if not isinstance(node, yaml.ScalarNode):
        return "a key must be text, not a list or a mapping"
    text = str(node.value)
    if _SURROGATE.search(text):
        return "the key holds half of a character pair"
    return None if node.style is not None else _plain_key_problem(text)


def _plain_key_problem(text: str) -> str | None:
    if text == "<<":
        return "the merge key << is not supported; write the keys here as well"
    if _DISPUTED.fullmatch(text):
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
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


_WORDS: Final = (
    (
        "mapping values are not allowed here",
        "a colon where none can be; indent this line like its neighbours, or quote the text",
    ),
    ("found character '\\t'", "a tab; indent with spaces"),
    ("found character '%", "a value cannot begin with %; quote it"),
    ("found character '@", "a value cannot begin with @; quote it"),
    ("found character '`", "a value cannot begin with a backquote; quote it"),
    ("could not find expected ':'", "a key without its colon; write `key: value`"),
    ("but found another document", "a second document; a config file has one, remove the ---"),
    ("found undefined alias", "an alias of nothing; quote a value that begins with *"),
    ("second occurrence", "an anchor that is here twice; give it another name"),
    ("found unknown escape", "an unknown escape; write \\\\ for a backslash between double quotes"),
    ("found unexpected end of stream", "a quote that is not closed"),
    ("sequence entries are not allowed", "a list entry where none can be; begin it on a new line"),
)
_BEGAN_EARLIER: Final = ("could not find expected ':'", "found unexpected end of stream")
"""Where the parser noticed these is of no use; where the text began is."""
_QUOTED: Final = re.compile(r"""'[^']*'|"[^"]*\"""")


def _syntax_problem(error: yaml.YAMLError, text: str, lines: LineIndex) -> Problem:
    """Say a parser's error in plain words. PyYAML's own `str` would quote the line."""
    if isinstance(error, yaml.reader.ReaderError):
        line, col = lines.position(error.position)
        message = "a control character that YAML does not allow; remove it"
        return Problem("error", (), line, col, message)
    problem = str(getattr(error, "problem", None) or "not YAML")
    marks = [getattr(error, name, None) for name in ("problem_mark", "context_mark")]
    if problem.startswith(_BEGAN_EARLIER):
        marks.reverse()
    mark = marks[0] or marks[1]
    line, col = lines.position(mark.index) if mark is not None else (1, 1)
    message = _in_words(problem)
    if "${" in _line(text, line) and "quote" not in message:
        message += "; a value with ${…} may need quotes"
    return Problem("error", (), line, col, message)


def _in_words(problem: str) -> str:
    for beginning, words in _WORDS:
        if problem.startswith(beginning):
            return words
    return _QUOTED.sub(_known_quote, problem)


def _known_quote(match: re.Match[str]) -> str:
    """Keep a single character and the name of a token: PyYAML may also quote part of a value."""
    quoted = match[0]
    return quoted if len(quoted) == 3 or quoted.startswith("'<") else "some text"


def _line(text: str, number: int) -> str:
    lines = text.splitlines()
    return lines[number - 1] if number <= len(lines) else ""
