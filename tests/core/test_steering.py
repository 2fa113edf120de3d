"""What a payload holds steers nothing: not where a record goes, not its headers, not our time."""

from __future__ import annotations

import json
import re
import time
import tracemalloc
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.brokers.base import Message
from gateway.config import ConfigError, load_config_text
from gateway.delivery.plan import Plan
from gateway.event import Event, EventError, Sender, read_event
from gateway.routing.expressions import Expression, ExpressionError, compiled
from gateway.routing.interpreter import MAX_STEPS, weigh
from gateway.routing.table import HEADROOM, Table
from gateway.routing.template import (
    MAX_TEMPLATE,
    MAX_TEXT,
    Template,
    TemplateSyntaxError,
    TextTooLongError,
)
from tests.core.builders import NOW, SVIX_ID, event, route, table, target

MAX_BODY = 512 * 1024
SECONDS = 1.0
"""Of CPU, for what takes 0.3 s on one core of a slow server; without bounds it takes hours."""
MEMORY = 64 * 1024 * 1024


# --- where a record goes

TEMPLATES = (
    "clerk.{data.id}",
    "clerk.{type}",
    "clerk-{type}.{data.id}",
    "clerk_{data.name}.x.{data.id}",
    "clerk.t.{data.id}{data.name}",
)
NAMED = ("clerk.admin", "clerk.dead-letter", "clerk.dead-letter.state", "clerk.user_1")

