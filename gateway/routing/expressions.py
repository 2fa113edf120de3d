"""JMESPath over an event (https://jmespath.org/specification.html), compiled once and bounded.

The jmespath library parses and defines the meaning. Plain field paths, comparisons of one with
a string, and `&&` and `||` of those become closures, some twenty times cheaper; a property
test holds them to the library's answers. Everything else runs on the library's interpreter with
a budget: an expression is the operator's, but what it walks over is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError, ParseError

from gateway import GatewayError
from gateway.routing.interpreter import MAX_STEPS, BoundedInterpreter, ExceededError

__all__ = [
    "MAX_CACHED",
    "MAX_STEPS",
    "Expression",
    "ExpressionError",
    "ExpressionSyntaxError",
    "compiled",
    "is_true",
]

Evaluate = Callable[[Any], Any]
Node = Mapping[str, Any]

MAX_SOURCE = 1024
"""Characters of one expression."""
MAX_DEPTH = 48
"""Levels of its syntax tree."""
MAX_CACHED = 16_384
"""Expressions, of some 3 kB each: more than a config file of 1 MiB holds, unless most of them are
shorter than 30 characters. Were it fewer than a file holds, each would be compiled again for every
pass over its routes."""
_OTHER_LANGUAGES = {"=": "==", "and": "&&", "or": "||"}
"""What other languages write, and what JMESPath does."""


class ExpressionSyntaxError(GatewayError):
    """An expression that JMESPath cannot parse, or that is over a bound. `offset` is 0-based."""

    def __init__(self, source: str, problem: str, offset: int = 0) -> None:
        self.source = source
        self.problem = problem
        self.offset = offset
        super().__init__(f"not a JMESPath expression: {problem}")


class ExpressionError(GatewayError):
    """An evaluation that raised or exceeded its bound. Never holds a value of the event."""

    def __init__(self, source: str, problem: str) -> None:
        self.source = source
        self.problem = problem
        super().__init__(f"the expression `{source}` {problem}")


def is_true(value: object) -> bool:
    """JMESPath's truth: false are null, false, "", [] and {}; 0 is true."""
    if value is True:
        return True
    return not (value is None or value is False or value in ("", [], {}))


class Expression:
    """One compiled expression; immutable."""

    __slots__ = ("_evaluate", "fields", "path", "source", "tree")

    def __init__(self, source: str) -> None:
        """Compile, or raise `ExpressionSyntaxError`."""
        self.source = source
        self.tree: Node = _parse(source)
        """What the library made of it."""
        self.fields: frozenset[str] = _field_names(self.tree)
        """Every field name that occurs, at whatever depth."""
        path = _field_path(self.tree)
        self.path: str | None = ".".join(path) if path else None
        """The dotted path, where the expression is nothing else."""
        self._evaluate = _closure(self.tree)

    def evaluate(self, document: Mapping[str, Any]) -> Any:
        """Return what the expression selects from `document`, `None` for nothing.

        Raises `ExpressionError`.
        """
        if self._evaluate is not None:
            return self._evaluate(document)
        try:
            return BoundedInterpreter().visit(self.tree, document)
        except ExceededError:
            raise ExpressionError(self.source, f"took more than {MAX_STEPS} steps") from None
        except JMESPathError as error:
            # The library's messages quote values of the event; its class says enough.
            raise ExpressionError(self.source, f"failed: {type(error).__name__}") from None
        except TypeError:
            problem = "failed: it compares text with a number, or gives a function another type"
            raise ExpressionError(self.source, problem) from None
        except (ValueError, RecursionError, OverflowError, KeyError) as error:
            raise ExpressionError(self.source, f"failed: {type(error).__name__}") from None


@lru_cache(maxsize=MAX_CACHED)
def compiled(source: str) -> Expression:
    """Compile, or give what was compiled of the same source. Raises `ExpressionSyntaxError`."""
    return Expression(source)


