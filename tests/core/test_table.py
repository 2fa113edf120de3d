"""The plan of one event: its records, and the targets that must refuse it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from gateway.brokers.base import Message
from gateway.delivery.plan import Plan
from gateway.event import Event
from gateway.metadata import kafka_headers, nats_headers, structured_headers
from gateway.routing.table import HEADROOM
from tests.core.builders import SVIX_ID, event, route, table, target

USER: dict[str, Any] = {"type": "user.created", "data": {"id": "user_1", "n": 7}}


def plan(*routes: dict[str, Any], of: Event | None = None, **more: Any) -> Plan:
    return table(*routes, **more).plan(of or event(USER))


def sent(planned: Plan) -> list[tuple[tuple[str, ...], str, str]]:
    return [(a.routes, a.broker, a.message.destination) for a in planned.assignments]


def refused(planned: Plan) -> list[tuple[tuple[str, ...], str, str, str]]:
    return [(r.routes, r.broker, r.destination, r.reason) for r in planned.refusals]


def only(planned: Plan) -> Message:
    assert planned.refusals == ()
    (assignment,) = planned.assignments
    return assignment.message


# --- which routes take an event


def test_nothing_renders_a_subject_of_the_inbox() -> None:
    delivery = {"mode": "inbox", "inbox": {"store": "jetstream", "broker": "bus", "stream": "a-1"}}
    made = table(route(target("bus", "a-{data.id}")), delivery=delivery)
    for number, refused in (("1", True), ("2", False)):
        plan = made.plan(event({"type": "user.created", "data": {"id": number}}))
        assert [one.reason for one in plan.refusals] == ["destination"] * refused


def test_every_matching_route_delivers_in_file_order() -> None:
    planned = plan(
        route(target("bus", "clerk.b"), name="b", events=["user.*"]),
        route(target("events", "clerk.none"), name="none", events=["session.*"]),
        route(target("events", "clerk.a"), name="a", events=["user.created"]),
        route(target("bus", "clerk.all"), name="all"),
    )
    assert sent(planned) == [
        (("b",), "bus", "clerk.b"),
        (("a",), "events", "clerk.a"),
        (("all",), "bus", "clerk.all"),
    ]
    assert not planned.is_unmatched


@pytest.mark.parametrize(
    ("limits", "matches"),
    [
        ({"events": ["user.*"]}, True),
        ({"events": ["user.*"], "exclude": ["user.created"]}, False),
        ({"events": ["*"], "exclude": ["user.*"]}, False),
        ({"events": ["*"], "exclude": ["session.*"]}, True),
        ({"sources": ["clerk"]}, True),
        ({"sources": ["other"]}, False),
        ({"sources": ["other", "clerk"]}, True),
        ({"when": "data.id == 'user_1'"}, True),
        ({"when": "data.id == 'user_2'"}, False),
        ({"when": "data.n"}, True),
        ({"when": "data.missing"}, False),
        ({"when": "`0`"}, True),
        ({"when": "''"}, False),
        ({"when": "`[]`"}, False),
        ({"when": "`{}`"}, False),
        ({"when": "`false`"}, False),
        ({"when": "'false'"}, True),
        ({"when": "source == 'clerk' && route == 'users'"}, True),
        ({"when": f"svix_id == '{SVIX_ID}'"}, True),
    ],
    ids=str,
)
def test_what_limits_a_route(limits: dict[str, Any], matches: bool) -> None:
    other = {"secrets": ["whsec_" + "A" * 32], "path": "/webhooks/other"}
    sources = {"clerk": {"secrets": ["whsec_" + "A" * 32]}, "other": other}
    planned = plan(route(**limits), sources=sources)
    assert planned.is_unmatched is not matches
    assert sent(planned) == ([(("users",), "events", "clerk.users")] if matches else [])


def test_what_the_gateway_knows_shadows_the_body() -> None:
    body = {"type": "x", "source": "forged", "route": "forged", "svix_id": "forged"}
    headers = {"x-source": "{source}", "x-route": "{route}", "x-id": "{svix_id}"}
    message = only(plan(route(target(headers=headers)), of=event(body)))
    assert message.headers[-3:] == (("x-id", SVIX_ID), ("x-route", "users"), ("x-source", "clerk"))
    assert message.value == json.dumps(body).encode()


def test_an_event_without_a_type_or_a_route_is_unmatched() -> None:
    assert plan(of=event({"data": {}})).is_unmatched
    unmatched = plan(route(events=["session.*"]))
    assert unmatched.is_unmatched
    assert (unmatched.key, unmatched.body) == ("user_1", event(USER).body)


def test_types_are_remembered_within_a_bound() -> None:
    compiled = table(route(events=["user.*"]))
    for number in range(5000):
        assert compiled.candidates("clerk", f"user.{number}") == compiled.routes
        assert compiled.candidates("clerk", f"user.{number}") == compiled.routes
        assert compiled.candidates("clerk", f"other.{number}") == ()
    assert len(compiled._cache) <= 4096


# --- one record or several


@pytest.mark.parametrize(
    ("target_", "order"),
    [
        (target("bus", "clerk.{type}"), "clerk.{type}"),
        (target("bus", "clerk.users"), ""),
        (target("events", "clerk.{type}"), ""),
        (target("events", "clerk.users"), ""),
    ],
)
def test_a_stream_keeps_the_order_of_all_subjects_of_a_target(
    target_: dict[str, Any], order: str
) -> None:
    planned = plan(route(target_, name="a"), route(target_, name="b"))
    assert [(one.routes, one.order) for one in planned.assignments] == [(("a", "b"), order)]


def test_what_is_the_same_is_published_once() -> None:
    planned = plan(
        route(name="b"),
        route(target("bus", "clerk.users"), name="other"),
        route(target(destination="clerk.users", key="{data.id}"), name="a"),
        route(target(), target(), name="twice"),
    )
    assert sent(planned) == [
        (("b", "a", "twice"), "events", "clerk.users"),
        (("other",), "bus", "clerk.users"),
    ]
    assert dict(planned.assignments[0].message.headers)["gateway-route"] == "b,a,twice"


DIFFERENT: list[dict[str, Any]] = [
    {},
    {"payload": "data"},
    {"payload": "cloudevents"},
    {"payload": "data", "redact": ["data.n"]},
    {"payload": "data", "redact": ["data.n", "data.x"]},
    {"payload": "data", "headers": {"data.n": "data.x"}},
    {"key": "{data.n}"},
    {"key": "{data.n}\0data"},
    {"headers": {"x": "1"}},
    {"headers": {"x": "2"}},
    {"headers": {"x": "1", "y": "2"}},
]


def test_what_differs_is_published_each() -> None:
    targets = [target(destination="clerk.{data.id}", **more) for more in DIFFERENT]
    planned = plan(route(*targets))
    assert len(planned.assignments) == len(DIFFERENT)
    assert {a.message.destination for a in planned.assignments} == {"clerk.user_1"}
    assert len({a.message.dedupe_id for a in planned.assignments}) == len(DIFFERENT)


@pytest.mark.parametrize("more", DIFFERENT[1:], ids=str)
def test_routes_that_differ_do_not_merge(more: dict[str, Any]) -> None:
    planned = plan(
        route(target(destination="clerk.{data.id}"), name="a"),
        route(target(destination="clerk.{data.id}", **more), name="b"),
        route(target(destination="clerk.{data.id}"), name="c"),
    )
    assert [a.routes for a in planned.assignments] == [("a", "c"), ("b",)]


# --- the record


def test_a_kafka_record() -> None:
    an_event = event(USER)
    message = only(plan(route(target(headers={"x-n": "{data.n}"})), of=an_event))
    assert message.value is an_event.body
    assert message.key == "user_1"
    assert message.headers == (
        *kafka_headers(an_event.metadata, "user_1", "users"),
        ("x-n", "7"),
    )


def test_a_nats_message() -> None:
    an_event = event(USER)
    message = only(plan(route(target("bus", "clerk.{type}")), of=an_event))
    assert message.destination == "clerk.user.created"
    assert message.headers == nats_headers(an_event.metadata, "user_1", "users")


@pytest.mark.parametrize("broker", ["events", "bus"])
def test_structured_mode(broker: str) -> None:
    an_event = event(USER)
    message = only(plan(route(target(broker, payload="cloudevents")), of=an_event))
    assert message.headers == structured_headers(an_event.metadata, "users")
    assert json.loads(message.value)["data"] == USER


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (None, "user_1"),
        ("fixed", "fixed"),
        ("{data.n}", "7"),
        ("{data.n}-{data.id}", "7-user_1"),
        ("{data.missing}", "user_1"),
        ("{data.missing || data.id}", "user_1"),
        ("{data.missing}{data.missing}", "user_1"),
        ("{data.missing}-", "-"),
        ("{data}", '{"id":"user_1","n":7}'),
    ],
)
@pytest.mark.parametrize("broker", ["events", "bus"])
def test_keys(broker: str, key: str | None, expected: str) -> None:
    more = {} if key is None else {"key": key}
    message = only(plan(route(target(broker, **more))))
    assert message.key == expected
    assert dict(message.headers)["ce_partitionkey" if broker == "events" else "ce-partitionkey"]


def test_keys_are_verbatim_and_header_values_are_not() -> None:
    odd = event({"type": "x", "data": {"id": "a\r\nb *é"}})
    odd_target = target(key="{data.id}", headers={"x": "{data.id}"})
    message = only(plan(route(odd_target), of=odd))
    assert message.key == "a\r\nb *é"
    assert dict(message.headers)["x"] == "ab *é"


# --- refusals


def test_a_failing_condition_refuses_all_targets_of_its_route_only() -> None:
    planned = plan(
        route(target("events", "clerk.{type}"), target("bus", "clerk.x"), when="abs(data.id)"),
        route(target(destination="clerk.fine"), name="fine"),
    )
    assert refused(planned) == [
        (("users",), "events", "clerk.{type}", "expression"),
        (("users",), "bus", "clerk.x", "expression"),
    ]
    assert sent(planned) == [(("fine",), "events", "clerk.fine")]
    assert planned.refusals[0].detail == "the expression `abs(data.id)` failed: JMESPathTypeError"
    assert not planned.is_unmatched


@pytest.mark.parametrize(
    "more",
    [
        {"destination": "clerk.{data.missing}"},
        {"destination": "clerk.{data.empty}"},
        {"destination": "clerk.{data.list}"},
        {"destination": "clerk.{data}"},
        {"destination": "clerk.{abs(data.id)}"},
        {"key": "{abs(data.id)}"},
        {"headers": {"x": "{abs(data.id)}"}},
    ],
    ids=str,
)
def test_a_failing_target_refuses_itself_only(more: dict[str, Any]) -> None:
    body = {"type": "user.created", "data": {"id": "user_1", "empty": "", "list": [1]}}
    planned = plan(route(target(**more), target("bus", "clerk.fine")), of=event(body))
    destination = more.get("destination", "clerk.users")
    assert refused(planned) == [(("users",), "events", destination, "expression")]
    assert sent(planned) == [(("users",), "bus", "clerk.fine")]


def test_a_detail_is_bounded_and_holds_no_value() -> None:
    when = "abs(data.id) || " + " || ".join(["abs(data.id)"] * 40)
    planned = plan(route(when=when), of=event({"type": "x", "data": {"id": "SECRET"}}))
    assert len(planned.refusals[0].detail) == 512
    assert "SECRET" not in planned.refusals[0].detail


LETTER = {"dead_letter": {"broker": "events", "topic": "clerk.dead-letter"}}


@pytest.mark.parametrize(
    ("broker", "rendered", "is_refused"),
    [
        ("events", "dead-letter", True),
        ("events", "dead-letter.state", True),
        ("events", "literal", True),
        ("events", "other", False),
        ("bus", "dead-letter", False),
        ("bus", "literal", False),
    ],
)
def test_a_rendered_destination_must_not_be_one_that_is_taken(
    broker: str, rendered: str, is_refused: bool
) -> None:
    planned = plan(
        route(target("events", "clerk.literal"), name="literal", events=["never.*"]),
        route(target(broker, "clerk.{type}")),
        of=event({"type": rendered}),
        delivery=LETTER,
    )
    destination = (("users",), broker, "clerk.{type}", "destination")
    assert refused(planned) == ([destination] if is_refused else [])
    assert len(planned.assignments) == (not is_refused)


def test_a_literal_destination_may_be_shared() -> None:
    assert len(plan(route(), route(name="again"), delivery=LETTER).assignments) == 1


@pytest.mark.parametrize(("broker", "limit"), [("events", 249), ("bus", 900)])
def test_a_destination_has_a_bounded_length(broker: str, limit: int) -> None:
    template = "p" * (limit - 10) + "-{data.id}"
    for length, reasons in ((9, []), (10, ["destination"])):
        body = {"type": "x", "data": {"id": "i" * length}}
        planned = plan(route(target(broker, template)), of=event(body))
        assert [refusal.reason for refusal in planned.refusals] == reasons


@pytest.mark.parametrize("char", ["x", "é", "😀"])
@pytest.mark.parametrize("more", [{"key": "{data.big}"}, {"headers": {"x-big": "{data.big}"}}])
@pytest.mark.parametrize("broker", ["events", "bus"])
def test_key_and_headers_have_their_bytes(broker: str, more: dict[str, Any], char: str) -> None:
    """Within what the limits leave beside the body, however many bytes a character takes."""

    def of(size: int) -> Plan:
        body = {"type": "x", "data": {"id": "i", "big": char * (size // len(char.encode()))}}
        return plan(route(target(broker, **more)), of=event(body))

    fits = only(of(1000))
    size = len((fits.key or "").encode())
    size += sum(len(name.encode()) + len(value.encode()) for name, value in fits.headers)
    assert size <= HEADROOM
    too_large = of(HEADROOM)
    assert refused(too_large) == [(("users",), broker, "clerk.users", "too_large")]
    assert too_large.assignments == ()


@pytest.mark.parametrize("payload", ["data", "cloudevents"])
def test_what_is_too_deep_to_encode_is_refused(payload: str) -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    planned = plan(route(target(payload=payload)), of=too_deep(deep))
    assert refused(planned) == [(("users",), "events", "clerk.users", "too_large")]
    assert only(plan(route(), of=too_deep(deep))).value == b"{}"


def too_deep(data: Any) -> Event:
    shallow = event({"type": "x", "data": {"id": "i"}})
    document = {"type": "x", "data": data}
    return msgspec.structs.replace(shallow, document=document, body=b"{}")


# --- the name of a record


def dedupe_id(*routes: dict[str, Any], **of: Any) -> str:
    return only(plan(*routes, of=event(USER, **of))).dedupe_id


def test_a_record_keeps_its_name_over_attempts_reloads_and_renames() -> None:
    first = dedupe_id(route())
    assert first.startswith(f"{SVIX_ID}.")
    attempt = {"timestamp": "1800000300", "signature": "v1,other", "received_at": "later"}
    assert dedupe_id(route(), **attempt) == first
    assert dedupe_id(route(name="renamed")) == first
    assert dedupe_id(route(target(key="{data.id}"), when="data.id")) == first
    assert dedupe_id(route(), route(name="joined")) == first


def test_other_records_have_other_names() -> None:
    names = {
        dedupe_id(route()),
        dedupe_id(route(target(destination="clerk.other"))),
        dedupe_id(route(target("bus"))),
        dedupe_id(route(), svix_id="msg_other"),
        dedupe_id(route(), source="other"),
    }
    assert len(names) == 5


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"headers": {"x-a": "1", "x-b": "2"}}, {"headers": {"x-b": "2", "x-a": "1"}}),
        (
            {"payload": "data", "redact": ["data.a", "data.b"]},
            {"payload": "data", "redact": ["data.b", "data.a", "data.b"]},
        ),
    ],
)
def test_the_same_in_another_order_is_published_once(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    first = route(target("events", "clerk.x", **one), name="a")
    second = route(target("events", "clerk.x", **other), name="b")
    (assignment,) = table(first, second).plan(event()).assignments
    assert assignment.routes == ("a", "b")
    (alone,) = table(second).plan(event()).assignments
    assert alone.message.dedupe_id == assignment.message.dedupe_id
