"""The schema of the config file takes what the loader takes, and says of each key what it is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator
from pydantic import SecretStr, TypeAdapter, ValidationError

from gateway.commands.schema import schema_command
from gateway.config import ConfigError, FileContent, fields, load_config_text, units
from gateway.config.interpolation import Interpolated, Interpolator
from gateway.config.json_schema import json_schema
from gateway.config.models import GatewayConfig
from gateway.testing.models import TestsFile
from tests.canaries import SECRET
from tests.commands.command import in_process
from tests.config.documents import as_written_in, complete, drawn, models_take

ROOT = Path(__file__).parents[2]
SCHEMA = json_schema(GatewayConfig)
FITS = Draft7Validator(SCHEMA)
SECTIONS = {
    name: Draft7Validator(SCHEMA | {"properties": {name: part}, "additionalProperties": True})
    for name, part in SCHEMA["properties"].items()
}
"""Each looks at one section of a document only, which is faster."""
COMPLETE = complete()

Way = tuple[str | int, ...]


def loads(document: Any) -> bool:
    """Tell whether the loader takes a document, perhaps with warnings."""
    try:
        load_config_text(json.dumps(document), "config.yaml", {})
    except ConfigError:
        return False
    return True


def keys_of(schema: Any, way: str = "") -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Give every key that the schema has: its way, what is said of it, and whether it must be."""
    if isinstance(schema, list):
        for each in schema:
            yield from keys_of(each, way)
    if not isinstance(schema, dict):
        return
    for name, value in schema.get("properties", {}).items():
        yield f"{way}.{name}", value, name in schema.get("required", [])
        yield from keys_of(value, f"{way}.{name}")
    for key in {"additionalProperties", "items", "oneOf", "allOf", "then"} & schema.keys():
        yield from keys_of(schema[key], way)


KEYS = list(keys_of(SCHEMA))
TESTS = json_schema(TestsFile, interpolated=False)
KEYS_OF_BOTH = [(way, about, required) for way, about, required in (*KEYS, *keys_of(TESTS))]


def test_the_walk_finds_every_field_of_every_model() -> None:
    ways = {way for way, _, _ in KEYS}
    assert {".brokers.sasl.username", ".brokers.streams.max_age", ".routes.targets.redact"} <= ways
    assert len(KEYS) > 110


@pytest.mark.parametrize(
    ("way", "about", "required"), KEYS_OF_BOTH, ids=[way for way, _, _ in KEYS_OF_BOTH]
)
def test_every_key_has_a_title_a_description_examples_and_its_default(
    way: str, about: dict[str, Any], required: bool
) -> None:
    assert about["title"].endswith(way.rpartition(".")[2])
    assert about["description"].endswith((".", ")")), "a sentence"
    assert about["examples"]
    assert ("default" in about) is not required
    own = Draft7Validator({**about, "definitions": SCHEMA["definitions"]})
    for value in [*about["examples"], *([] if required else [about["default"]])]:
        own.validate(value)


def test_it_is_a_schema_of_draft_07_that_needs_no_other_file() -> None:
    Draft7Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "http://json-schema.org/draft-07/schema#"
    text = json.dumps(SCHEMA)
    assert '"format": "password"' not in text, "it troubles editors"
    assert '"writeOnly"' not in text
    assert '"$id"' not in text
    assert text.count('"$ref"') == text.count('"$ref": "#/definitions/')


@pytest.mark.parametrize("name", ["config", "tests"])
def test_the_published_file_is_what_the_command_prints(name: str) -> None:
    done = in_process("schema", name)
    assert (done.code, done.err) == (0, "")
    Draft7Validator.check_schema(json.loads(done.out))
    published = (ROOT / f"schemas/{name}.schema.json").read_text("utf-8")
    assert done.out == published, f"run: gateway schema {name} > schemas/{name}.schema.json"


def test_the_command_group_names_what_there_is() -> None:
    assert set(schema_command.commands) == {"config", "events", "tests"}


@pytest.mark.parametrize("name", ["config.example.yaml", "gateway/commands/dev.yaml"])
def test_it_takes_the_shipped_files(name: str) -> None:
    FITS.validate(as_written_in((ROOT / name).read_text()))


@pytest.mark.parametrize(
    ("name", "schema"), [("config.example.yaml", "config"), ("config.example.tests.yaml", "tests")]
)
def test_an_example_names_the_published_schema_in_its_first_line(name: str, schema: str) -> None:
    first = (ROOT / name).read_text().partition("\n")[0]
    assert first == f"# yaml-language-server: $schema=schemas/{schema}.schema.json"


