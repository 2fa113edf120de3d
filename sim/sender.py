"""Senders that behave as Svix does: they try again after a 503 or no answer, for some 28 hours."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Protocol

import msgspec

from gateway.brokers.base import Message
from gateway.delivery.plan import Assignment, Plan, Refusal
from gateway.metadata import Metadata
from sim.clock import Outside
from sim.world import Event, World

__all__ = ["Answer", "Desk", "Request", "Sender", "plan_of"]

_RETRIES = (0.0, 5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 36_000.0)
"""Seconds between attempts: https://docs.svix.com/retries."""
_PATIENCE = 15.0
"""Seconds after which Svix gives up an attempt."""


class Request(msgspec.Struct, eq=False):
    """One attempt, from its first byte to its answer."""

    number: int
    event: Event
    plan: Plan
    life: int
    at: float
    answered_at: float | None = None
    status: str = ""


Answer = Callable[[bool], None]
"""Called with whether it is a 2xx."""


class Desk(Protocol):
    """Where requests go: the gateway, when there is one."""

    def post(self, event: Event, plan: Plan, answer: Answer) -> bool:
        """Take a request; False where nobody listens."""
        ...


class Sender:
    """One endpoint's attempts at one event."""

    def __init__(
        self, event: Event, world: World, outside: Outside, chance: Random, desk: Desk
    ) -> None:
        self.event = event
        self._world = world
        self._outside = outside
        self._chance = chance
        self._desk = desk
        self._attempt = 0
        self._retries = 0
        self._resends = event.resend_after
        self.confirmed = False
        """Whether it has had a 2xx."""

    def begin(self) -> None:
        """Send the event at its time."""
        self._outside.at(self.event.at, self._post)

    def _post(self) -> None:
        self._attempt += 1
        attempt = self._attempt
        plan = plan_of(self._world, self.event, self._outside.now)
        if not self._desk.post(self.event, plan, partial(self._answer, attempt)):
            self._receive(attempt, is_2xx=False)
            return
        self._outside.at(
            self._outside.now + _PATIENCE, partial(self._receive, attempt, is_2xx=False)
        )

    def _answer(self, attempt: int, is_2xx: bool) -> None:
        """Let the answer travel; it may be lost, and then the sender's patience decides."""
        now = self._outside.now
        is_lost = now < self._world.faults_end and self._chance.random() < self._world.answers_lost
        if not is_lost:
            after = self._chance.choice((0.0, 0.001, 0.05))
            self._outside.at(now + after, partial(self._receive, attempt, is_2xx=is_2xx))

    def _receive(self, attempt: int, *, is_2xx: bool) -> None:
        if attempt != self._attempt:
            return  # it has been answered, or given up
        self._attempt += 1
        if is_2xx:
            self.confirmed = True
            self._resend()
        elif self._retries < len(_RETRIES):
            wait = _RETRIES[self._retries] * self._chance.uniform(1, 1.2)
            self._retries += 1
            self._outside.at(self._outside.now + wait, self._post)

    def _resend(self) -> None:
        """Let somebody press `resend` in Clerk's dashboard, once."""
        if self._resends is not None:
            self._outside.at(self._outside.now + self._resends, self._post)
            self._resends = None


def plan_of(world: World, event: Event, now: float) -> Plan:
    """Route an event, by the config that serves then."""
    places = event.targets if now < world.reload_at else event.later_targets
    body = b'{"id":"%s"}' % event.id.encode()
    return Plan(
        event.key,
        body,
        _metadata(event),
        tuple(_assignment(world, event, at, body) for at in places if at not in event.unrendered),
        tuple(_refusal(world, event, at) for at in places if at in event.unrendered),
    )


def _assignment(world: World, event: Event, at: int, body: bytes) -> Assignment:
    target, name = world.targets[at], f"{event.id}.{at}"
    message = Message(target.destination, body, (("svix-id", event.id),), name, event.key)
    # A route is named after its target and event, so that all that is told can be told apart.
    return Assignment((name,), target.broker, message)


def _refusal(world: World, event: Event, at: int) -> Refusal:
    target = world.targets[at]
    name = f"{event.id}.{at}"
    return Refusal((name,), target.broker, f"{target.destination}.{{x}}", "expression", "x")


def _metadata(event: Event) -> Metadata:
    return Metadata(
        id=event.id,
        type="user.created",
        source="clerk/clerk",
        time=None,
        subject=None,
        timestamp="1800000000",
        signature=None,
        gateway_source="clerk",
        received_at="2027-01-15T08:00:00.000Z",
    )