wild = st.sampled_from(
    [
        *(
            "*",
            ">",
            ".",
            "..",
            "a.b",
            " ",
            "\r\n",
            "\x00",
            "$SYS",
            "_INBOX",
            "$JS.API.STREAM.DELETE",
        ),
        *(
            "admin",
            "dead-letter",
            "dead-letter.state",
            ".state",
            "user_1",
            "../x",
            "a b",
            "é",
            "😀",
        ),
        *(
            "{data.id}",
            "{{",
            "${HOME}",
            "%2e",
            "\u2028",
            "\u202e",
            "\ufeff",
            "a" * 2000,
            "\u3002",
            "\u06f1",
        ),
    ]
)
texts = st.text(st.characters(codec="utf-8"), max_size=300) | wild
scalars = texts | st.integers() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False)
anything = st.recursive(
    scalars | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


def _routes(*templates: str, **more: Any) -> Table:
    targets = [
        target(broker, template, **more) for broker in ("events", "bus") for template in templates
    ]
    named = [target(broker, name) for broker in ("events", "bus") for name in NAMED[:1] + NAMED[3:]]
    return table(
        route(*targets, name="rendered"),
        route(*named, name="named", events=["never"]),
        delivery={"dead_letter": {"broker": "events", "topic": "clerk.dead-letter"}},
    )


RENDERED = {template: _routes(template) for template in TEMPLATES}
HEADERS = table(
    route(
        target("events", "t", headers={"x-a": "{data.id}", "X-B": "<{data.name}> {data}"}),
        target("bus", "s", headers={"x-a": "{data.id}", "X-B": "<{data.name}> {data}"}),
        target("bus", "k", key="{data.name}"),
        target("events", "k", key="{data.name}"),
    )
)


def plan(routes: Table, document: Mapping[str, Any]) -> Plan:
    return routes.plan(read(json.dumps(document).encode()))


class Proof(msgspec.Struct):
    id: str = SVIX_ID
    timestamp: str = str(NOW)
    signature: str = "v1,c2ln"


SENDER = Sender("clerk", "clerk/clerk", True, Expression("type"))


def read(body: bytes) -> Event:
    return read_event(Proof(), body, SENDER, NOW)


types = st.text(st.characters(codec="utf-8"), min_size=1, max_size=256) | wild.filter(
    lambda value: len(value) <= 256
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(TEMPLATES), types, anything, anything)
def test_a_payload_never_leaves_the_prefix(
    template: str, event_type: str, user: Any, name: Any
) -> None:
    """Each placeholder gives one token, and `{type}` the tokens of its dots; none is empty."""
    literal = re.escape(template.split("{", maxsplit=1)[0])
    token = "[A-Za-z0-9_-]{1,128}"
    pattern = re.sub(
        r"\\\{(.*?)\\\}",
        lambda match: rf"{token}(\.{token})*" if match[1] == "type" else token,
        re.escape(template),
    )
    made = plan(RENDERED[template], {"type": event_type, "data": {"id": user, "name": name}})
    for assignment in made.assignments:
        destination = assignment.message.destination
        assert re.match(literal, destination)
        assert re.fullmatch(pattern, destination), destination
        assert destination not in NAMED[:1] + NAMED[3:]
        assert assignment.broker == "bus" or destination not in NAMED
    assert {refusal.reason for refusal in made.refusals} <= {
        "expression",
        "destination",
        "too_large",
    }
    # Settled or refused, once for each broker.
    assert len(made.assignments) + len(made.refusals) == 2


@pytest.mark.parametrize("name", ["admin", "user_1", "dead-letter"])
def test_a_value_cannot_name_another_target_s_destination(name: str) -> None:
    made = plan(RENDERED["clerk.{data.id}"], {"type": "x", "data": {"id": name}})
    assert ("events", "destination") in [(r.broker, r.reason) for r in made.refusals]


def test_a_type_cannot_name_the_dead_letter_s_state() -> None:
    made = plan(RENDERED["clerk.{type}"], {"type": "dead-letter.state", "data": {"id": "x"}})
    assert [(r.broker, r.reason) for r in made.refusals] == [("events", "destination")]


@settings(max_examples=300, deadline=None)
@given(scalars, scalars)
def test_two_values_never_become_one_destination(first: Any, second: Any) -> None:
    made = [destination_of({"type": "x", "data": {"id": value}}) for value in (first, second)]
    same = _as_text(first) == _as_text(second)
    if None not in made:
        assert (made[0] == made[1]) is same


def destination_of(document: Mapping[str, Any]) -> str | None:
    found = plan(RENDERED["clerk.{data.id}"], document).assignments
    return found[-1].message.destination if found else None


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


# --- headers and keys

STANDARD = ("ce_", "ce-", "svix-", "webhook-", "gateway-", "nats-")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def standard(message: Message) -> list[tuple[str, str]]:
    return [pair for pair in message.headers if pair[0].lower().startswith(STANDARD)]


@settings(max_examples=300, deadline=None)
@given(types, anything, anything)
def test_a_payload_never_breaks_out_of_a_header(event_type: str, user: Any, name: Any) -> None:
    """Names are the config's, each once; values are one line of UTF-8 for either broker."""
    document = {"type": event_type, "data": {"id": user, "name": name, "updated_at": user}}
    made = plan(HEADERS, document)
    for assignment in made.assignments:
        headers = assignment.message.headers
        names = [name for name, _ in headers]
        assert len(set(map(str.lower, names))) == len(names)
        assert {name for name in names if not name.startswith(STANDARD)} <= {
            *("content-type", "x-a", "X-B"),
        }
        for header, value in headers:
            assert not CONTROL.search(value), header
            assert value.encode().decode() == value
            # As a NATS server splits the block, and as a reader trims what it finds.
            assert "\r\n" not in f"{header}: {value}"
        key = assignment.message.key
        assert key
        assert key.encode().decode() == key
        expected = dict(headers)
        assert expected["svix-id"] == SVIX_ID
        assert expected["gateway-route"] == "users"
        assert expected["gateway-source"] == "clerk"
    assert {refusal.reason for refusal in made.refusals} <= {"expression", "too_large"}


RESERVED = (
    *(
        "ce_id",
        "ce_type",
        "CE_ID",
        "Ce_Extension",
        "ce-id",
        "CE-Type",
        "content-type",
        "Content-Type",
    ),
    *(
        "svix-id",
        "Svix-Signature",
        "SVIX-TIMESTAMP",
        "webhook-id",
        "gateway-route",
        "GATEWAY-SOURCE",
    ),
    *("gateway-dead-letter-reason", "traceparent", "TraceParent", "tracestate", "Nats-Msg-Id"),
    *("nats-msg-id", "NATS-Expected-Stream", "Nats-Rollup", "Nats-TTL", "Nats-Schedule"),
)
NO_NAMES = ("", " ", "a b", "a:b", "a\tb", "é", "(x)", "a,b", "x=", '"x"', "a/b", "[x]")


@pytest.mark.parametrize("name", RESERVED + NO_NAMES, ids=repr)
@pytest.mark.parametrize("broker", ["events", "bus"])
def test_an_extra_header_cannot_have_the_name_of_another(broker: str, name: str) -> None:
    field = "topic" if broker == "events" else "subject"
    text = json.dumps(
        {
            "sources": {"clerk": {"secrets": ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]}},
            "brokers": {
                "events": {"kind": "kafka", "servers": ["localhost:9092"]},
                "bus": {"kind": "nats", "servers": ["nats://localhost:4222"]},
            },
            "routes": [
                {
                    "name": "a",
                    "events": ["*"],
                    "targets": [{"broker": broker, field: "t", "headers": {name: "{data.id}"}}],
                }
            ],
        },
        ensure_ascii=False,
    )
    with pytest.raises(ConfigError) as caught:
        load_config_text(text, "f.yaml", {})
    (problem,) = caught.value.problems
    assert problem.path == ("routes", 0, "targets", 0, "headers", name)


