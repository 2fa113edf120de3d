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

from gateway import GatewayError
from gateway.clerk.catalogue import CATALOGUE

__all__ = ["SampleError", "sample"]

_SAMPLE_ID: Final = "2Sample00000000000000000001"
"""What follows the prefix in the ids of the sample files."""
_CREATED_FIELDS: Final = ("created_at", "created_at_ms")
_MAX_DEPTH: Final = 32
"""Steps of an override's path; the deepest path in a sample has 6."""
_NOT_JSON: Final = "it is nested too deep, or is not UTF-8 text"
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class SampleError(GatewayError):
    """An override that cannot be put into a sample."""

    def __init__(self, path: str, problem: str) -> None:
        self.path = path
        """The dotted path as it was given."""
        self.problem = problem
        super().__init__(f"cannot set `{path}`: {problem}")


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
        _override(event, path, value)
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


def _override(event: dict[str, Any], path: str, text: str) -> None:
    steps = path.split(".")
    if not all(steps) or len(steps) > _MAX_DEPTH:
        raise SampleError(path, f"write at most {_MAX_DEPTH} names with dots between, like data.id")
    if steps[0] not in event:
        raise SampleError(path, f"an event has {', '.join(sorted(event))}")
    holder: Any = event
    for step in steps[:-1]:
        holder = _step_into(holder, step, path)
    _assign(holder, steps[-1], path, _value(path, text))


def _step_into(holder: Any, step: str, path: str) -> Any:
    """The value at one step; where there is none yet, a new object."""
    if isinstance(holder, list):
        return holder[_index(holder, step, path)]
    if not isinstance(holder, dict):
        raise SampleError(path, f"what stands before `{step}` is neither an object nor a list")
    if holder.get(step) is None:
        holder[step] = {}
    return holder[step]


def _assign(holder: Any, step: str, path: str, value: Any) -> None:
    if isinstance(holder, list):
        holder[_index(holder, step, path)] = value
    elif isinstance(holder, dict):
        holder[step] = value
    else:
        raise SampleError(path, f"what stands before `{step}` is neither an object nor a list")


def _index(items: list[Any], step: str, path: str) -> int:
    if step.isascii() and step.isdigit() and len(step) < 6 and int(step) < len(items):
        return int(step)
    raise SampleError(path, f"`{step}` is not the number of an item: the list has {len(items)}")


def _value(path: str, text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
    except (RecursionError, UnicodeEncodeError) as error:
        raise SampleError(path, _NOT_JSON) from error
