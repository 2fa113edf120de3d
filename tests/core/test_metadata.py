"""The headers that travel: exact names, order and encoding, per broker and mode."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.metadata import (
    Headers,
    Metadata,
    clean_header,
    cloudevent,
    kafka_headers,
    nats_headers,
    percent_encode,
    structured_headers,
)
from tests.core.builders import NOW, SVIX_ID, metadata

UNPREFIXED: Headers = (
    ("svix-id", SVIX_ID),
    ("svix-timestamp", str(NOW)),
    ("svix-signature", "v1,c2ln"),
    ("gateway-route", "users,audit"),
    ("gateway-source", "clerk"),
    ("gateway-received-at", "2027-01-15T08:00:00.000Z"),
)
Render = Callable[[Metadata], Headers]
RENDERERS: dict[str, Render] = {
    "kafka": lambda about: kafka_headers(about, "user_1", "users,audit"),
    "nats": lambda about: nats_headers(about, "user_1", "users,audit"),
    "structured": lambda about: structured_headers(about, "users,audit"),
}
renderers = pytest.mark.parametrize("render", RENDERERS.values(), ids=RENDERERS)

text = st.text(st.characters(codec="utf-8"))


def test_kafka_has_the_binary_mode_of_the_kafka_binding() -> None:
    assert RENDERERS["kafka"](metadata()) == (
        ("ce_specversion", "1.0"),
        ("ce_id", SVIX_ID),
        ("ce_type", "user.created"),
        ("ce_source", "clerk/clerk"),
        ("ce_time", "2026-11-24T01:02:03.004Z"),
        ("ce_subject", "user_1"),
        ("ce_partitionkey", "user_1"),
        ("content-type", "application/json"),
        *UNPREFIXED,
    )


def test_nats_has_the_binary_mode_of_the_nats_draft() -> None:
    assert RENDERERS["nats"](metadata()) == (
        ("ce-specversion", "1.0"),
        ("ce-id", SVIX_ID),
        ("ce-type", "user.created"),
        ("ce-source", "clerk/clerk"),
        ("ce-time", "2026-11-24T01:02:03.004Z"),
        ("ce-subject", "user_1"),
        ("ce-partitionkey", "user_1"),
        ("ce-datacontenttype", "application/json"),
        *UNPREFIXED,
    )


def test_structured_mode_has_its_content_type_and_the_unprefixed_headers() -> None:
    assert RENDERERS["structured"](metadata()) == (
        ("content-type", "application/cloudevents+json"),
        *UNPREFIXED,
    )


@renderers
def test_the_signature_can_be_left_out(render: Render) -> None:
    expected = tuple(pair for pair in render(metadata()) if pair[0] != "svix-signature")
    assert render(metadata(signature=None)) == expected


@renderers
@pytest.mark.parametrize("name", ["time", "subject"])
def test_what_is_not_known_is_left_out(render: Render, name: str) -> None:
    expected = tuple(pair for pair in render(metadata()) if pair[0][3:] != name)
    assert render(metadata(**{name: None})) == expected


def test_an_event_without_a_type_has_the_required_attribute_all_the_same() -> None:
    about = metadata(type=None)
    assert dict(RENDERERS["kafka"](about))["ce_type"] == "unknown"
    assert dict(RENDERERS["nats"](about))["ce-type"] == "unknown"
    assert json.loads(cloudevent(about, "k", {}))["type"] == "unknown"


def test_nats_encodes_every_attribute_and_kafka_drops_control_characters() -> None:
    about = metadata(id='m%"1', source="urn:a%20b", type="a b", subject="ключ\r\nx: y")
    nats = dict(nats_headers(about, "50 %", "r"))
    assert nats["ce-id"] == "m%25%221"
    assert nats["ce-source"] == "urn:a%2520b"
    assert nats["ce-type"] == "a%20b"
    assert nats["ce-subject"] == "%D0%BA%D0%BB%D1%8E%D1%87%0D%0Ax:%20y"
    assert nats["ce-partitionkey"] == "50%20%25"
    assert nats["svix-id"] == 'm%"1'
    kafka = dict(kafka_headers(about, "50\x00 %", "r"))
    assert kafka["ce_id"] == kafka["svix-id"] == 'm%"1'
    assert kafka["ce_subject"] == "ключx: y"
    assert kafka["ce_partitionkey"] == "50 %"


VISIBLE = string.ascii_letters + string.digits + string.punctuation
SAFE = "".join(char for char in VISIBLE if char not in '"%')


@given(text | st.text(st.sampled_from(VISIBLE + " é€😀\x7f\x00")))
def test_percent_encoding_is_that_of_the_standard_library(value: str) -> None:
    encoded = percent_encode(value)
    assert encoded == quote(value, safe=SAFE)
    assert unquote(encoded) == value
    assert encoded.isascii()
    assert " " not in encoded


@pytest.mark.parametrize("value", [VISIBLE.replace('"', "").replace("%", ""), ""])
def test_what_needs_no_encoding_stays(value: str) -> None:
    assert percent_encode(value) == value


@given(text)
def test_a_header_loses_control_characters_only(value: str) -> None:
    controls = {chr(n) for n in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)}
    assert clean_header(value) == "".join(char for char in value if char not in controls)


@given(text, text, text)
def test_no_header_can_end_another(subject: str, event_type: str, key: str) -> None:
    about = metadata(subject=subject, type=event_type)
    for headers in (kafka_headers(about, key, "r"), nats_headers(about, key, "r")):
        assert not [value for _, value in headers if re.search(r"[\x00-\x1f\x7f]", value)]


def assert_cloudevent(event: dict[str, Any]) -> None:
    """What CloudEvents 1.0.2 and its JSON format demand of an event."""
    assert event["specversion"] == "1.0"
    for name in ("id", "source", "type"):
        assert isinstance(event[name], str), name
        assert event[name], name
    for name in ("subject", "partitionkey", "datacontenttype"):
        assert event.get(name, "absent"), name
    if "time" in event:
        assert datetime.fromisoformat(event["time"]).tzinfo is not None
    assert all(re.fullmatch("[a-z0-9]{1,20}", name) for name in event)
    assert None not in [event[name] for name in event if name != "data"]


@pytest.mark.parametrize(
    "changes",
    [{}, {"time": None}, {"subject": None}, {"type": None}, {"signature": None}],
    ids=str,
)
def test_structured_mode_is_a_cloudevent(changes: dict[str, None]) -> None:
    body = {"type": "user.created", "data": {"id": "user_1"}, "object": "event"}
    event = json.loads(cloudevent(metadata(**changes), "user_1", body))
    assert_cloudevent(event)
    assert event["data"] == body
    assert event["datacontenttype"] == "application/json"
    assert event["partitionkey"] == "user_1"


def test_structured_mode_holds_what_binary_mode_does() -> None:
    about = metadata()
    event = json.loads(cloudevent(about, "user_1", {}))
    del event["data"], event["datacontenttype"]
    binary = RENDERERS["kafka"](about)
    assert event == {name[3:]: value for name, value in binary if name.startswith("ce_")}


def test_structured_mode_keeps_values_as_they_are() -> None:
    event = json.loads(cloudevent(metadata(subject='50 % "é"\n'), "ключ", {"data": None}))
    assert (event["subject"], event["partitionkey"]) == ('50 % "é"\n', "ключ")
