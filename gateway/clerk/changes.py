"""Changes to the body of an event by dotted paths: `data.public_metadata.tier`, `data.items.0.id`.

For events that somebody makes up to try things out; what the gateway receives is never changed.
"""

from __future__ import annotations

from typing import Any, Final

from gateway import GatewayError

__all__ = ["SampleError", "assign", "remove"]

_MAX_DEPTH: Final = 32
"""Steps of a path; the deepest in a sample has 6."""


class SampleError(GatewayError):
    """A change that cannot be made to an event."""

    def __init__(self, path: str, problem: str) -> None:
        self.path = path
        """The dotted path as it was given."""
        self.problem = problem
        super().__init__(f"cannot set `{path}`: {problem}")


def assign(event: dict[str, Any], path: str, value: Any) -> None:
    """Set what is at `path`. Objects that are missing on the way, below the first step, are made.

    Raises `SampleError` for a path that leads nowhere.
    """
    *way, last = _steps(event, path)
    holder: Any = event
    for step in way:
        holder = _step_into(holder, step, path)
    if isinstance(holder, list):
        holder[_index(holder, last, path)] = value
    elif isinstance(holder, dict):
        holder[last] = value
    else:
        raise _no_holder(path, last)


def remove(event: dict[str, Any], path: str) -> None:
    """Take out what is at `path`. Raises `SampleError` where there is nothing."""
    *way, last = _steps(event, path)
    holder: Any = event
    for step in way:
        holder = holder[_place(holder, step, path)]
    del holder[_place(holder, last, path)]


def _steps(event: dict[str, Any], path: str) -> list[str]:
    steps = path.split(".")
    if not all(steps) or len(steps) > _MAX_DEPTH:
        raise SampleError(path, f"write at most {_MAX_DEPTH} names with dots between, like data.id")
    if steps[0] not in event:
        raise SampleError(path, f"an event has {', '.join(sorted(event))}")
    return steps


def _step_into(holder: Any, step: str, path: str) -> Any:
    """The value at one step; where there is none yet, a new object."""
    if isinstance(holder, list):
        return holder[_index(holder, step, path)]
    if not isinstance(holder, dict):
        raise _no_holder(path, step)
    if holder.get(step) is None:
        holder[step] = {}
    return holder[step]


def _place(holder: Any, step: str, path: str) -> str | int:
    """The key or index of a step that is there."""
    if isinstance(holder, list):
        return _index(holder, step, path)
    if not isinstance(holder, dict):
        raise _no_holder(path, step)
    if step not in holder:
        raise SampleError(path, f"there is no `{step}`")
    return step


def _index(items: list[Any], step: str, path: str) -> int:
    if step.isascii() and step.isdigit() and len(step) < 6 and int(step) < len(items):
        return int(step)
    raise SampleError(path, f"`{step}` is not the number of an item: the list has {len(items)}")


def _no_holder(path: str, step: str) -> SampleError:
    return SampleError(path, f"what stands before `{step}` is neither an object nor a list")
