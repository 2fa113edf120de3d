"""JSON Schema of the models, for editors: draft-07, as https://json-schema.org/draft-07 has it.

It describes what may stand in the file, before anything is interpolated, so it follows what
`gateway.config.base` eases: a `${…}` may stand where a number, a boolean, one word of a few, or a
list of texts is wanted, and a section may be left empty. What a schema cannot say, such as the
names that one part of the file takes from another, is left to the loader; nothing that the loader
takes is refused.

Everything stands where it is used: in draft-07 a `$ref` hides the description beside it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from inspect import cleandoc
from typing import Any, Final, get_args

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from gateway.config.base import bare_type
from gateway.config.written import as_written

__all__ = ["as_text", "json_schema"]

Schema = dict[str, Any]
_Models = Mapping[str, type[BaseModel]]

_PLAIN: Final = r"[^$]|\$\$|\$(?![${])"
"""What is no `${…}`: any character but `$`, `$$`, and a `$` that stands before neither."""
_MAX_BRACES: Final = 5
"""Levels of braces inside a `${…}`: a regular expression cannot count them."""


def _braced(inside: str, levels: int) -> str:
    """Match any text whose braces are closed; `inside` matches a character that is no brace."""
    pattern = f"(?:{inside})*"
    for _ in range(levels):
        pattern = rf"(?:{inside}|\{{{pattern}\}})*"
    return pattern


_ARGUMENT: Final = _braced(r"[^${}]|\$(?!\{)", _MAX_BRACES)
_FILE: Final = _braced("[^{}]", _MAX_BRACES)
_REFERENCE: Final = rf"\$\{{(?:[A-Za-z_][A-Za-z0-9_]*(?::[-?]{_ARGUMENT})?|file:(?!\}}){_FILE})\}}"
_HOW: Final = "${NAME}, ${NAME:-default}, ${NAME:?message} or ${file:/path}; $$ is one $"
_DEFINITIONS: Final = {
    "interpolated": {
        "type": "string",
        "pattern": f"^(?:{_PLAIN})*{_REFERENCE}(?:{_PLAIN}|{_REFERENCE})*$",
        "patternErrorMessage": f"Expected {_HOW}.",
    },
    "literal": {
        "type": "string",
        "pattern": f"^(?:{_PLAIN})*$",
        "patternErrorMessage": f"This is not a known form of ${{…}}: write {_HOW}.",
    },
}
_BY_NAME: Final = "#/definitions/"
_SCALARS: Final = frozenset({"boolean", "integer", "number"})
_BRACES: Final = ("{", "/{", "{" * 32)
"""What matches one of these could hold a `${`."""
_NOT_TAKEN_OVER: Final = frozenset({"title", "format", "writeOnly"})
"""A `format: password` hides nothing in a file."""


def json_schema(model: type[BaseModel], *, interpolated: bool = True) -> Schema:
    """Give the JSON Schema of a file, of which `model` is the whole, as a JSON object.

    Every field has a title (its place in the file), a description, its default where it has one,
    and examples. `interpolated` says whether `${…}` is replaced in the file.
    """
    body = _Writer(interpolated).object(model, "")
    definitions = {"definitions": _DEFINITIONS} if interpolated else {}
    return {"$schema": "http://json-schema.org/draft-07/schema#", **body, **definitions}


def as_text(schema: Mapping[str, Any]) -> str:
    """Write a schema as the published files have it."""
    return json.dumps(dict(schema), indent=2, ensure_ascii=False) + "\n"


class _Writer:
    """Writes each model where it is used, with pydantic's schema of everything else."""

    def __init__(self, interpolated: bool) -> None:
        self._interpolated = interpolated

    def object(self, model: type[BaseModel], place: str) -> Schema:
        """Write a model; `place` is where it stands in the file, such as `routes[].targets[]`."""
        fields = model.model_fields
        properties = {
            name: self._field(info, f"{place}.{name}" if place else name)
            for name, info in fields.items()
        }
        required = [name for name, info in fields.items() if info.is_required()]
        return {
            "title": place or "The whole file",
            "description": cleandoc(model.__doc__ or ""),
            "type": "object",
            "properties": properties,
            **({"required": required} if required else {}),
            "additionalProperties": False,
            **_extra(model.model_config.get("json_schema_extra")),
        }

    def _field(self, info: FieldInfo, place: str) -> Schema:
        annotation = info.rebuild_annotation()
        models = {model.__name__: model for model in _models(annotation)}
        bare, _ = bare_type(annotation)
        if bare in models.values():
            # A section whose keys are all commented out is an empty one.
            choices = [self.object(bare, place), {"type": "null"}]
        else:
            schema = TypeAdapter[Any](annotation).json_schema()
            choices = self._choices(schema, models, place, is_field=True)
        choices[0] |= _extra(info.json_schema_extra)
        about: Schema = {"title": place, "description": info.description or ""}
        if not info.is_required():
            about["default"] = as_written(info.default, info)
        return about | _without_about(_one_of(choices)) | {"examples": info.examples or []}

    def _choices(
        self, schema: Schema, models: _Models, place: str, *, is_field: bool = False
    ) -> list[Schema]:
        """Give what may stand in one place, from pydantic's schema of it."""
        if "$ref" in schema or "discriminator" in schema:
            return [self._object_of(schema, models, place)]
        if "anyOf" in schema:
            found = [
                self._choices(each, models, place, is_field=is_field) for each in schema["anyOf"]
            ]
            return _unique(choice for choices in found for choice in choices)
        kind = schema.get("type", "string" if "const" in schema or "enum" in schema else None)
        if kind == "array":
            return self._list(schema, models, place, is_field=is_field)
        if kind == "object":
            return [self._mapping(schema, models, place)]
        taken = {key: value for key, value in schema.items() if key not in _NOT_TAKEN_OVER}
        if kind == "string":
            return self._text(taken)
        return [taken, *self._references(is_field and kind in _SCALARS)]

    def _object_of(self, schema: Schema, models: _Models, place: str) -> Schema:
        if "discriminator" in schema:
            return self._kinds(schema, models, place)
        return self.object(models[schema["$ref"].rpartition("/")[2]], place)

    def _references(self, allowed: bool = True) -> list[Schema]:
        return [{"$ref": f"{_BY_NAME}interpolated"}] if self._interpolated and allowed else []

    def _text(self, schema: Schema) -> list[Schema]:
        pattern = schema.get("pattern", "")
        is_open = "const" not in schema and "enum" not in schema
        if self._interpolated and is_open and any(re.search(pattern, text) for text in _BRACES):
            schema = schema | {"allOf": [{"$ref": f"{_BY_NAME}literal"}]}
        return [schema, *self._references()]

    def _list(self, schema: Schema, models: _Models, place: str, *, is_field: bool) -> list[Schema]:
        entries = self._choices(schema["items"], models, f"{place}[]")
        holds_texts = all(
            choice.get("type") == "string" or _BY_NAME in choice.get("$ref", "")
            for choice in entries
        )
        schema = {key: value for key, value in schema.items() if key not in {"$defs", "title"}}
        # One variable may hold a whole list of texts.
        return [schema | {"items": _one_of(entries)}, *self._references(is_field and holds_texts)]

    def _mapping(self, schema: Schema, models: _Models, place: str) -> Schema:
        names = schema.get("propertyNames", {})
        values = schema.get("additionalProperties", True)
        for pattern, inner in schema.get("patternProperties", {}).items():
            names, values = {"pattern": pattern, **names}, inner
        if isinstance(values, dict):
            values = _one_of(self._choices(values, models, f"{place}.<name>"))
        named = {"propertyNames": names} if names else {}
        return {"type": "object", **named, "additionalProperties": values}

    def _kinds(self, schema: Schema, models: _Models, place: str) -> Schema:
        """Write models that one key tells apart: the key first, and with it the keys of its kind.

        With `oneOf` an editor would tell of one fault as of several, for each kind its own.
        """
        key = schema["discriminator"]["propertyName"]
        mapping = schema["discriminator"]["mapping"]
        branches = {
            kind: self.object(models[ref.rpartition("/")[2]], place)
            for kind, ref in mapping.items()
        }
        kinds = _one_of([{"type": "string", "enum": [*branches]}, *self._references()])
        about = {"title": f"{place}.{key}", "description": _listed(branches)}
        return {
            "title": place,
            "description": _listed(branches),
            "type": "object",
            "required": [key],
            "properties": {key: about | kinds | {"examples": [*branches]}},
            "allOf": [
                {
                    "if": {"required": [key], "properties": {key: {"const": kind}}},
                    "then": branch,
                }
                for kind, branch in branches.items()
            ],
        }


def _listed(branches: Mapping[str, Schema]) -> str:
    return " ".join(f"{kind}: {branch['description']}" for kind, branch in branches.items())


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Give the models that a type is made of, but not those inside of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _extra(extra: Any) -> Schema:
    return dict(extra) if isinstance(extra, dict) else {}


def _unique(choices: Iterable[Schema]) -> list[Schema]:
    found: list[Schema] = []
    for choice in choices:
        if choice not in found:
            found.append(choice)
    return found


def _one_of(choices: list[Schema]) -> Schema:
    """Let any of them stand there. They exclude each other, and editors show `oneOf` best."""
    if len(choices) == 1:
        return choices[0]
    first, *others = choices
    if first.get("type") == "object" and others == [{"type": "null"}]:
        return first | {"type": ["object", "null"]}
    return {"oneOf": choices}


def _without_about(schema: Schema) -> Schema:
    """Take off what an object says of itself: the field that holds it says it better."""
    return {key: value for key, value in schema.items() if key not in {"title", "description"}}
