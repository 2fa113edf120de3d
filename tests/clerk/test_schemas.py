"""The event schemas: whole, lenient, and true of every sample; and what is looked up in them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hatchling.builders.wheel import WheelBuilder
from jsonschema import Draft7Validator

from gateway.clerk.catalogue import ALSO_SEEN, CATALOGUE, KEY_PATHS
from gateway.clerk.samples import sample
from gateway.clerk.schemas import ANY, Steps, event_schema, events_schema, lookup, same_data
from gateway.commands.schema_events import schema_events_command
from tools.clerk_schemas import convert, make

PLACE = files("gateway.clerk") / "event_schemas"
JSON_TYPES = {bool: "boolean", int: "number", float: "number", str: "string", list: "array"}


def event(event_type: str) -> Any:
    return json.loads(sample(event_type, 1_800_000_000_000))


def places(value: Any, steps: Steps = ()) -> Iterator[tuple[Steps, Any]]:
    yield steps, value
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from places(inner, (*steps, name))
    elif isinstance(value, list):
        for inner in value:
            yield from places(inner, (*steps, None))


def json_type(value: Any) -> str:
    return "null" if value is None else JSON_TYPES.get(type(value), "object")


@pytest.mark.parametrize("event_type", CATALOGUE)
def test_every_type_has_a_schema_that_accepts_its_sample_and_no_other_types(
    event_type: str,
) -> None:
    schema = event_schema(event_type)
    assert schema is not None
    Draft7Validator.check_schema(dict(schema))
    validator = Draft7Validator(dict(schema))
    assert [error.message for error in validator.iter_errors(event(event_type))] == []
    other = next(one for one in CATALOGUE if one != event_type)
    assert not validator.is_valid(event(other))
    assert not validator.is_valid({**event(event_type), "data": {}})


def test_types_without_a_published_schema_have_none() -> None:
    assert [event_schema(one) for one in (*ALSO_SEEN, "user.invented", "")] == [None] * 6
    assert lookup("user.invented", ("data", "id")) is None


def test_the_schema_of_all_takes_each_event_once() -> None:
    schema = dict(events_schema())
    Draft7Validator.check_schema(schema)
    validator = Draft7Validator(schema)
    for event_type in CATALOGUE:
        assert validator.is_valid(event(event_type)), event_type
    assert not validator.is_valid({**event("user.created"), "type": "user.invented"})


def test_a_schema_holds_what_it_refers_to_and_nothing_else() -> None:
    deleted = event_schema("user.deleted")
    assert deleted is not None
    assert set(deleted["definitions"]) == {"DeletedObject", "WebhookEventPayload"}
    text = json.dumps(dict(events_schema()))
    assert "components.json" not in text


def test_new_fields_and_older_envelopes_are_accepted() -> None:
    schema = event_schema("user.created")
    assert schema is not None
    body = event("user.created")
    body["data"]["of_tomorrow"] = body["of_tomorrow"] = {"a": [1]}
    del body["timestamp"], body["instance_id"]
    assert Draft7Validator(dict(schema)).is_valid(body)


@pytest.mark.parametrize("event_type", CATALOGUE)
def test_what_is_looked_up_is_true_of_the_sample(event_type: str) -> None:
    for steps, value in places(event(event_type)):
        found = lookup(event_type, steps)
        assert found is not None
        assert found.status != "missing", steps
        assert json_type(value) in found.kinds, steps
        assert found.values is None or value in found.values, steps
        assert found.may_be_blank or value not in ("", [], {}), steps


@pytest.mark.parametrize(
    ("event_type", "path", "status", "kinds"),
    [
        ("user.created", "data.id", "known", {"string"}),
        ("user.deleted", "data.id", "known", {"string"}),  # the default key rests on it
        ("user.deleted", "data.slug", "known", {"string", "null"}),
        ("user.created", "data.username", "known", {"string", "null"}),
        ("user.created", "data.email_addresses", "known", {"array"}),
        ("user.created", "data.created_at", "known", {"number"}),
        ("user.created", "data.public_metadata.tier", "open", ANY),
        ("user.created", "data.private_metadata.a.b", "open", ANY),
        ("email.created", "data.data.otp_code", "open", ANY),
        ("user.deleted", "data.public_metadata.tier", "missing", {"null"}),
        ("user.created", "data.emial", "missing", {"null"}),
        ("user.created", "data.email_addresses.id", "missing", {"null"}),
        ("user.created", "id", "missing", {"null"}),
        ("user.created", "timestamp", "known", {"number", "null"}),
        ("session.created", "data.user.id", "known", {"string"}),
        ("organizationMembership.created", "data.organization.id", "known", {"string"}),
        ("organizationMembership.created", "data.public_user_data.user_id", "known",
         {"string", "null"}),
        ("waitlistEntry.created", "data.invitation.id", "known", {"string", "null"}),
    ],
)  # fmt: skip
def test_fields(event_type: str, path: str, status: str, kinds: set[str]) -> None:
    found = lookup(event_type, tuple(path.split(".")))
    assert found is not None
    assert found.status == status
    assert found.kinds == kinds


def test_elements_of_lists() -> None:
    status = ("verification", "status")
    every = lookup("user.created", ("data", "email_addresses", None, *status))
    first = lookup("user.created", ("data", "email_addresses", 0, "id"))
    assert every is not None
    assert first is not None
    assert set(every.values or ()) >= {"verified", "unverified", "failed", "expired", None}
    assert first.may_be_null  # the list may be empty


def test_the_values_that_a_field_may_have() -> None:
    status = lookup("session.created", ("data", "status"))
    own = lookup("session.created", ("type",))
    assert status is not None
    assert own is not None
    assert set(status.values or ()) >= {"active", "revoked", "pending"}
    assert own.values == ("session.created",)


def test_what_is_missing_names_what_is_there() -> None:
    found = lookup("user.deleted", ("data", "emial", "x"))
    assert found is not None
    assert (found.depth, set(found.names)) == (
        1,
        {"object", "id", "slug", "deleted", "external_id"},
    )


def test_a_payer_has_empty_fields_of_what_it_is_not() -> None:
    for field, is_blank in (("user_id", True), ("organization_id", True), ("id", False)):
        found = lookup("subscription.created", ("data", "payer", field))
        assert found is not None
        assert found.is_left_blank is is_blank


def test_the_default_keys_are_in_the_schemas() -> None:
    for name, one in CATALOGUE.items():
        for path in KEY_PATHS[one.entity]:
            found = lookup(name, tuple(path.split(".")))
            assert found is not None
            # A deleted object has its own id and nothing else.
            assert found.status == "known" or name.endswith(".deleted"), (name, path)


def test_types_with_the_same_data_are_told_from_others() -> None:
    assert same_data("user.created") == same_data("user.updated") != same_data("user.deleted")
    assert same_data("user.invented") == same_data("invitation.created") == ""


def test_the_files_hold_none_of_the_descriptions_texts() -> None:
    components = json.loads((PLACE / "components.json").read_text("utf-8"))["definitions"]
    named = {name for _, one in places(components) if isinstance(one, dict) for name in one}
    # As a field of Clerk's there is a description; as a keyword it would be a text.
    texts = [one for steps, one in places(components) if steps[-1:] == ("description",)]
    assert "properties" in named
    assert all(isinstance(one, dict) for one in texts)
    assert "Permission is hereby granted" in (PLACE / "LICENSE").read_text("utf-8")


def test_the_command_prints_one_or_all() -> None:
    one, every = (printed(*options) for options in (("--type", "user.created"), ()))
    assert json.loads(one) == dict(event_schema("user.created") or {})
    assert json.loads(every) == dict(events_schema())


def test_the_command_knows_no_other_type() -> None:
    done = CliRunner().invoke(schema_events_command, ["--type", "usr.created"])
    assert done.exit_code == 2
    assert "no schema of usr.created, did you mean user.created?" in done.output


def printed(*options: str) -> str:
    done = CliRunner().invoke(schema_events_command, options)
    assert done.exit_code == 0
    return done.output


# --- the tool that makes the files


@pytest.mark.parametrize(
    ("openapi", "expected"),
    [
        ({"type": "string", "nullable": True}, {"type": ["string", "null"]}),
        ({"type": "integer", "format": "int64"}, {"type": "integer"}),
        ({"type": "string", "pattern": "^x$", "description": "theirs"}, {"type": "string"}),
        (
            {"type": "string", "enum": ["a"], "nullable": True},
            {"type": ["string", "null"], "enum": ["a", None]},
        ),
        (
            {"type": "string", "enum": ["a"], "x-speakeasy-unknown-values": "allow"},
            {"type": "string"},
        ),
        (
            {"type": "object", "additionalProperties": False, "properties": {"a": {}}},
            {"type": "object", "properties": {"a": {}}},
        ),
        (
            {"type": "object", "additionalProperties": True},
            {"type": "object", "additionalProperties": True},
        ),
        ({"$ref": "#/components/schemas/A"}, {"$ref": "#/definitions/A"}),
        (
            {"$ref": "#/components/schemas/A", "nullable": True},
            {"anyOf": [{"$ref": "#/definitions/A"}, {"type": "null"}]},
        ),
        (
            {"nullable": True, "oneOf": [{"$ref": "#/x/A"}, {"$ref": "#/x/B"}]},
            {
                "anyOf": [
                    {"$ref": "#/definitions/A"},
                    {"$ref": "#/definitions/B"},
                    {"type": "null"},
                ]
            },
        ),
    ],
)
def test_conversion(openapi: dict[str, Any], expected: dict[str, Any]) -> None:
    assert convert(openapi) == expected


def description(example: dict[str, Any]) -> dict[str, Any]:
    """A description of one type, whose data must have an `id` and a `status`."""
    data = {
        "type": "object",
        "required": ["id", "status"],
        "properties": {
            "id": {"type": "string"},
            "status": {"type": "string", "enum": ["on", "active"]},
        },
    }
    content = {
        "schema": {"allOf": [{}, {"properties": {"data": {"$ref": "#/components/schemas/Data"}}}]},
        "example": {"type": "session.created", "object": "event", "data": example},
    }
    envelope = {
        "properties": {"object": {}, "data": {}},
        "required": ["object", "type", "timestamp", "instance_id"],
    }
    post = {"requestBody": {"content": {"application/json": content}}}
    return {
        "components": {"schemas": {"Data": data, "WebhookEventPayload": envelope}},
        "x-webhooks": {"session.created": {"post": post}},
    }


def test_what_an_example_has_is_allowed_and_told() -> None:
    made, told = make(description({"id": None, "status": "off", "more": {"a": 1}}))
    data = made["components.json"]["definitions"]["Data"]
    assert data["properties"]["id"] == {"type": ["string", "null"]}
    assert data["properties"]["status"]["enum"] == ["on", "active", "off"]
    assert data["properties"]["more"] == {}
    assert told[:3] == [
        "session.created: data.id may be null",
        "session.created: data.status may be 'off'",
        "session.created: data.more may be there",
    ]


def test_what_an_example_lacks_is_not_required() -> None:
    made, told = make(description({"status": "on"}))
    assert made["components.json"]["definitions"]["Data"]["required"] == ["status"]
    assert "session.created: data may lack id" in told
    assert made["components.json"]["definitions"]["WebhookEventPayload"]["required"] == [
        "object",
        "type",
    ]


def test_the_wheel_has_the_schemas(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    (built,) = WheelBuilder(str(root)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(built) as wheel:
        inside = set(wheel.namelist())
    for name in ("components.json", "LICENSE", "user.created.json"):
        assert f"gateway/clerk/event_schemas/{name}" in inside
