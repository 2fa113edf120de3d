"""The simulation finds what it is there to find: each fault that is planted, in a few seeds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from gateway.brokers.base import Message, Receipt, Refused, Unknown
from gateway.delivery import fanout
from gateway.delivery.dead_letter import DeadLetter
from gateway.delivery.fanout import FanOut, _Attempt
from gateway.delivery.ledger import Entry, Ledger
from gateway.delivery.plan import Plan, Refusal
from gateway.delivery.settlement import Delivery, Settlement
from sim.stage import simulate
from sim.world import Mode

Plant = Callable[[pytest.MonkeyPatch], None]

SEEDS = 400
"""Within so many seeds each fault is found; the rarest needs the ledger to be full."""


def found(mode: Mode, seeds: int = SEEDS) -> list[str]:
    """Give what is wrong in the first seed in which something is."""
    for seed in range(seeds):
        report = simulate(seed, mode)
        if report.violations:
            return list(report.violations)
    return []


def answer_before_the_ack(patch: pytest.MonkeyPatch) -> None:
    """A target is settled as soon as it is published."""
    publish = _Attempt._publish

    def mutant(self: Any, at: int, broker: str, message: Message, done: Any) -> None:
        publish(self, at, broker, message, done)
        if self._settlements[at] is None:
            self._put(at, fanout._delivered(self._plan.assignments[at], Receipt("x")))

    patch.setattr(_Attempt, "_publish", mutant)


def forget_what_is_on_its_way(patch: pytest.MonkeyPatch) -> None:
    """A copy does not wait for the publish that is on its way."""
    patch.setattr(Ledger, "embark", lambda *_: None)


def forget_late_acks(patch: pytest.MonkeyPatch) -> None:
    """An ack that comes after the answer is not remembered."""
    land = _Attempt._land

    def mutant(self: Any, at: int, settlement: Settlement) -> None:
        if self.answered and self._settlements[at] is not None:
            self._listener.acked_late(settlement)
            self._ledger.land(self._entry, self._targets[at], None)
        else:
            land(self, at, settlement)

    patch.setattr(_Attempt, "_land", mutant)


def tell_nobody_of_late_acks(patch: pytest.MonkeyPatch) -> None:
    """An ack that comes after the answer is remembered, and counted nowhere."""

    def mutant(self: Any, at: int, settlement: Settlement) -> None:
        is_settled = settlement.status != "failed"
        if self._settlements[at] is None:
            self._listener.settled(settlement)
            self._put(at, settlement)
        self._ledger.land(self._entry, self._targets[at], settlement if is_settled else None)

    patch.setattr(_Attempt, "_land", mutant)


def publish_every_target_again(patch: pytest.MonkeyPatch) -> None:
    """A retry publishes what is settled, too."""

    def mutant(self: Any) -> None:
        for at, assignment in enumerate(self._plan.assignments):
            done = partial(self._acked, at)
            self._publish(at, assignment.broker, assignment.message, done)
        for at in range(len(self._plan.assignments), len(self._targets)):
            self._pursue(at)

    patch.setattr(_Attempt, "start", mutant)


def count_a_lost_letter_as_settled(patch: pytest.MonkeyPatch) -> None:
    """A dead letter that failed counts as written."""

    def mutant(self: Any, at: int, refusal: Refusal, ack: asyncio.Future[Receipt]) -> None:
        ack.exception()
        self._land(at, fanout._settlement(refusal, "dead_lettered"))

    patch.setattr(_Attempt, "_lettered", mutant)


def take_silence_for_an_ack(patch: pytest.MonkeyPatch) -> None:
    """What got no answer counts as delivered."""
    acked = _Attempt._acked

    def mutant(self: Any, at: int, ack: asyncio.Future[Receipt]) -> None:
        if isinstance(ack.exception(), Unknown):
            assignment = self._plan.assignments[at]
            self._land(at, fanout._delivered(assignment, Receipt("x")))
        else:
            acked(self, at, ack)

    patch.setattr(_Attempt, "_acked", mutant)


def drop_what_is_refused(patch: pytest.MonkeyPatch) -> None:
    """A refused target without a dead letter counts as settled."""
    refuse = _Attempt._refuse

    def mutant(self: Any, at: int, refusal: Refusal) -> None:
        if self._outlets.dead_letter is None:
            self._land(at, fanout._settlement(refusal, "dead_lettered"))
        else:
            refuse(self, at, refusal)

    patch.setattr(_Attempt, "_refuse", mutant)


def forget_the_window(patch: pytest.MonkeyPatch) -> None:
    """A complete event is forgotten at once."""

    def mutant(self: Ledger, entry: Entry, now: float, *, answered: bool) -> None:
        if entry.state != "forgotten" and (answered or not entry.targets):
            self._forget(entry)

    patch.setattr(Ledger, "close", mutant)


def remember_for_ever(patch: pytest.MonkeyPatch) -> None:
    """A resend after the window is taken for a copy."""
    patch.setattr(Ledger, "_is_expired", lambda *_: False)


def keep_empty_entries(patch: pytest.MonkeyPatch) -> None:
    """An event of which nothing is known keeps its place, whose bytes are never given back."""

    def mutant(self: Ledger, entry: Entry) -> None:
        if entry.state != "forgotten":
            del (self._complete if entry.state == "complete" else self._incomplete)[entry.key]
            entry.state = "forgotten"

    patch.setattr(Ledger, "_forget", mutant)


def never_make_room(patch: pytest.MonkeyPatch) -> None:
    """The ledger grows beyond its bound."""
    patch.setattr(Ledger, "_make_room", lambda _: None)


def wake_nobody(patch: pytest.MonkeyPatch) -> None:
    """Who waits for another's publish is not told that it has landed."""
    patch.setattr(Ledger, "join", lambda *_: None)


