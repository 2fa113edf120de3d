"""Event type patterns: exact types, `prefix.*`, `*`."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Pattern"]


class Pattern:
    """A compiled list of `events` or `exclude`; immutable.

    `prefix.*` takes every type that begins with `prefix.`, whatever follows.
    """

    __slots__ = ("exact", "prefixes", "takes_all", "texts")

    def __init__(self, patterns: Sequence[str]) -> None:
        """Take valid patterns; the config's rules have refused others."""
        self.texts = tuple(patterns)
        """The patterns as they are written."""
        self.takes_all = "*" in patterns
        self.exact = frozenset(p for p in patterns if not p.endswith("*"))
        self.prefixes = tuple(p[:-1] for p in patterns if p.endswith(".*"))
        """Each with its dot."""

    def matches(self, event_type: str) -> bool:
        """Tell whether the type is one of these."""
        return self.takes_all or event_type in self.exact or event_type.startswith(self.prefixes)

    def matching(self, event_type: str) -> str | None:
        """Give the first pattern that takes the type, as it is written."""
        if not self.matches(event_type):
            return None
        return next(text for text in self.texts if _takes(text, event_type))


def _takes(text: str, event_type: str) -> bool:
    return event_type.startswith(text[:-1]) if text.endswith("*") else event_type == text
