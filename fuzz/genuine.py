"""What must hold of a genuine event: its answer, and every record that was made of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from fuzz.judge import Answer, ViolationError
from fuzz.oracle import Verdict, verdict, without
from fuzz.service import LETTERS, Service, Setup
from gateway.brokers.base import Message

__all__ = ["Sent", "judge_genuine"]

_PRIVATE = ("data.private_metadata", "data.members.email")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_TOKENS = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*").fullmatch
_OF_THE_EVENT = frozenset({"expression", "destination", "too_large", "unmatched"})
"""Reasons for which a target refuses that lie in the event; all others are the broker's."""
_REASONS = _OF_THE_EVENT | {"not_authorized", "no_leader", "broker_down", "deadline", "no_ack"}
_REASONS |= {"dead_letter_refused"}


class Sent(msgspec.Struct, frozen=True):
    """What was signed, and the headers that prove it."""

    body: bytes
    svix_id: str
    timestamp: str
    signature: str


def judge_genuine(service: Service, setup: Setup, sent: Sent, answers: list[Answer]) -> None:
    """Compare the answer and the records with what an independent reading of the event says."""
    if len(answers) != 1:
        raise ViolationError(f"one genuine request, {len(answers)} answers")
    (answer,), read = answers, verdict(sent.body, sent.svix_id)
    for broker, message in service.stored:
        _judge_record(broker, message, sent, read)
    if read.kind == "no_event" or (read.kind == "unsure" and answer.status == 400):
        _judge_refused(service, sent, answer)
        return
    _expect(answer.status in {200, 422, 503}, f"a genuine event, and {answer}")
    _expect(answer.json["id"] == sent.svix_id, f"another id: {answer}")
    _judge_targets(service, setup, answer)
    if read.kind == "event":
        _judge_routes(setup, read, answer)


def _judge_refused(service: Service, sent: Sent, answer: Answer) -> None:
    _expect(answer.status == 400, f"signed, but no event, and {answer}")
    told = (answer.json["status"], answer.json["id"])
    _expect(told == ("rejected", sent.svix_id), f"signed, but no event, and {answer}")
    _expect(not service.published, "no event, and published")


def _judge_targets(service: Service, setup: Setup, answer: Answer) -> None:
    """The answer follows from its targets, and each target from what the brokers hold."""
    targets = answer.json["targets"]
    words = {target["status"] for target in targets}
    reasons = {target.get("reason", "") for target in targets} - {""}
    _expect(reasons <= _REASONS, f"reasons beyond those known: {answer}")
    if not targets:
        _expect(answer.json["status"] == "unmatched", f"no target, and {answer}")
    elif "failed" in words:
        _expect((answer.status, answer.json["status"]) == (503, "failed"), f"{answer}")
        _expect(answer.headers.get("retry-after") == "5", f"503 without retry-after: {answer}")
    else:
        word = "dead_lettered" if "dead_lettered" in words else "delivered"
        _expect((answer.status, answer.json["status"]) == (200, word), f"{answer}")
    if _are_well(setup):
        _expect(reasons <= _OF_THE_EVENT, f"the brokers are well, and {answer}")
        _expect("failed" not in words or setup.letter == "none", f"has a letter, and {answer}")
    _judge_stored(service, setup, targets)


def _are_well(setup: Setup) -> bool:
    return (setup.events, setup.bus) == ("well", "well")


def _judge_stored(service: Service, setup: Setup, targets: list[dict[str, Any]]) -> None:
    """What is told to be durable is stored, and nothing else is."""
    stored = {(broker, message.destination) for broker, message in service.stored}
    lettered = any(target["status"] == "dead_lettered" for target in targets)
    places = {
        (target["broker"], target["topic" if target["broker"] == "events" else "subject"])
        for target in targets
        if target["status"] in {"delivered", "duplicate"}
    }
    if lettered:
        places.add(("events" if setup.letter == "kafka" else "bus", LETTERS))
    _expect(places <= stored, f"told as durable: {places}; stored: {stored}")
    # A broker that loses its acks has stored what is told to have failed.
    extra = {broker for broker, _ in stored - places}
    lossy = {
        name for name, mood in (("events", setup.events), ("bus", setup.bus)) if mood == "silent"
    }
    _expect(extra <= lossy, f"stored and not told: {stored - places}")


