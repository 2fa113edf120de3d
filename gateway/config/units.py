"""Durations and sizes as people write them in a config file: `10s`, `2m`, `512KiB`.

Once loaded a `Duration` is seconds (float) and a `Size` bytes (int). A file must write the unit
of a duration, because `10` could be seconds or milliseconds; Python callers give the number.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import (
    BeforeValidator,
    Field,
    ValidationInfo,
    WithJsonSchema,
)

from gateway.config.refusal import refusal

__all__ = [
    "Duration",
    "PositiveDuration",
    "Size",
    "format_duration",
    "format_size",
    "parse_duration",
    "parse_size",
]

_DURATION: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_MAX_DURATION: Final = 3650 * 86_400.0
"""Ten years: no wait means more, and every client's own units hold it."""

_SIZE: Final = re.compile(r"([0-9]{1,15})(B|kB|MB|GB|KiB|MiB|GiB)?")
_BYTES: Final = {
    "B": 1,
    "kB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
}
_MAX_SIZE: Final = 2**53
"""What JSON numbers, and so every broker's admin interface, hold exactly."""


def parse_duration(text: str) -> float | None:
    """Give the seconds of `500ms`, `10s`, `2m`, `30h` or `7d`, or None where it is no duration."""
    match = _DURATION.fullmatch(text.strip())
    return None if match is None else float(match[1]) * _SECONDS[match[2]]


def format_duration(seconds: float) -> str:
    """Write seconds in the largest unit that takes a whole number of them: 120.0 gives `2m`."""
    for unit in ("d", "h", "m", "s"):
        count = seconds / _SECONDS[unit]
        if count >= 1 and count.is_integer():
            return f"{int(count)}{unit}"
    return f"{seconds * 1000:g}ms" if seconds < 1 else f"{seconds:g}s"


def parse_size(text: str) -> int | None:
    """Give the bytes of `512KiB`, `64MiB`, `1GiB`, `100kB` or `4096`, or None for no size."""
    match = _SIZE.fullmatch(text.strip())
    return None if match is None else int(match[1]) * _BYTES[match[2] or "B"]


def format_size(size: int) -> str:
    """Write bytes in the largest binary unit that takes a whole number of them."""
    for unit in ("GiB", "MiB", "KiB"):
        if size >= _BYTES[unit] and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return f"{size}B"


def _duration(value: object, info: ValidationInfo) -> object:
    if isinstance(value, bool):
        raise refusal("expected a duration such as 10s, got true or false")
    if isinstance(value, int | float):
        # Only the loader gives a context: a number there was written in the file.
        if info.context is None:
            return float(value)
        raise refusal("expected a duration with its unit; write 10s, 500ms, 2m, 30h or 7d")
    if not isinstance(value, str):
        return value
    seconds = parse_duration(value)
    if seconds is None:
        raise refusal("expected a duration: a number and ms, s, m, h or d, such as 10s")
    if seconds > _MAX_DURATION:
        raise refusal(f"must be at most {format_duration(_MAX_DURATION)}")
    return seconds


def _size(value: object) -> object:
    if isinstance(value, bool | float):
        raise refusal("expected a size such as 512KiB, or a whole number of bytes")
    if isinstance(value, str):
        size = parse_size(value)
        if size is None:
            raise refusal("expected a size: a number and kB, MB, GB, KiB, MiB or GiB")
        value = size
    if isinstance(value, int):
        if value <= 0:
            raise refusal("must be more than 0; write a size such as 512KiB")
        if value > _MAX_SIZE:
            raise refusal(f"must be at most {format_size(_MAX_SIZE)}")
    return value


_DURATION_PROBLEM: Final = "Expected a number and its unit, ms, s, m, h or d, such as 10s."
_SIZE_PROBLEM: Final = (
    "Expected a number and its unit, kB, MB, GB, KiB, MiB or GiB, such as 512KiB; a bare number is"
    " bytes."
)
_SOME_DIGIT: Final = "(?=[0-9.]*[1-9])"
"""More than zero."""

Duration = Annotated[
    float,
    BeforeValidator(_duration),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": rf"^\s*{_DURATION.pattern}\s*$",
            "patternErrorMessage": _DURATION_PROBLEM,
        }
    ),
]
"""Seconds, zero or more."""

PositiveDuration = Annotated[
    Duration,
    Field(gt=0),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": rf"^\s*{_SOME_DIGIT}{_DURATION.pattern}\s*$",
            "patternErrorMessage": _DURATION_PROBLEM,
        }
    ),
]
"""Seconds, more than zero."""

Size = Annotated[
    int,
    BeforeValidator(_size),
    WithJsonSchema(
        {
            "anyOf": [
                {
                    "type": "string",
                    "pattern": rf"^\s*{_SOME_DIGIT}{_SIZE.pattern}\s*$",
                    "patternErrorMessage": _SIZE_PROBLEM,
                },
                {"type": "integer", "minimum": 1, "maximum": _MAX_SIZE},
            ]
        }
    ),
]
"""Bytes, more than zero."""
