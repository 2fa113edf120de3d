"""What the gateway would answer, when every broker takes what it is given. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from gateway.ingress import ABORT, RETRY_AFTER
from gateway.serving import Unmatched

__all__ = ["Answer", "Then", "answer_of", "refused_answer", "what_then"]

Then = Literal["dead_letter", "parked", "failed"]
"""What follows a refusal for good. `parked`: kept in the inbox. `failed`: the event is answered
503."""

_REPEAT, _ABORT = (
    tuple((name.decode(), value.decode()) for name, value in headers)
    for headers in (RETRY_AFTER, ABORT)
)


class Answer(msgspec.Struct, frozen=True):
    """An answer's status line, the `status` and reason of its body, and the headers that matter."""

    http_status: int
    status: Literal["delivered", "stored", "dead_lettered", "unmatched", "rejected", "failed"]
    reason: str = ""
    headers: tuple[tuple[str, str], ...] = ()


def refused_answer(http_status: int, reason: str, *, aborts: bool = False) -> Answer:
    """Give the answer to a body that is no event; `aborts`: the sender is told not to repeat it."""
    return Answer(http_status, "rejected", reason, _ABORT if aborts else ())


def answer_of(
    unmatched: Unmatched | None, mode: str, refusals: Sequence[tuple[str, Then]], *, aborts: bool
) -> Answer:
    """Give the answer to an event.

    `unmatched` is the policy, for an event that no route takes. `refusals` are reasons, in the
    order of the answer's targets, with what follows each.
    """
    if unmatched == "accept":
        return Answer(200, "unmatched")
    if unmatched == "reject":
        return Answer(422, "unmatched", headers=_ABORT if aborts else ())
    if mode == "inbox":
        return Answer(200, "stored")
    for reason, then in refusals:
        if then == "failed":
            return Answer(503, "failed", reason, _REPEAT)
    if refusals:
        return Answer(200, "dead_lettered", refusals[0][0])
    return Answer(200, "delivered")


def what_then(mode: str, *, has_dead_letter: bool) -> Then:
    """Say what happens to a target that refuses for good."""
    if has_dead_letter:
        return "dead_letter"
    return "parked" if mode == "inbox" else "failed"