def _judge_routes(setup: Setup, read: Verdict, answer: Answer) -> None:
    """The routes that took it are those that an independent reading of the table names."""
    targets = answer.json["targets"]
    named = {name for target in targets for name in target["route"].split(",") if name}
    if not read.taken and not read.failing:
        expected = {"accept": 200, "reject": 422, "dead_letter": answer.status}[setup.policy]
        _expect(answer.status == expected and not named, f"no route takes it, and {answer}")
        _expect(bool(targets) == (setup.policy == "dead_letter"), f"{setup.policy}: {answer}")
        return
    _expect(answer.json["type"] == read.type, f"another type: {answer}")
    _expect(named == read.taken | read.failing, f"{read.taken | read.failing}, and {answer}")
    if not _are_well(setup):
        return  # where the dead letter's broker fails, its reason is the one that is told
    for target in targets:
        if read.failing & set(target["route"].split(",")):
            _expect(target["reason"] == "expression", f"its condition fails, and {target}")


def _judge_record(broker: str, message: Message, sent: Sent, read: Verdict) -> None:
    headers = dict(message.headers)
    _expect(len(headers) == len(message.headers), f"a header is there twice: {message.headers}")
    texts = [*headers, *headers.values()]
    _expect(not any(map(_CONTROL.search, texts)), f"a control character: {message.headers}")
    proof = tuple(headers.get(f"svix-{name}") for name in ("id", "timestamp", "signature"))
    _expect(proof == (sent.svix_id, sent.timestamp, sent.signature), f"other headers: {proof}")
    _expect(bool(message.key), "a record without a key")
    for place, judge_value in _PLACES.items():
        exact, is_template, _ = place[1].partition("{")
        if broker != place[0] or not message.destination.startswith(exact):
            continue
        rest = message.destination.removeprefix(exact)
        _expect(bool(_TOKENS(rest) if is_template else not rest), f"led to {message.destination}")
        judge_value(message, sent, read)
        return
    raise ViolationError(f"led outside of every template: {broker}/{message.destination}")


def _as_signed(message: Message, sent: Sent, _: Verdict) -> None:
    _expect(message.value == sent.body, "a record's bytes are not those that were signed")


def _data(message: Message, _: Sent, read: Verdict) -> None:
    if read.kind == "event":
        data = without(read.document, _PRIVATE).get("data")
        _expect(_same(json.loads(message.value), data), "another `data` than was signed")


def _structured(message: Message, _: Sent, read: Verdict) -> None:
    event = json.loads(message.value)
    if read.kind == "event":
        document = without(read.document, _PRIVATE)
        _expect(_same(event["data"], document), "another event than was signed")
        _expect(event["type"] == read.type, "another type than was signed")


def _tenant(message: Message, sent: Sent, read: Verdict) -> None:
    _as_signed(message, sent, read)
    if read.kind == "event":
        tenant = read.document["data"]["public_metadata"]["tenant"]
        if isinstance(tenant, str):
            _expect(message.key == f"clerk/{tenant}", f"another key: {message.key}")


_PLACES: Mapping[tuple[str, str], Callable[[Message, Sent, Verdict], None]] = {
    ("events", "users"): _as_signed,
    ("events", "orgs"): _data,
    ("events", "tenants.{"): _tenant,
    ("events", LETTERS): _as_signed,
    ("bus", LETTERS): _as_signed,
    ("bus", "types.{"): _as_signed,
    ("bus", "tenants.{"): _structured,
    ("bus", "ranks.{"): _as_signed,
}
"""What is published where, by broker and the beginning of its destination."""


def _same(left: Any, right: Any) -> bool:
    """Compare JSON values; `1` and `true` are not the same, as they are to Python."""
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ViolationError(otherwise)
