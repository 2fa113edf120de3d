"""Sample events to send: one for each type of the catalogue, a plain envelope for any other type.

The bodies are the JSON files in `sample_events/`; their README says where the shapes come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Final

import msgspec

from gateway.clerk.catalogue import CATALOGUE
from gateway.clerk.changes import SampleError, assign

__all__ = ["SampleError", "sample"]

_SAMPLE_ID: Final = "2Sample00000000000000000001"
"""What follows the prefix in the ids of the sample files."""
_CREATED_FIELDS: Final = ("created_at", "created_at_ms")
_NOT_JSON: Final = "it is nested too deep, or is not UTF-8 text"
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


def sample(event_type: str, now_ms: int, overrides: Mapping[str, str] = _NOTHING) -> bytes:
    """Return the body of a sample event as compact JSON.

    `now_ms` (Unix milliseconds) becomes the event's `timestamp` and its `data.updated_at`, and for
    a `*.created` event also the time of creation, where the sample has these fields.
    `overrides` maps dotted paths (`data.public_metadata.tier`, `data.items.0.id`) to values; a
    value that is JSON is taken as JSON, any other as a string. Objects that are missing inside
    `data` on the way are made. Raises `SampleError` for a path that leads nowhere.
    """
    event = _template(event_type)
    _set_times(event, event_type, now_ms)
    for path, value in overrides.items():
        assign(event, path, _value(path, value))
    try:
        return msgspec.json.encode(event)
    except (RecursionError, UnicodeEncodeError) as error:
        # One of them is to blame, or else the type: JSON has no place for bytes that are not text.
        raise SampleError(", ".join(overrides) or "type", _NOT_JSON) from error


@cache
def _file(event_type: str) -> bytes:
    return (files("gateway.clerk") / "sample_events" / f"{event_type}.json").read_bytes()


def _template(event_type: str) -> dict[str, Any]:
    if event_type in CATALOGUE:
        return msgspec.json.decode(_file(event_type), type=dict[str, Any])
    entity = event_type.partition(".")[0] or "event"
    return {
        "data": {"id": f"{entity}_{_SAMPLE_ID}", "object": entity},
        "object": "event",
        "timestamp": 0,
        "type": event_type,
    }


def _set_times(event: dict[str, Any], event_type: str, now_ms: int) -> None:
    event["timestamp"] = now_ms
    data = event["data"]
    created = _CREATED_FIELDS if event_type.endswith(".created") else ()
    for field in ("updated_at", *created):
        if field in data:
            data[field] = now_ms


def _value(path: str, text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
    except (RecursionError, UnicodeEncodeError) as error:
        raise SampleError(path, _NOT_JSON) from error
