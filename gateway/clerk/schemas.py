"""What Clerk's event types hold: their JSON Schemas, and single fields looked up in them.

The schemas are the files in `event_schemas/`; their README says where they come from and how
lenient they are. They advise: no event is ever held to them when it is delivered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from importlib.resources import files
from itertools import chain
from types import MappingProxyType
from typing import Any, Final, Literal

import msgspec

from gateway.clerk.catalogue import CATALOGUE

__all__ = ["ANY", "FieldView", "Steps", "event_schema", "events_schema", "lookup", "same_data"]

Steps = tuple[str | int | None, ...]
"""The way to a field: a name, an element's number, or None for every element."""

ANY: Final[frozenset[str]] = frozenset({"null", "boolean", "number", "string", "array", "object"})
"""Every type that JSON has; a number with or without fraction is one."""

_COMPONENTS: Final = "components.json"
_DATA_ID: Final[Steps] = ("data", "id")
_NULL: Final = frozenset({"null"})
_KINDS: Final = {**{kind: kind for kind in ANY}, "integer": "number"}
_MAX_CACHED: Final = 32_768


class FieldView(msgspec.Struct, frozen=True):
    """What is known of one place in the events of a type."""

    status: Literal["known", "open", "missing"]
    """`known`: the schema has it. `open`: inside metadata, where anything may be. `missing`: no
    event of the type has it."""
    kinds: frozenset[str]
    """The JSON types that it may have; `null` also where it, or what it is in, may be left out,
    beyond the first `sure` steps."""
    may_be_blank: bool = True
    """Whether it may be the empty text, list or object."""
    is_left_blank: bool = False
    """Whether it is text that is empty where it does not apply. A payer is a user or an
    organization, and the fields of the other are there all the same."""
    values: tuple[Any, ...] | None = None
    """All values that it may have, where the schema lists them."""
    depth: int = 0
    """How many of the steps are there; with `missing` the next one is not."""
    names: tuple[str, ...] = ()
    """With `missing`: the fields that are there instead."""

    @property
    def may_be_null(self) -> bool:
        """Tell whether it may be null or left out."""
        return "null" in self.kinds


Node = Mapping[str, Any]


class _Shape(msgspec.Struct, frozen=True):
    """One schema with all that it refers to put together."""

    kinds: frozenset[str]
    properties: Mapping[str, Node]
    required: frozenset[str]
    items: Node | None
    is_open: bool
    values: tuple[Any, ...] | None


def event_schema(event_type: str) -> Mapping[str, Any] | None:
    """Give the JSON Schema (draft-07) of a type, whole in itself; None where none is published."""
    return _schema(event_type) if event_type in CATALOGUE else None


@cache
def events_schema() -> Mapping[str, Any]:
    """Give the JSON Schema (draft-07) of an event of any published type."""
    events = {name: _file(name) for name in CATALOGUE}
    return MappingProxyType(
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "title": "An event that Clerk sends",
            "oneOf": [{"$ref": f"#/definitions/{name}"} for name in events],
            "definitions": {**events, **_components()},
        }
    )


@cache
def _schema(event_type: str) -> Mapping[str, Any]:
    schema, definitions = _file(event_type), _components()
    needed: dict[str, None] = {}
    pending: list[Any] = [schema]
    while pending:
        for name in _references(pending.pop()):
            if name not in needed:
                needed[name] = None
                pending.append(definitions[name])
    own = {name: definitions[name] for name in sorted(needed)}
    return MappingProxyType({**schema, "definitions": own})


def lookup(event_type: str, steps: Sequence[str | int | None], sure: int = 0) -> FieldView | None:
    """Tell what stands at a place in the events of a type; None where no schema is published.

    What stands at the first `sure` steps is known to be there, and no null. A list that is stepped
    into by a name has none, as in JMESPath.
    """
    return _lookup(event_type, tuple(steps), sure) if event_type in CATALOGUE else None


def same_data(event_type: str) -> str:
    """Give a text that types have in common when their `data` has the same schema, or none."""
    return _data_of(event_type) if event_type in CATALOGUE else ""


@cache
def _data_of(event_type: str) -> str:
    return repr(_file(event_type)["properties"]["data"])


@lru_cache(maxsize=_MAX_CACHED)
def _lookup(event_type: str, steps: Steps, sure: int) -> FieldView:
    shape, doubtful, depth = _follow(event_type, steps)
    if shape is None:
        return FieldView("open", ANY, depth=depth)
    if depth < len(steps):
        return FieldView("missing", _NULL, depth=depth, names=tuple(shape.properties))
    # Every event has the id of its entity: the default key rests on it as well.
    absent = _NULL if doubtful > sure and steps != _DATA_ID else frozenset[str]()
    kinds = shape.kinds | absent
    values = shape.values
    if values is not None and "null" in kinds:
        values = (*(value for value in values if value is not None), None)
    left_blank = len(steps) > 1 and steps[-2] == "payer" and _is_id(steps) and steps[-1] != "id"
    blank = "" in values if values is not None else left_blank or not _is_id(steps)
    return FieldView("known", kinds, blank, left_blank, values, len(steps))