# --- the work of an expression


def piped(step: str, times: int) -> str:
    return "|".join([step] * times)


BIG_LIST = list(range(90_000))
BIG_TEXT = "x" * 250_000
BIG_TEXTS = [BIG_TEXT + str(n) for n in range(7)]
"""They differ at their ends only. Each may stand in a document as often as one likes."""
BOMBS: dict[str, tuple[str, Any]] = {
    "shared-lists-as-text": (f"{piped('[@,@]', 40)}|to_string(@)", 1),
    "shared-lists-compared": (f"[{piped('[@,@]', 30)},{piped('[@,@]', 30)}]|[0]==[1]", {"a": 1}),
    "shared-objects-compared": (
        f"[({piped('{a:@,b:@}', 30)}),({piped('{a:@,b:@}', 30)})]|[0]!=[1]",
        {"a": 1},
    ),
    "shared-lists-contained": (f"contains([{piped('[@,@]', 30)}], ({piped('[@,@]', 30)}))", 1),
    "flatten-doubles": (f"{piped('[@,@][]', 40)}|length(@)", [1]),
    "flatten-doubles-a-long-list": (f"a|{piped('[@,@][]', 40)}|length(@)", {"a": BIG_LIST}),
    "flatten-squares": ("[a,a,a,a,a,a,a,a][]|[]|length(@)", {"a": [BIG_LIST] * 1000}),
    "join-doubles": (piped("join('',[@,@])", 40), "x" * 1000),
    "join-a-long-separator": ("join(a, b)", {"a": BIG_TEXT, "b": [""] * 60_000}),
    "join-in-a-list": ("b[*].join(@, ['a','b','c'])", {"b": ["x" * 8] * 15_000}),
    "text-of-text": (piped("to_string([@])", 40), '"'),
    "text-of-the-event-many-times": (f"[{','.join(['to_string(@)'] * 60)}]", {"a": BIG_TEXT}),
    "text-of-big-lists": (f"a[*].[{','.join(['to_string(@)'] * 60)}]", {"a": [BIG_LIST] * 5000}),
    "slices": (f"a[*].[{','.join(['@[::1]'] * 60)}]", {"a": [BIG_LIST] * 5000}),
    "reversed-slices": ("a[*].{a: @[::-1]}", {"a": [BIG_LIST] * 5000}),
    "reversed": ("map(&reverse(@), a)", {"a": [BIG_LIST] * 5000}),
    "reversed-text": ("map(&reverse(@), a)", {"a": [BIG_TEXT] * 5000}),
    "keys": ("map(&keys(@), a)", {"a": [{str(n): n for n in range(50_000)}] * 5000}),
    "values": ("map(&values(@), a)", {"a": [{str(n): n for n in range(50_000)}] * 5000}),
    "merged": ("map(&merge(@, @), a)", {"a": [{str(n): n for n in range(50_000)}] * 5000}),
    "summed": ("map(&sum(@), a)", {"a": [BIG_LIST] * 5000}),
    "averaged": ("map(&avg(@), a)", {"a": [BIG_LIST] * 5000}),
    "sorted": ("map(&sort(@), a)", {"a": [BIG_LIST] * 5000}),
    "sorted-texts": ("sort(a)", {"a": [BIG_TEXTS[n % 7] for n in range(5000)]}),
    "greatest-texts": ("map(&max(@), a)", {"a": [[BIG_TEXT + "a", BIG_TEXT + "b"]] * 9000}),
    "sorted-by": ("sort_by(a, &b)", {"a": [{"b": BIG_TEXTS[n % 7]} for n in range(5000)]}),
    "least-by": ("min_by(a, &b)", {"a": [{"b": BIG_TEXTS[n % 7]} for n in range(5000)]}),
    "greatest-by": ("max_by(a, &to_string(@))", {"a": [{"b": BIG_LIST}] * 5000}),
    "contained-texts": ("a[?contains(@, 'xxxxxxxxxxy')]", {"a": [BIG_TEXT] * 9000}),
    "contained-worst": (
        f"a[?contains(@, '{'x' * 98}y')]",
        {"a": ["x" * 29_000] * 9000},
    ),
    "contained-in-lists": ("a[?contains(@, 'y')]", {"a": [BIG_LIST] * 9000}),
    "contained-long-texts": (
        "contains(a, b)",
        {"a": [BIG_TEXT + "a"] * 9000, "b": "".join((BIG_TEXT, "b"))},
    ),
    "contained-lists": ("contains(a, b)", {"a": [[*BIG_LIST, 1]] * 9000, "b": [*BIG_LIST, 2]}),
    "compared-texts": (
        "a[?b == c]",
        {"a": [{"b": BIG_TEXT + "a", "c": "".join((BIG_TEXT, "b"))}] * 9000},
    ),
    "compared-lists": ("a[?b == c]", {"a": [{"b": [*BIG_LIST], "c": [*BIG_LIST]}] * 9000}),
    "compared-with-itself": ("a[?@ == @]", {"a": [BIG_LIST] * 9000}),
    "ordered-texts": (
        "a[?b < c]",
        {"a": [{"b": BIG_TEXT + "a", "c": "".join((BIG_TEXT, "b"))}] * 9000},
    ),
    "numbers-of-texts": ("map(&to_number(@), a)", {"a": ["9" * 250_000] * 9000}),
    "fractions-of-texts": ("map(&to_number(@), a)", {"a": ["0." + "9" * 250_000] * 9000}),
    "beginnings": ("a[?starts_with(@, @)]", {"a": [BIG_TEXT] * 9000}),
    "endings": ("a[?ends_with(@, @)]", {"a": [BIG_TEXT] * 9000}),
    "projections": (f"a{'[*][]' * 20}", {"a": [[[1] * 40] * 40] * 40}),
    "filters": (f"a{'[?@]' * 40}", {"a": BIG_LIST}),
}


