"""How an explanation looks to people: lines of text, without colour and fit for a terminal.

Values of an event are escaped, so that none steers the terminal, and cut where they are long; the
JSON has them whole. Where a record goes is never cut: it is what one looks for in the broker, and
the table bounds its length.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from gateway.commands.explain_model import (
    Condition,
    Explained,
    Record,
    RefusedTarget,
    RouteReport,
    TargetReport,
)
from gateway.commands.inbox_view import escaped

__all__ = ["explained_lines"]

_WIDEST = 100
"""Characters of a value that are shown."""
_ORIGINS = {"sample": "a sample", "file": "a file", "stdin": "standard input"}
_ANSWERS = {
    "delivered": "every target has the event",
    "stored": "the event is in the inbox, and is delivered in the background",
    "dead_lettered": "what a target refuses goes to the dead letter",
    "unmatched": "no route takes the event",
    "rejected": "the body is no event",
    "failed": "the sender repeats it, in vain",
}
_TOO_LARGE = "the body is over server.max_body"
_DERIVED = {"svix-id": "svix-id (so ce_id and dedupe ids too)"}

Pairs = list[tuple[str, str]]


def explained_lines(explained: Explained) -> Iterator[str]:
    """Give the lines that tell all of it."""
    yield _head(explained)
    shown: dict[int, str] = {}
    for route in explained.routes:
        yield ""
        yield from _route(route, explained, shown)
    yield ""
    yield _answer(explained)
    if explained.records or explained.letters:
        own = [_DERIVED.get(name, name) for name, _ in explained.stand_ins]
        yield f"note: {', '.join(own[:-1])} and {own[-1]} are a real delivery's own"


def _head(explained: Explained) -> str:
    body = explained.body
    what = f"{_ORIGINS[body.origin]}, {body.bytes} bytes"
    event = explained.event
    if event is None:
        return f"source {explained.source} ({what}): no event"
    name = "an event without a type" if event.type is None else _cut(event.type)
    return (
        f"{name} from source {explained.source} ({what}), key {_cut(event.key)} ({event.key_from})"
    )


def _route(route: RouteReport, explained: Explained, shown: dict[int, str]) -> Iterator[str]:
    word = "takes it " if route.verdict == "matches" else "leaves it"
    yield f"{word}  {route.name}: {_why(route, explained)}"
    if route.when is not None and route.when.result is not None:
        yield from _indented(2, _saw(route.when))
    for target in route.targets:
        yield from _target(route, target, explained, shown)


def _why(route: RouteReport, explained: Explained) -> str:
    if route.verdict == "no_type":
        return "the event has no type"
    if route.verdict == "source":
        return f"sources are {', '.join(route.sources or ())}, not {explained.source}"
    if route.verdict == "events":
        return f"events are {_list(route.events)}"
    if route.verdict == "exclude":
        return f"exclude has {route.pattern}"
    when = route.when
    if when is None:
        return f"events has {route.pattern}"
    results = {"true": "is true", "false": "is not true", "failed": "cannot be evaluated"}
    return f"events has {route.pattern}, and when {results[when.result or 'failed']}"


def _saw(when: Condition) -> Pairs:
    return [("when", _cut(when.expression)), *((one.path, _json(one.value)) for one in when.saw)]


def _target(
    route: RouteReport, target: TargetReport, explained: Explained, shown: dict[int, str]
) -> Iterator[str]:
    if target.refusal is not None:
        refusal = explained.refusals[target.refusal]
        yield f"  -> {target.broker}  REFUSED {_cut(refusal.topic or refusal.subject or '')}"
        yield from _indented(5, _refusal(refusal, explained))
        return
    number = target.record or 0
    record = explained.records[number]
    yield f"  -> {record.broker}  {_place(record)}"
    before = shown.get(number)
    if before is not None:
        yield from _indented(5, [("same", f"as {before}: published once")])
        return
    shown[number] = f"target {target.at + 1} of {route.name}"
    yield from _indented(5, [*_record(record, target), *_headers(record)])


def _place(record: Record) -> str:
    kind = "topic" if record.kind == "kafka" else "subject"
    return f"{kind} {escaped(record.topic or record.subject or '')}"


def _record(record: Record, target: TargetReport) -> Pairs:
    source = "its template" if target.key_from == "template" else f"default: {target.key_from}"
    return [
        ("key", f"{_cut(record.key)}  ({source})"),
        ("payload", f"{record.payload}, {record.bytes} bytes"),
    ]


def _headers(record: Record) -> Pairs:
    width = max(len(name) for name, _ in record.headers)
    lines = [f"{name.ljust(width)}  {_cut(value)}".rstrip() for name, value in record.headers]
    return [("headers" if at == 0 else "", line) for at, line in enumerate(lines)]


def _refusal(refusal: RefusedTarget, explained: Explained) -> Pairs:
    why = f"{refusal.reason}: {refusal.detail}" if refusal.detail else refusal.reason
    return [("reason", _cut(why, 300)), ("then", _then(refusal, explained))]


def _then(refusal: RefusedTarget, explained: Explained) -> str:
    if refusal.letter is not None:
        letter = explained.letters[refusal.letter]
        return f"dead letter {letter.broker}  {_place(letter)}"
    if refusal.then == "parked":
        return "parked in the inbox: there is no dead letter"
    return "503, and the sender repeats it in vain: there is no dead letter"


def _answer(explained: Explained) -> str:
    answer = explained.answer
    reason = f" ({answer.reason})" if answer.reason else ""
    what = _TOO_LARGE if answer.http_status == 413 else _ANSWERS[answer.status]
    text = f"answer: {answer.http_status} {answer.status}{reason}, {what}"
    unmatched = [one for one in explained.refusals if one.reason == "unmatched"]
    if unmatched:
        text = f"{text}; no route takes this one: {_then(unmatched[0], explained)}"
    elif answer.http_status == 200 and (explained.records or explained.letters):
        text += f": {_count(explained)}, when the brokers take all"
    headers = ", ".join(f"{name}: {value}" for name, value in answer.headers)
    return f"{text} [{headers}]" if headers else text


def _count(explained: Explained) -> str:
    counts = (len(explained.records), "record"), (len(explained.letters), "dead letter")
    words = [f"{n} {word}" if n == 1 else f"{n} {word}s" for n, word in counts if n]
    return " and ".join(words)


def _indented(by: int, pairs: Pairs) -> Iterator[str]:
    width = max(len(escaped(name)) for name, _ in pairs)
    for name, value in pairs:
        yield f"{' ' * by}{escaped(name).ljust(width)}  {value}"


def _list(patterns: tuple[str, ...]) -> str:
    return _cut(", ".join(patterns), 300)


def _json(value: Any) -> str:
    return _cut(json.dumps(value, ensure_ascii=False, separators=(", ", ": ")))


def _cut(text: str, limit: int = _WIDEST) -> str:
    shown = escaped(text)
    if len(shown) <= limit:
        return shown
    return f"{shown[:limit]}... ({len(text)} characters)"
