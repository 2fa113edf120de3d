"""What `gateway explain` tells of a body.

Pure: a config that was loaded, a body and the time in, an `Explained` out. It is made of what the
running gateway itself asks: its sources, its table, its dead letter.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.app import Blueprint, dead_letter_of, sent_headers
from gateway.brokers.base import Headers, Message
from gateway.clerk.catalogue import entity_key, entity_key_path
from gateway.commands.explain_answer import Answer, answer_of, refused_answer, what_then
from gateway.commands.explain_model import (
    Body,
    Condition,
    EventReport,
    Explained,
    Origin,
    Record,
    RefusedTarget,
    RouteReport,
    TargetReport,
)
from gateway.delivery.dead_letter import DeadLetter
from gateway.delivery.plan import Assignment, Plan, Refusal
from gateway.event import Event, EventError
from gateway.routing import explain as routing
from gateway.routing.explain import End, Explanation, RouteExplanation, Saw
from gateway.routing.payload import Payload
from gateway.routing.table import Kind
from gateway.serving import Endpoint
from gateway.specimen import SVIX_ID, specimen

__all__ = ["Inquiry", "report"]

MAX_LEVELS = 100
"""Lists and objects in one another, in a value that a condition saw; what is deeper is left out."""

_Place = tuple[int | None, int | None]
"""Of a target: the number of its record, or else of its refusal."""
_TOO_DEEP = f"(more than {MAX_LEVELS} levels)"


class Inquiry(msgspec.Struct, frozen=True):
    """What is asked: what becomes of this body when it comes to this source."""

    endpoint: Endpoint
    origin: Origin
    body: bytes
    now: float
    """Unix seconds."""
    svix_id: str


def report(blueprint: Blueprint, inquiry: Inquiry) -> Explained:
    """Tell what the gateway would make of a body. Never raises for what it holds."""
    if len(inquiry.body) > blueprint.config.server.max_body:
        return _no_event(blueprint, inquiry, refused_answer(413, "body_too_large"))
    sender = inquiry.endpoint.sender
    try:
        event = specimen(sender, inquiry.body, inquiry.now, inquiry.svix_id)
    except EventError as error:
        answer = refused_answer(400, error.reason, aborts=inquiry.endpoint.abort_permanent)
        return _no_event(blueprint, inquiry, answer)
    found = routing.explain(blueprint.table, event)
    outcome = _Outcome(blueprint, found)
    policy = blueprint.config.unmatched if found.plan.is_unmatched else None
    return Explained(
        config=blueprint.loaded.path,
        source=sender.name,
        body=Body(inquiry.origin, len(inquiry.body)),
        event=_event(event),
        answer=answer_of(
            policy,
            blueprint.config.delivery.mode,
            [(refusal.reason, refusal.then) for refusal in outcome.refusals],
            aborts=inquiry.endpoint.abort_permanent,
        ),
        routes=tuple(_route(route, event, outcome) for route in found.routes),
        records=tuple(outcome.records),
        refusals=tuple(outcome.refusals),
        letters=tuple(outcome.letters),
        stand_ins=_stand_ins(event),
    )


def _no_event(blueprint: Blueprint, inquiry: Inquiry, answer: Answer) -> Explained:
    body = Body(inquiry.origin, len(inquiry.body))
    source = inquiry.endpoint.sender.name
    return Explained(blueprint.loaded.path, source, body, None, answer, (), (), (), (), ())


class _Outcome:
    """What is published of a plan, numbered, and where a target finds its own."""

    def __init__(self, blueprint: Blueprint, found: Explanation) -> None:
        config = blueprint.config
        self.records: list[Record] = []
        self.refusals: list[RefusedTarget] = []
        self.letters: list[Record] = []
        self._kinds = blueprint.table.kinds
        self._dead_letter = dead_letter_of(config)
        self._then = what_then(config.delivery.mode, has_dead_letter=self._dead_letter is not None)
        plan = found.plan
        if plan.is_unmatched and config.unmatched == "dead_letter":
            plan = plan.to_dead_letter()
        self._plan = plan
        # By identity: two targets may be refused in equal words, and each has its own.
        self._places: dict[int, _Place] = {}
        payloads = _payloads(found)
        for assignment in plan.assignments:
            self._publish(assignment, payloads[assignment.message.dedupe_id])
        ids = plan.target_ids()[len(plan.assignments) :]
        for refusal, target_id in zip(plan.refusals, ids, strict=True):
            self._places[id(refusal)] = (None, len(self.refusals))
            self._refuse(refusal, target_id)

    def place(self, result: Assignment | Refusal) -> _Place:
        """Give the number of a target's record, or else of its refusal.

        Targets that meet share one result, which is the same object as in the plan.
        """
        return self._places[id(result)]

    def _publish(self, assignment: Assignment, payload: Payload) -> None:
        message, broker, routes = assignment.message, assignment.broker, assignment.routes
        kind = self._kinds[broker]
        headers = sent_headers(kind, message)
        if headers is None:
            self._places[id(assignment)] = (None, len(self.refusals))
            why = ("invalid_destination", "")
            self._refuse(Refusal(routes, broker, message.destination, *why), message.dedupe_id)
            return
        self._places[id(assignment)] = (len(self.records), None)
        self.records.append(_record(broker, kind, routes, message, headers, payload))

    def _refuse(self, refusal: Refusal, target_id: str) -> None:
        number = None
        if self._dead_letter is not None:
            number = len(self.letters)
            self.letters.append(_letter(self._dead_letter, self._plan, refusal, target_id))
        # An event that no route takes is refused by no broker.
        kind = self._kinds.get(refusal.broker)
        self.refusals.append(
            RefusedTarget(
                routes=refusal.routes,
                broker=refusal.broker,
                topic=refusal.destination if kind == "kafka" else None,
                subject=refusal.destination if kind == "nats" else None,
                reason=refusal.reason,
                detail=refusal.detail,
                then=self._then,
                letter=number,
            )
        )


def _letter(dead_letter: DeadLetter, plan: Plan, refusal: Refusal, target_id: str) -> Record:
    message = dead_letter.letter(plan, refusal, target_id)
    headers = sent_headers(dead_letter.kind, message) or message.headers
    broker, kind = dead_letter.broker, dead_letter.kind
    return _record(broker, kind, refusal.routes, message, headers, "original")


def _payloads(found: Explanation) -> dict[str, Payload]:
    """Give what each record holds, by its dedupe id."""
    return {
        end.result.message.dedupe_id: end.target.payload
        for route in found.routes
        for end in route.ends
        if isinstance(end.result, Assignment)
    }


def _record(
    broker: str,
    kind: Kind,
    routes: tuple[str, ...],
    message: Message,
    headers: Headers,
    payload: Payload,
) -> Record:
    is_kafka = kind == "kafka"
    return Record(
        broker=broker,
        kind=kind,
        topic=message.destination if is_kafka else None,
        subject=None if is_kafka else message.destination,
        routes=routes,
        key=message.key or "",
        headers=headers,
        payload=payload,
        bytes=len(message.value),
        value=message.value.decode(),
        dedupe_id=message.dedupe_id,
    )


def _event(event: Event) -> EventReport:
    metadata = event.metadata
    return EventReport(
        event.svix_id, event.type, event.key, _default_key(event), metadata.time, metadata.subject
    )


def _default_key(event: Event) -> str:
    """Say where the default key comes from."""
    data = event.document.get("data")
    path = entity_key_path(event.type or "", data)
    # An id that is too long to be a key is passed over.
    return (
        path if path is not None and entity_key(event.type or "", data) == event.key else "svix-id"
    )


def _stand_ins(event: Event) -> Headers:
    metadata = event.metadata
    svix_id = (("svix-id", metadata.id),) if metadata.id == SVIX_ID else ()
    signature = () if metadata.signature is None else (("svix-signature", metadata.signature),)
    return (
        *svix_id,
        ("svix-timestamp", metadata.timestamp),
        *signature,
        ("gateway-received-at", metadata.received_at),
    )


def _route(found: RouteExplanation, event: Event, outcome: _Outcome) -> RouteReport:
    route = found.route
    saw = tuple(Saw(one.path, _bounded(one.value)) for one in found.saw)
    when = route.when
    return RouteReport(
        name=route.name,
        verdict=found.verdict,
        pattern=found.pattern,
        events=route.events.texts,
        exclude=route.exclude.texts,
        sources=None if route.sources is None else tuple(sorted(route.sources)),
        when=None if when is None else Condition(when.source, found.condition, saw),
        targets=tuple(_target(end, event, outcome) for end in found.ends),
    )


def _target(end: End, event: Event, outcome: _Outcome) -> TargetReport:
    target = end.target
    record, refusal = outcome.place(end.result)
    key_from = None
    if record is not None:
        key_from = "template" if end.own_key else _default_key(event)
    return TargetReport(
        end.at, target.broker, target.kind, target.destination.source, record, key_from, refusal
    )


def _bounded(value: Any, levels: int = MAX_LEVELS) -> Any:
    """Leave out what is nested so deeply that no encoder would take it."""
    if not isinstance(value, list | dict):
        return value
    if levels == 0:
        return _TOO_DEEP
    if isinstance(value, list):
        return [_bounded(item, levels - 1) for item in value]
    return {name: _bounded(item, levels - 1) for name, item in value.items()}