def _parse(source: str) -> Node:
    if len(source) > MAX_SOURCE:
        raise ExpressionSyntaxError(source, f"longer than {MAX_SOURCE} characters")
    try:
        tree: Node = jmespath.compile(source).parsed
    except JMESPathError as error:
        offset = getattr(error, "lex_position", None) or 0
        raise ExpressionSyntaxError(source, _problem(error), offset) from None
    except RecursionError:
        raise ExpressionSyntaxError(source, "nested too deeply") from None
    if _is_deeper(tree, MAX_DEPTH):
        raise ExpressionSyntaxError(source, f"nested more than {MAX_DEPTH} levels deep")
    return tree


def _problem(error: JMESPathError) -> str:
    """Say in one line what the library draws over several."""
    if isinstance(error, ParseError):
        if not error.token_value:
            return "it ends too early"
        other = _OTHER_LANGUAGES.get(str(error.token_value))
        hint = f"; write {other}" if other else ""
        return f"unexpected {error.token_value!r} at character {error.lex_position + 1}{hint}"
    return str(error).splitlines()[0].rstrip(":. ")[:200]


def _children(node: Node) -> list[Node]:
    # A slice keeps bare numbers among its children.
    return [child for child in node.get("children", ()) if isinstance(child, dict)]


def _is_deeper(tree: Node, limit: int) -> bool:
    """Tell whether the tree has more levels than `limit`."""
    level = [tree]
    while level and limit:
        level = [child for node in level for child in _children(node)]
        limit -= 1
    return bool(level)


def _field_names(tree: Node) -> frozenset[str]:
    names, stack = [], [tree]
    while stack:
        node = stack.pop()
        if node["type"] == "field":
            names.append(node["value"])
        else:
            stack.extend(_children(node))
    return frozenset(names)


def _field_path(node: Node) -> tuple[str, ...] | None:
    """Give the names of `a.b.c`, or None where the node is anything else."""
    if node["type"] == "field":
        return (node["value"],)
    if node["type"] != "subexpression":
        return None
    names: list[str] = []
    for child in node["children"]:
        path = _field_path(child)
        if path is None:
            return None
        names.extend(path)
    return tuple(names)


def _closure(node: Node) -> Evaluate | None:
    """Compile the node to a closure, or give None where only the interpreter will do."""
    path = _field_path(node)
    if path is not None:
        return _walk(path)
    kind = node["type"]
    if kind == "comparator":
        return _compare(node)
    if kind not in {"and_expression", "or_expression"}:
        return None
    left, right = (_closure(child) for child in node["children"])
    if left is None or right is None:
        return None
    return _both(left, right) if kind == "and_expression" else _either(left, right)


def _walk(path: tuple[str, ...]) -> Evaluate:
    if len(path) == 1:
        (name,) = path
        return lambda value: value.get(name)

    def walk(value: Any) -> Any:
        for name in path:
            if type(value) is not dict:
                return None
            value = value.get(name)
        return value

    return walk


def _compare(node: Node) -> Evaluate | None:
    """`path == 'text'` and `!=`, either way round; text has none of JMESPath's special cases."""
    if node["value"] not in {"eq", "ne"}:
        return None
    left, right = node["children"]
    if left["type"] == "literal":
        left, right = right, left
    path = _field_path(left)
    if path is None or right["type"] != "literal" or not isinstance(right["value"], str):
        return None
    walk, text = _walk(path), right["value"]
    if node["value"] == "eq":
        return lambda value: walk(value) == text
    return lambda value: walk(value) != text


def _both(left: Evaluate, right: Evaluate) -> Evaluate:
    def both(value: Any) -> Any:
        first = left(value)
        return right(value) if is_true(first) else first

    return both


def _either(left: Evaluate, right: Evaluate) -> Evaluate:
    def either(value: Any) -> Any:
        first = left(value)
        return first if is_true(first) else right(value)

    return either
