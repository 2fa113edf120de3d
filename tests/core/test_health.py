"""Whether the gateway should get traffic."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import pytest

from gateway.brokers.base import State
from gateway.delivery.inbox.store import Writable
from gateway.observability.health import ConfigHealth, ProcessHealth, readiness

UP, CONNECTING, DOWN = State.UP, State.CONNECTING, State.DOWN
ROUTES = {"users": ("events",), "orgs": ("bus",), "all": ("bus", "events")}


def process(
    events: State = UP,
    bus: State = UP,
    phase: Literal["loading", "ready", "draining"] = "ready",
    routes: dict[str, tuple[str, ...]] = ROUTES,
) -> ProcessHealth:
    return ProcessHealth(phase, {"events": events, "bus": bus}, routes)


BOTH: dict[str, tuple[str, ...]] = {"all": ("bus", "events")}


@pytest.mark.parametrize(
    ("processes", "status", "word", "broken"),
    [
        pytest.param([process()], 200, "ready", None, id="up"),
        pytest.param([process(), process()], 200, "ready", None, id="two-up"),
        pytest.param([process(bus=DOWN)], 200, "degraded", ["bus"], id="one-down"),
        pytest.param([process(bus=CONNECTING)], 200, "degraded", ["bus"], id="one-connecting"),
        pytest.param([process(), process(bus=DOWN)], 200, "degraded", ["bus"], id="in-one-worker"),
        pytest.param([process(DOWN, DOWN)], 503, "undeliverable", ["bus", "events"], id="all-down"),
        pytest.param(
            [process(CONNECTING, CONNECTING)],
            503,
            "undeliverable",
            ["bus", "events"],
            id="starting",
        ),
        pytest.param(
            [process(bus=DOWN, routes=BOTH)],
            503,
            "undeliverable",
            ["bus"],
            id="every-route-needs-it",
        ),
        pytest.param([process(routes={})], 200, "ready", None, id="no-routes"),
        pytest.param([process(DOWN, routes={})], 200, "degraded", ["events"], id="no-routes-down"),
        pytest.param([process(phase="loading")], 503, "loading", None, id="loading"),
        pytest.param([process(phase="draining")], 503, "draining", None, id="draining"),
        pytest.param(
            [process(), process(phase="draining")], 503, "draining", None, id="one-drains"
        ),
        pytest.param([process(), process(phase="loading")], 200, "ready", None, id="one-loads"),
        pytest.param(
            [process(DOWN, DOWN), process(phase="loading")],
            503,
            "undeliverable",
            ["bus", "events"],
            id="the-ready-one-is-down",
        ),
        pytest.param([], 503, "loading", None, id="nobody"),
    ],
)
def test_readiness(
    processes: list[ProcessHealth], status: int, word: str, broken: list[str] | None
) -> None:
    answered, body = readiness(processes)
    assert (answered, body["status"], body.get("broken")) == (status, word, broken)


@pytest.mark.parametrize(
    ("inboxes", "events", "expected"),
    [
        ([Writable.YES], UP, (200, "ready")),
        ([Writable.YES], DOWN, (200, "degraded")),
        ([Writable.FULL], UP, (503, "inbox_full")),
        ([Writable.NO], UP, (503, "inbox_unavailable")),
        ([Writable.FULL, Writable.NO], UP, (503, "inbox_unavailable")),
        ([Writable.YES, Writable.FULL], UP, (503, "inbox_full")),
    ],
)
def test_with_an_inbox_it_counts_and_not_the_brokers(
    inboxes: list[Writable], events: State, expected: tuple[int, str]
) -> None:
    states = {"events": events, "bus": events}
    answered, body = readiness(
        [ProcessHealth("ready", states, ROUTES, (), inbox) for inbox in inboxes]
    )
    assert (answered, body["status"]) == expected


def test_an_inbox_that_drains_is_draining() -> None:
    draining = ProcessHealth("draining", {}, {}, (), Writable.NO)
    assert readiness([draining])[1]["status"] == "draining"


def test_each_broker_is_shown_at_its_worst() -> None:
    seen: Any = readiness([process(DOWN, UP), process(UP, CONNECTING), process(CONNECTING, UP)])[1]
    assert seen["brokers"] == {"events": "down", "bus": "connecting"}


def test_the_config_is_told_without_a_value_of_it() -> None:
    stale = ConfigHealth("stale", ("server",), 2, "config.yaml:3:4")
    old = msgspec.structs.replace(process(), generation=3)
    status, body = readiness([msgspec.structs.replace(old, generation=4), old], stale)
    assert status == 200
    assert {key: body[key] for key in ("config", "problems", "needs_restart", "generation")} == {
        "config": "stale",
        "problems": {"count": 2, "first": "config.yaml:3:4"},
        "needs_restart": ["server"],
        "generation": 3,
    }
    fine: Any = readiness([old])[1]
    assert fine["config"] == "current"
    assert not fine.keys() & {"problems", "needs_restart"}
    assert "generation" not in readiness([])[1]
