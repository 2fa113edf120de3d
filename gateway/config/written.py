"""How a loaded value is written in a file again: a default in the manual, or in a schema."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from gateway.config.units import format_duration, format_size, parse_duration, parse_size

__all__ = ["as_written"]


def as_written(value: Any, field: FieldInfo) -> Any:
    """Give the default of a field as plain JSON values: seconds as `10s`, bytes as `512KiB`.

    A model gives an empty mapping, which is what leaves it to its defaults; a secret its text, so
    this is for defaults only. Whether a number is a duration or a size the field's examples tell.
    """
    if isinstance(value, BaseModel):
        return {}
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple):
        return list(value)
    example = next(iter(field.examples or ()), None)
    is_boolean = isinstance(value, bool)
    return _measured(value, example) if isinstance(example, str) and not is_boolean else value


def _measured(value: Any, example: str) -> Any:
    if isinstance(value, float) and parse_duration(example) is not None:
        return "0s" if value == 0 else format_duration(value)
    if isinstance(value, int) and parse_size(example) is not None:
        return format_size(value)
    return value
