"""The jmespath library's interpreter with a budget, so that no payload costs unbounded work.

A step is about a microsecond. Every syntax node visited is one; what a node or a function makes,
copies, compares or looks through is charged by its size, before it is done. That matters because
`[@, @]` shares what it holds: forty of them in a row are a value of forty lists that prints as
2^40 texts, and `[@, @][]` doubles a list with every repetition.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jmespath.functions import Functions
from jmespath.visitor import Options, TreeInterpreter

from gateway import GatewayError

__all__ = ["MAX_STEPS", "BoundedInterpreter", "ExceededError", "weigh"]

MAX_STEPS = 20_000
"""Steps of one evaluation."""
_ITEMS_PER_STEP = 8
"""List entries and object fields that are copied or looked at."""
_MADE_PER_STEP = 128
"""Characters, and 16 for each value, of what is written out or looked through whole."""
_READ_PER_STEP = 1024
"""Characters that are only compared or searched."""
_VALUE = 16
_LONG_TEXT, _SHORT_NEEDLE, _LONG_NEEDLE = 30_000, 8, 128
"""CPython searches longer texts in linear time, shorter ones in the product of both lengths."""


class ExceededError(GatewayError):
    """Too many steps."""


def weigh(value: Any, limit: int) -> int:
    """Give about how long a value's JSON is: its characters, and 16 for each value in it.

    What is shared counts as often as it is there. Stops, with more than `limit`, at the limit.
    """
    total, pending = _VALUE, [value]
    while pending and total <= limit:
        value = pending.pop()
        kind = type(value)
        if kind is str:
            total += len(value)
        elif kind is list:
            # Counted before it is copied, so that `pending` stays within the limit as well.
            total += _VALUE * len(value)
            pending.extend(value if total <= limit else ())
        elif kind is dict:
            total += _VALUE * len(value) + sum(map(len, value))
            pending.extend(value.values() if total <= limit else ())
    return total


class BoundedInterpreter(TreeInterpreter):
    """Evaluates one syntax tree once. Raises `ExceededError`."""

    def __init__(self) -> None:
        super().__init__(Options(custom_functions=_ChargedFunctions(self)))
        self._steps_left = MAX_STEPS

    def charge(self, steps: int) -> None:
        """Take steps from the budget, before the work is done."""
        self._steps_left -= steps
        if self._steps_left < 0:
            raise ExceededError

    def charge_whole(self, value: Any, times: int = 1) -> None:
        """Take the steps of looking through all of a value so many times."""
        # What cannot be paid for is not weighed to its end.
        weight = weigh(value, self._steps_left * _MADE_PER_STEP)
        self.charge(1 + times * weight // _MADE_PER_STEP)

    def visit(self, node: Any, *args: Any, **kwargs: Any) -> Any:
        """As the library, for one step."""
        self._steps_left -= 1
        if self._steps_left < 0:
            raise ExceededError
        return super().visit(node, *args, **kwargs)

    def visit_comparator(self, node: Any, value: Any) -> Any:
        """As the library; the smaller side is a bound of the work."""
        left, right = (self.visit(child, value) for child in node["children"])
        operator = node["value"]
        if isinstance(left, str) and isinstance(right, str):
            self.charge(min(len(left), len(right)) // _READ_PER_STEP)
        if operator in {"eq", "ne"}:
            if type(left) is type(right) and isinstance(left, list | dict):
                self._charge_equality(left, right)
        elif not (_is_ordered(left) and _is_ordered(right)):
            return None
        return self.COMPARATOR_FUNC[operator](left, right)

    def visit_flatten(self, node: Any, value: Any) -> Any:
        """As the library."""
        base = self.visit(node["children"][0], value)
        if isinstance(base, list):
            self.charge(len(base) // _ITEMS_PER_STEP)
            items = sum(len(entry) if isinstance(entry, list) else 1 for entry in base)
            self.charge(items // _ITEMS_PER_STEP)
        return super().visit_flatten(_given(base), value)

    def visit_slice(self, node: Any, value: Any) -> Any:
        """As the library. Raises `ValueError` for a step of 0."""
        if isinstance(value, list):
            self.charge(
                len(range(*slice(*node["children"]).indices(len(value)))) // _ITEMS_PER_STEP
            )
        return super().visit_slice(node, value)

    def _charge_equality(self, left: Any, right: Any) -> None:
        # Values of different length are told apart at once, and what is shared is not looked into.
        if left is right:
            self.charge(len(right) // _ITEMS_PER_STEP)
        elif len(left) == len(right):
            self.charge_whole(right)


def _given(value: Any) -> Any:
    """Make the syntax node of something that has been evaluated."""
    return {"children": [{"type": "literal", "value": value, "children": []}]}


def _is_ordered(value: Any) -> bool:
    return isinstance(value, int | float | str) and not isinstance(value, bool)


class _ChargedFunctions(Functions):
    """The library's functions; what a call costs is taken from the budget first."""

    def __init__(self, interpreter: BoundedInterpreter) -> None:
        self._interpreter = interpreter

    def call_function(self, function_name: str, resolved_args: Any) -> Any:
        """As the library, which checks number and types of the arguments after this."""
        charge = _CHARGES.get(function_name)
        if charge is not None and resolved_args:
            charge(self._interpreter, resolved_args)
        return super().call_function(function_name, resolved_args)


