"""The JSON of an answer: its fields, and its bound."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.answer import event_body, failure_body, rejection_body
from gateway.brokers.base import Receipt
from gateway.delivery.settlement import Settlement
from gateway.routing.table import Kind

KINDS: dict[str, Kind] = {"events": "kafka", "bus": "nats"}


def body(settlements: list[Settlement], reason: str = "", status: str = "delivered") -> Any:
    return json.loads(event_body(status, ("msg_1", "user.created"), settlements, KINDS, reason))


def test_a_rejection_holds_a_status_and_a_short_error_only() -> None:
    assert json.loads(rejection_body("timestamp_too_old")) == {
        "status": "rejected",
        "error": "timestamp too old",
    }


def test_a_rejection_names_an_id_that_is_proven() -> None:
    assert json.loads(rejection_body("not_json", "msg_1")) == {
        "status": "rejected",
        "id": "msg_1",
        "error": "not json",
    }


def test_a_failure_before_the_event_is_known() -> None:
    assert json.loads(failure_body("internal")) == {"status": "failed", "error": "internal"}


KAFKA = Receipt("clerk.users", partition=0, offset=0)
JETSTREAM = Receipt("clerk.user.created", stream="CLERK", seq=7)


@pytest.mark.parametrize(
    ("settlement", "expected"),
    [
        pytest.param(
            Settlement(("users", "audit"), "events", "clerk.users", "delivered", receipt=KAFKA),
            {
                "route": "users,audit",
                "broker": "events",
                "topic": "clerk.users",
                "partition": 0,
                "offset": 0,
                "status": "delivered",
            },
            id="kafka",
        ),
        pytest.param(
            Settlement(("users",), "bus", "clerk.x", "duplicate", receipt=JETSTREAM),
            {
                "route": "users",
                "broker": "bus",
                "subject": "clerk.x",
                "stream": "CLERK",
                "seq": 7,
                "status": "duplicate",
            },
            id="jetstream",
        ),
        pytest.param(
            Settlement(("users",), "bus", "clerk.x", "delivered", receipt=Receipt("clerk.x")),
            {"route": "users", "broker": "bus", "subject": "clerk.x", "status": "delivered"},
            id="core-nats",
        ),
        pytest.param(
            Settlement(("users",), "events", "clerk.x", "failed", "no_topic", "kafka-1:9092"),
            {
                "route": "users",
                "broker": "events",
                "topic": "clerk.x",
                "status": "failed",
                "reason": "no_topic",
            },
            id="failed-without-the-detail",
        ),
        pytest.param(
            Settlement((), "", "", "dead_lettered", "unmatched"),
            {"route": "", "broker": "", "status": "dead_lettered", "reason": "unmatched"},
            id="no-target",
        ),
    ],
)
def test_what_is_told_of_a_target(settlement: Settlement, expected: dict[str, Any]) -> None:
    assert body([settlement])["targets"] == [expected]


def test_an_event_s_answer() -> None:
    assert body([]) == {
        "status": "delivered",
        "id": "msg_1",
        "type": "user.created",
        "targets": [],
    }
    assert body([], "expression", "failed")["reason"] == "expression"


def test_an_event_without_a_type() -> None:
    answer = json.loads(event_body("unmatched", ("msg_1", None), [], KINDS))
    assert answer["type"] is None


def many(count: int, destination: str = "clerk.users") -> list[Settlement]:
    return [
        Settlement((f"route-{n}",), "events", f"{destination}.{n}", "delivered", receipt=KAFKA)
        for n in range(count)
    ]


def test_the_answer_for_a_hundred_targets_fits_and_counts_what_it_left_out() -> None:
    settlements = many(100)
    encoded = event_body("delivered", ("m" * 256, "t" * 256), settlements, KINDS)
    assert len(encoded) < 4000
    answer = json.loads(encoded)
    assert answer["targets"]
    assert len(answer["targets"]) + answer["targets_left_out"] == 100


def test_an_answer_that_fits_leaves_nothing_out() -> None:
    answer = body(many(10))
    assert len(answer["targets"]) == 10
    assert "targets_left_out" not in answer


@given(
    st.text(st.characters(codec="utf-8"), min_size=256, max_size=256),
    st.text(st.characters(codec="utf-8"), max_size=1024),
    st.integers(0, 30),
)
def test_every_answer_is_under_4_kilobytes(event_type: str, destination: str, count: int) -> None:
    settlements = many(count, destination)
    encoded = event_body("dead_lettered", ("m" * 256, event_type), settlements, KINDS, "expression")
    assert len(encoded) < 4000
    assert json.loads(encoded)["type"] == event_type
