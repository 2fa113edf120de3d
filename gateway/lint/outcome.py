"""What is known of a value before there is an event: its types, and whether it may be empty."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

import msgspec

from gateway.clerk.schemas import ANY, Steps
from gateway.routing.expressions import is_true

__all__ = [
    "ANYTHING",
    "BOOLEAN",
    "ERROR",
    "MAX_VALUES",
    "NOTHING",
    "Outcome",
    "by_json_types",
    "falsy",
    "join",
    "of_kinds",
    "of_values",
    "truths",
    "truthy",
    "with_error",
]

MAX_VALUES: Final = 64
"""Values that are followed one by one; of more only the types are known."""
_NAMES: Final = {int: "number", float: "number", str: "string", list: "array"}
_SOMETIMES_FALSE: Final = frozenset({"string", "array", "object"})
_FALSE: Final[tuple[tuple[str, Any], ...]] = (
    *(("null", None), ("false", False)),
    *(("string", ""), ("array", []), ("object", {})),
)
"""All that is false to JMESPath, and its kind."""


class Outcome(msgspec.Struct, frozen=True):
    """All that an expression can give."""

    kinds: frozenset[str]
    """JSON types, of which the boolean is two: `true` and `false`. Also `error` where the
    evaluation may fail, and `expref` for `&name`."""
    may_be_blank: bool = True
    """Whether it may be the empty text, list or object."""
    values: tuple[Any, ...] | None = None
    """Every value that it may have, where they are known."""
    place: Steps | None = None
    """Where in the event it stands, if it does."""
    is_left_blank: bool = False
    """Whether it is known to be empty at times, as the fields of a payer are that do not apply."""


BOOLEAN: Final = frozenset({"true", "false"})


def by_json_types(types: frozenset[str]) -> frozenset[str]:
    """Give the kinds that the types of a schema are."""
    return (types - {"boolean"}) | BOOLEAN if "boolean" in types else types


ANYTHING: Final = Outcome(by_json_types(ANY))
NOTHING: Final = Outcome(frozenset({"null"}), False, (None,))
ERROR: Final = Outcome(frozenset({"error"}), False, ())


def of_kinds(*kinds: str, blank: bool = True) -> Outcome:
    """Give a value of one of these types."""
    return Outcome(frozenset(kinds), blank)


def of_values(values: Sequence[Any]) -> Outcome:
    """Give a value that is one of these."""
    few = tuple(values) if len(values) <= MAX_VALUES else None
    blank = any(value in ("", [], {}) for value in values)
    return Outcome(frozenset(map(_kind, values)), blank, few)


def truths(outcome: Outcome) -> frozenset[bool]:
    """Give what a condition may make of a value that is no error."""
    if outcome.values is not None:
        return frozenset(map(is_true, outcome.values))
    found = set()
    if outcome.kinds & {"null", "false"} or _may_be_empty(outcome):
        found.add(False)
    if outcome.kinds - {"null", "false", "error"}:
        found.add(True)
    return frozenset(found)


def truthy(outcome: Outcome) -> Outcome:
    """Keep what is true of a value."""
    values = outcome.values
    kept = None if values is None else tuple(value for value in values if is_true(value))
    return Outcome(outcome.kinds - {"null", "false", "error"}, False, kept, outcome.place)


def falsy(outcome: Outcome) -> Outcome:
    """Keep what is false of a value."""
    if outcome.values is not None:
        return of_values([value for value in outcome.values if not is_true(value)])
    return of_values(
        [
            value
            for kind, value in _FALSE
            if kind in outcome.kinds and (outcome.may_be_blank or kind not in _SOMETIMES_FALSE)
        ]
    )


def join(outcomes: Sequence[Outcome]) -> Outcome:
    """Give a value that is one of several."""
    if len(outcomes) == 1:
        return outcomes[0]
    kinds = frozenset[str]().union(*(outcome.kinds for outcome in outcomes))
    known = [outcome.values for outcome in outcomes]
    values = tuple(chain(*(some or () for some in known)))
    few = None if None in known or len(values) > MAX_VALUES else values
    blank = any(outcome.may_be_blank for outcome in outcomes)
    return Outcome(kinds, blank, few, is_left_blank=any(one.is_left_blank for one in outcomes))


def with_error(outcome: Outcome, *sources: Outcome) -> Outcome:
    """Let a value fail where one that it is made of does."""
    if any("error" in source.kinds for source in sources):
        return msgspec.structs.replace(outcome, kinds=outcome.kinds | {"error"})
    return outcome


def _may_be_empty(outcome: Outcome) -> bool:
    return outcome.may_be_blank and bool(outcome.kinds & _SOMETIMES_FALSE)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else _NAMES.get(type(value), "object")