Charge = Callable[[BoundedInterpreter, Sequence[Any]], None]


def _items(interpreter: BoundedInterpreter, args: Sequence[Any]) -> None:
    """Every entry of every argument is looked at or copied."""
    for arg in args:
        if isinstance(arg, str):
            interpreter.charge(len(arg) // _MADE_PER_STEP)
        elif isinstance(arg, list | dict):
            interpreter.charge(len(arg) // _ITEMS_PER_STEP)


def _whole(interpreter: BoundedInterpreter, args: Sequence[Any]) -> None:
    interpreter.charge_whole(args[0])


def _ordering(interpreter: BoundedInterpreter, args: Sequence[Any]) -> None:
    """Entries, or what an expression finds in them, are compared with each other."""
    entries = next((arg for arg in args if isinstance(arg, list)), [])
    interpreter.charge_whole(entries, times=len(entries).bit_length())


def _contains(interpreter: BoundedInterpreter, args: Sequence[Any]) -> None:
    subject, wanted = args[0], args[-1]
    if isinstance(subject, str) and isinstance(wanted, str):
        long = len(subject) > _LONG_TEXT
        compared = min(len(wanted), _SHORT_NEEDLE if long else _LONG_NEEDLE)
        interpreter.charge(len(subject) * max(compared, 1) // _READ_PER_STEP)
    elif isinstance(subject, list):
        if isinstance(wanted, list | dict):
            interpreter.charge_whole(subject)
        size = len(wanted) if isinstance(wanted, str) else 0
        interpreter.charge(len(subject) // _ITEMS_PER_STEP)
        interpreter.charge(len(subject) * size // _READ_PER_STEP)


def _join(interpreter: BoundedInterpreter, args: Sequence[Any]) -> None:
    separator, texts = args[0], args[-1]
    if not isinstance(separator, str) or not isinstance(texts, list):
        return
    interpreter.charge(len(texts) // _ITEMS_PER_STEP)
    length = sum(len(text) for text in texts if isinstance(text, str))
    interpreter.charge((length + len(separator) * len(texts)) // _MADE_PER_STEP)


_CHARGES: Mapping[str, Charge] = {
    **dict.fromkeys(("keys", "values", "merge", "reverse", "map", "avg", "sum"), _items),
    **dict.fromkeys(("to_number", "starts_with", "ends_with"), _items),
    **dict.fromkeys(("sort", "sort_by", "max", "max_by", "min", "min_by"), _ordering),
    "contains": _contains,
    "join": _join,
    "to_string": _whole,
}
"""What is not here takes the same time whatever it is given."""
