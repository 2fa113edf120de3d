"""What the linter tells, and the rules by which it does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from gateway.config.problems import DocumentPath, Severity

__all__ = ["RULES", "Finding", "have", "names"]

_MAX_NAMED: Final = 3

RULES: Final[dict[str, Severity]] = {
    "always-fails": "warning",
    "duplicate-route": "warning",
    "duplicate-target": "warning",
    "empty-destination": "warning",
    "empty-key": "warning",
    "idle-exclude": "warning",
    "may-fail": "warning",
    "needless-condition": "warning",
    "never-matches": "warning",
    "no-stream": "note",
    "redundant-pattern": "warning",
    "shadowed-route": "warning",
    "shadowed-target": "warning",
    "too-many": "note",
    "unknown-field": "warning",
    "unknown-value": "warning",
    "unrouted-events": "note",
    "unused-stream": "warning",
}
"""Each rule with how serious its findings are; docs/configuration.md has a row for each."""


class Finding(msgspec.Struct, frozen=True):
    """One thing that is odd."""

    rule: str
    path: DocumentPath
    """Where in the config."""
    message: str
    """What it is, and what would be right."""
    offset: int = 0
    """Characters into the value, 0-based."""
    is_note: bool = False
    """Whether it may well be meant, although the rule is a warning."""

    @property
    def severity(self) -> Severity:
        """A `note` is worth to be known and may well be meant."""
        return "note" if self.is_note else RULES[self.rule]


def have(types: Sequence[str]) -> str:
    """Write `user.created has`, or of several that they have."""
    return f"{names(types)} {'has' if len(types) == 1 else 'have'}"


def names(types: Sequence[str], most: int = _MAX_NAMED) -> str:
    """Name the first of some things, and count the others."""
    more = len(types) - most
    if more > 0:
        return f"{', '.join(types[:most])} and {more} more"
    return " and ".join(filter(None, (", ".join(types[:-1]), *types[-1:])))
