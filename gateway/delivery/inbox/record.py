"""What the inbox keeps of an event: its resolved targets, with all that delivery needs.

Pure: values in, bytes out. A stored record outlives the process that wrote it, so its form has a
version, and a later version of the gateway reads it or refuses it by name.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from gateway import GatewayError
from gateway.brokers.base import Headers, Message
from gateway.delivery.plan import Assignment, Plan, Refusal
from gateway.metadata import Metadata

__all__ = [
    "FORM",
    "Form",
    "Record",
    "RecordError",
    "Target",
    "decode",
    "encode",
    "replayed",
    "targets",
]

FORM = 1
"""The version of the encoded form that this code writes."""


class RecordError(GatewayError):
    """Stored bytes that are no record of a version this code knows."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        """What they are instead: nothing of what they hold."""
        super().__init__(problem)


class Record(msgspec.Struct, frozen=True, gc=False):
    """One event as the inbox stores it."""

    plan: Plan
    stored_at: float
    """Unix seconds since which it waits: when it was received, or last replayed."""
    replay: int = 0
    """How many times an operator has replayed it: `.r<n>` of its records' dedupe ids."""
    target: str = ""
    """Of a replay of one target: its id in the record that it was first a target of."""

    def target_ids(self) -> list[str]:
        """Name every target as `Plan.target_ids`, and one that is replayed as it was first."""
        return [self.target] if self.target else self.plan.target_ids()

    @property
    def name(self) -> str:
        """What copies of the event share: source and svix-id; a replay is an event of its own."""
        metadata = self.plan.metadata
        name = f"{metadata.gateway_source} {metadata.id}"
        # Two targets of one event may be replayed at once, each as a record of its own.
        return f"{name} r{self.replay} {' '.join(self.target_ids())}" if self.replay else name


class Target(msgspec.Struct, frozen=True, gc=False):
    """One target of a record, by its place: the plan's assignments first, then its refusals."""

    broker: str
    """Empty for a refusal: it waits for no broker but the dead letter's."""
    destination: str
    lane: int
    """64 bits of a hash: records of one lane are delivered one after the other, in order of
    arrival. A lane is a target (`Assignment.order`) and a key; a refusal has one of its own, for
    its letter has no order to keep."""


def targets(record: Record) -> tuple[Target, ...]:
    """Give a record's targets in the order in which bitmasks number them, bit 0 first."""
    plan = record.plan
    found = [
        Target(
            one.broker,
            one.message.destination,
            _hash(one.broker, one.order or one.message.destination, one.message.key or plan.key),
        )
        for one in plan.assignments
    ]
    found += [
        Target("", one.destination, _hash("refused", record.name, str(at)))
        for at, one in enumerate(plan.refusals)
    ]
    return tuple(found)


def replayed(record: Record, target: int, now: float) -> Record:
    """Give the record that delivers one target of another once more, on an operator's word.

    `now` is Unix seconds, from which its age counts: what was parked for long is not too old.
    Its dedupe id is another one, so that no broker takes it for the attempt that failed.
    """
    plan, replay = record.plan, record.replay + 1
    at = target - len(plan.assignments)
    if at >= 0:
        alone = msgspec.structs.replace(plan, assignments=(), refusals=(plan.refusals[at],))
        return Record(alone, now, replay, record.target_ids()[target])
    one = plan.assignments[target]
    dedupe_id = one.message.dedupe_id.removesuffix(f".r{record.replay}")
    message = msgspec.structs.replace(one.message, dedupe_id=f"{dedupe_id}.r{replay}")
    assignment = msgspec.structs.replace(one, message=message)
    alone = msgspec.structs.replace(plan, assignments=(assignment,), refusals=())
    return Record(alone, now, replay, record.target_ids()[target])


def _hash(*parts: str) -> int:
    text = "\0".join(parts).encode("utf-8", "replace")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


class _Assigned(msgspec.Struct, array_like=True):
    routes: tuple[str, ...]
    broker: str
    destination: str
    value: bytes | None
    """None where it is the body: nearly always, and the body is stored once."""
    headers: Headers
    dedupe_id: str
    key: str | None
    order: str = ""
    kind: Literal["kafka", "nats"] | None = None


class Form(msgspec.Struct, array_like=True):
    """The encoded form: a MessagePack array, led by its version."""

    version: int
    stored_at: float
    replay: int
    key: str
    body: bytes
    metadata: Metadata
    assigned: list[_Assigned]
    refused: list[Refusal]
    target: str = ""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Form).decode
_version_of = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


def encode(record: Record) -> bytes:
    """Give the bytes to store."""
    plan = record.plan
    assigned = [
        _Assigned(
            one.routes,
            one.broker,
            one.message.destination,
            None if one.message.value == plan.body else one.message.value,
            one.message.headers,
            one.message.dedupe_id,
            one.message.key,
            one.order,
            one.kind,
        )
        for one in plan.assignments
    ]
    return _encode(
        Form(
            FORM,
            record.stored_at,
            record.replay,
            plan.key,
            plan.body,
            plan.metadata,
            assigned,
            list(plan.refusals),
            record.target,
        )
    )


def decode(stored: bytes) -> Record:
    """Read what `encode` gave, of this or an earlier version. Raises `RecordError`."""
    try:
        form = _decode(stored)
    except msgspec.DecodeError as error:
        raise RecordError(_what_it_is(stored)) from error
    if form.version != FORM:
        raise RecordError(_what_it_is(stored))
    assignments = tuple(
        Assignment(
            one.routes,
            one.broker,
            Message(
                one.destination,
                form.body if one.value is None else one.value,
                one.headers,
                one.dedupe_id,
                one.key,
            ),
            one.order,
            one.kind,
        )
        for one in form.assigned
    )
    plan = Plan(form.key, form.body, form.metadata, assignments, tuple(form.refused))
    return Record(plan, form.stored_at, form.replay, form.target)


def _what_it_is(stored: bytes) -> str:
    try:
        version = msgspec.msgpack.decode(_version_of(stored)[0], type=int)
    except (msgspec.DecodeError, IndexError):
        return "not a record of the inbox"
    return f"a record of form {version}, and this version of the gateway reads form {FORM}"
