"""What is to happen to one event: values that routing makes and delivery carries out."""

from __future__ import annotations

from typing import Literal

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
    order: str = ""
    """Within which the inbox keeps records of one key in order; empty for the destination alone.

    A stream of NATS takes many subjects and keeps their order, so there it is the subject as the
    config has it (`clerk.{type}`): a user's `user.deleted` is not to overtake `user.updated`.
    Between topics Kafka has no order.
    """
    kind: Literal["kafka", "nats"] | None = None
    """Of the broker that the record was made for; its headers and its destination are of that kind.

    None where nobody knows: the inbox has it from an earlier version.
    """


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

    def target_ids(self) -> list[str]:
        """Name every target, the assignments' first: the same for every attempt, for the ledger.

        A refused target has no record: it is known by where it leads and by its routes.
        """
        ids = [assignment.message.dedupe_id for assignment in self.assignments]
        if not self.refusals:
            return ids
        for at, refusal in enumerate(self.refusals):
            place = (refusal.routes, refusal.broker, refusal.destination)
            # Two of one place are two targets, and the file's order tells them apart.
            before = [(one.routes, one.broker, one.destination) for one in self.refusals[:at]]
            ids.append(f"refused {before.count(place)} {place}")
        return ids

    def to_dead_letter(self) -> Plan:
        """Give the plan of an event that no route takes, under the policy `dead_letter`."""
        refusal = Refusal((), "", "", "unmatched", "no route takes this event")
        return msgspec.structs.replace(self, refusals=(refusal,))

    @property
    def is_unmatched(self) -> bool:
        """Whether no route took the event."""
        return not self.assignments and not self.refusals