def never_look_at_the_clock(patch: pytest.MonkeyPatch) -> None:
    """The deadline passes unseen."""
    patch.setattr(FanOut, "_sweep", lambda *_: None)


def look_at_the_clock_once(patch: pytest.MonkeyPatch) -> None:
    """The sweeper does not go on when what it looked at is in time."""
    sweep = FanOut._sweep

    def mutant(self: Any, loop: asyncio.AbstractEventLoop) -> None:
        sweep(self, loop)
        if self._sweeper is not None:
            self._sweeper.cancel()

    patch.setattr(FanOut, "_sweep", mutant)


def answer_the_first_target(patch: pytest.MonkeyPatch) -> None:
    """The answer does not wait for the other targets."""
    put = _Attempt._put

    def mutant(self: Any, at: int, settlement: Settlement) -> None:
        put(self, at, settlement)
        if not self.settled.done():
            self.settled.set_result(None)

    patch.setattr(_Attempt, "_put", mutant)


def overlook_a_failed_target(patch: pytest.MonkeyPatch) -> None:
    """One good target makes the event good."""
    report = _Attempt.report

    def mutant(self: Any) -> Delivery:
        delivery = report(self)
        if any(one.status == "delivered" for one in delivery.settlements):
            return Delivery("delivered", delivery.settlements)
        return delivery

    patch.setattr(_Attempt, "report", mutant)


def write_another_letter(patch: pytest.MonkeyPatch) -> None:
    """A dead letter without the event's bytes."""
    letter = DeadLetter.letter

    def mutant(self: DeadLetter, plan: Plan, refusal: Refusal) -> Message:
        genuine = letter(self, plan, refusal)
        return Message(genuine.destination, b"", genuine.headers, genuine.dedupe_id, genuine.key)

    patch.setattr(DeadLetter, "letter", mutant)


def tell_each_settlement_twice(patch: pytest.MonkeyPatch) -> None:
    """A copy tells again what another has settled."""
    pursue = _Attempt._pursue

    def mutant(self: Any, at: int) -> None:
        known = self._entry.targets.get(self._targets[at])
        if isinstance(known, Settlement):
            self._listener.settled(known)
        pursue(self, at)

    patch.setattr(_Attempt, "_pursue", mutant)


def send_the_letter_too_late(patch: pytest.MonkeyPatch) -> None:
    """A letter is sent after the 503, when the retry may be at it."""

    def mutant(self: Any, at: int, refusal: Refusal) -> None:
        dead_letter = self._outlets.dead_letter
        if dead_letter is None:
            self._land(at, fanout._settlement(refusal, "failed"))
            return
        self._ledger.land(self._entry, self._targets[at], None)
        letter = dead_letter.letter(self._plan, refusal)
        self._publish(at, dead_letter.broker, letter, partial(self._lettered, at, refusal))

    patch.setattr(_Attempt, "_refuse", mutant)


def lose_a_settled_future(patch: pytest.MonkeyPatch) -> None:
    """A failed publish is never looked at, and its attempt not told."""
    acked = _Attempt._acked

    def mutant(self: Any, at: int, ack: asyncio.Future[Receipt]) -> None:
        if self.answered or isinstance(ack.exception(), Refused) is False:
            acked(self, at, ack)

    patch.setattr(_Attempt, "_acked", mutant)


DIRECT: list[Plant] = [
    answer_before_the_ack,
    answer_the_first_target,
    count_a_lost_letter_as_settled,
    drop_what_is_refused,
    forget_late_acks,
    forget_the_window,
    forget_what_is_on_its_way,
    keep_empty_entries,
    look_at_the_clock_once,
    lose_a_settled_future,
    never_look_at_the_clock,
    never_make_room,
    overlook_a_failed_target,
    publish_every_target_again,
    remember_for_ever,
    send_the_letter_too_late,
    take_silence_for_an_ack,
    tell_each_settlement_twice,
    tell_nobody_of_late_acks,
    wake_nobody,
    write_another_letter,
]


@pytest.mark.parametrize("plant", DIRECT, ids=lambda plant: plant.__name__)
def test_a_fault_in_direct_mode_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    wrong = found("direct")
    assert wrong
    print(f"{plant.__name__}: {wrong[0]}")
