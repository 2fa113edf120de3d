"""What a table makes of one event, record by record and refusal by refusal."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import msgspec

from gateway.brokers.base import Headers, Message
from gateway.delivery.plan import Assignment, Refusal
from gateway.routing.explain import Explanation
from gateway.routing.table import Kind, Target

__all__ = ["Outcome", "Sent", "outcomes_of"]

Sent = Callable[[Kind, Message], Headers | None]
"""Gives a record's headers as its broker gets them; None for a destination it can never have."""


class Outcome(msgspec.Struct, frozen=True, dict=True):
    """One record to publish, or one refusal, with all targets that it is for."""

    result: Assignment | Refusal
    kind: Kind
    targets: tuple[tuple[str, int], ...]
    """Each as its route's name, and its number in the route from 0."""
    ends: tuple[Target, ...]
    """The same targets, compiled."""
    headers: Headers
    """As the broker gets them; none of a refusal."""

    @property
    def destination(self) -> str:
        """The topic or subject; of a refusal as far as it is known."""
        if isinstance(self.result, Refusal):
            return self.result.destination
        return self.result.message.destination

    @property
    def place(self) -> str:
        """What a destination of this kind is called: `topic` or `subject`."""
        return "topic" if self.kind == "kafka" else "subject"

    def is_at(self, destination: str) -> bool:
        """Tell whether this is the topic or subject; a refusal may be called by its template."""
        if destination == self.destination:
            return True
        refused = isinstance(self.result, Refusal)
        return refused and any(destination == end.destination.source for end in self.ends)

    @cached_property
    def value(self) -> Any:
        """The record's value as JSON; None of a refusal."""
        if isinstance(self.result, Refusal):
            return None
        return msgspec.json.decode(self.result.message.value)


def outcomes_of(explanation: Explanation, sent: Sent) -> tuple[Outcome, ...]:
    """Give the outcomes in file order; targets that resolve to one record have one."""
    found: dict[int, Outcome] = {}
    for told in explanation.routes:
        for end in told.ends:
            # Equal refusals of two targets are two; what is shared is one object.
            known = found.get(id(end.result)) or _outcome(end.result, end.target.kind, sent)
            found[id(end.result)] = msgspec.structs.replace(
                known,
                targets=(*known.targets, (told.route.name, end.at)),
                ends=(*known.ends, end.target),
            )
    return tuple(found.values())


def _outcome(result: Assignment | Refusal, kind: Kind, sent: Sent) -> Outcome:
    """Make what has no targets yet."""
    if isinstance(result, Refusal):
        return Outcome(result, kind, (), (), ())
    message = result.message
    headers = sent(kind, message)
    if headers is None:
        why = f"no {'topic' if kind == 'kafka' else 'subject'} can have this name"
        place = (result.routes, result.broker, message.destination)
        return Outcome(Refusal(*place, "invalid_destination", why), kind, (), (), ())
    return Outcome(result, kind, (), (), headers)
