"""From a document to the models, and from pydantic's errors to places and plain words.

Every message is built from the error's type and place. Neither the value nor pydantic's own
text, which may quote it, is ever used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, Final, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from gateway.config.base import Model, bare_type
from gateway.config.names import Suggester, name_of, quoted_key
from gateway.config.problems import MAX_PROBLEMS, DocumentPath
from gateway.config.refusal import REFUSAL

__all__ = ["Fault", "Place", "validate"]

Root = TypeVar("Root", bound=Model)
"""The model of a whole file."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the document and where in the models an error is."""

    path: DocumentPath
    model: type[BaseModel]
    """The model that `field` is a field of, or that should stand here where `field` is None."""
    field: str | None
    """The last field on the way, also where the path goes on into its list or mapping."""
    field_path: DocumentPath
    is_key: bool = False
    """The key at the end of the path is wrong, not its value."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One error of the validation."""

    place: Place
    type: str
    """Pydantic's name of the error."""
    message: str

    @property
    def at_key(self) -> bool:
        """Whether the key's position tells it better than the value's."""
        return self.place.is_key or self.type == "extra_forbidden"


def validate(root: type[Root], value: Any, suggester: Suggester) -> Root | tuple[Fault, ...]:
    """Make the model of a document's value, or give what is wrong: the first `MAX_PROBLEMS`."""
    try:
        return root.model_validate(value, context={"file": True})
    except ValidationError as error:
        details = error.errors(include_url=False)[:MAX_PROBLEMS]
        faults = [_fault(detail, _place(detail["loc"], root), suggester) for detail in details]
    around = {fault.place.path[:-1] for fault in faults}
    # Pydantic calls a list too short when the entries it has are faulty.
    return tuple(
        fault for fault in faults if fault.type != "too_short" or fault.place.path not in around
    )


def _fault(detail: Mapping[str, Any], place: Place, suggester: Suggester) -> Fault:
    kind = str(detail["type"])
    context = detail.get("ctx") or {}
    if kind == "extra_forbidden":
        return Fault(place, kind, _unknown_key(place, detail.get("input"), suggester))
    name = name_of(place.path)
    if kind == "missing":
        return Fault(place, kind, f"{name} is missing; {_purpose(place)}")
    if kind == "union_tag_not_found":
        return Fault(place, kind, f"{name}: kind is missing; write kind: kafka or kind: nats")
    if kind == "union_tag_invalid":
        problem = _one_of(("kafka", "nats"), detail["input"].get("kind"), suggester)
        kind_place = Place((*place.path, "kind"), place.model, None, place.field_path)
        return Fault(kind_place, kind, f"kind: {problem}")
    if kind == "literal_error":
        choice = _one_of(_literals(place), detail.get("input"), suggester)
        return Fault(place, kind, f"{name}: {choice}")
    return Fault(place, kind, f"{name}: {_problem(kind, context, detail.get('input'))}")


def _place(loc: tuple[str | int, ...], root: type[BaseModel]) -> Place:
    """Walk the models along `loc`, which names a broker's kind although the document does not."""
    path: list[str | int] = []
    wanted: Any = root
    owner: type[BaseModel] = root
    field: str | None = None
    field_path: DocumentPath = ()
    for part in loc:
        if part == "[key]":
            return Place(tuple(path), owner, field, field_path, is_key=True)
        if get_origin(wanted) in {Union, UnionType}:
            wanted = _model_of_kind(wanted, part)
            continue
        path.append(part)
        if isinstance(wanted, type) and issubclass(wanted, BaseModel):
            owner, field, field_path = wanted, str(part), tuple(path)
            info = wanted.model_fields.get(field)
            wanted = None if info is None else bare_type(info.annotation)[0]
        else:
            arguments = get_args(wanted)
            element = arguments[1 if get_origin(wanted) is dict else 0] if arguments else None
            wanted = bare_type(element)[0]
    if isinstance(wanted, type) and issubclass(wanted, BaseModel):
        owner, field = wanted, None
    return Place(tuple(path), owner, field, field_path)


def _model_of_kind(union: Any, kind: str | int) -> Any:
    return next(
        model
        for model in get_args(union)
        if kind in get_args(bare_type(model)[0].model_fields["kind"].annotation)
    )


def _unknown_key(place: Place, value: Any, suggester: Suggester) -> str:
    key = str(place.path[-1])
    # Without a value it may be the rest of one, such as a password with a comma.
    quoted = None if value is None else quoted_key(key)
    told = "unknown key" if quoted is None else f"unknown key {quoted}"
    known = tuple(place.model.model_fields)
    near = suggester.closest(key, known)
    if near is not None:
        return f'{told}, did you mean "{near}"?'
    return f"{told}; here can be {', '.join(known)}"


def _purpose(place: Place) -> str:
    """Say what a missing key is for, in the words of the manual."""
    description = place.model.model_fields[str(place.path[-1])].description or ""
    first = description.partition(". ")[0].rstrip(".")
    return f"add it: {first[:1].lower()}{first[1:]}"


_EXPECTED: Final = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "dict_type": "a mapping (keys and values)",
    "model_type": "a mapping (keys and values)",
    "model_attributes_type": "a mapping (keys and values)",
}
_BOUNDS: Final = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}
_NUMBER: Final = re.compile(r"\s*[+-]?[0-9]+(\.[0-9]+)?\s*")


def _problem(kind: str, context: Mapping[str, Any], value: Any) -> str:
    if kind == REFUSAL:
        return str(context["problem"])
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, got {_kind_of(value)}{_advice(kind, value)}"
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        bound = context[key]
        return (
            f"must be {words} {bound:g}" if isinstance(bound, float) else f"must be {words} {bound}"
        )
    if kind == "too_short":
        return "the list is empty; add at least one entry"
    return f"is not valid ({kind})"


def _kind_of(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text" if value else "empty text"
    return "a mapping" if isinstance(value, dict) else "a list"


def _advice(kind: str, value: Any) -> str:
    if kind == "string_type" and isinstance(value, int | float):
        return "; put it in quotes"
    if not isinstance(value, str):
        return "; write [] for none" if kind == "tuple_type" and value is None else ""
    if kind == "tuple_type":
        return "; put it in [ ]"
    if kind in {"int_type", "float_type"} and _NUMBER.fullmatch(value):
        return "; write it without quotes and leading zeros"
    if kind == "bool_type" and value.lower() in {"true", "false"}:
        return "; write it without quotes"
    return ""


def _literals(place: Place) -> tuple[str, ...]:
    annotation = place.model.model_fields[str(place.field_path[-1])].annotation
    return get_args(bare_type(annotation)[0])


def _one_of(known: tuple[str, ...], value: Any, suggester: Suggester) -> str:
    near = suggester.closest(value, known) if isinstance(value, str) else None
    choice = f"{', '.join(known[:-1])} or {known[-1]}" if len(known) > 1 else "".join(known)
    return f"expected {choice}" + (f", did you mean {near}?" if near is not None else "")