def test_the_shipped_tests_fit_their_schema() -> None:
    Draft7Validator(TESTS).validate(as_written_in((ROOT / "config.example.tests.yaml").read_text()))


def test_it_takes_a_document_with_every_key() -> None:
    assert loads(COMPLETE)
    FITS.validate(COMPLETE)


@settings(max_examples=80, deadline=None)
@given(drawn())
def test_what_the_models_take_fits(document: dict[str, Any]) -> None:
    assert models_take(document)
    FITS.validate(document)


JUNK = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["10s", "4KiB", "${V:-7}", "${V", "$$", "${V:-}", "", "kafka", "user.*"])
    | st.lists(st.text(max_size=3), max_size=2)
    | st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=1)
)

TEXTS: dict[str, tuple[Any, bool]] = {
    "Name": (fields.Name, True),
    "NonEmpty": (fields.NonEmpty, True),
    "UrlPath": (fields.UrlPath, True),
    "Cidr": (fields.Cidr, False),
    "SenderNetwork": (fields.SenderNetwork, False),
    "UriReference": (fields.UriReference, False),
    "SigningSecret": (fields.SigningSecret, False),
    "Password": (fields.Password, True),
    "AdminToken": (fields.AdminToken, True),
    "StreamName": (fields.StreamName, True),
    "FieldPath": (fields.FieldPath, True),
    "Duration": (units.Duration, False),
    "PositiveDuration": (units.PositiveDuration, False),
    "Size": (units.Size, False),
}
"""The kinds of text, and whether a regular expression says all of their check."""
SEEDS = [
    *(
        "a",
        "a-1",
        "/webhooks/clerk",
        "/a?b",
        "10.0.0.0/8",
        "::1/64",
        "1.2.3.4/255.0.0.0",
        "svix:us",
    ),
    *(
        "::ffff:1.2.3.4",
        "256.1.1.1",
        "clerk/main",
        "urn:a:b",
        "a b",
        "%41#x",
        SECRET,
        f"v1,{SECRET}",
    ),
    *(SECRET.removeprefix("whsec_"), "0123456789abcdef", "CLERK", "a.b.c", "10s", " 7d ", "0.5ms"),
    *("0s", "0.0m", "64KiB", "0B", "4096", "00012", "$", "\u2028", "9" * 15 + "d"),
]


@pytest.mark.parametrize(("kind", "is_exact"), TEXTS.values(), ids=TEXTS)
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_text_that_its_check_takes_matches_the_pattern(
    kind: Any, is_exact: bool, data: st.DataObject
) -> None:
    adapter = TypeAdapter[Any](kind)
    schema = adapter.json_schema()
    drawn_of_pattern = (
        st.from_regex(schema["pattern"]) if "pattern" in schema else st.sampled_from(SEEDS)
    )
    text = data.draw(st.sampled_from(SEEDS) | st.text(max_size=20) | drawn_of_pattern)
    try:
        adapter.validate_python(text, strict=True, context={"file": True})
        is_taken = True
    except ValidationError:
        is_taken = False
    # `$` matches before a newline at the end, too; in a browser's expressions it does not.
    matches = Draft7Validator(schema).is_valid(text)
    assert matches or not is_taken, text
    if is_exact and not text.endswith("\n"):
        assert matches is is_taken, text


@settings(max_examples=500, deadline=None)
@given(
    st.text("${}:-?Vfile/ a\n", max_size=14)
    | st.lists(
        st.sampled_from(["${", "}", "$", "{", "V", ":-", ":?", "file:", "/p", "a", "${V}", "$$"])
    ).map("".join)
)
@example("${V:-clerk.{data.{a: b}}}")
@example("$$${V}")
@example("$${V}")
@example("${V:-${W}}")
@example("${file:${${V}}}")
def test_what_is_interpolated_is_what_the_interpolator_replaces(text: str) -> None:
    env = dict.fromkeys(re.findall(r"\w+", text), "set")
    found = Interpolator(env, lambda _: FileContent(SecretStr("content"))).expand(text)
    is_interpolated = bool(found.faults) or isinstance(found.text, Interpolated)
    definitions = {
        name: Draft7Validator(SCHEMA["definitions"][name]).is_valid(text)
        for name in ("interpolated", "literal")
    }
    assert definitions == {
        "interpolated": is_interpolated and not found.faults,
        "literal": not is_interpolated,
    }


