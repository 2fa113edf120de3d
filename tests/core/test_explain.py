"""What is told of a table is what it does."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.delivery.plan import Assignment, Refusal
from gateway.event import Sender
from gateway.routing.explain import Explanation, explain
from gateway.routing.expressions import compiled
from gateway.routing.paths import path_text, paths_read, value_at
from gateway.specimen import SIGNATURE, specimen
from tests.canaries import SECRET
from tests.core.builders import event, route, table, target

USER: dict[str, Any] = {"type": "user.created", "data": {"id": "user_1", "tier": "free", "n": [7]}}


def told(*routes: dict[str, Any], of: dict[str, Any] = USER, **more: Any) -> Explanation:
    return explain(table(*routes, **more), event(of))


@pytest.mark.parametrize(
    ("limits", "verdict", "pattern"),
    [
        ({"events": ["session.*", "user.*"]}, "matches", "user.*"),
        ({"events": ["*"], "exclude": ["session.*", "user.created"]}, "exclude", "user.created"),
        ({"events": ["session.*"]}, "events", None),
        ({"sources": ["other"]}, "source", None),
        ({"when": "data.tier == 'enterprise'"}, "when", "*"),
        ({"when": "data.tier == 'free'"}, "matches", "*"),
    ],
)
def test_each_route_says_why(limits: dict[str, Any], verdict: str, pattern: str | None) -> None:
    (only,) = told(route(target("bus", "clerk.x"), **limits)).routes
    assert (only.verdict, only.pattern) == (verdict, pattern)
    assert len(only.ends) == (verdict == "matches")


def test_an_event_without_a_type_is_taken_by_none() -> None:
    found = explain(table(route(target("bus", "clerk.x"))), event({"data": {}}))
    assert [one.verdict for one in found.routes] == ["no_type"]
    assert found.plan.is_unmatched


def test_a_condition_tells_what_it_saw() -> None:
    when = "(data.tier == 'pro' || data.n[0] == `8` || data.n[?@ == `9`]) && source == 'clerk'"
    (only,) = told(route(target("bus", "clerk.x"), when=when)).routes
    assert [(one.path, one.value) for one in only.saw] == [
        ("data.tier", "free"),
        ("data.n[0]", 7),
        ("data.n", [7]),
        ("source", "clerk"),
    ]


@pytest.mark.parametrize(
    ("when", "condition"),
    [
        (None, None),
        ("data.tier == 'free'", "true"),
        ("data.tier == 'pro'", "false"),
        ("abs(type)", "failed"),
    ],
)
def test_a_condition_says_what_it_came_to(when: str | None, condition: str | None) -> None:
    more = {} if when is None else {"when": when}
    (only,) = told(route(target("bus", "clerk.x"), **more)).routes
    assert only.condition == condition


def test_a_condition_that_is_not_asked_comes_to_nothing() -> None:
    (only,) = told(route(target("bus", "clerk.x"), events=["session.*"], when="type")).routes
    assert (only.condition, only.saw) == (None, ())


@pytest.mark.parametrize(
    ("key", "own"), [("{data.tier}", True), ("{data.none}", False), ("", False)]
)
def test_a_key_is_the_templates_own_unless_that_gives_nothing(key: str, own: bool) -> None:
    more = {"key": key} if key else {}
    (only,) = told(route(target("events", "clerk.x", **more))).routes
    (end,) = only.ends
    assert isinstance(end.result, Assignment)
    assert end.own_key is own
    assert end.result.message.key == ("free" if own else "user_1")


def test_a_refused_target_has_no_key_of_its_own() -> None:
    (only,) = told(route(target("events", "clerk.{data.none}", key="{type}"))).routes
    assert [end.own_key for end in only.ends] == [False]


def test_targets_that_meet_have_one_record() -> None:
    found = told(
        route(target("bus", "clerk.{type}"), name="a"),
        route(target("events", "clerk.x"), target("bus", "clerk.{type}"), name="b"),
    )
    (a,), (_, b) = (one.ends for one in found.routes)
    assert a.result is b.result
    assert isinstance(a.result, Assignment)
    assert a.result.routes == ("a", "b")
    assert len(found.plan.assignments) == 2


def test_each_target_has_its_own_refusal() -> None:
    found = told(
        route(target("bus", "clerk.{type}"), name="a"),
        route(target("bus", "clerk.user.created"), target("bus", "clerk.{data.none}"), name="b"),
    )
    (a,), (b, refused) = (one.ends for one in found.routes)
    assert isinstance(refused.result, Refusal)
    assert refused.result.reason == "expression"
    assert refused.at == 1
    # The first renders what the second names: it must refuse.
    assert isinstance(a.result, Refusal)
    assert a.result.reason == "destination"
    assert isinstance(b.result, Assignment)


def test_a_condition_that_fails_refuses_all_targets() -> None:
    (only,) = told(
        route(target("bus", "clerk.x"), target("bus", "clerk.y"), when="abs(type)")
    ).routes
    assert only.verdict == "matches"
    assert [end.result.reason for end in only.ends if isinstance(end.result, Refusal)] == [
        "expression",
        "expression",
    ]


def test_what_is_too_large_together_is_told_of_each_target() -> None:
    headers = {f"x-{at}": "v" * 3000 for at in range(3)}
    large = target("bus", "clerk.x", headers=headers)
    found = told(route(large, name="a"), route(large, name="b"))
    (a,), (b,) = (one.ends for one in found.routes)
    assert a.result is b.result
    assert isinstance(a.result, Refusal)
    assert (a.result.reason, a.result.routes) == ("too_large", ("a", "b"))


@pytest.mark.parametrize(
    ("expression", "paths"),
    [
        ("data.emails[0].verification.status == 'x'", ["data.emails[0].verification.status"]),
        ("length(data.a[?b.c=='d']) > `0`", ["data.a", "data.a[].b.c"]),
        ("!(data.banned)", ["data.banned"]),
        ("a.b || c.d && e", ["a.b", "c.d", "e"]),
        ("a[*].b", ["a", "a[].b"]),
        ("a[].b", ["a", "a[].b"]),
        ("a[*]", ["a"]),
        ("data.*.x", ["data"]),
        ("*.id", []),
        ("{x: a.b}.x", ["a.b"]),
        ("[a.b, c]", ["a.b", "c"]),
        ("a | b.c", ["a.b.c"]),
        ("a[*].b | [0]", ["a", "a[].b"]),
        ("sort_by(a.b, &c.d)", ["a.b"]),
        ("@.a.b", ["a.b"]),
        ('a."x-y"', ['a."x-y"']),
        ("a[1:2]", ["a"]),
        ("'text'", []),
        ("@", []),
        ("data.emails[?ok].address", ["data.emails", "data.emails[].address", "data.emails[].ok"]),
        ("keys(@)[?@ == 'x'].y", []),
    ],
)
def test_the_places_that_an_expression_reads(expression: str, paths: list[str]) -> None:
    assert [path_text(steps) for steps in paths_read(compiled(expression))] == paths


@pytest.mark.parametrize(
    ("steps", "value"),
    [
        (("a", "b"), [1, 2]),
        (("a", "b", 1), 2),
        (("a", "b", -1), 2),
        (("a", "b", 2), None),
        (("a", 0), None),
        (("a", "b", "c"), None),
        (("a", "b", None), [1, 2]),
        ((), {"a": {"b": [1, 2]}}),
    ],
)
def test_the_value_at_a_place(steps: tuple[str | int | None, ...], value: object) -> None:
    assert value_at(steps, {"a": {"b": [1, 2]}}) == value


def test_a_specimen_is_an_event_without_a_signature() -> None:
    sender = Sender("clerk", "clerk/clerk", type_required=True, type=compiled("type"))
    made = specimen(sender, b'{"type":"user.created","data":{"id":"user_1"}}', 1_700_000_000.5)
    assert (made.type, made.key, made.svix_id) == ("user.created", "user_1", "msg_specimen")
    assert made.metadata.signature == SIGNATURE
    assert made.metadata.received_at == "2023-11-14T22:13:20.500Z"


def test_type_is_the_type_of_the_event_wherever_its_source_has_it() -> None:
    sender = Sender("billing", "clerk/billing", type_required=False, type=compiled("kind"))
    taken = route(target("bus", "billing.{type}"), events=["invoice.*"], when="type != 'body'")
    body = b'{"kind":"invoice.paid","type":"body","data":{}}'
    sources = {"billing": {"kind": "svix", "type": "kind", "secrets": [SECRET]}}
    found = explain(table(taken, sources=sources), specimen(sender, body, 0))
    (only,) = found.plan.assignments
    assert only.message.destination == "billing.invoice.paid"
