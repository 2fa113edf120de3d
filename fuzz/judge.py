"""What must hold of every input, whatever was sent. A `ViolationError` is a finding."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from fuzz.service import MAX_HEAD, Service
from fuzz.wire import Wire

__all__ = ["TURNED_AWAY", "Answer", "ViolationError", "judge", "judge_buffers", "judge_forged"]

TURNED_AWAY = frozenset({400, 401, 404, 405, 408, 413, 431})
"""The contract's statuses for a request that is not proven."""
_OVERLOADED = {"status": "failed", "error": "overloaded"}
"""The port's own bounds are passed: nothing has been looked at."""
MAX_ANSWER = 4000
READ_AHEAD = 64 * 1024
"""Bytes of body at which uvicorn stops reading."""
_HEAD = re.compile(rb"HTTP/1\.1 ([1-9][0-9]{2}) [A-Za-z -]*\r\n((?:[!-~]+: [!-~ ]*\r\n)*)\r\n")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_TROUBLE = (b'"level":"error"', b'"level":"critical"', b'"event":"bug"')


class ViolationError(Exception):
    """The gateway did what it must never do."""


class Answer(msgspec.Struct, frozen=True):
    """One answer; its JSON is empty for one to HEAD."""

    status: int
    headers: dict[str, str]
    json: dict[str, Any]


def judge(service: Service, wire: Wire, *, client_left: bool) -> list[Answer]:
    """Let time run out, then hold all that can be seen to the contract; give the answers.

    A request behind an answer that closes the connection need not be begun (RFC 9112, section
    9.6), and one whose client has left, or will send no more of it, need not be answered.
    """
    leftovers = service.leftovers()
    if not wire.is_lost:
        raise ViolationError("a connection that nobody uses is still open")
    if leftovers:
        raise ViolationError(f"left behind: {leftovers}")
    _judge_quiet(service)
    methods = {head.method for head in service.heads}
    answers = _read(bytes(wire.written), methods, cut_off=client_left)
    _judge_counts(service, answers, client_left=client_left)
    return answers


def judge_forged(service: Service, answers: list[Answer]) -> None:
    """Nothing here was genuine: nothing was published, and each answer turns it away."""
    if service.published:
        raise ViolationError(f"forged and published: {service.published[0][1].destination}")
    for answer in answers:
        if (answer.status, answer.json) == (503, _OVERLOADED):
            continue
        if answer.status not in TURNED_AWAY:
            raise ViolationError(f"forged and answered {answer.status}: {answer.json}")
        shape = {**answer.json, "error": ""}
        if answer.json and shape != {"status": "rejected", "error": ""}:
            raise ViolationError(f"an unproven request is told more than it may: {answer.json}")


def judge_buffers(service: Service, wire: Wire, largest: int) -> None:
    """What a connection holds is bounded, whatever has been sent on it; `largest` is in bytes."""
    largest_head = max((head.size for head in service.heads), default=0)
    if largest_head > MAX_HEAD:
        raise ViolationError(f"a head of {largest_head} bytes was let pass")
    protocol: Any = wire.held
    waiting = [cycle for cycle, _ in protocol.pipeline]
    cycles = {id(cycle): cycle for cycle in [*waiting, protocol.cycle] if cycle is not None}
    held = sum(len(cycle.body) for cycle in cycles.values())
    held += sum(_size(cycle.scope["headers"]) for cycle in cycles.values())
    held += _size(protocol.headers or [])
    if held > MAX_HEAD + READ_AHEAD + 2 * largest:
        raise ViolationError(f"{held} bytes are held of one connection")


def _size(headers: list[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) for name, value in headers)


def _judge_quiet(service: Service) -> None:
    complaints, service.loop.complaints = service.loop.complaints, []
    if complaints:
        raise ViolationError(f"an exception reached the event loop: {complaints}")
    if service.recorder.bugs:
        raise ViolationError(f"the ingress raised: {service.recorder.bugs}")
    log = bytes(service.log.text)
    if any(word in log for word in _TROUBLE):
        raise ViolationError(f"the log tells of an error: {log!r}")
    if any(secret in log for secret in service.secret_texts):
        raise ViolationError("a secret is in the log")


def _judge_counts(service: Service, answers: list[Answer], *, client_left: bool) -> None:
    recorder = service.recorder
    expected = service.begun + recorder.turned_away_count
    is_closed = client_left or any(one.headers.get("connection") == "close" for one in answers)
    if len(service.heads) != service.begun and not is_closed:
        raise ViolationError(f"{len(service.heads)} requests, {service.begun} were begun")
    outcomes = recorder.outcomes
    if len(outcomes) != expected:
        raise ViolationError(f"{expected} requests, {len(outcomes)} outcomes: {outcomes}")
    for outcome in outcomes:
        if not outcome.http_status and not client_left:
            raise ViolationError(f"closed without an answer: {outcome}")
    told = [outcome.http_status for outcome in outcomes if outcome.http_status]
    given = [answer.status for answer in answers]
    if given != told and not (client_left and given == told[: len(given)]):
        raise ViolationError(f"answered {given}, counted {told}")


def _read(raw: bytes, methods: set[str], *, cut_off: bool) -> list[Answer]:
    """Read answers one after the other; the last may be cut off where the client was gone."""
    answers, at, closed = [], 0, False
    while at < len(raw):
        if raw.startswith(_CONTINUE, at):
            at += len(_CONTINUE)
            continue
        head = _HEAD.match(raw, at)
        if head is None or closed:
            raise ViolationError(f"not an answer of ours: {raw[at : at + 200]!r}")
        lines = head[2].decode().splitlines()
        headers = dict(line.split(": ", 1) for line in lines)
        closed = headers.get("connection") == "close"
        at = head.end()
        body = raw[at : at + int(headers["content-length"])]
        if body.startswith(b"HTTP/1.1 ") or (not body and "HEAD" in methods):
            body = b""
        elif len(body) < int(headers["content-length"]) and cut_off:
            break
        at += len(body)
        answers.append(_answer(int(head[1]), headers, body))
    return answers


def _answer(status: int, headers: dict[str, str], body: bytes) -> Answer:
    if not body:
        return Answer(status, headers, {})
    if len(body) != int(headers["content-length"]) or len(body) > MAX_ANSWER:
        raise ViolationError(f"{len(body)} bytes of body, {headers}")
    if headers["content-type"] != "application/json":
        raise ViolationError(f"an answer that is no JSON: {headers}")
    if (headers.get("allow") == "POST") != (status == 405):
        raise ViolationError(f"{status} with {headers}")
    return Answer(status, headers, json.loads(body))
