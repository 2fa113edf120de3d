"""What is to happen to one event: values that routing makes and delivery carries out."""

from __future__ import annotations

import msgspec

from gateway.brokers.base import Message
from gateway.metadata import Metadata

__all__ = ["Assignment", "Plan", "Refusal"]


class Assignment(msgspec.Struct, frozen=True, gc=False):
    """One record to publish, for one or several routes that resolve to the same."""

    routes: tuple[str, ...]
    """Names in file order."""
    broker: str
    message: Message


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """A target that can never be served for this event; it goes to the dead letter.

    Reasons: `expression`, `destination`, `too_large`, and `unmatched` for an event that no
    route takes under the policy `dead_letter`.
    """

    routes: tuple[str, ...]
    broker: str
    destination: str
    """As far as it is known: the template's text where it could not be rendered."""
    reason: str
    detail: str
    """Names the expression or the rule, never a value of the event."""


class Plan(msgspec.Struct, frozen=True):
    """An event's resolved targets, with what a dead letter of it needs."""

    key: str
    """The event's default key."""
    body: bytes
    metadata: Metadata
    assignments: tuple[Assignment, ...]
    refusals: tuple[Refusal, ...]

    @property
    def is_unmatched(self) -> bool:
        """Whether no route took the event."""
        return not self.assignments and not self.refusals
