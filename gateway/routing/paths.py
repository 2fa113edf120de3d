"""Which places of an event an expression reads, told from its syntax tree alone.

For those who explain a condition, or hold it to the fields that a type of event has. What cannot
be told, such as what stands in `&name`, or behind `.*` or a function, is left out: no path is
invented.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from gateway.routing.expressions import MAX_CACHED, Expression

__all__ = ["Steps", "path_text", "paths_read", "value_at"]

Steps = tuple[str | int | None, ...]
"""The way into an event: a field's name, an element's number, or None for every element."""

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*").fullmatch
_CHAINS = frozenset({"subexpression", "index_expression", "pipe"})
_PROJECTIONS = frozenset({"projection", "value_projection", "filter_projection"})
"""`a[*]`, `a.*` and `a[?…]`; `a[]` is the first kind too."""


@lru_cache(maxsize=MAX_CACHED)
def paths_read(expression: Expression) -> tuple[Steps, ...]:
    """Give every place that the expression reads, each once, in the order of its text.

    `data.emails[?verified].address` reads `data.emails`, `data.emails[].verified` and
    `data.emails[].address`.
    """
    walk = _Walk()
    walk.note(walk.visit(expression.tree, ()))
    return tuple(walk.found)


@lru_cache(maxsize=MAX_CACHED)
def path_text(steps: Steps) -> str:
    """Write a path as JMESPath does: `data.emails[0].address`."""
    text = ""
    for step in steps:
        if isinstance(step, str):
            text += f".{step}" if _IDENTIFIER(step) else f'."{step}"'
        else:
            text += "[]" if step is None else f"[{step}]"
    return text.removeprefix(".")


def value_at(steps: Steps, document: Any) -> Any:
    """Give what stands at a path of names and numbers; None for nothing."""
    value = document
    for step in steps:
        if isinstance(step, str):
            value = value.get(step) if isinstance(value, dict) else None
        elif step is not None:
            inside = isinstance(value, list) and -len(value) <= step < len(value)
            value = value[step] if inside else None
    return value


class _Walk:
    """Follows a tree; each visit gives the place that a node's value has, or None."""

    def __init__(self) -> None:
        # A dict for its order; the tree's depth and size are bounded by `expressions`.
        self.found: dict[Steps, None] = {}

    def note(self, place: Steps | None) -> None:
        if place:
            self.found.setdefault(place)

    def visit(self, node: Mapping[str, Any], base: Steps | None) -> Steps | None:
        kind = node["type"]
        if kind in {"field", "index"}:
            return None if base is None else (*base, node["value"])
        if kind in {"current", "identity", "slice"}:
            return base
        children: Sequence[Mapping[str, Any]] = node["children"]
        if kind in _CHAINS:
            for child in children:
                base = self.visit(child, base)
            return base
        if kind == "flatten":
            return self.visit(children[0], base)
        if kind in _PROJECTIONS:
            return self._project(kind, children, base)
        inner = None if kind == "expref" else base
        for child in children:
            self.note(self.visit(child, inner))
        return None

    def _project(
        self, kind: str, children: Sequence[Mapping[str, Any]], base: Steps | None
    ) -> Steps | None:
        items = self.visit(children[0], base)
        self.note(items)
        # The values of an object have names of their own, which no step stands for.
        element = None if items is None or kind == "value_projection" else (*items, None)
        for child in children[1:]:
            found = self.visit(child, element)
            if found != element:
                self.note(found)
        return None  # a list of what was found, which is no place of the event
