"""The one way a field says that its value is wrong: in our words, never with the value."""

from __future__ import annotations

from pydantic_core import PydanticCustomError

__all__ = ["REFUSAL", "refusal"]

REFUSAL = "gateway_config"
"""The type of every error that our own validators raise."""


def refusal(problem: str) -> PydanticCustomError:
    """Make the error of a validator; `problem` says what would be right and holds no value."""
    return PydanticCustomError(REFUSAL, "{problem}", {"problem": problem})
