"""The simulation finds what it is there to find: each fault that is planted, in a few seeds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest

from gateway.brokers.base import Message, Receipt, Refused, Unknown
from gateway.delivery import fanout
from gateway.delivery.dead_letter import DeadLetter
from gateway.delivery.fanout import FanOut, _Attempt
from gateway.delivery.inbox import inbox, lanes, settling, windows
from gateway.delivery.inbox.dispatcher import Dispatcher
from gateway.delivery.inbox.fake import FakeStore
from gateway.delivery.inbox.inbox import Inbox
from gateway.delivery.inbox.lanes import Lanes, Task
from gateway.delivery.inbox.outcomes import delivered, refusal_of, settlement
from gateway.delivery.inbox.record import Record
from gateway.delivery.inbox.settling import Settling
from gateway.delivery.inbox.store import Entry as StoreEntry
from gateway.delivery.inbox.store import InboxUnavailableError, Parked, Placed
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

    def mutant(self: DeadLetter, plan: Plan, refusal: Refusal, target_id: str) -> Message:
        genuine = letter(self, plan, refusal, target_id)
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
        letter = dead_letter.letter(self._plan, refusal, self._targets[at])
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


def settle_before_it_is_durable(patch: pytest.MonkeyPatch) -> None:
    """A settlement is told and its lane goes on while the store still writes."""
    settle = Settling.settle

    def mutant(self: Any, task: Task, settlement: Settlement) -> None:
        settle(self, task, settlement)
        self._keeper.kept(task, settlement)

    patch.setattr(Settling, "settle", mutant)


def let_the_lane_go_on(patch: pytest.MonkeyPatch) -> None:
    """A lane goes on with the ack, before its settlement is durable."""

    def mutant(self: Lanes, task: Task) -> None:
        task.lane.failures = 0
        task.place.worked()
        if task.lane.state == "busy":
            self._go_on(task.lane)

    patch.setattr(Lanes, "acked", mutant)


def believe_in_a_failed_settlement(patch: pytest.MonkeyPatch) -> None:
    """A settlement that could not be written counts as written."""
    patch.setattr(settling, "_error", lambda written: written.exception() and None)


def answer_before_it_is_stored(patch: pytest.MonkeyPatch) -> None:
    """The sender is answered once the store was asked."""

    async def mutant(self: Any, plan: Plan, outlets: Any, deadline: float) -> Delivery:
        self._store.put(Record(plan, self._clock()))
        return Delivery("stored", inbox._settlements(plan, "stored", ""))

    patch.setattr(Inbox, "deliver", mutant)


def answer_a_full_store_with_2xx(patch: pytest.MonkeyPatch) -> None:
    """What could not be stored is answered as stored."""

    def mutant(wait: Any, placing: Any) -> None:
        placing.exception()
        if not wait.done():
            wait.set_result("stored")

    patch.setattr(inbox, "_placed", mutant)


def resolve_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    """The store says that a record is durable when it has only taken it."""
    put = FakeStore.put

    def mutant(self: FakeStore, record: Record) -> asyncio.Future[Placed]:
        self.asked = put(self, record)  # type: ignore[attr-defined]  # kept from the collector
        future: asyncio.Future[Placed] = asyncio.get_running_loop().create_future()
        future.set_result(Placed("stored"))
        return future

    patch.setattr(FakeStore, "put", mutant)


def skip_targets_after_a_restart(patch: pytest.MonkeyPatch) -> None:
    """Of what waits at the start only the first target is taken up."""
    add = Lanes.add

    def mutant(self: Lanes, entry: StoreEntry) -> None:
        first = entry.owed & -entry.owed
        is_partly_done = entry.owed != (1 << len(entry.targets)) - 1
        add(self, msgspec.structs.replace(entry, owed=first) if is_partly_done else entry)

    patch.setattr(Lanes, "add", mutant)


def serve_all_after_a_restart(patch: pytest.MonkeyPatch) -> None:
    """Of what waits at the start every target is taken up, settled or not."""
    add = Lanes.add

    def mutant(self: Lanes, entry: StoreEntry) -> None:
        add(self, msgspec.structs.replace(entry, owed=(1 << len(entry.targets)) - 1))

    patch.setattr(Lanes, "add", mutant)


def lose_what_rests(patch: pytest.MonkeyPatch) -> None:
    """A lane that failed is not woken."""
    patch.setattr(Lanes, "_rest", lambda *_: None)


def lose_what_cannot_be_loaded(patch: pytest.MonkeyPatch) -> None:
    """A record that could not be read is not tried again."""

    async def mutant(self: Any, ref: int) -> None:
        try:
            record = await self._store.load(ref)
        except InboxUnavailableError:
            del self._loading[ref]
            return
        for task in self._loading.pop(ref):
            self._serve(task, record)

    patch.setattr(Dispatcher, "_load", mutant)


def take_a_lost_letter_for_a_letter(patch: pytest.MonkeyPatch) -> None:
    """A dead letter that failed settles its target."""
    failed = Dispatcher._failed

    def mutant(self: Any, flight: Any, error: BaseException) -> None:
        if flight.refusal is None:
            failed(self, flight, error)
        else:
            letter = settlement(flight.refusal, "dead_lettered")
            self._settling.settle(flight.task, letter)

    patch.setattr(Dispatcher, "_failed", mutant)


def take_silence_for_delivery(patch: pytest.MonkeyPatch) -> None:
    """What got no answer is settled."""
    failed = Dispatcher._failed

    def mutant(self: Any, flight: Any, error: BaseException) -> None:
        if isinstance(error, Unknown) and flight.refusal is None:
            at = flight.task.at
            done = delivered(flight.record.plan.assignments[at], Receipt("x"))
            self._settling.settle(flight.task, done)
        else:
            failed(self, flight, error)

    patch.setattr(Dispatcher, "_failed", mutant)


def tell_what_is_parked_as_settled(patch: pytest.MonkeyPatch) -> None:
    """What is only set aside is told as dead-lettered."""
    parked = Dispatcher.parked

    def mutant(self: Any, task: Task, held: Parked) -> None:
        refusal = refusal_of(held.record, held.target, held.reason)
        self._listener.settled(settlement(refusal, "dead_lettered"))
        parked(self, task, held)

    patch.setattr(Dispatcher, "parked", mutant)


def settle_instead_of_parking(patch: pytest.MonkeyPatch) -> None:
    """What is refused without a dead letter is dropped."""

    def mutant(self: Any, task: Task, record: Record, refusal: Refusal) -> None:
        self._settling.settle(task, settlement(refusal, "dead_lettered"))

    patch.setattr(Dispatcher, "_park", mutant)


def take_the_newest_first(patch: pytest.MonkeyPatch) -> None:
    """A lane serves what came last."""
    patch.setattr(lanes, "heappush", lambda heap, item: heap.insert(0, item))


def share_one_lane_state(patch: pytest.MonkeyPatch) -> None:
    """A lane gives its next record while one is on its way."""
    take = Lanes.take

    def mutant(self: Lanes, now: float) -> Task | None:
        task = take(self, now)
        if task is not None and task.lane.waiting:
            self._ready(task.lane)
        return task

    patch.setattr(Lanes, "take", mutant)


def give_up_too_soon(patch: pytest.MonkeyPatch) -> None:
    """The age is counted from another time."""
    expire = Lanes.expire

    def mutant(self: Lanes, stored_before: float, at_most: int) -> int:
        return expire(self, stored_before + 29, at_most)

    patch.setattr(Lanes, "expire", mutant)


def ask_more_than_a_broker_takes(patch: pytest.MonkeyPatch) -> None:
    """The windows are not looked at."""
    patch.setattr(windows.Gate, "has_room", lambda *_: True)
    patch.setattr(windows.Place, "has_room", lambda self, _: self.rests_until is None)


def keep_what_is_done(patch: pytest.MonkeyPatch) -> None:
    """Lanes that have nothing to do stay."""
    patch.setattr(Lanes, "_drop", lambda _, lane: setattr(lane, "state", "new"))


INBOX: list[Plant] = [
    answer_a_full_store_with_2xx,
    answer_before_it_is_stored,
    ask_more_than_a_broker_takes,
    believe_in_a_failed_settlement,
    give_up_too_soon,
    keep_what_is_done,
    let_the_lane_go_on,
    lose_what_cannot_be_loaded,
    lose_what_rests,
    resolve_before_the_commit,
    serve_all_after_a_restart,
    settle_before_it_is_durable,
    settle_instead_of_parking,
    share_one_lane_state,
    skip_targets_after_a_restart,
    take_a_lost_letter_for_a_letter,
    take_silence_for_delivery,
    take_the_newest_first,
    tell_what_is_parked_as_settled,
]


@pytest.mark.parametrize("plant", DIRECT, ids=lambda plant: plant.__name__)
def test_a_fault_in_direct_mode_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    wrong = found("direct")
    assert wrong
    print(f"{plant.__name__}: {wrong[0]}")


@pytest.mark.parametrize("plant", INBOX, ids=lambda plant: plant.__name__)
def test_a_fault_in_inbox_mode_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    wrong = found("inbox")
    assert wrong
    print(f"{plant.__name__}: {wrong[0]}")