def ways_into(value: Any, way: Way = ()) -> Iterator[Way]:
    """Give the way to everything inside a document."""
    keys = value if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield (*way, key)
        if isinstance(value[key], dict | list):
            yield from ways_into(value[key], (*way, key))


WAYS = list(ways_into(COMPLETE))


def at(document: Any, way: Way) -> Any:
    return reduce(lambda value, key: value[key], way, document)


def with_value(way: Way, value: Any) -> Any:
    """Give a document with every key, and something else in one place."""
    document = complete()
    at(document, way[:-1])[way[-1]] = value
    return document


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(WAYS), JUNK)
@example(("server", "port"), "${V:-7}")
@example(("server",), None)
@example(("sources",), None)
@example(("routes", 0, "events"), "${V:-user.*,session.*}")
@example(("routes", 0, "targets"), "${V:-user.*,session.*}")
def test_what_the_loader_takes_fits(way: Way, value: Any) -> None:
    document = with_value(way, value)
    if loads(document):
        # As it is read: `1e+16` is a number to JSON, and text here.
        FITS.validate(as_written_in(json.dumps(document)))


BAD_TEXTS = (True, "${", "${}", "${V:d}", "a ${V:-${W}}")
BAD_DURATIONS = (10, "10", "10 s", "1h30m", "-1s", "10S")
BAD_SIZES = (0, 1.5, "0", "1 KiB", "1.5MiB", "1kb")
BAD_NUMBERS = ("text", "1", -1, 10**12)
NAMES_OF_THE_USER = {"sources", "brokers", "headers"}
REQUIRED = ("kind", "name", "events", "targets", "broker", "secrets", "subjects", "mechanism")
OPTIONAL = {("clerk", "kind"), ("ledger", "broker"), ("inbox", "broker"), ("brokers", "events")}
MUST_BE = [way for way in WAYS if way[-1] in REQUIRED and way[-2:] not in OPTIONAL]


def bad_values(way: Way, value: Any) -> Iterator[Any]:
    """Give what cannot stand in the place of a value."""
    yield {"a": 1} if isinstance(value, list) else [{}]
    if isinstance(value, bool):
        yield from ("yes", 1)
    elif isinstance(value, int | float):
        yield from BAD_NUMBERS
    if not isinstance(value, str):
        return
    yield from BAD_TEXTS
    if units.parse_duration(value) is not None:
        yield from BAD_DURATIONS
    elif units.parse_size(value) is not None:
        yield from BAD_SIZES
    else:
        yield 1
    if value in words_of(way):
        yield "unheard-of"


def words_of(way: Way) -> set[str]:
    """Give the words that the schema lets stand in a place, where there are but a few."""
    name = "".join(f".{part}" for part in way if isinstance(part, str))
    for user in ("clerk", "events", "bus"):
        name = re.sub(rf"^(\.sources|\.brokers)\.{user}(?=\.)", r"\1", name)
    found = [about for key, about, _ in KEYS if key == name]
    choices = [choice for about in found for choice in about.get("oneOf", [about])]
    return {word for choice in choices for word in choice.get("enum", [])}


OBJECTS = [
    way
    for way in ((), *WAYS)
    if isinstance(at(COMPLETE, way), dict) and way[-1:] not in {(n,) for n in NAMES_OF_THE_USER}
]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_wrong_value_is_refused_by_the_loader_and_by_the_schema(way: Way) -> None:
    for bad in bad_values(way, at(COMPLETE, way)):
        document = with_value(way, bad)
        assert not loads(document), bad
        assert not SECTIONS[way[0]].is_valid(document), bad


@pytest.mark.parametrize("way", OBJECTS, ids=str)
def test_an_unknown_key_is_refused_by_the_loader_and_by_the_schema(way: Way) -> None:
    document = with_value((*way, "unheard_of"), 1)
    assert not loads(document)
    assert not FITS.is_valid(document)


@pytest.mark.parametrize("way", MUST_BE, ids=str)
def test_a_missing_key_is_refused_by_the_loader_and_by_the_schema(way: Way) -> None:
    document = complete()
    del at(document, way[:-1])[way[-1]]
    assert not loads(document)
    assert not SECTIONS[way[0]].is_valid(document)
