"""From the config's routes to the table: every fault at once, each with its place."""

from __future__ import annotations

import json
from typing import Any

import jmespath
import pytest

from gateway.app import draw, load_contents
from gateway.routing.compile import (
    Fault,
    TableError,
    compile_expression,
    compile_table,
    find_faults,
)
from tests.canaries import SECRET
from tests.core.builders import config, route, target


def test_all_faults_are_told_at_once_with_path_and_offset() -> None:
    wrong = config(
        route(
            target("events", "clerk.{data..id}"),
            target("bus", "clerk.{type", key="{data id}"),
            when="data.",
        ),
        route(target(destination="clerk.ok"), name="fine", when="data.id"),
        route(target(destination="clerk.{type}", headers={"x": "ok", "y": "a{}"}), name="last"),
    )
    with pytest.raises(TableError) as caught:
        compile_table(wrong)
    first = ("routes", 0)
    assert [(fault.path, fault.offset) for fault in caught.value.faults] == [
        ((*first, "when"), 5),
        ((*first, "targets", 0, "topic"), 12),
        ((*first, "targets", 1, "subject"), 6),
        ((*first, "targets", 1, "key"), 6),
        (("routes", 2, "targets", 0, "headers", "y"), 2),
    ]
    assert "routes.0.when: not a JMESPath expression: it ends too early" in str(caught.value)
    assert "routes.2.targets.0.headers.y: `{}` holds no expression" in str(caught.value)


def test_faults_are_found_beside_those_of_another_kind() -> None:
    wrong = config(
        route(target("nowhere", "x")),
        route(target(destination="clerk.{data..id}"), name="second", when="data id"),
        sources={"clerk": {"secrets": [SECRET], "type": "data."}},
    )
    assert [(fault.path, fault.offset) for fault in find_faults(wrong)] == [
        (("sources", "clerk", "type"), 5),
        (("routes", 1, "when"), 5),
        (("routes", 1, "targets", 0, "topic"), 12),
    ]
    assert find_faults(config()) == ()


@pytest.mark.parametrize(
    ("broker", "destination", "problem"),
    [
        ("events", "clerk.{type} x", "topic: a topic is made of letters, digits, dots, _ and -"),
        ("events", "clerk.{type}.é", "topic: a topic is made of letters, digits, dots, _ and -"),
        ("bus", "clerk.{type} x", "subject: a subject has no spaces"),
        ("bus", "clerk.{type}.*", "subject: * and > are for those who subscribe"),
        ("bus", "clerk.{type}.>.{data.id}", "subject: * and > are for those who subscribe"),
        ("bus", "clerk.{type}..x", "subject: a subject has no empty token"),
        ("bus", "clerk.{type}.", "subject: a subject cannot end in a dot"),
    ],
)
def test_what_no_broker_could_have_is_a_fault(broker: str, destination: str, problem: str) -> None:
    (fault,) = find_faults(config(route(target(broker, destination))))
    assert fault.path == ("routes", 0, "targets", 0, "topic" if broker == "events" else "subject")
    assert fault.message.startswith(problem)


@pytest.mark.parametrize(
    ("broker", "destination"),
    [
        ("events", "clerk.{type}-x._{data.id}.y"),
        ("events", "clerk.{type}."),
        ("bus", "clerk.{type}.{data.id}"),
        ("bus", "clerk.{type}{data.id}.é"),
        ("bus", "clerk.{{x.{type}"),
    ],
)
def test_what_a_broker_could_have_is_none(broker: str, destination: str) -> None:
    assert find_faults(config(route(target(broker, destination)))) == ()


def test_an_expression_outside_of_routes_notes_its_fault() -> None:
    faults: list[Fault] = []
    path = ("sources", "clerk", "type")
    assert compile_expression("data.id", path, faults).source == "data.id"
    assert faults == []
    assert compile_expression("data id", path, faults).source == "@"
    assert [(fault.path, fault.offset) for fault in faults] == [(path, 5)]


def test_routes_and_targets_keep_their_order_and_settings() -> None:
    compiled = compile_table(
        config(
            route(
                target("events", "clerk.users", key="{data.id}"),
                target("bus", "clerk.{type}", payload="data", redact=["data.private_metadata"]),
                events=["user.*"],
                exclude=["user.deleted"],
                sources=["clerk"],
            ),
            route(target(destination="clerk.all"), name="all"),
        )
    )
    first, second = compiled.routes
    assert (first.name, second.name) == ("users", "all")
    assert first.sources == frozenset({"clerk"})
    assert second.sources is None
    kafka, nats = first.targets
    assert (kafka.broker, kafka.kind, kafka.destination.source) == (
        "events",
        "kafka",
        "clerk.users",
    )
    assert kafka.key is not None
    assert kafka.key.source == "{data.id}"
    assert (nats.broker, nats.kind, nats.destination.prefix) == ("bus", "nats", "clerk.")
    assert (nats.key, nats.payload) == (None, "data")
    assert nats.redact == (("data", "private_metadata"),)
    assert compiled.kinds == {"events": "kafka", "bus": "nats"}


def test_each_expression_is_parsed_once_while_a_config_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parse, parsed = jmespath.compile, list[str]()

    def count(text: str) -> Any:
        parsed.append(text)
        return parse(text)

    monkeypatch.setattr(jmespath, "compile", count)
    routes = [
        route(
            target("bus", f"once.{at}.{{data.once{at}}}"),
            target("events", "once.{type}", key=f"{{data.key{at} || data.id}}"),
            name=f"r{at}",
            when=f"data.once == 'n{at}'",
        )
        for at in range(300)
    ]
    document = {
        "sources": {"clerk": {"secrets": [SECRET]}},
        "brokers": {
            "events": {"kind": "kafka", "servers": ["localhost:9092"]},
            "bus": {"kind": "nats", "servers": ["nats://localhost:4222"]},
        },
        "routes": routes,
    }
    table = draw(load_contents("config.yaml", json.dumps(document), {}, {})).table
    assert len(table.routes) == 300
    assert len(parsed) == len(set(parsed)) >= 900
