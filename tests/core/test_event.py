"""The verified event: envelope, type, time, subject and default key."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.event import Event, EventError, Sender, event_time, read_event
from gateway.metadata import rfc3339
from gateway.routing.expressions import Expression
from gateway.signature import Proof
from tests.core.builders import BODY, NOW, SVIX_ID

PROOF = Proof(SVIX_ID, str(NOW), "v1,c2ln")
CLERK = Sender(name="clerk", uri="clerk/clerk", type_required=True, type=Expression("type"))


def sender(expression: str, *, required: bool = False) -> Sender:
    return Sender("billing", "https://example.com", required, Expression(expression))


def read(content: Any, by: Sender = CLERK) -> Event:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return read_event(PROOF, body, by, NOW)


def reason(content: Any, by: Sender = CLERK) -> str:
    with pytest.raises(EventError) as caught:
        read(content, by)
    return caught.value.reason


def test_an_event_holds_what_was_proven_and_what_was_sent() -> None:
    event = read(BODY)
    assert (event.source, event.svix_id, event.type) == ("clerk", SVIX_ID, "user.created")
    assert event.body is BODY
    assert event.document == json.loads(BODY)
    assert event.key == "user_1"
    about = event.metadata
    assert (about.id, about.timestamp, about.signature) == (SVIX_ID, str(NOW), "v1,c2ln")
    assert (about.type, about.source, about.subject) == ("user.created", "clerk/clerk", "user_1")
    assert (about.gateway_source, about.received_at) == ("clerk", "2027-01-15T08:00:00.000Z")


def test_the_signature_can_be_left_out() -> None:
    silent = Sender("clerk", "clerk/clerk", True, Expression("type"), signature=False)
    assert read(BODY, silent).metadata.signature is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"{}{}",
        b'{"type":"user.created"',
        b"{'type':'user.created'}",
        b'{"type":"a",}',
        b'\xef\xbb\xbf{"type":"a"}',
        b'{"type":"\xff"}',
        b'{"type":"\xed\xa0\x80"}',
        b'{"type":"\\ud800"}',
        b'{"type":"\\udc00\\ud800"}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":1e999}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
        b"\x00",
        "{}".encode("utf-16"),
        b"type=user.created",
    ],
    ids=lambda body: repr(body[:24]),
)
def test_what_is_not_json(body: bytes) -> None:
    assert reason(body) == "not_json"


@pytest.mark.parametrize("body", [b"null", b"true", b"1", b'"type"', b"[]", b'[{"type":"a"}]'])
def test_what_is_not_an_object(body: bytes) -> None:
    assert reason(body) == "not_an_object"


NO_TYPES: list[dict[str, Any]] = [
    {},
    {"type": None},
    {"type": ""},
    {"type": 1},
    {"type": True},
    {"type": ["user.created"]},
    {"type": {"name": "user.created"}},
    {"Type": "user.created"},
    {"data": {"type": "user.created"}},
]


@pytest.mark.parametrize("document", NO_TYPES, ids=json.dumps)
def test_a_clerk_event_needs_a_type(document: dict[str, Any]) -> None:
    assert reason(document) == "no_type"


@pytest.mark.parametrize("document", NO_TYPES, ids=json.dumps)
def test_an_event_of_another_kind_does_not(document: dict[str, Any]) -> None:
    event = read(document, sender("type"))
    assert event.type is None
    assert event.metadata.type is None


def test_a_type_has_a_bounded_length() -> None:
    assert read({"type": "t" * 256}).type == "t" * 256
    assert reason({"type": "t" * 257}) == "type_too_long"
    assert reason({"type": "t" * 257}, sender("type")) == "type_too_long"


@pytest.mark.parametrize("event_type", ["nobody.knows", "x", "a b", "ключ", "user..created"])
def test_types_that_nobody_knows_are_types(event_type: str) -> None:
    assert read({"type": event_type}).type == event_type


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("event_type", "ping"),
        ("meta.kind", "nested"),
        ("join('.', [meta.kind, event_type])", "nested.ping"),
        ("missing", None),
        ("meta", None),
        ("length(event_type)", None),
        ("join('.', meta)", None),
        ("abs(event_type)", None),
    ],
)
def test_other_kinds_name_their_type_by_an_expression(
    expression: str, expected: str | None
) -> None:
    document = {"event_type": "ping", "meta": {"kind": "nested"}, "type": "not this"}
    assert read(document, sender(expression)).type == expected


def test_an_expression_that_fails_gives_a_clerk_event_no_type() -> None:
    assert reason({"type": "a"}, sender("abs(type)", required=True)) == "no_type"


MS, S = 1_654_012_591_514, 1_654_012_591
AT_MS, AT_S = "2022-05-31T15:56:31.514Z", "2022-05-31T15:56:31.000Z"
NOT_A_TIME: list[Any] = [
    None,
    True,
    False,
    "1654012591514",
    "2022-05-31T15:56:31Z",
    [],
    {},
    [MS],
    0,
    -1,
    -MS,
]
NOT_A_TIME += [10**17, 10**300, -(10**300), 1e300, -1e300, 0.0, -0.5, 253_402_300_800_000]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"timestamp": MS}, AT_MS),
        ({"timestamp": S}, AT_S),
        ({"timestamp": float(MS)}, AT_MS),
        ({"timestamp": S + 0.5}, "2022-05-31T15:56:31.500Z"),
        ({"data": {"updated_at": MS}}, AT_MS),
        ({"data": {"created_at": S}}, AT_S),
        ({"timestamp": MS, "data": {"updated_at": 1, "created_at": 2}}, AT_MS),
        ({"data": {"updated_at": MS, "created_at": 2}}, AT_MS),
        ({"updated_at": MS, "created_at": MS}, None),
        ({"data": {"timestamp": MS}}, None),
        ({"data": [MS]}, None),
        ({"data": "text"}, None),
        ({"data": None}, None),
        ({}, None),
        ({"timestamp": 1}, "1970-01-01T00:00:01.000Z"),
        ({"timestamp": 99_999_999_999}, "5138-11-16T09:46:39.000Z"),
        ({"timestamp": 100_000_000_000}, "1973-03-03T09:46:40.000Z"),
        ({"timestamp": 253_402_300_799_000}, "9999-12-31T23:59:59.000Z"),
        ({"timestamp": 253_402_300_799_999.9}, None),
    ],
    ids=json.dumps,
)
def test_when_an_event_happened(document: dict[str, Any], expected: str | None) -> None:
    assert event_time(document) == expected


@pytest.mark.parametrize("value", NOT_A_TIME, ids=lambda value: repr(value)[:24])
def test_what_is_no_time_is_passed_over(value: Any) -> None:
    later = {"updated_at": value, "created_at": MS}
    assert event_time({"timestamp": value, "data": later}) == AT_MS
    assert event_time({"timestamp": value, "data": {"updated_at": value}}) is None


@given(st.integers(100_000_000_000, 253_402_300_799_000))
def test_milliseconds_come_through_exactly(ms: int) -> None:
    moment = datetime.fromtimestamp(ms // 1000, UTC)
    assert event_time({"timestamp": ms}) == f"{moment:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"


numbers = st.integers() | st.floats() | st.integers(-(10**400), 10**400)


@given(st.recursive(st.none() | st.booleans() | numbers | st.text(), st.lists, max_leaves=3))
def test_any_value_gives_a_time_or_none(value: Any) -> None:
    time = event_time({"timestamp": value})
    assert time is None or datetime.fromisoformat(time).tzinfo is not None


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (NOW, "2027-01-15T08:00:00.000Z"),
        (NOW + 0.0004, "2027-01-15T08:00:00.000Z"),
        (NOW + 0.9996, "2027-01-15T08:00:01.000Z"),
        (NOW + 0.25, "2027-01-15T08:00:00.250Z"),
    ],
)
def test_rfc3339(seconds: float, expected: str) -> None:
    assert rfc3339(seconds) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"id": "user_1"}, "user_1"),
        ({"id": 42}, "42"),
        ({"id": 0}, "0"),
        ({"id": "é\n"}, "é\n"),
        ({"id": ""}, None),
        ({"id": None}, None),
        ({"id": True}, None),
        ({"id": 1.5}, None),
        ({"id": ["user_1"]}, None),
        ({}, None),
        ([{"id": "user_1"}], None),
        ("user_1", None),
        (None, None),
    ],
    ids=json.dumps,
)
def test_the_subject_is_the_id_of_the_data(data: Any, expected: str | None) -> None:
    assert read({"type": "x.y", "data": data}).metadata.subject == expected


@pytest.mark.parametrize(
    ("event_type", "data", "expected"),
    [
        ("user.created", {"id": "user_1"}, "user_1"),
        ("session.created", {"id": "sess_1", "user_id": "user_1"}, "user_1"),
        ("session.created", {"id": "sess_1", "user_id": ""}, "sess_1"),
        ("organizationMembership.created", {"id": "m", "organization": {"id": "org_1"}}, "org_1"),
        ("subscription.created", {"payer": {"organization_id": "", "user_id": "u"}}, "u"),
        ("nobody.knows", {"id": "thing_1"}, "thing_1"),
        ("nobody.knows", {"id": 7}, "7"),
        ("nobody.knows", {"name": "x"}, SVIX_ID),
        ("user.created", {"id": ""}, SVIX_ID),
        ("user.created", {"id": True}, SVIX_ID),
        ("user.created", {"id": {"id": "x"}}, SVIX_ID),
        ("user.created", None, SVIX_ID),
    ],
)
def test_the_default_key_is_the_entity_else_the_svix_id(
    event_type: str, data: Any, expected: str
) -> None:
    assert read({"type": event_type, "data": data}).key == expected


def test_an_event_without_a_type_has_a_default_key_too() -> None:
    assert read({"data": {"id": "thing_1"}}, sender("type")).key == "thing_1"


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8")))
def test_arbitrary_bytes_are_an_event_or_an_event_error(body: bytes) -> None:
    try:
        event = read(body)
    except EventError as error:
        verdict = error.reason
    else:
        verdict = "event" if event.body == body else "changed"
    assert verdict in {"event", "not_json", "not_an_object", "no_type", "type_too_long"}


json_values = st.recursive(
    st.none() | st.booleans() | numbers.filter(lambda n: abs(n) < 10**300) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
fields = st.sampled_from(["id", "user_id", "payer", "organization", "updated_at", "created_at"])


@given(
    st.sampled_from(["user.created", "session.ended", "subscription.active", "x"]),
    st.dictionaries(fields, json_values) | json_values,
    json_values,
)
def test_any_data_is_taken(event_type: str, data: Any, timestamp: Any) -> None:
    document = {"type": event_type, "data": data, "timestamp": timestamp}
    event = read(json.dumps(document, ensure_ascii=False, allow_nan=False).encode())
    assert event.key


def test_errors_do_not_repeat_the_body() -> None:
    with pytest.raises(EventError) as caught:
        read(b'{"secret code": 123456')
    assert str(caught.value) == "the body is signed but is no event: not json"
