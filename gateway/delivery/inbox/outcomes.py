"""What becomes of a target that is dispatched, and who is told of it."""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from gateway.brokers.base import BrokerError, Receipt, Refused, Unknown
from gateway.delivery.inbox.record import Record
from gateway.delivery.inbox.store import InboxUnavailableError
from gateway.delivery.plan import Assignment, Refusal
from gateway.delivery.settlement import Settlement, Status
from gateway.metadata import Metadata

__all__ = [
    "Attempt",
    "DispatchListener",
    "Setback",
    "attempt",
    "because",
    "delivered",
    "given_up",
    "refusal_of",
    "settlement",
    "why",
]

Attempt = Literal["acked", "refused", "unavailable", "unknown"]
Setback = Literal["failed", "dead_lettered", "parked", "parked_full"]


class DispatchListener(Protocol):
    """Told of every target once it is settled, and of every attempt."""

    def settled(self, settlement: Settlement) -> None:
        """Take the settlement of one target; it is durable."""
        ...

    def attempted(self, broker: str, attempt: Attempt) -> None:
        """Take the outcome of one publish, of a record or a dead letter."""
        ...

    def set_back(self, setback: Setback, metadata: Metadata, settlement: Settlement) -> None:
        """Take note of what did not go well with a target, and why. It is settled, or tried again.

        `parked_full`: there is no room to park it.
        """
        ...

    def inbox_failed(self, error: InboxUnavailableError) -> None:
        """Take note that the store could not be read or written; it is tried again."""
        ...


def attempt(outcome: Receipt | BaseException) -> Attempt:
    """Name how a publish ended."""
    if isinstance(outcome, Receipt):
        return "acked"
    if isinstance(outcome, Refused):
        return "refused"
    return "unknown" if isinstance(outcome, Unknown) else "unavailable"


def why(error: BaseException) -> tuple[str, str]:
    """Give the reason, a bounded word, and the detail of a publish that failed."""
    return (error.reason if isinstance(error, BrokerError) else "broker_error"), str(error)


def refusal_of(record: Record, at: int, reason: str) -> Refusal:
    """Give a target of a record as one that is refused for a reason, or already is for its own."""
    assignments = record.plan.assignments
    if at >= len(assignments):
        return record.plan.refusals[at - len(assignments)]
    return given_up(assignments[at], reason, "")


def given_up(assignment: Assignment, reason: str, detail: str) -> Refusal:
    """Give the refusal of a record that was to be published."""
    destination = assignment.message.destination
    return Refusal(assignment.routes, assignment.broker, destination, reason, detail)


def because(refusal: Refusal, reason: str, detail: str) -> Refusal:
    """Give the refusal of the same target for another reason."""
    return msgspec.structs.replace(refusal, reason=reason, detail=detail)


def delivered(assignment: Assignment, receipt: Receipt) -> Settlement:
    """Give the settlement of a record that its broker took."""
    status: Status = "duplicate" if receipt.duplicate else "delivered"
    return Settlement(
        assignment.routes, assignment.broker, receipt.destination, status, receipt=receipt
    )


def settlement(target: Refusal, status: Status) -> Settlement:
    """Give the settlement of a refused target."""
    return Settlement(
        target.routes, target.broker, target.destination, status, target.reason, target.detail
    )
