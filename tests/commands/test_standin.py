"""The embedded broker in the place of missing ones: what becomes of each part of a config."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.app import draw
from gateway.brokers.base import Need
from gateway.brokers.nats.subjects import covers
from gateway.clerk.catalogue import ALSO_SEEN, CATALOGUE
from gateway.commands.standin import dev_subjects, stand_in
from gateway.config import GatewayConfig, load_config_text
from tests.canaries import SECRET

URL = "nats://127.0.0.1:4333"
OTHER = "nats://bus.example.com:4222"
PORTS = (8081, 9091)


def need(destination: str, templated: bool = False) -> Need:
    return Need(destination, templated, 1000, "route all")


def stood_in(brokers: dict[str, Any], *targets: dict[str, Any], **delivery: Any) -> GatewayConfig:
    """Give what becomes of a config with one route to these targets."""
    content = {
        "server": {"host": "0.0.0.0", "max_body": "1MiB"},
        "sources": {"clerk": {"secrets": [SECRET]}},
        "brokers": brokers,
        "routes": [{"name": "all", "events": ["*"], "targets": list(targets)}],
        "delivery": delivery,
    }
    loaded = load_config_text(json.dumps(content), "x.yaml", {}, allow_missing_servers=True)
    return stand_in(loaded, URL, PORTS, draw(loaded).needs()).config


def streams(config: GatewayConfig) -> dict[str, dict[str, tuple[str, ...]]]:
    """Give each broker's streams and their subjects."""
    return {
        name: {stream.name: stream.subjects for stream in broker.streams}
        for name, broker in config.brokers.items()
        if broker.kind == "nats"
    }


def subjects(config: GatewayConfig) -> list[str | None]:
    return [target.subject for route in config.routes for target in route.targets]


def test_a_missing_kafka_becomes_subjects_below_its_name() -> None:
    config = stood_in(
        {"events": {"kind": "kafka"}},
        {"broker": "events", "topic": "clerk.users"},
        {"broker": "events", "topic": "clerk-{type}", "key": "{data.id}"},
        dead_letter={"broker": "events", "topic": "clerk.dead-letter"},
    )
    assert config.brokers["events"].kind == "nats"
    assert config.brokers["events"].servers == (URL,)
    assert subjects(config) == ["kafka.events.clerk.users", "kafka.events.clerk-{type}"]
    assert streams(config) == {"events": {"DEV_events": ("kafka.events.>",)}}
    letter = config.delivery.dead_letter
    assert letter is not None
    assert (letter.topic, letter.subject) == (None, "kafka.events.clerk.dead-letter")


def test_missing_nats_brokers_share_one_stream_for_what_is_not_taken() -> None:
    own = {"name": "USERS", "subjects": ["users.*"]}
    config = stood_in(
        {"bus": {"kind": "nats", "streams": [own]}, "second": {"kind": "nats"}},
        {"broker": "bus", "subject": "users.all"},
        {"broker": "bus", "subject": "clerk.{type}"},
        {"broker": "second", "subject": "clerk.{type}"},
        {"broker": "second", "subject": "clerk.users"},
    )
    assert streams(config) == {
        "bus": {"USERS": ("users.*",), "DEV_bus": ("clerk.>",)},
        "second": {},
    }
    assert {broker.servers for broker in config.brokers.values()} == {(URL,)}


def test_core_nats_gets_no_stream() -> None:
    core = {"kind": "nats", "jetstream": False}
    config = stood_in({"bus": core}, {"broker": "bus", "subject": "clerk.{type}"})
    assert streams(config) == {"bus": {}}


@pytest.mark.parametrize("kind", ["kafka", "nats"])
def test_a_broker_with_servers_is_left_alone(kind: str) -> None:
    server = "kafka.example.com:9092" if kind == "kafka" else OTHER
    place = "topic" if kind == "kafka" else "subject"
    config = stood_in(
        {"own": {"kind": kind, "servers": [server]}},
        {"broker": "own", place: "clerk.users"},
        dead_letter={"broker": "own", place: "letters"},
    )
    assert config.brokers["own"].kind == kind
    assert config.brokers["own"].servers == (server,)
    (target,) = config.routes[0].targets
    assert getattr(target, place) == "clerk.users"
    assert getattr(config.delivery.dead_letter, place) == "letters"