@pytest.mark.parametrize("name", BOMBS)
def test_no_expression_takes_unbounded_work(name: str) -> None:
    """Bombs are over their budget, and know it before time or memory is gone."""
    source, document = BOMBS[name]
    assert len(source) <= 1024
    expression = Expression(source)
    started = time.process_time()
    with pytest.raises(ExpressionError, match=f"took more than {MAX_STEPS} steps"):
        expression.evaluate(document)
    assert time.process_time() - started < SECONDS
    # Once more, since what watches the memory takes most of the time.
    tracemalloc.start()
    try:
        with pytest.raises(ExpressionError, match="steps"):
            expression.evaluate(document)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MEMORY


ORDINARY: dict[str, Any] = {
    "type": "user.updated",
    "data": {
        "id": "user_2g7np7Hrk0SN6kj5EDMLDaKNL0S",
        "email_addresses": [
            {
                "id": f"idn_{n}",
                "email_address": f"{n}@example.com",
                "verification": {"status": "verified"},
            }
            for n in range(100)
        ],
        "public_metadata": {"tier": "enterprise", "roles": ["admin", "owner"], "limit": 10},
        "private_metadata": {"notes": "x" * 300_000},
    },
}


@pytest.mark.parametrize(
    "source",
    [
        "length(data.email_addresses[?verification.status == 'verified']) > `0`",
        "data.email_addresses[?ends_with(email_address, '@example.com')] | [0].id",
        "contains(data.public_metadata.roles, 'admin')",
        "contains(data.private_metadata.notes, 'needle')",
        "sort_by(data.email_addresses, &email_address)[0].id",
        "max_by(data.email_addresses, &email_address).id",
        "join(',', data.email_addresses[*].email_address)",
        "to_string(data)",
        "data.public_metadata == `{}`",
        "keys(data)",
        "data.email_addresses[].verification.status | [0]",
        "not_null(data.missing, data.id)",
        "data.public_metadata.limit >= `10`",
        "merge(data.public_metadata, {a: data.id})",
        "reverse(data.email_addresses)[:3]",
    ],
)
def test_ordinary_expressions_are_far_from_the_bound(source: str) -> None:
    """Also in an event of 300 kB, and four times over."""
    four = "[" + ", ".join([source] * 4) + "]" if len(source) < 250 else source
    assert Expression(four).evaluate(ORDINARY) is not None


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("data.id > data.public_metadata", None),
        ("data.id[]", None),
        ("contains(data.email_addresses, `[1]`)", False),
        ("contains(data.public_metadata.roles, `1`)", False),
        ("data.public_metadata == data.public_metadata", True),
        ("data.id[:2]", None),
    ],
)
def test_what_is_charged_gives_what_the_library_gives(source: str, expected: object) -> None:
    assert Expression(source).evaluate(ORDINARY) is expected


