"""What JMESPath's functions take and give (https://jmespath.org/specification.html#built-in-functions)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, Final

import msgspec
from jmespath.exceptions import JMESPathError
from jmespath.functions import Functions

from gateway.lint.outcome import (
    ANYTHING,
    BOOLEAN,
    ERROR,
    MAX_VALUES,
    Outcome,
    join,
    of_kinds,
    of_values,
    with_error,
)
from gateway.routing.interpreter import BoundedInterpreter, ExceededError

__all__ = ["FAILURES", "call", "compute", "exists", "misfits"]

_TABLE: Final[dict[str, Any]] = Functions.FUNCTION_TABLE
FAILURES: Final = (
    *(JMESPathError, ExceededError),
    *(TypeError, ValueError, RecursionError, OverflowError, KeyError),
)
_NUMBER: Final = of_kinds("number")
_BOOLEAN: Final = of_kinds(*BOOLEAN)
_ARRAY: Final = of_kinds("array")
_GIVES: Final = {
    **dict.fromkeys(("abs", "ceil", "floor", "length"), _NUMBER),
    **dict.fromkeys(("avg", "to_number"), of_kinds("number", "null")),
    "sum": _NUMBER,
    **dict.fromkeys(("contains", "starts_with", "ends_with"), _BOOLEAN),
    **dict.fromkeys(("keys", "values", "map", "sort", "sort_by"), _ARRAY),
    "to_array": _ARRAY,
    **dict.fromkeys(("join", "to_string"), of_kinds("string")),
    "type": of_kinds("string", blank=False),
    "merge": of_kinds("object"),
    "reverse": of_kinds("array", "string"),
}
"""What is not here may give anything."""

_SURE: Final = frozenset((*_GIVES.keys(), "not_null")).difference(
    ("avg", "sum", "contains", "map", "sort", "sort_by", "join", "to_string", "merge")
)
"""What cannot fail for arguments of the right type. Others look into lists, where anything may be,
and `contains` fails for text in which something else than text is sought."""


def compute(node: dict[str, Any]) -> Any:
    """Evaluate an expression that reads nothing. Raises what an evaluation raises."""
    return BoundedInterpreter().visit(node, None)


def call(name: str, arguments: Sequence[Outcome]) -> Outcome:
    """Give what a function gives; its failure is part of that."""
    if not exists(name, len(arguments)) or any(one.kinds == {"error"} for one in arguments):
        return ERROR
    known = _known(name, arguments)
    if known is not None:
        return known
    wrong = misfits(name, arguments)
    if any(arguments[at].kinds - {"error"} <= kinds for at, kinds in wrong.items()):
        return ERROR
    risky = bool(wrong) or name not in _SURE
    return with_error(_given(name, arguments), *arguments, *([ERROR] if risky else ()))


def misfits(name: str, arguments: Sequence[Outcome]) -> dict[int, frozenset[str]]:
    """Give which arguments may have a type that the function does not take, and which types."""
    wrong = {}
    for at, (argument, allowed) in enumerate(zip(arguments, _allowed(name), strict=False)):
        kinds = argument.kinds - allowed - {"error"} if allowed else frozenset[str]()
        if kinds:
            wrong[at] = kinds
    return wrong


def exists(name: str, count: int) -> bool:
    """Tell whether there is such a function with so many arguments."""
    if name not in _TABLE:
        return False
    signature = _TABLE[name]["signature"]
    variadic = bool(signature) and signature[-1].get("variadic", False)
    return count >= len(signature) if variadic else count == len(signature)


def _allowed(name: str) -> list[frozenset[str]]:
    """Give the types of each argument; of a function that takes any, none."""
    signature = _TABLE[name]["signature"]
    return [frozenset(kind.partition("-")[0] for kind in one["types"]) for one in signature]


def _given(name: str, arguments: Sequence[Outcome]) -> Outcome:
    if name == "not_null":
        nulls = [msgspec.structs.replace(one, place=None) for one in arguments]
        last = arguments[-1]
        found = join([_without_null(one) for one in nulls])
        kinds = found.kinds | ({"null"} & frozenset.intersection(*(one.kinds for one in nulls)))
        values = None if found.values is None or "null" in last.kinds else found.values
        return Outcome(kinds - {"error"}, found.may_be_blank, values)
    return _GIVES.get(name, ANYTHING)


def _without_null(outcome: Outcome) -> Outcome:
    values = outcome.values
    kept = None if values is None else tuple(value for value in values if value is not None)
    return Outcome(outcome.kinds - {"null"}, outcome.may_be_blank, kept)


def _known(name: str, arguments: Sequence[Outcome]) -> Outcome | None:
    """Call the function itself where every argument is known."""
    choices = [one.values for one in arguments]
    count = 1
    for values in choices:
        count *= MAX_VALUES + 1 if values is None else len(values)
    if count > MAX_VALUES or any("error" in one.kinds for one in arguments):
        return None
    parts = [_value(name, combination) for combination in product(*(v or () for v in choices))]
    return join([part for at, part in enumerate(parts) if part not in parts[:at]])


def _value(name: str, arguments: Sequence[Any]) -> Outcome:
    children = [{"type": "literal", "value": value, "children": []} for value in arguments]
    try:
        value = compute({"type": "function_expression", "value": name, "children": children})
    except FAILURES:
        return ERROR
    return of_values((value,))
