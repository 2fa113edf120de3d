"""`{expr}` in a topic, subject, key or header value: parsed once, rendered per event.

Between braces stands JMESPath; `{{` is a literal brace, and so is `}` or `}}` outside of one.
Topics and subjects are sanitised, because end users write what is rendered into them; keys are
verbatim; header values lose control characters.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from gateway import GatewayError
from gateway.metadata import clean_header
from gateway.routing.expressions import (
    MAX_CACHED,
    Expression,
    ExpressionError,
    ExpressionSyntaxError,
    compiled,
)
from gateway.routing.interpreter import weigh

__all__ = [
    "MAX_TEXT",
    "Template",
    "TemplateSyntaxError",
    "TextTooLongError",
    "compiled_template",
    "sanitise",
    "sanitise_type",
]

MAX_TEMPLATE = 8 * 1024
"""Characters of a template; a longer literal could be in no record."""
MAX_TEXT = 8 * 1024
"""Characters of a key or header value: more than all of a record's together may have."""
_MAX_DESTINATION = 1024
"""Characters; more than any broker takes."""

_MAX_VALUE = 128
"""Characters that one placeholder may put into a destination."""

# What nearly every value is: safe already, and without the `-` of one that was marked.
_PLAIN = re.compile(rf"[A-Za-z0-9_]{{1,{_MAX_VALUE}}}").fullmatch
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
_UNSAFE_TYPE = re.compile(r"[^A-Za-z0-9._-]")
_BRACE = re.compile(r"\{\{|\{|\}\}")
# A quote that is not closed takes the rest of the text.
_QUOTED_OR_BRACE = re.compile(
    r"""[{}]|'(?:[^'\\]|\\.)*+(?:'|\\?\Z)|"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|`(?:[^`\\]|\\.)*+(?:`|\\?\Z)""",
    re.DOTALL,
)
_EMPTY_TOKEN = re.compile(r"^\.|\.(?=\.)|\.$")
# A value that looks as if it had been changed or shortened: unmarked, it could be written to
# meet another value's token.
_LIKE_MARKED = re.compile(r"(?:.*_.*|.{118,})-[0-9a-f]{8}").fullmatch


class TemplateSyntaxError(GatewayError):
    """A template that cannot be parsed. `offset` is the 0-based place in its text."""

    def __init__(self, source: str, problem: str, offset: int) -> None:
        self.source = source
        self.problem = problem
        self.offset = offset
        super().__init__(problem)


class TextTooLongError(GatewayError):
    """A key or header value that no record has room for."""

    def __init__(self) -> None:
        super().__init__(f"a key or header value is over {MAX_TEXT} characters")


class Template:
    """One compiled template; immutable."""

    __slots__ = ("fields", "is_literal", "offsets", "parts", "paths", "prefix", "source")

    def __init__(self, source: str) -> None:
        """Compile, or raise `TemplateSyntaxError`."""
        self.source = source
        offsets: list[int] = []
        self.parts: tuple[str | Expression, ...] = _parse(source, offsets)
        """Literals and placeholders, in order."""
        self.offsets = tuple(offsets)
        """Where each placeholder's expression begins in the source, 0-based."""
        first = self.parts[0] if self.parts else ""
        self.prefix: str = first if isinstance(first, str) else ""
        """The literal before the first placeholder."""
        self.is_literal = not any(isinstance(part, Expression) for part in self.parts)
        """Whether there is no placeholder, so that `prefix` is the whole."""
        self.fields: frozenset[str] = frozenset().union(
            *(part.fields for part in self.parts if isinstance(part, Expression))
        )
        """Every field name that its expressions read."""
        self.paths: frozenset[str] = frozenset(
            part.path for part in self.parts if isinstance(part, Expression) and part.path
        )
        """The placeholders that are dotted paths and nothing else."""

    def form(self, values: Mapping[str, str]) -> str:
        """Give the destination with the placeholders filled in whose path is in `values`.

        The values are sanitised already. `*` stands for each of the other placeholders: it yields
        some letters, digits, `_` and `-`, but no dot.
        """
        return "".join(
            part if isinstance(part, str) else values.get(part.path or "", "*")
            for part in self.parts
        )

    def destination(self, scope: Mapping[str, Any]) -> str:
        """Render a topic or subject; each value is sanitised.

        What is longer than any broker takes is not rendered to its end.
        Raises `ExpressionError`, also for a value that is null, empty, or not a scalar.
        """
        rendered = ""
        for part in self.parts:
            rendered += part if isinstance(part, str) else _destination_value(part, scope)
            if len(rendered) > _MAX_DESTINATION:
                break
        return rendered

    def text(self, scope: Mapping[str, Any]) -> str:
        """Render a key, verbatim: null gives nothing, a list or object its compact JSON.

        Raises `ExpressionError` and `TextTooLongError`.
        """
        return self._render(scope, _verbatim)

    def header(self, scope: Mapping[str, Any]) -> str:
        """Render a header value: as `text`, without control characters."""
        return self._render(scope, clean_header)

    def _render(self, scope: Mapping[str, Any], clean: Callable[[str], str]) -> str:
        rendered = ""
        for part in self.parts:
            text = part if isinstance(part, str) else _text_of(part, part.evaluate(scope))
            rendered += clean(text)
            if len(rendered) > MAX_TEXT:
                raise TextTooLongError
        return rendered