@pytest.mark.parametrize("source", ["contains(data, 'x')", "join(data, data)", "join('', type)"])
def test_what_is_of_the_wrong_type_is_refused_by_the_library(source: str) -> None:
    with pytest.raises(ExpressionError, match="JMESPathTypeError"):
        Expression(source).evaluate(ORDINARY)


def test_a_template_has_a_bounded_length() -> None:
    assert Template("x" * MAX_TEMPLATE).is_literal
    with pytest.raises(TemplateSyntaxError, match="longer than 8192 characters"):
        Template("x" * (MAX_TEMPLATE + 1))


@pytest.mark.parametrize(
    "source",
    [
        piped("[@,@]", 40),
        piped("{a:@,b:@}", 40),
        f"[{','.join(['data'] * 100)}]",
    ],
)
def test_what_is_shared_is_not_written_out(source: str) -> None:
    """The value takes no room; its text would."""
    template = Template("x-{ " + source + " }")
    started = time.process_time()
    with pytest.raises(TextTooLongError):
        template.text({"data": BIG_LIST})
    with pytest.raises(TextTooLongError):
        template.header({"data": BIG_LIST})
    with pytest.raises(ExpressionError, match="a list or an object"):
        template.destination({"data": BIG_LIST})
    assert time.process_time() - started < SECONDS


@pytest.mark.parametrize("big", [BIG_TEXT, [BIG_TEXT], BIG_LIST, {"a": {"b": BIG_TEXT}}], ids=type)
@pytest.mark.parametrize("field", ["key", "headers"])
def test_many_placeholders_of_large_values_are_not_written_out(field: str, big: Any) -> None:
    text = "{data}" * 1300
    rendered = table(
        route(target("events", "t", **{field: text if field == "key" else {"x-a": text}}))
    )
    document = {"type": "x", "data": big}
    tracemalloc.start()
    started = time.process_time()
    try:
        made = rendered.plan(read(json.dumps(document).encode()))
        taken, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    (refusal,) = made.refusals
    assert (refusal.reason, refusal.destination) == ("too_large", "t")
    assert made.assignments == ()
    assert taken < SECONDS
    assert peak < MEMORY


def test_many_placeholders_of_large_values_in_a_destination() -> None:
    rendered = table(route(target("bus", "s." + "{data.id}" * 900)))
    started = time.process_time()
    made = rendered.plan(read(json.dumps({"type": "x", "data": {"id": BIG_TEXT}}).encode()))
    assert [refusal.reason for refusal in made.refusals] == ["destination"]
    assert time.process_time() - started < SECONDS


@given(anything)
def test_no_value_s_text_is_shorter_than_a_sixteenth_of_its_weight(value: Any) -> None:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    assert weigh(value, 1 << 30) <= 16 * max(len(text), 1)


