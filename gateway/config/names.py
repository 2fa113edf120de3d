"""What values are called in messages, and which name was perhaps meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

from gateway.config.problems import DocumentPath

__all__ = ["closest", "name_of"]

_MAX_COMPARED: Final = 100
"""Characters of a name that is compared with the known ones; the comparison is quadratic."""


def name_of(path: DocumentPath) -> str:
    """Call a value by its key, and its number in a list: `servers[0]`."""
    name = ""
    for part in reversed(path):
        if isinstance(part, str):
            return part + name
        name = f"[{part}]{name}"
    return name or "the file"


def closest(name: str, known: Iterable[str]) -> str | None:
    """Give the known name that is most like this one, or None where none is like it."""
    if len(name) > _MAX_COMPARED:
        return None
    by_lower = {candidate.lower(): candidate for candidate in known}
    found = get_close_matches(name.lower().replace("-", "_"), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None
