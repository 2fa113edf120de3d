"""Makes gateway/clerk/event_schemas/: `python tools/clerk_schemas.py OPENAPI.yml [--check]`.

From Clerk's OpenAPI description of its webhooks (MIT, https://github.com/clerk/openapi-specs) to
JSON Schemas of draft-07, which editors read: one file for each event type, and `components.json`
for what they share. Names, types, enums and required fields are Clerk's; its texts are left out.

They are lenient, because Clerk's own examples contradict its schemas in places, and fields come
without notice: nothing is closed, no pattern or format is kept, and what an example of Clerk's or
a sample of ours has beyond the description is allowed here. Each such place is printed.
With `--check` nothing is written, and exit code 1 says that the files are out of date.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft7Validator, ValidationError
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

from gateway.clerk.catalogue import CATALOGUE
from gateway.clerk.samples import sample

PLACE = Path(__file__).resolve().parent.parent / "gateway" / "clerk" / "event_schemas"
COMPONENTS = "components.json"
ENVELOPE = "WebhookEventPayload"
_NEWER = ("timestamp", "instance_id")
"""Fields of the envelope that older events do not have, though the description requires them."""
_MAX_MENDS = 200

Node = dict[str, Any]


def convert(node: Node) -> Node:
    """Give the JSON Schema of one schema of OpenAPI 3.0."""
    nullable = node.get("nullable", False)
    parts = [convert(part) for key in ("allOf", "oneOf") for part in node.get(key, ())]
    if "$ref" in node:
        parts = [{"$ref": f"#/definitions/{node['$ref'].rpartition('/')[2]}"}]
    if parts:
        return _union(parts, "allOf" if "allOf" in node else "anyOf", nullable, node)
    return _plain(node, nullable)


def _union(parts: list[Node], how: str, nullable: bool, node: Node) -> Node:
    whole = parts[0] if len(parts) == 1 else {how: parts}
    if nullable:
        whole = {"anyOf": [*whole.get("anyOf", [whole]), {"type": "null"}]}
    return {**whole, **({"deprecated": True} if node.get("deprecated") else {})}


def _plain(node: Node, nullable: bool) -> Node:
    made: Node = {}
    if "type" in node:
        made["type"] = [node["type"], "null"] if nullable else node["type"]
    elif "properties" in node:
        made["type"] = "object"
    # A list that is said to be open is none to hold a value to.
    if "enum" in node and node.get("x-speakeasy-unknown-values") != "allow":
        made["enum"] = [*node["enum"], *([None] if nullable else [])]
    if "properties" in node:
        made["properties"] = {name: convert(one) for name, one in node["properties"].items()}
    if "items" in node:
        made["items"] = convert(node["items"])
    for key in ("required", "anyOf", "deprecated"):
        if key in node:
            made[key] = node[key]
    if node.get("additionalProperties") is True:
        made["additionalProperties"] = True
    return made


def event_file(event_type: str, data: Node) -> Node:
    """Give the schema of one type; `data` is the description's schema of its `data`."""
    text = json.dumps(convert(data)).replace('"#/definitions/', f'"{COMPONENTS}#/definitions/')
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": event_type,
        "description": CATALOGUE[event_type].description,
        "allOf": [{"$ref": f"{COMPONENTS}#/definitions/{ENVELOPE}"}],
        "type": "object",
        "required": ["data"],
        "properties": {"type": {"const": event_type}, "data": json.loads(text)},
    }


