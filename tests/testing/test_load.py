"""What a tests file may say: each fault at its place, and the events that are made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import TypeAdapter

from gateway.config import ConfigError
from gateway.testing import models
from gateway.testing.models import STAND_INS
from tests.canaries import SECRET
from tests.config.conftest import marked
from tests.config.test_models import models as models_of
from tests.testing.settings import CONFIG, suite

CASE = "name: a, event: user.created"
REST = "expect: none"

FAULTS = [
    # Keys and kinds of values, as in a config.
    (f"tests: [{{{CASE}, {REST}}}]\n‸tets: 1", 'unknown key "tets", did you mean "tests"?'),
    (f"tests: [{{{CASE}, {REST}, ‸source-id: x}}]", 'unknown key "source-id"'),
    (f"tests: [{{{CASE}, {REST}, ‸sorce: clerk}}]", 'unknown key "sorce", did you mean "source"?'),
    ("tests: [‸{event: user.created, expect: none}]", "name is missing; add it: what the test"),
    (f"tests: [‸{{{CASE}}}]", "expect is missing; add it: the records that are published"),
    ("tests: ‸[]", "tests: none; add at least one"),
    ("tests: ‸none", "tests: expected a list, got text; put it in [ ]"),
    ("tests: [‸user.created]", "tests[0]: expected a mapping"),
    (f"tests: [{{{CASE}, expect: ‸nothing}}]", "expect: expected a list of records, or none where"),
    (f"tests: [{{{CASE}, expect:‸ }}]", "expect: expected a list of records, or none where"),
    (f"tests: [{{{CASE}, expect: ‸no}}]", "no is a boolean in one YAML and text in another"),
    (f"tests: [{{{CASE}, {REST}, ‸{REST}}}]", '"expect" is here twice'),
    (f"tests: [{{{CASE}, expect: [{{topic: x, key: ‸1}}]}}]", "key: expected text, got a number;"),
    (f"tests: [{{{CASE}, expect: [{{topic: x, headers: {{a: ‸1}}}}]}}]", "a: expected text, got a"),
    (
        f"tests: [{{{CASE}, expect: [{{topic: x, routes: ‸users}}]}}]",
        "routes: expected a list,",
    ),
    (
        f"tests: [{{{CASE}, expect: [{{topic: x, refused: ‸expresion}}]}}]",
        "refused: expected expression, destination, too_large or invalid_destination, did you",
    ),
    # Names that lead nowhere in the config.
    (
        f"tests: [{{{CASE}, expect: [{{broker: ‸evnts, topic: x}}]}}]",
        'broker: the config has no broker "evnts"; did you mean events?',
    ),
    (
        f"tests: [{{{CASE}, expect: [{{topic: x, routes: [users, ‸zzz]}}]}}]",
        'routes[1]: the config has no route "zzz"; there is users, pro',
    ),
    (
        f"tests: [{{{CASE}, {REST}, source: ‸clrk}}]",
        'source: the config has no source "clrk"; did you mean clerk?',
    ),
    (
        f"tests: [{{{CASE}, expect: [{{broker: bus, topic: ‸x}}]}}]",
        "topic: bus is NATS, which has no topics; write subject",
    ),
    (
        f"tests: [{{{CASE}, expect: [{{broker: events, subject: ‸x}}]}}]",
        "subject: events is Kafka, which has no subjects; write topic",
    ),
    # What does not go together.
    ("tests: [‸{name: a, expect: none}]", "a test has one event: write event, file or body"),
    (f"tests: [{{{CASE}, body: ‸{{}}, {REST}}}]", "a test has one event: write event, file or"),
    (f"tests: [{{{CASE}, expect: [‸{{broker: bus}}]}}]", "write a topic for Kafka, or a subject"),
    (
        f"tests: [{{{CASE}, expect: [{{topic: x, subject: ‸z}}]}}]",
        "write a topic for Kafka, or a subject for NATS: one of them",
    ),
    (f"tests: [{{{CASE}, expect: [{{topic: x, routes: ‸[]}}]}}]", "routes: the list is empty;"),
    (
        f"tests: [{{{CASE}, expect: [{{topic: x, refused: expression, key: ‸x}}]}}]",
        "key: what is refused has none; remove it",
    ),
    (
        f"tests: [{{{CASE}, {REST}, exhaustive: ‸false}}]",
        "exhaustive: false with nothing expected cannot fail; remove it",
    ),
    (
        f"tests: [{{{CASE}, {REST}}}, {{name: ‸a, body: {{}}, {REST}}}]",
        'name: another test is called "a" (line 1 column 16); give each its own',
    ),
    # Events that cannot be made.
    (
        f"tests: [{{{CASE}, {REST}, set: {{dta.id: ‸x}}}}]",
        "set: an event has data,",
    ),
    (
        f"tests: [{{{CASE}, {REST}, set: {{data.id.x: ‸z}}}}]",
        "set: what stands before `x` is neither an object nor a list",
    ),
    (f"tests: [{{{CASE}, {REST}, unset: [data.id, ‸data.x]}}]", "unset: there is no `x`"),
    (f"tests: [{{{CASE}, {REST}, set: {{‸data..x: z}}}}]", "this key: expected a dotted path"),
    (f"tests: [{{name: a, file: ‸none.json, {REST}}}]", "file: "),
    (
        f"tests: [{{name: a, file: ‸bad.json, set: {{data.id: x}}, {REST}}}]",
        "file: is not a JSON object, so set and unset cannot change it",
    ),
]


def faults(directory: Path, text: str, **changes: Any) -> list[tuple[str, int, int, str]]:
    """Give the problems of a text."""
    try:
        found = suite(directory, text, **changes).warnings
    except ConfigError as error:
        found = error.problems
    return [(one.severity, one.line, one.col, one.message) for one in found]


@pytest.mark.parametrize(("text", "begins"), FAULTS, ids=[text[:70] for text, _ in FAULTS])
def test_each_fault_is_told_at_its_place(text: str, begins: str, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("[1]")
    plain, line, col = marked(text)
    ((severity, *place, message),) = faults(tmp_path, plain)
    assert (severity, place) == ("error", [line, col])
    assert message.startswith(begins), message


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    text = (
        "tests:\n"
        "  - {event: user.created, expect: [{broker: nope, topic: x, key: 1}]}\n"
        "  - {name: b, file: none.json, source: x, expect: none, set: {a b: 1}}\n"
    )
    assert [(line, col) for _, line, col, _ in faults(tmp_path, text)] == [
        (2, 5),
        (2, 45),
        (2, 66),
        (3, 21),
        (3, 40),
        (3, 63),
    ]


def test_a_type_that_is_misspelt_is_a_warning(tmp_path: Path) -> None:
    text = "tests: [{name: a, event: usr.created, expect: none}]"
    message = 'event: Clerk is not known to send "usr.created", did you mean user.created?'
    assert faults(tmp_path, text) == [("warning", 1, 26, message)]


def test_with_several_sources_a_test_says_which(tmp_path: Path) -> None:
    other = {"kind": "svix", "path": "/b", "secrets": [SECRET]}
    sources = {**CONFIG["sources"], "billing": other}
    text = "tests: [{name: a, event: user.created, expect: none}]"
    (found,) = faults(tmp_path, text, sources=sources)
    assert found[3] == "source is missing; the config has several: clerk, billing"
    named = text.replace("name: a", "name: a, source: billing")
    (test,) = suite(tmp_path, named, sources=sources).tests
    assert test.source == "billing"


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a colon where none can be"):
        suite(tmp_path, "a: b: c")
    with pytest.raises(ConfigError, match="is larger than 1 MiB; this is not a tests file"):
        suite(tmp_path, "#" * (1024 * 1024 + 1))


def test_nothing_is_interpolated(tmp_path: Path) -> None:
    text = "tests: [{name: a, body: {type: 'a.$b', data: {x: '${NONE}', z: $$}}, expect: none}]"
    (test,) = suite(tmp_path, text).tests
    assert json.loads(test.body) == {"type": "a.$b", "data": {"x": "${NONE}", "z": "$$"}}


def test_an_event_is_a_sample_with_changes(tmp_path: Path) -> None:
    text = (
        "tests:\n"
        "  - name: a\n    event: user.created\n"
        "    set: {data.public_metadata.plan: {seats: 5}, data.email_addresses.0.id: x,"
        " data.banned: true}\n"
        "    unset: [data.username, data.email_addresses.0.object]\n"
        "    expect: none\n"
    )
    (test,) = suite(tmp_path, text).tests
    event = msgspec.json.decode(test.body)
    assert event["type"] == "user.created"
    assert event["timestamp"] == 1_767_225_600_000
    data = event["data"]
    assert data["public_metadata"] == {"plan": {"seats": 5}}
    assert data["banned"] is True
    assert data["email_addresses"][0]["id"] == "x"
    assert "object" not in data["email_addresses"][0]
    assert "username" not in data
    assert (test.name, test.line, test.source, test.svix_id) == ("a", 2, "clerk", "msg_test")


def test_a_file_is_taken_byte_for_byte_from_beside_the_tests(tmp_path: Path) -> None:
    raw = b'{ "type":"user.created",\n "data": {"id":"user_\\u0031"} }\n'
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "user.json").write_bytes(raw)
    text = (
        "tests:\n"
        "  - {name: a, file: events/user.json, expect: none}\n"
        "  - {name: b, file: events/user.json, set: {data.id: user_2}, expect: none}\n"
    )
    plain, changed = suite(tmp_path, text).tests
    assert plain.body == raw
    assert changed.body == b'{"type":"user.created","data":{"id":"user_2"}}'


def test_one_test_cannot_change_the_event_of_another(tmp_path: Path) -> None:
    text = (
        "tests:\n"
        "  - name: a\n    body: &user {type: user.created, data: &data {id: user_1}}\n"
        "    set: {data.copy: *data, data.copy.id: user_2}\n    expect: none\n"
        "  - {name: b, body: *user, expect: none}\n"
    )
    first, second = suite(tmp_path, text).tests
    copied = {"id": "user_1", "copy": {"id": "user_2"}}
    assert json.loads(first.body) == {"type": "user.created", "data": copied}
    assert json.loads(second.body) == {"type": "user.created", "data": {"id": "user_1"}}


FIELDS = {
    f"{model.__name__}.{name}": info
    for model in models_of(models.TestsFile)
    for name, info in model.model_fields.items()
}


def test_every_field_is_explained_with_an_example() -> None:
    assert {"TestsFile.tests", "Case.exhaustive", "Expectation.refused"} <= FIELDS.keys()
    for name, info in FIELDS.items():
        assert (info.description or "").endswith("."), name
        assert info.examples, name
        for example in info.examples:
            adapter = TypeAdapter[Any](info.rebuild_annotation())
            fitted = tuple(example) if isinstance(example, list) else example
            adapter.validate_python(fitted, strict=True)


def test_every_required_field_has_a_stand_in() -> None:
    required = {name.partition(".")[2] for name, info in FIELDS.items() if info.is_required()}
    assert required == STAND_INS.keys()


def test_the_schema_asks_for_one_event_and_one_destination() -> None:
    shapes = models.TestsFile.model_json_schema()["$defs"]
    for shape, names in (
        ("Case", ["event", "file", "body"]),
        ("Expectation", ["topic", "subject"]),
    ):
        assert shapes[shape]["oneOf"] == [{"required": [name]} for name in names]
        assert shapes[shape]["additionalProperties"] is False


def test_the_schema_takes_none_for_nothing() -> None:
    schema = models.TestsFile.model_json_schema()
    expect = schema["$defs"]["Case"]["properties"]["expect"]
    assert {"const": "none"} in expect["anyOf"]
    assert any(one.get("type") == "array" for one in expect["anyOf"])
    assert expect["description"]
