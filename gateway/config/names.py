"""What values are called in messages, and which name was perhaps meant."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from typing import Final

from gateway.config.problems import DocumentPath

__all__ = ["Suggester", "closest", "listing", "name_of", "quoted_key"]

_MAX_COMPARED: Final = 100
"""Characters of a name that is compared with the known ones; the comparison is quadratic."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_WORDS: Final = re.compile(r"[a-z]+(?:[_-][a-z]+)*_?")


MAX_COMPARISONS: Final = 20_000
"""Each takes some ten microseconds."""
_MAX_LISTED: Final = 10


def name_of(path: DocumentPath) -> str:
    """Call a value by its key, and its number in a list: `servers[0]`.

    A key that can be no name may be anything, a secret too: it is not repeated.
    """
    name = ""
    for part in reversed(path):
        if isinstance(part, str):
            return (part if _NAME.fullmatch(part) else "this key") + name
        name = f"[{part}]{name}"
    return name or "the file"


def quoted_key(key: str) -> str | None:
    """Quote a key that reads like one of ours, or None.

    Of `{user: u, password: one,two}` YAML makes a key `two`; and values end up as keys in other
    ways. The place is told anyway.
    """
    return f'"{key}"' if len(key) <= _MAX_COMPARED and _WORDS.fullmatch(key) else None


def closest(name: str, known: Iterable[str]) -> str | None:
    """Give the known name that is most like this one, or None where none is like it."""
    if len(name) > _MAX_COMPARED:
        return None
    by_lower = {candidate.lower(): candidate for candidate in known}
    found = get_close_matches(name.lower().replace("-", "_"), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


class Suggester:
    """Finds the name that was perhaps meant, within a number of comparisons for one file."""

    def __init__(self, comparisons: int = MAX_COMPARISONS) -> None:
        self._left = comparisons

    def may(self, comparisons: int) -> bool:
        """Tell whether so many more comparisons are within the number, and count them."""
        self._left -= comparisons
        return self._left >= 0

    def closest(self, name: str, known: Collection[str]) -> str | None:
        """Give the known name that is most like this one, or None where none is like it."""
        return closest(name, known) if self.may(len(known)) else None


def listing(names: Sequence[str]) -> str:
    """Name the first ten, and how many there are beside them."""
    first = ", ".join(names[:_MAX_LISTED])
    more = len(names) - _MAX_LISTED
    return f"{first} and {more} more" if more > 0 else first