@lru_cache(maxsize=_MAX_CACHED)
def _follow(event_type: str, steps: Steps) -> tuple[_Shape | None, int, int]:
    """Give what is at a place, the number of steps to the last thing that may not be there, and how
    many steps lead on.

    None where anything may be. With fewer steps than there are it is where they end.
    """
    if not steps:
        return _shape(_file(event_type)), 0, 0
    shape, doubtful, depth = _follow(event_type, steps[:-1])
    if shape is None or depth < len(steps) - 1:
        return shape, doubtful, depth
    step = steps[-1]
    below = shape.properties.get(step) if isinstance(step, str) else shape.items
    if below is None:
        return (None if shape.is_open else shape), doubtful, depth
    if "null" in shape.kinds:
        doubtful = max(doubtful, depth)
    if _may_lack(shape, step):
        doubtful = depth + 1
    return _shape(below), doubtful, depth + 1


def _may_lack(shape: _Shape, step: str | int | None) -> bool:
    """Tell whether a value of this shape that is no null may be without a step into it."""
    if isinstance(step, str):
        return step not in shape.required or shape.kinds - _NULL != {"object"}
    return isinstance(step, int) or shape.kinds - _NULL != {"array"}


def _is_id(steps: Steps) -> bool:
    name = steps[-1] if steps else None
    return isinstance(name, str) and (name in {"id", "type"} or name.endswith("_id"))


def _shape(node: Node) -> _Shape:
    if "$ref" in node:
        return _shape_of_definition(node["$ref"].rpartition("/")[2])
    named = node.get("type", [])
    kinds = frozenset(_KINDS[kind] for kind in ([named] if isinstance(named, str) else named))
    values = node.get("enum", [node["const"]] if "const" in node else None)
    properties = node.get("properties", {})
    own = _Shape(
        kinds=kinds or ANY,
        properties=properties,
        required=frozenset(node.get("required", ())),
        items=node.get("items"),
        is_open=node.get("additionalProperties", not properties and kinds <= {"object", "null"}),
        values=None if values is None else tuple(values),
    )
    choices = [one for one in node.get("anyOf", ()) if set(one) != {"required"}]
    parts = [_shape(part) for part in node.get("allOf", ())]
    return _both(own, *parts, *([_union([_shape(one) for one in choices])] if choices else ()))


@cache
def _shape_of_definition(name: str) -> _Shape:
    return _shape(_components()[name])


def _both(own: _Shape, *others: _Shape) -> _Shape:
    """Put together what a value must have all of."""
    for other in others:
        bare = own.kinds == ANY and not own.properties
        own = _Shape(
            kinds=own.kinds & other.kinds,
            properties=_merged("allOf", (own, other)),
            required=own.required | other.required,
            items=_one("allOf", [own.items, other.items]),
            is_open=other.is_open if bare else own.is_open and other.is_open,
            values=own.values if other.values is None else other.values,
        )
    return own


def _union(shapes: Sequence[_Shape]) -> _Shape:
    """Put together what a value may have one of."""
    objects = [shape for shape in shapes if "object" in shape.kinds] or list(shapes)
    values = [shape.values for shape in shapes]
    return _Shape(
        kinds=frozenset[str]().union(*(shape.kinds for shape in shapes)),
        properties=_merged("anyOf", objects),
        required=frozenset.intersection(*(shape.required for shape in objects)),
        items=_one("anyOf", [shape.items for shape in shapes]),
        is_open=any(shape.is_open for shape in objects),
        values=None if None in values else tuple(dict.fromkeys(chain(*(v or () for v in values)))),
    )


def _merged(how: str, shapes: Sequence[_Shape]) -> Mapping[str, Node]:
    names = dict.fromkeys(name for shape in shapes for name in shape.properties)
    found = {name: _one(how, [shape.properties.get(name) for shape in shapes]) for name in names}
    return {name: node for name, node in found.items() if node is not None}


def _one(how: str, nodes: Sequence[Node | None]) -> Node | None:
    there = [node for node in nodes if node is not None]
    return {how: there} if len(there) > 1 else next(iter(there), None)


def _references(node: Any) -> Iterable[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"].rpartition("/")[2]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


@cache
def _components() -> Mapping[str, Node]:
    read: Mapping[str, Node] = _read(_COMPONENTS)["definitions"]
    return read


@cache
def _file(event_type: str) -> Node:
    return _read(f"{event_type}.json")


def _read(name: str) -> dict[str, Any]:
    content = (files("gateway.clerk") / "event_schemas" / name).read_bytes()
    # Within one schema everything that is shared stands beside it.
    return msgspec.json.decode(content.replace(b'"components.json#', b'"#'), type=dict[str, Any])