def test_it_listens_on_this_machine_only_and_keeps_the_rest() -> None:
    config = stood_in({"bus": {"kind": "nats"}}, {"broker": "bus", "subject": "a"})
    assert (config.server.host, config.server.port) == ("127.0.0.1", 8081)
    assert (config.admin.host, config.admin.port) == ("127.0.0.1", 9091)
    assert config.server.max_body == 1024 * 1024


@pytest.mark.parametrize(
    ("needs", "expected"),
    [
        ([], ()),
        ([need("clerk.users")], ("clerk.users",)),
        ([need("clerk.", True)], ("clerk.>",)),
        ([need("clerk.a-", True)], ("clerk.>",)),
        ([need("clerk.users"), need("clerk.", True)], ("clerk.>",)),
        ([need("a.b.", True), need("a.", True)], ("a.>",)),
        ([need("a.b"), need("a.b.c"), need("ab")], ("a.b", "a.b.c", "ab")),
        ([need("a.b"), need("a.b")], ("a.b",)),
    ],
)
def test_subjects(needs: list[Need], expected: tuple[str, ...]) -> None:
    assert dev_subjects(needs) == expected


def test_a_template_without_a_dot_takes_every_type_there_is() -> None:
    found = dev_subjects([need("clerk-", True), need("orders")])
    assert "*" in found
    assert "orders" not in found
    for event_type in (*CATALOGUE, *ALSO_SEEN):
        assert any(covers(subject, f"clerk-{event_type}") for subject in found)


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [
        ("a.>", "a.b", True),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        ("a.>", "a.>", True),
        ("a.>", "a.b.>", True),
        ("a.b.>", "a.>", False),
        ("*", "a", True),
        ("*", "a.b", False),
        ("*.*", "a.b", True),
        ("*.*", "a.>", False),
        ("a.*", "a.*", True),
        ("a.b", "a.*", False),
        ("a", "b", False),
        (">", "a.b.c", True),
    ],
)
def test_covers(wide: str, narrow: str, expected: bool) -> None:
    assert covers(wide, narrow) is expected


TOKEN = st.text("ab-_", min_size=1, max_size=3)
LITERAL = st.lists(TOKEN, min_size=1, max_size=3).map(".".join)
NEEDS = st.lists(
    st.one_of(
        LITERAL.map(need),
        st.tuples(LITERAL, st.sampled_from(".-_")).map(lambda pair: need("".join(pair), True)),
    ),
    max_size=6,
)
VALUES = ("x", "a-b", "user_1")


def overlap(one: str, other: str) -> bool:
    """Tell whether some subject is taken by both patterns, token by token."""
    for mine, theirs in itertools.zip_longest(one.split("."), other.split(".")):
        if mine is None or theirs is None:
            return False
        if ">" in (mine, theirs):
            return True
        if "*" not in (mine, theirs) and mine != theirs:
            return False
    return True


@given(NEEDS)
def test_no_two_subjects_overlap_and_none_is_left_out(needs: list[Need]) -> None:
    found = dev_subjects(needs)
    for one, other in itertools.combinations(found, 2):
        assert not overlap(one, other)
    for wanted in needs:
        ends = ("user.created", *VALUES) if wanted.templated else ("",)
        for end in ends:
            destination = wanted.destination + end
            assert any(covers(subject, destination) for subject in found)


@given(NEEDS)
def test_none_takes_what_is_jetstreams_own(needs: list[Need]) -> None:
    for subject in dev_subjects(needs):
        assert not overlap(subject, "$JS.API.INFO")
        assert not overlap(subject, "$SYS.x")
