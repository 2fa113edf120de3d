"""What every config model is, and how values of a YAML file come to fit its fields.

The models are strict: text is no number. Two things are eased before that. YAML has lists and
the models tuples. And a value that came from `${…}` is always text, although a number may be
meant, so that alone is read as its field wants it.
"""

from __future__ import annotations

import re
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, SecretStr, model_validator

from gateway.config.interpolation import Interpolated

__all__ = ["Model", "bare_type"]

_INT: Final = re.compile(r"[+-]?[0-9]{1,18}")
_FLOAT: Final = re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]{1,18})?")
_TEXTS: Final = (str, SecretStr)


class Model(BaseModel):
    """Immutable, and no key that is not declared. Errors never show the value they refuse."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _fit(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {name: cls._fit_value(name, value) for name, value in data.items()}

    @classmethod
    def _fit_value(cls, name: str, value: Any) -> Any:
        if type(value) is str or name not in cls.model_fields:
            return value
        wanted, optional, origin = _bare_types(cls)[name]
        if value is None and not optional and _is_model(wanted):
            # A section whose keys are all commented out.
            return {}
        if isinstance(value, Interpolated):
            return _read(value, wanted, optional=optional)
        if isinstance(value, list) and origin is tuple:
            return tuple(_plain(element) for element in value)
        if isinstance(value, dict) and origin is dict:
            return {key: _plain(element) for key, element in value.items()}
        return value


@cache
def _bare_types(model: type[BaseModel]) -> dict[str, tuple[Any, bool, Any]]:
    """Give `bare_type` of each field, and what the type is a generic form of."""
    found = {name: bare_type(field.annotation) for name, field in model.model_fields.items()}
    return {
        name: (wanted, optional, get_origin(wanted)) for name, (wanted, optional) in found.items()
    }


def bare_type(annotation: Any) -> tuple[Any, bool]:
    """Take `Annotated` and `| None` off a type; tell whether None was allowed.

    A union of several types is given back as it is.
    """
    if get_origin(annotation) is Annotated:
        return bare_type(get_args(annotation)[0])
    if get_origin(annotation) not in {Union, UnionType}:
        return annotation, False
    others = [arg for arg in get_args(annotation) if arg is not NoneType]
    if len(others) != 1:
        return annotation, len(others) < len(get_args(annotation))
    return bare_type(others[0])[0], True


def _is_model(wanted: Any) -> bool:
    return isinstance(wanted, type) and issubclass(wanted, BaseModel)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Interpolated) else value


def _read(value: Interpolated, wanted: Any, *, optional: bool) -> Any:
    """Read interpolated text as its field wants it; what does not fit stays text, and is told."""
    text = value.strip()
    if optional and not text:
        return None
    if wanted is bool:
        return {"true": True, "false": False}.get(text.lower(), str(value))
    if wanted is int and _INT.fullmatch(text):
        return int(text)
    if wanted is float and _FLOAT.fullmatch(text):
        return float(text)
    if get_origin(wanted) is tuple and bare_type(get_args(wanted)[0])[0] in _TEXTS:
        return _split(text)
    return str(value)


def _split(text: str) -> tuple[str, ...]:
    """One variable may hold a whole list, separated by commas, as with other Kafka tools."""
    # `v1,whsec_…` is one way to write one signing secret.
    parts = text.replace("v1,whsec_", "whsec_").split(",")
    return tuple(part.strip() for part in parts if part.strip())
