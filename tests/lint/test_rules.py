"""Each rule: what it finds, at which place, in which words, and what it lets pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.lint.finding import RULES
from tests.lint.told import TWO_SOURCES, marked, told

TABLES: dict[str, list[dict[str, Any]]] = yaml.safe_load(
    (Path(__file__).parent / "rules.yaml").read_text("utf-8")
)
GUARDED = [
    ("data.username", "{data.username}"),
    ("data.username == 'x'", "{data.username}"),
    ("data.username != ''&& data.username", "{data.username}"),
    ("contains(data.username, 'x') && data.username", "{data.username}"),
    ("type == 'user.created' && data.username", "{data.username}"),
    ("data.public_metadata.plan", "{data.public_metadata.plan}"),
    ("!(!(data.username))", "{data.username}"),
    ("data.email_addresses[0]", "{data.email_addresses[0].email_address}"),
    ("length(data.email_addresses[0].linked_to) > `0`", "{data.email_addresses[0].email_address}"),
    ("contains(['a', 'b'], data.username)", "{data.username}"),
    ("data.banned && (data.username || data.external_id)", "{data.username || data.external_id}"),
    ("data.username || data.external_id", "{ data.username || data.external_id }"),
    (r"contains(`[\"a\", \"b\"]`, data.username)", "{data.username}"),
]


def held(text: str, expected: list[str]) -> None:
    """Assert rules and words in file order, and the places that are marked."""
    found = told(text)
    assert [rule for _, rule, _ in found] == [one.partition(":")[0] for one in expected], found
    assert [place for place, _, _ in found] == marked(text), found
    for (_, rule, words), wanted in zip(found, expected, strict=True):
        assert f"{rule}: {words}".startswith(wanted)


@pytest.mark.parametrize("row", TABLES["patterns"], ids=lambda row: row["routes"])
def test_patterns(row: dict[str, Any]) -> None:
    text = f"routes: {row['routes']}".replace("T}", "[{broker: events, topic: t}]}")
    held(text, row["told"])


@pytest.mark.parametrize("row", TABLES["conditions"], ids=lambda row: row["when"])
def test_conditions(row: dict[str, Any]) -> None:
    # The place of the whole value is that of its quote.
    when = row["when"]
    quoted = f'‸"{when[1:]}"' if when.startswith("‸") else f'"{when}"'
    held(
        "routes:\n"
        f'  - {{name: a, events: ["{row["events"]}"], targets: [{{broker: events, topic: t}}],\n'
        f"     when: {quoted}}}\n",
        row["told"],
    )


@pytest.mark.parametrize("row", TABLES["templates"], ids=lambda row: row["target"])
def test_templates(row: dict[str, Any]) -> None:
    held(
        f'routes:\n  - {{name: a, events: ["{row["events"]}"],\n'
        f"     targets: [{{broker: events, {row['target']}}}]}}\n",
        row["told"],
    )


@pytest.mark.parametrize(("when", "template"), GUARDED)
def test_what_the_condition_demands_is_there(when: str, template: str) -> None:
    text = (
        'routes:\n  - {name: a, events: [user.created], when: "WHEN",\n'
        f'     targets: [{{broker: events, topic: "t.{template}", key: "{template}"}}]}}\n'
    )
    rules = [rule for _, rule, _ in told(text.replace("WHEN", when))]
    assert not {"empty-destination", "empty-key"} & set(rules)
    assert {"empty-destination", "empty-key"} <= {
        rule for _, rule, _ in told(text.replace("WHEN", "data.created_at"))
    }


def test_types_that_cannot_meet_a_condition_are_not_told_of_in_its_templates() -> None:
    (found,) = told(
        'routes:\n  - {name: a, events: ["*"], when: "contains([\'a\'], data.username)",\n'
        '     targets: [{broker: events, topic: "t.{data.first_name}"}]}\n'
    )
    assert "may be null or empty in user.created and user.updated," in found[2]


@pytest.mark.parametrize("kind", ["svix", "standard-webhooks"])
def test_other_sources_are_not_held_to_clerks_schemas(kind: str) -> None:
    route = (
        'routes: [{name: a, events: ["user.*"], sources: SOURCES, when: "data.emial == \'x\'",'
        ' targets: [{broker: events, topic: "t.{data.nothing}"}]}]\n'
    )
    sources = TWO_SOURCES.replace("svix", kind)
    for names in ("[shop]", "[clerk, shop]"):
        assert told(route.replace("SOURCES", names) + sources) == []
    assert told(route.replace("SOURCES", "[clerk]") + sources) != []


def test_with_a_dead_letter_a_refusal_may_be_meant() -> None:
    text = (
        "routes: [{name: a, events: [user.created],"
        ' targets: [{broker: events, topic: "t.{data.username}"}]}]\n'
    )
    letter = "delivery: {dead_letter: {broker: events, topic: dead}}\n"
    assert [rule for _, rule, _ in told(text)] == ["empty-destination"]
    assert told(text + letter) == []
    (words,) = [
        words for _, rule, words in told(text + letter, notes=True) if rule != "unrouted-events"
    ]
    assert words == (
        "topic: {data.username} may be null or empty in user.created, which goes to the dead"
        " letter; write {data.username || 'none'}, or exclude these"
    )


def test_a_template_that_fails_is_told_whoever_sends() -> None:
    text = (
        'routes: [{name: a, events: ["x.*"], sources: [shop],'
        ' targets: [{broker: events, topic: "t.{‸abs(type)}"}]}]\n' + TWO_SOURCES
    )
    ((place, rule, words),) = told(text)
    assert (place, rule) == (marked(text)[0], "always-fails")
    assert words.startswith("topic: fails for every event (abs() takes no string)")


def test_a_type_that_stands_elsewhere_is_not_the_events_type() -> None:
    text = (
        'routes: [{name: a, events: ["user.*"], when: "type == \'x\'",'
        " targets: [{broker: events, topic: t}]}]\n"
        "sources: {shop: {kind: svix, type: event, secrets: [whsec_c2VjcmV0c2VjcmV0c2VjcmV0]}}\n"
    )
    assert told(text) == []


def test_what_came_from_outside_is_not_shown() -> None:
    text = (
        "routes:\n"
        '  - {name: a, events: [user.created], when: ‸"${WHEN}",\n'
        '     targets: [{broker: events, topic: ‸"${TOPIC}"}]}\n'
        '  - {name: b, events: ["${TYPE}"], when: ‸"data.emial",\n'
        "     targets: [{broker: events, topic: t}]}\n"
    )
    env = {
        "WHEN": "data.emial == 'hushhush'",
        "TOPIC": "t.{data.hushhush}",
        "TYPE": "user.updated",
    }
    found = told(text, env)
    assert [place for place, _, _ in found] == marked(text)
    assert [words for _, _, words in found] == [
        "when: unknown field (its value came from ${…} and is not shown)",
        "topic: unknown field (its value came from ${…} and is not shown)",
        "when: unknown field (its value came from ${…} and is not shown)",
    ]


UNROUTED = [
    ("accept", "they are answered 200 and go nowhere (unmatched: accept)"),
    ("reject", "they are answered 422, and sent again in vain (unmatched: reject)"),
    ("dead_letter", "they go to the dead letter (unmatched: dead_letter)"),
]


@pytest.mark.parametrize(("policy", "fate"), UNROUTED)
def test_events_that_go_nowhere(policy: str, fate: str) -> None:
    text = (
        f"unmatched: {policy}\n"
        "delivery: {dead_letter: {broker: events, topic: dead}}\n"
        "routes:\n"
        '  ‸- {name: a, events: ["*"], targets: [{broker: events, topic: t}],'
        ' exclude: [user.deleted, "organizationDomain.*", sms.created]}\n'
    )
    ((place, rule, words),) = told(text, notes=True)
    assert (place, rule) == (marked(text)[0], "unrouted-events")
    assert words == (
        "no route takes 5 of Clerk's 45 event types: organizationDomain.*, sms.created and"
        f" user.deleted; {fate}; add a route if you want them"
    )


def test_a_route_that_never_matches_takes_no_event() -> None:
    text = (
        "routes:\n"
        '  - {name: a, events: ["*"], when: "`false`", targets: [{broker: events, topic: t}]}\n'
    )
    assert [rule for _, rule, _ in told(text, notes=True)] == ["unrouted-events", "never-matches"]


def test_only_clerks_events_are_missed() -> None:
    text = (
        'routes: [{name: a, events: ["x.*"], sources: [shop],'
        " targets: [{broker: events, topic: t}]}]\n"
        "sources: {shop: {kind: svix, secrets: [whsec_c2VjcmV0c2VjcmV0c2VjcmV0]}}\n"
    )
    assert told(text, notes=True) == []


def test_streams() -> None:
    text = (
        "brokers:\n"
        "  events: {kind: kafka, servers: [localhost:9092]}\n"
        "  bus:\n"
        "    kind: nats\n"
        "    servers: [nats://localhost:4222]\n"
        "    streams:\n"
        '      - {name: A, subjects: ["clerk.>"]}\n'
        "      - ‸{name: B, subjects: [orders.*, clerks]}\n"
        '      - {name: C, subjects: ["letters"]}\n'
        "routes:\n"
        '  - {name: a, events: ["*"], targets: [\n'
        '      {broker: bus, subject: "clerk.{type}"},\n'
        '      {broker: bus, subject: ‸"clerk-{type}"},\n'
        "      {broker: bus, subject: ‸clerk}]}\n"
        "delivery: {dead_letter: {broker: bus, subject: letters}}\n"
    )
    found = told(text, notes=True)
    assert [place for place, _, _ in found] == marked(text)
    assert [rule for _, rule, _ in found] == ["unused-stream", "no-stream", "no-stream"]


def test_too_many_expressions_are_told_and_not_looked_at() -> None:
    routes = "".join(
        f'  - {{name: r{at}, events: ["*"], when: "data.a{at} && type != \'x.{at}\'",'
        f' targets: [{{broker: events, topic: "t{at}.{{data.id || type}}"}}]}}\n'
        for at in range(400)
    )
    found = told(f"routes:\n{routes}", notes=True)
    assert [rule for _, rule, _ in found if rule == "too-many"] == ["too-many"]


def test_every_rule_is_found_somewhere_here() -> None:
    here = {
        one.partition(":")[0] for rows in TABLES.values() for row in rows for one in row["told"]
    }
    in_tests = {"no-stream", "too-many", "unrouted-events", "unused-stream"}
    in_overlaps = {"duplicate-route", "duplicate-target", "shadowed-route", "shadowed-target"}
    assert here | in_tests | in_overlaps == set(RULES)