@lru_cache(maxsize=MAX_CACHED)
def compiled_template(source: str) -> Template:
    """Compile, or give what was compiled of the same source. Raises `TemplateSyntaxError`."""
    return Template(source)


def _verbatim(text: str) -> str:
    return text


def sanitise(value: str) -> str:
    """Make one token of letters, digits, `_` and `-`; two values never become one.

    A changed or shortened value gets `-` and 8 hex digits of its SHA-256, and so does one that
    looks as if it had them already.
    """
    if _PLAIN(value):
        return value
    return _mark(value, _UNSAFE.sub("_", value[: _MAX_VALUE + 1]))


@lru_cache(maxsize=1024)
def sanitise_type(value: str) -> str:
    """As `sanitise`, but the dots of an event type stay, unless one would end an empty token."""
    return _mark(value, _EMPTY_TOKEN.sub("_", _UNSAFE_TYPE.sub("_", value[: _MAX_VALUE + 1])))


def _mark(value: str, safe: str) -> str:
    """`safe` need not go on where it will be cut."""
    if safe == value and len(value) <= _MAX_VALUE and not _LIKE_MARKED(value):
        return value
    digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{safe[: _MAX_VALUE - 9].rstrip('.')}-{digest}"


def _destination_value(part: Expression, scope: Mapping[str, Any]) -> str:
    value = part.evaluate(scope)
    if value is None or value == "":
        raise ExpressionError(part.source, "gave nothing for a destination")
    if isinstance(value, dict | list):
        raise ExpressionError(part.source, "gave a list or an object for a destination")
    text = _text_of(part, value)
    return sanitise_type(text) if part.path == "type" else sanitise(text)


def _text_of(part: Expression, value: object) -> str:
    if value is None:
        return ""
    # No value's JSON is shorter than a sixteenth of its weight. What is shared is written out as
    # often as it is there, so this must be known before.
    if isinstance(value, dict | list) and weigh(value, 16 * MAX_TEXT) > 16 * MAX_TEXT:
        raise TextTooLongError
    try:
        text = value if isinstance(value, str) else _json(value)
        if not text.isascii():
            text.encode()
    except (TypeError, ValueError, RecursionError):
        # An expression reference (`&x`), an integer of thousands of digits, half a surrogate pair.
        raise ExpressionError(part.source, "gave a value that has no text") from None
    return text


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _parse(source: str, offsets: list[int]) -> tuple[str | Expression, ...]:
    """Give the parts, and add to `offsets` where each expression begins."""
    if len(source) > MAX_TEMPLATE:
        problem = f"longer than {MAX_TEMPLATE} characters"
        raise TemplateSyntaxError(source, problem, 0)
    parts: list[str | Expression] = []
    literal, at = "", 0
    while at < len(source):
        brace = _BRACE.search(source, at)
        if brace is None:
            literal += source[at:]
            break
        literal += source[at : brace.start()]
        at = brace.end()
        if brace[0] != "{":
            literal += brace[0][0]
            continue
        end = _closing_brace(source, brace.start())
        if literal:
            parts.append(literal)
            literal = ""
        parts.append(_compile(source, at, end))
        offsets.append(end - len(source[at:end].lstrip()))
        at = end + 1
    if literal:
        parts.append(literal)
    return tuple(parts)


def _closing_brace(source: str, opening: int) -> int:
    """Find the brace that ends the placeholder, past JMESPath's quotes and its own braces."""
    depth = 0
    for part in _QUOTED_OR_BRACE.finditer(source, opening):
        if part[0] == "{":
            depth += 1
        elif part[0] == "}":
            depth -= 1
            if depth == 0:
                return part.start()
    raise TemplateSyntaxError(source, "`{` is not closed; for a literal brace write `{{`", opening)


def _compile(source: str, start: int, end: int) -> Expression:
    text = source[start:end].lstrip()
    if not text:
        raise TemplateSyntaxError(source, "`{}` holds no expression", start)
    try:
        return compiled(text.rstrip())
    except ExpressionSyntaxError as error:
        raise TemplateSyntaxError(source, str(error), end - len(text) + error.offset) from None