class Mender:
    """Widens schemas until they accept what is known to be sent."""

    def __init__(self, files: dict[str, Node]) -> None:
        """Take the files by name; they are changed in place."""
        self.files = files
        self.mends: dict[str, None] = {}

    def accept(self, event_type: str, event: Any) -> None:
        """Widen what does not accept `event`. Raises `SystemExit` where that is of no help."""
        for _ in range(_MAX_MENDS):
            error = next(self._errors(event_type, event), None)
            if error is None:
                self._name(event_type, "", self.files[f"{event_type}.json"], event)
                return
            self._mend(event_type, error)
        raise SystemExit(f"{event_type}: cannot be made to accept its example")

    def _errors(self, event_type: str, event: Any) -> Iterator[ValidationError]:
        resource = Resource.from_contents(self.files[COMPONENTS], default_specification=DRAFT7)
        registry: Registry[Any] = Registry().with_resource(COMPONENTS, resource)
        validator = Draft7Validator(self.files[f"{event_type}.json"], registry=registry)
        for error in validator.iter_errors(event):
            yield from self._causes(error)

    def _causes(self, error: ValidationError) -> Iterator[ValidationError]:
        """Go from `anyOf` into the choice that is the closest."""
        if error.validator != "anyOf" or not error.context:
            yield error
            return
        choices: dict[Any, list[ValidationError]] = {}
        for one in error.context:
            choices.setdefault(one.schema_path[0], []).append(one)
        yield from self._causes(min(choices.values(), key=_distance)[0])

    def _mend(self, event_type: str, error: ValidationError) -> None:
        schema: Any = error.schema
        place = ".".join("[]" if isinstance(step, int) else step for step in error.absolute_path)
        if error.validator == "required":
            lacking = [name for name in schema["required"] if name not in error.instance]
            schema["required"] = [name for name in schema["required"] if name not in lacking]
            self._note(event_type, place, f"may lack {', '.join(lacking)}")
        elif error.validator == "enum":
            schema["enum"].append(error.instance)
            self._note(event_type, place, f"may be {error.instance!r}")
        elif error.validator == "type":
            kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
            schema["type"] = [*kinds, _kind(error.instance)]
            self._note(event_type, place, f"may be {_kind(error.instance)}")
        else:
            raise SystemExit(f"{event_type}: {place}: {error.message}")

    def _name(self, event_type: str, place: str, node: Node, value: Any) -> None:
        """Add the fields of an event that the description does not have."""
        if isinstance(value, list):
            for item, one in (
                (items, one) for items in self._parts(node, "items") for one in value
            ):
                self._name(event_type, f"{place}[]", item, one)
        if not isinstance(value, dict):
            return
        holders = [holder for holder in self._whole(node) if "properties" in holder]
        if not holders or any("additionalProperties" in holder for holder in holders):
            return
        for name, one in value.items():
            below = f"{place}.{name}".removeprefix(".")
            known = [
                holder["properties"][name] for holder in holders if name in holder["properties"]
            ]
            if not known:
                holders[-1]["properties"][name] = {}
                self._note(event_type, below, "may be there")
            for found in known:
                self._name(event_type, below, found, one)

    def _parts(self, node: Node, key: str) -> list[Node]:
        return [part[key] for part in self._whole(node) if key in part]

    def _whole(self, node: Node) -> list[Node]:
        """Give a schema and all that it refers to and is put together of."""
        found = [node]
        if "$ref" in node:
            name = node["$ref"].rpartition("/")[2]
            found += self._whole(self.files[COMPONENTS]["definitions"][name])
        for part in (*node.get("allOf", ()), *node.get("anyOf", ())):
            found += self._whole(part)
        return found

    def _note(self, event_type: str, place: str, what: str) -> None:
        self.mends.setdefault(f"{event_type}: {place} {what}")


def _distance(errors: list[ValidationError]) -> tuple[bool, int]:
    # The choice of null is the last to be widened.
    return (errors[0].validator == "type", len(errors))


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "boolean", int: "integer", float: "number", str: "string"}
    return names.get(type(value), "array" if isinstance(value, list) else "object")


def make(description: Node) -> tuple[dict[str, Node], list[str]]:
    """Give the files by name, and what was widened for the examples."""
    schemas = description["components"]["schemas"]
    definitions = {name: convert(node) for name, node in sorted(schemas.items())}
    envelope = definitions[ENVELOPE]
    envelope["required"] = [name for name in envelope["required"] if name not in _NEWER]
    files: dict[str, Node] = {COMPONENTS: {"definitions": definitions}}
    events = {name: _content(node) for name, node in description["x-webhooks"].items()}
    for name, content in events.items():
        data = content["schema"]["allOf"][1]["properties"]["data"]
        files[f"{name}.json"] = event_file(name, data)
    mender = Mender(files)
    for name, content in events.items():
        for example in _examples(content, description):
            mender.accept(name, example)
        mender.accept(name, json.loads(sample(name, 0)))
    return files, list(mender.mends)


def _content(webhook: Node) -> Node:
    content: Node = webhook["post"]["requestBody"]["content"]["application/json"]
    return content


def _examples(content: Node, description: Node) -> Iterator[Any]:
    if "example" in content:
        yield content["example"]
    for example in content.get("examples", {}).values():
        named = example.get("$ref", "").rpartition("/")[2]
        yield (description["components"]["examples"][named] if named else example)["value"]


def render(node: Node) -> str:
    """Give a file's text."""
    return json.dumps(node, indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    """Run as a script."""
    paths = [argument for argument in sys.argv[1:] if argument != "--check"]
    if len(paths) != 1:
        raise SystemExit(__doc__)
    files, mends = make(yaml.safe_load(Path(paths[0]).read_text("utf-8")))
    for mend in mends:
        sys.stdout.write(f"widened: {mend}\n")
    texts = {name: render(node) for name, node in files.items()}
    if "--check" in sys.argv[1:]:
        there = {path.name: path.read_text("utf-8") for path in PLACE.glob("*.json")}
        return int(there != texts)
    for name, text in texts.items():
        (PLACE / name).write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
