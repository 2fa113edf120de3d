"""How a record is shown: one readable line without the value, or everything as JSON."""

from __future__ import annotations

import base64
import json

from gateway.brokers.base import Arrival
from gateway.commands.arrivals import arrival_json, arrival_line

VALUE = b'{"data":{"first_name":"canary"}}'
RECEIVED = ("gateway-received-at", "2026-01-02T03:04:05.678Z")


def test_a_kafka_record() -> None:
    headers = (("ce_type", "user.created"), RECEIVED, ("svix-id", "msg_1"))
    arrival = Arrival("events", "clerk.users", VALUE, headers, "user_1", partition=2, offset=41)
    assert arrival_line(arrival).plain == (
        "03:04:05.678 user.created                     events/clerk.users partition 2 offset 41"
        "  key user_1  32 B  msg_1"
    )


def test_a_jetstream_message_and_a_core_one() -> None:
    headers = (("ce-type", "user.created"), ("ce-partitionkey", "user_1"))
    stored = Arrival("bus", "clerk.user.created", VALUE, headers, stream="CLERK", seq=7)
    assert "bus/clerk.user.created stream CLERK seq 7  key user_1" in arrival_line(stored).plain
    core = Arrival("bus", "clerk.user.created", VALUE, headers)
    assert "bus/clerk.user.created   key user_1" in arrival_line(core).plain


def test_a_dead_letter_says_why() -> None:
    headers = (("ce_type", "user.created"), ("gateway-dead-letter-reason", "too_large"))
    arrival = Arrival("events", "letters", VALUE, headers)
    assert "dead letter: too_large" in arrival_line(arrival).plain


def test_a_record_of_somebody_else() -> None:
    assert "--:--:--.--- unknown" in arrival_line(Arrival("events", "t", b"", ())).plain


def test_the_value_is_not_in_the_line_and_nothing_steers_the_terminal() -> None:
    evil = "a\x1b[2J\nb"
    headers = (("ce_type", evil), ("svix-id", evil))
    line = arrival_line(Arrival("events", evil, VALUE, headers, evil)).plain
    assert "canary" not in line
    assert line.isprintable()


def test_json_has_everything() -> None:
    headers = (("ce_type", "user.created"), ("x", "1"), ("x", "2"))
    arrival = Arrival("events", "clerk.users", VALUE, headers, "user_1", partition=2, offset=41)
    assert json.loads(arrival_json(arrival)) == {
        "broker": "events",
        "destination": "clerk.users",
        "partition": 2,
        "offset": 41,
        "stream": None,
        "seq": None,
        "key": "user_1",
        "headers": [["ce_type", "user.created"], ["x", "1"], ["x", "2"]],
        "value": VALUE.decode(),
    }


def test_json_of_bytes_that_are_no_text() -> None:
    shown = json.loads(arrival_json(Arrival("events", "t", b"\xff\x00", ())))
    assert "value" not in shown
    assert base64.b64decode(shown["value_base64"]) == b"\xff\x00"
