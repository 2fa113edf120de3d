"""The value of a record: the body as it came, or a part of it encoded anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from gateway.metadata import cloudevent
from gateway.routing.routable import Routable

__all__ = ["Payload", "redact", "render_payload"]

Payload = Literal["original", "data", "cloudevents"]

RedactPath = tuple[str, ...]


def render_payload(
    event: Routable, payload: Payload, paths: Sequence[RedactPath], key: str
) -> bytes:
    """Give the value to publish; `paths` are left out of what is encoded anew.

    `original` is the body itself, byte for byte. `data` is the JSON of the event's `data`;
    `cloudevents` the whole event in CloudEvents structured mode, `key` its `partitionkey`.
    """
    if payload == "original":
        return event.body
    shown = redact(event.document, paths) if paths else event.document
    if payload == "data":
        return msgspec.json.encode(shown.get("data"))
    return cloudevent(event.metadata, key, shown)


def redact(document: Mapping[str, Any], paths: Sequence[RedactPath]) -> dict[str, Any]:
    """Give a copy without the fields at `paths`; a list on the way has it done to each element."""
    copy = dict(document)
    for path in paths:
        copy = _without(copy, path)
    return copy


def _without(value: Any, path: RedactPath) -> Any:
    if isinstance(value, list):
        return [_without(element, path) for element in value]
    if not isinstance(value, dict) or path[0] not in value:
        return value
    if len(path) == 1:
        return {name: field for name, field in value.items() if name != path[0]}
    return {**value, path[0]: _without(value[path[0]], path[1:])}
