"""Fields that an expression reads and the events do not have, by Clerk's schemas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from jmespath.exceptions import JMESPathError
from jmespath.lexer import Lexer

from gateway.clerk.schemas import FieldView, Steps, lookup
from gateway.config.names import closest
from gateway.lint.finding import have, names
from gateway.lint.route import OWN_NAMES, RouteView
from gateway.routing.expressions import Expression
from gateway.routing.paths import path_text, paths_read

__all__ = ["Absence", "absences", "advice", "offset_of", "where_missing"]

_MAX_LISTED: Final = 8
_COMPARISONS: Final = frozenset({"eq", "ne"})
_CONSTANTS: Final = frozenset({"true", "false", "null"})
_NAMES: Final = frozenset({"unquoted_identifier", "quoted_identifier"})


class Absence(msgspec.Struct, frozen=True):
    """A place that is in no event that a route takes."""

    place: Steps
    message: str
    """Without the name of the config's field: `user.created has no data.emial; …`."""
    offset: int
    """Where the expression names it, 0-based."""


def absences(expression: Expression, view: RouteView) -> tuple[Absence, ...]:
    """Give the places that an expression reads and no event has that the route takes."""
    found: dict[Steps, Absence] = {}
    for steps in paths_read(expression):
        if steps[0] in OWN_NAMES:
            continue
        missing, types = where_missing(steps, expression, view)
        if missing is None or len(types) < len(view.types):
            continue
        place = steps[: missing.depth + 1]
        if place not in found:
            found[place] = _absence(place, missing, types, expression)
    return tuple(found.values())


def where_missing(
    steps: Steps, expression: Expression, view: RouteView
) -> tuple[FieldView | None, tuple[str, ...]]:
    """Give in which of a route's types nothing can be at a place, and how far one can go."""
    deepest: FieldView | None = None
    lacking: list[str] = []
    for group in view.groups(expression):
        found = lookup(group[0], steps)
        if found is None or found.status != "missing":
            continue
        lacking.extend(group)
        if deepest is None or found.depth > deepest.depth:
            deepest = found
    return deepest, tuple(lacking)


def offset_of(expression: Expression, steps: Steps) -> int:
    """Give where the last name of a place stands in the expression's text, 0-based; else 0."""
    wanted = [step for step in steps if isinstance(step, str)]
    if not wanted:
        return 0
    tokens: list[tuple[str, int]]
    tokens = [(one["value"], one["start"]) for one in _tokens(expression) if one["type"] in _NAMES]
    before = wanted[-2] if len(wanted) > 1 else None
    for at, (name, start) in enumerate(tokens):
        if name == wanted[-1] and (before is None or (at > 0 and tokens[at - 1][0] == before)):
            return start
    return next((start for name, start in tokens if name == wanted[-1]), 0)


def _tokens(expression: Expression) -> list[Mapping[str, Any]]:
    try:
        return list(Lexer().tokenize(expression.source))
    except JMESPathError:  # pragma: no cover - it has been compiled
        return []


def _absence(
    place: Steps, missing: FieldView, types: Sequence[str], expression: Expression
) -> Absence:
    meant = _meant(place[-1], expression)
    hint = f": that is a field; write {meant}" if meant else advice(place, missing, types[0])
    message = f"{have(types)} no {path_text(place)}{hint}"
    return Absence(place, message, offset_of(expression, place))


def _meant(name: str | int | None, expression: Expression) -> str | None:
    """Give how JMESPath writes the value for which a name stands beside `==` or `!=`.

    To JMESPath `true` and `"text"` are names of fields, unlike to most other languages.
    """
    tokens = _tokens(expression)
    for before, one, after in zip(({"type": ""}, *tokens), tokens, tokens[1:], strict=False):
        around = {before["type"], after["type"]}
        if one["value"] != name or "dot" in around or not around & _COMPARISONS:
            continue
        if one["type"] == "quoted_identifier":
            return f"'{name}'"
        if one["type"] == "unquoted_identifier" and name in _CONSTANTS:
            return f"`{name}`"
    return None


def advice(place: Steps, missing: FieldView, event_type: str) -> str:
    """Say what there is instead of a place whose last step leads to nothing."""
    *holder, name = place
    if not isinstance(name, str):
        return f": {path_text(tuple(holder))} is no list"
    if not missing.names:
        return f": {path_text(tuple(holder))} is no object"
    near = _near_name(name, missing.names)
    if near is None and not holder and _is_there(event_type, ("data", name)):
        near = f"data.{name}"
    if near is not None:
        return f"; did you mean {path_text((*holder, near)) if holder else near}?"
    if len(missing.names) <= _MAX_LISTED:
        return f"; there is {names(sorted(missing.names), _MAX_LISTED)}"
    return f"; `gateway schema events --type {event_type}` shows what there is"


def _is_there(event_type: str, steps: Steps) -> bool:
    """Tell whether a type is known to have a place."""
    found = lookup(event_type, steps)
    return found is not None and found.status == "known"


def _near_name(name: str, known: Sequence[str]) -> str | None:
    """Give the field that was perhaps meant: `email_addresses` for `emial`."""
    near = closest(name, known)
    if near is not None:
        return near
    by_word = {one.partition("_")[0]: one for one in reversed(known) if "_" in one}
    word = closest(name, by_word)
    return None if word is None else by_word[word]
