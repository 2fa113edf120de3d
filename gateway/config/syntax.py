"""What libyaml refuses, in plain words and at the place where a person would look for it."""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

from gateway import GatewayError

__all__ = ["SyntaxFault", "explain"]


class SyntaxFault(GatewayError):
    """Text that is not one YAML document, or is over a bound. Never holds a value of the file."""

    def __init__(self, problem: str, index: int) -> None:
        self.problem = problem
        self.index = index
        """Of the character where it is."""
        super().__init__(problem)


_ESCAPE: Final = "found invalid Unicode character escape code"
_WORDS: Final = (
    (
        "mapping values are not allowed",
        "a colon where none can be; indent this line like its neighbours, or quote the text",
    ),
    ("could not find expected ':'", "a key without its colon; write `key: value`"),
    ("found unknown escape", "an unknown escape; write \\\\ for a backslash between double quotes"),
    ("found unexpected end of stream", "a quote that is not closed"),
    (_ESCAPE, "holds half of a character pair; write the character itself"),
    (
        "block sequence entries are not allowed",
        "a list entry where none can be; begin it on a new line",
    ),
    ("mapping keys are not allowed", "a ? where none can be; quote the text"),
    ("found a tab character", "a tab; indent with spaces"),
    ("found unexpected document indicator", "a quote that is not closed before --- or ..."),
    ("did not find expected comment or line break", "text after | or >; begin it on a new line"),
    ("did not find expected key", "no key where one should be; check the indentation and quotes"),
    (
        "did not find expected '-' indicator",
        "no list entry where one should be; begin it with -, indented like its neighbours",
    ),
    ("did not find expected <document start>", "text after the end of the document"),
    ("did not find expected node content", "a value should be here; quote text that begins so"),
    (
        "did not find expected alphabetic",
        "& and * are for anchors and aliases; quote a value that begins with them",
    ),
)
_BEGAN_EARLIER: Final = (
    "could not find expected ':'",
    "found unexpected end of stream",
    _ESCAPE,
)
"""Where the parser noticed these is of no use; where the text began is."""
_HALF_PAIR: Final = re.compile("(?<=u)[dD]|(?<=U)0000[dD]")
_FIRST: Final = {
    "\t": "a tab; indent with spaces",
    "%": "a value cannot begin with %; quote it",
    "@": "a value cannot begin with @; quote it",
    "`": "a value cannot begin with a backquote; quote it",
}
_SEPARATOR: Final = re.compile("did not find (expected ',' or '[]}]')")
_TAG: Final = re.compile("tag|URI|expected whitespace or line break|the expected '>'")
_LINE_BREAK: Final = re.compile("[\r\n]")


def explain(error: yaml.YAMLError, text: str, skipped: int) -> SyntaxFault:
    """Say what libyaml refused in `text`, of which it did not count `skipped` characters."""
    problem = str(getattr(error, "problem", None) or "not YAML")
    marks = [getattr(error, name, None) for name in ("problem_mark", "context_mark")]
    if problem == _ESCAPE and not _HALF_PAIR.match(text, _index(marks[0]) + skipped):
        return SyntaxFault("not YAML: a character or number that cannot be", 0)
    if problem.startswith(_BEGAN_EARLIER):
        marks.reverse()
    index = min(_index(marks[0] or marks[1]) + skipped, len(text))
    if problem.startswith("found unknown escape"):
        # The mark is the backslash.
        index += 1
    words = _in_words(problem, text[index : index + 1])
    if "quote" not in words and "${" in _line(text, index):
        words += "; a value with ${…} may need quotes"
    return SyntaxFault(words, index)


def _index(mark: Any) -> int:
    return 0 if mark is None else int(mark.index)


def _in_words(problem: str, char: str) -> str:
    if problem.startswith("found character that cannot start any token"):
        return _FIRST.get(char, f"a value cannot begin with {char}; quote it")
    for beginning, words in _WORDS:
        if problem.startswith(beginning):
            return words
    separator = _SEPARATOR.match(problem)
    if separator is not None:
        return f"{separator[1]}, but got {_shown(char)}"
    if _TAG.search(problem):
        return "tags such as !name are not used here; remove it"
    return problem


def _shown(char: str) -> str:
    """Name a character that has a meaning in YAML; others could be part of a value."""
    if not char:
        return "the end of the file"
    return f"'{char}'" if char in "[]{},:?-&*!|>'\"%@`" else "some text"


def _line(text: str, index: int) -> str:
    """Give the line around `index`."""
    start = max(text.rfind("\n", 0, index), text.rfind("\r", 0, index)) + 1
    end = _LINE_BREAK.search(text, index)
    return text[start : len(text) if end is None else end.start()]