def test_a_weight_stops_at_its_limit() -> None:
    shared: Any = 1
    for _ in range(60):
        shared = [shared, shared]
    assert 1000 < weigh(shared, 1000) < 1100
    assert weigh("x" * 10, 1000) == 26
    assert weigh({"ab": ["c", 1]}, 1000) == 16 * 4 + 3


def test_what_just_fits_is_written_out() -> None:
    values = [1] * ((MAX_TEXT - 1) // 2)
    assert len(Template("{data}").text({"data": values})) == MAX_TEXT - 1
    with pytest.raises(TextTooLongError):
        Template("{data}{data}").text({"data": values})
    assert MAX_TEXT == HEADROOM


# --- the body itself

HOSTILE_BODIES: dict[str, tuple[bytes, str | None]] = {
    "deep-lists": (b"[" * MAX_BODY, "not_json"),
    "deep-objects": (b'{"a":' * (MAX_BODY // 5), "not_json"),
    "deep-and-closed": (
        b'{"type":"x","data":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        "not_json",
    ),
    "digits": (b'{"type":"x","n":' + b"9" * 500_000 + b"}", "not_json"),
    "negative-digits": (b'{"type":"x","n":-' + b"9" * 500_000 + b"}", "not_json"),
    "exponent": (b'{"type":"x","n":1e' + b"9" * 500_000 + b"}", "not_json"),
    "fraction": (b'{"type":"x","n":0.' + b"9" * 500_000 + b"}", None),
    "nan": (b'{"type":"x","n":NaN}', "not_json"),
    "numbers": (b'{"type":"x","a":[' + b"1," * 250_000 + b"1]}", None),
    "empty-lists": (b'{"type":"x","a":[' + b"[]," * 170_000 + b"[]]}", None),
    "keys": (b'{"type":"x"' + b"".join(b',"%d":1' % n for n in range(50_000)) + b"}", None),
    "same-key": (b'{"type":"x"' + b',"a":1' * 80_000 + b"}", None),
    "escapes": (b'{"type":"x","a":"' + b"\\u0041" * 80_000 + b'"}', None),
    "half-a-pair": (b'{"type":"x","a":"\\ud800"}', "not_json"),
    "nul": (b'{"type":"x\\u0000","data":{"id":"\\u0000"}}', None),
    "long-type": (b'{"type":"' + b"x" * 500_000 + b'"}', "type_too_long"),
    "spaces": (b" " * MAX_BODY, "not_json"),
    "open-text": (b'"' + b"x" * MAX_BODY, "not_json"),
    "byte-order-mark": (b"\xef\xbb\xbf{}", "not_json"),
    "no-utf-8": (b'{"type":"\xff"}', "not_json"),
    "utf-16": ('{"type":"x"}'.encode("utf-16"), "not_json"),
    "nothing": (b"", "not_json"),
}


@pytest.mark.parametrize("name", HOSTILE_BODIES)
def test_a_hostile_body_is_an_event_or_an_event_error(name: str) -> None:
    body, reason = HOSTILE_BODIES[name]
    started = time.process_time()
    found: str | None = None
    try:
        shown = read(body)
    except EventError as error:
        found = error.reason
    else:
        assert ROUTED.plan(shown).assignments
    assert found == reason
    assert time.process_time() - started < SECONDS


ROUTED = table(
    route(
        target("events", "t", key="{data}", headers={"x-a": "{a}"}),
        target("events", "u"),
        target("bus", "s.{type}", payload="cloudevents"),
    ),
    route(target("bus", "t"), name="if", when="length(to_string(@)) > `1` || a == data"),
)


@given(st.binary(max_size=60))
def test_any_bytes_are_an_event_or_an_event_error(body: bytes) -> None:
    reason = ""
    try:
        assert isinstance(read(body).document, dict)
    except EventError as error:
        reason = error.reason
    assert reason in {"", "not_json", "not_an_object", "no_type", "type_too_long"}


def test_what_was_compiled_is_compiled_once() -> None:
    assert compiled("data.id && type") is compiled("data.id && type")
    assert event().type == "user.created"
