"""What the settings of a stream do to the records that are published to it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from gateway.brokers.base import Finding, Need
from gateway.brokers.nats.coverage import about
from gateway.brokers.nats.jetstream import StreamConfigView

_GOOD_REPLICAS = 3

_Faults = list[tuple[Literal["warning", "error"], str]]


def size_fault(stream: StreamConfigView, need: Need) -> Finding | None:
    """Say that the stream does not take the largest record of a need."""
    if not 0 <= stream.max_msg_size < need.record_bytes:
        return None
    message = (
        f"max_msg_size of stream {stream.name} is {stream.max_msg_size}, and a record may"
        f" have {need.record_bytes} bytes; raise it (nats stream edit {stream.name}"
        f" --max-msg-size={need.record_bytes}), or lower server.max_body (used by {need.used_by})"
    )
    return Finding("error", about(need), message)


def stream_faults(stream: StreamConfigView, needs: Sequence[Need]) -> list[Finding]:
    """Say what is to be known of a stream that takes subjects of `needs`."""
    faults = [*_refuses(stream), *_loses(stream), *_elsewhere(stream)]
    if stream.deny_delete and any(need.keeps_letters for need in needs):
        message = (
            "deny_delete is set, so that `gateway inbox discard` and `replay` cannot take a dead"
            " letter out; use a stream without it for delivery.dead_letter"
        )
        faults.append(("warning", message))
    return [Finding(severity, f"stream {stream.name}", text) for severity, text in faults]


def _refuses(stream: StreamConfigView) -> _Faults:
    """What keeps the stream from taking records, or from saying that it has."""
    faults: _Faults = []
    if stream.no_ack:
        message = (
            "no_ack is set, so no publish is ever acknowledged: every event is answered 503 and"
            " sent again; unset it"
        )
        faults.append(("error", message))
    if stream.sealed:
        faults.append(("error", "it is sealed and takes no more records; use another stream"))
    if stream.allow_msg_counter:
        message = "allow_msg_counter is set, so it takes counters only; use another stream"
        faults.append(("error", message))
    if stream.discard == "new":
        faults += _full(stream)
    return faults


def _full(stream: StreamConfigView) -> _Faults:
    per_subject = stream.max_msgs_per_subject
    if stream.discard_new_per_subject and per_subject > 0:
        message = (
            f"discard_new_per_subject is set: a subject that has {per_subject} records"
            " (max_msgs_per_subject) takes no more, and its events are answered 503 stream_full;"
            " set discard: old, or see that somebody deletes"
        )
        return [("warning", message)]
    bounds = {"max_msgs": stream.max_msgs, "max_bytes": stream.max_bytes}
    bounded = " and ".join(f"{name} {value}" for name, value in bounds.items() if value > 0)
    if not bounded:
        return []
    message = (
        f"discard is new: at {bounded} it takes no more, and events are answered 503 stream_full;"
        " set discard: old, or see that somebody deletes"
    )
    return [("warning", message)]


def _loses(stream: StreamConfigView) -> _Faults:
    """What an acknowledged record does not survive."""
    faults: _Faults = []
    if stream.num_replicas < _GOOD_REPLICAS:
        copies = "one replica" if stream.num_replicas == 1 else f"{stream.num_replicas} replicas"
        faults.append(("warning", f"{copies}: 3 survive the loss of a server; set num_replicas"))
    if stream.storage == "memory":
        message = "memory storage: a restart of its servers loses the records; use file storage"
        faults.append(("warning", message))
    if stream.retention == "interest":
        message = (
            "interest retention: what comes while there is no consumer is dropped; use limits, or"
            " make the consumers first"
        )
        faults.append(("warning", message))
    if stream.max_msgs_per_subject > 0 and not stream.discard_new_per_subject:
        message = (
            f"max_msgs_per_subject is {stream.max_msgs_per_subject}: older records of a subject"
            " are dropped, read or not; raise it unless that is meant"
        )
        faults.append(("warning", message))
    return faults


def _elsewhere(stream: StreamConfigView) -> _Faults:
    """What else becomes of a record, and where other records come from."""
    faults: _Faults = []
    if (transform := stream.subject_transform) is not None:
        message = (
            f"subject_transform stores {transform.src or '>'} as {transform.dest}: consumers find"
            " the records by that subject only; let them filter by it, or take it out"
        )
        faults.append(("warning", message))
    if (republish := stream.republish) is not None:
        what = "the headers" if republish.headers_only else "all"
        message = (
            f"republish sends {what} of {republish.src or '>'} to {republish.dest} too: whoever"
            " may subscribe there gets it; see that only those may who should"
        )
        faults.append(("warning", message))
    if stream.sources:
        names = ", ".join(source.name for source in stream.sources)
        message = (
            f"it also gathers the records of {names} (sources): they did not come from the gateway,"
            " and nobody verified them here; publish to a stream of the gateway's own"
        )
        faults.append(("warning", message))
    return faults
