"""Inbox mode in a world: the real inbox and dispatcher, and what must hold of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from random import Random

import msgspec

from gateway.brokers.base import Message
from gateway.delivery.dead_letter import DeadLetter
from gateway.delivery.fanout import Outlets
from gateway.delivery.inbox.dispatcher import Dispatcher
from gateway.delivery.inbox.inbox import Inbox
from gateway.delivery.inbox.record import Record
from gateway.delivery.inbox.store import InboxUnavailableError
from gateway.delivery.inbox.terms import Reach, Terms
from gateway.delivery.inbox.windows import Window
from gateway.delivery.settlement import Delivery, Settlement
from gateway.metadata import Metadata
from sim.broker import Client, Copy, Publish
from sim.clock import Outside
from sim.gateway import Gateway
from sim.judge import LETTERS, History, Judge
from sim.sender import Answer, Request
from sim.store import Disk, SimStore
from sim.world import World
from virtual.loop import EPOCH

__all__ = ["InboxGateway", "InboxJudge"]


class Stay(msgspec.Struct):
    """One stay of an event in the store, from when it was durable until all was settled."""

    number: int
    at: float
    record: Record
    targets: tuple[str, ...]
    """By the places that bitmasks number."""


class InboxJudge(Judge):
    """What inbox mode promises."""

    def __init__(self, world: World, disk: Disk) -> None:
        super().__init__(world)
        self.disk = disk
        self.stays: dict[str, list[Stay]] = {}
        self.attempts = 0
        """In this life."""
        self._stay_of: dict[int, int] = {}
        """The number of the stay by that of a publish."""
        self._parked: set[str] = set()
        """Targets that were given up, or could not be for want of room."""
        self._told_in: dict[tuple[str, int], int] = {}

    def may_tell_nothing(self, request: Request, told: list[str]) -> bool:
        """A copy of a stored event names no targets: a reload may have given it others since."""
        copies = [one for one in self.requests if one.event is request.event]
        return not told and request.status in {"stored", "duplicate"} and len(copies) > 1

    # What is durable.

    def inserted(self, record: Record) -> None:
        """Take a record that is durable: another stay of its event, once the window has passed."""
        name = record.plan.metadata.id
        stays = self.stays.setdefault(name, [])
        if self.disk.owed(record.name) is not None:
            self.blame(f"{name} is stored twice at once")
        plan = record.plan
        targets = [one.routes for one in plan.assignments] + [one.routes for one in plan.refusals]
        names = tuple(route for (route,) in targets)
        stays.append(Stay(len(stays), self.now(), record, names))
        self.note(f"{name} is stored, stay {len(stays) - 1}")

    def owes(self, target: str) -> bool:
        """Whether the disk has it that a target is owed."""
        stay = self._stay(target)
        owed = self.disk.owed(stay.record.name) if stay is not None else None
        return stay is not None and owed is not None and bool(owed >> _at(stay, target) & 1)

    def _stay(self, target: str) -> Stay | None:
        stays = self.stays.get(target.partition(".")[0])
        return stays[-1] if stays and target in stays[-1].targets else None

    # What the brokers see.

    def published(self, broker: str, message: Message, life: int) -> Publish:
        """Nothing is published before it is durable, nor after its settlement is, nor too early."""
        publish = super().published(broker, message, life)
        target = publish.target
        if not self.owes(target):
            self.blame(f"{target} is published, and the store does not owe it")
            return publish
        stay = self._stay(target)
        assert stay is not None
        self._stay_of[publish.number] = stay.number
        if not publish.is_letter:
            self._check_turn(stay, target)
        elif (
            "gateway-dead-letter-reason",
            "max_age",
        ) in message.headers and not self._is_overdue(stay):
            self.blame(f"{target} is given up before its time")
        return publish

    def _is_overdue(self, stay: Stay) -> bool:
        return EPOCH + self.now() >= stay.record.stored_at + self.world.max_age

    def _check_turn(self, stay: Stay, target: str) -> None:
        """All that came before in its lane is settled, durably, or has outlived its age."""
        lane = self._lane(stay, target)
        for name, owed in self.disk.lower(stay.record.name):
            before = self.stays[name.partition(" ")[2]][-1]
            for at, other in enumerate(before.targets):
                is_owed = owed >> at & 1 and other.partition(".")[0] != target.partition(".")[0]
                if is_owed and self._lane(before, other) == lane and not self._is_overdue(before):
                    self.blame(f"{target} is published before {other}, which came first")

    def _lane(self, stay: Stay, target: str) -> object:
        at = _at(stay, target)
        assignments = stay.record.plan.assignments
        if at >= len(assignments):
            return target  # a refusal has a lane of its own
        one = assignments[at]
        return one.broker, one.order or one.message.destination, one.message.key

    def why_again(self, history: History, publish: Publish) -> str:
        """A repeat only ever repeats what was in flight when the process ended, or got no ack."""
        why = "first"
        stay = self._stay(publish.target)
        number = stay.number if stay is not None else 0
        for one in history.publishes:
            if one.state in {"refused", "unavailable"}:
                continue
            if self._stay_of.get(one.number, number) < number:
                why = "the window had passed"
            elif one.state == "unknown":
                why = "the ack was lost"
            elif one.life != publish.life:
                # That its settlement was not durable then, the disk shows: it is owed.
                why = "the process ended"
            else:
                return ""
        return why

    def ended(self, publish: Publish, state: str, reason: str = "") -> None:
        """Its windows keep the inbox below what a broker takes."""
        super().ended(publish, state, reason)
        if reason == "overloaded":
            self.blame(f"{publish.target}: the inbox asks more of a broker than it takes")

    # What the listener is told.

    def settled(self, settlement: Settlement) -> None:
        """A settlement is told once, when it is durable."""
        super().settled(settlement)
        (target,) = settlement.routes
        if settlement.status not in {"delivered", "duplicate", "dead_lettered"}:
            self.blame(f"{target} is told to be {settlement.status}: that settles nothing")
        stay = self._stay_told_of(target)
        if stay is None:
            self.blame(f"{target} is told to be {settlement.status}, and is owed still")
            return
        key = target, stay.number
        self._told_in[key] = self._told_in.get(key, 0) + 1
        if self._told_in[key] > 1:
            self.blame(f"{target} is told to be settled twice")

    def _stay_told_of(self, target: str) -> Stay | None:
        """Give the stay in which a target is settled now; the next may have begun already."""
        stays = [
            stay for stay in self.stays.get(target.partition(".")[0], ()) if target in stay.targets
        ]
        if not self.owes(target):
            return stays[-1] if stays else None
        return stays[-2] if len(stays) > 1 else None

    def attempted(self, broker: str, attempt: str) -> None:  # noqa: ARG002 - the listener's
        """Count an attempt."""
        self.attempts += 1

    def set_back(self, setback: str, metadata: Metadata, settlement: Settlement) -> None:  # noqa: ARG002 - as above
        """Take note of what did not go well."""
        (target,) = settlement.routes
        self.note(f"{target} is {setback}: {settlement.reason}")
        if setback in {"parked", "parked_full"}:
            self._parked.add(target)

    def inbox_failed(self, error: InboxUnavailableError) -> None:
        """Take note of the store's failure."""
        self.note(f"the inbox failed: {error.reason}")

    # What the senders are answered.

    def answered(self, request: Request, delivery: Delivery, deadline: float) -> None:
        """A 2xx is given when the record is durable, or was settled in the window."""
        super().answered(request, delivery, deadline)
        name = request.event.id
        if delivery.status == "failed":
            return
        if not self.stays.get(name):
            self.blame(f"{name} is answered {delivery.status} before it is stored")
        elif delivery.status == "duplicate" and not self.disk.is_finished(_name(name)):
            self.blame(f"{name} is called a duplicate, and is not finished")
        elif delivery.status not in {"stored", "duplicate"}:
            self.blame(f"{name} is {delivery.status}: inbox mode has no such answer")

    def check_life(self, life: int) -> None:
        """Every publish of a life in good order was told as one attempt."""
        publishes = sum(
            one.life == life for found in self.histories.values() for one in found.publishes
        )
        if publishes != self.attempts:
            self.blame(f"{publishes} publishes are told as {self.attempts} attempts")

    def check_all(self) -> None:
        """What was stored is there, or dead-lettered, or parked, or waits because it must."""
        parked = set(self.disk.parked())
        waiting = dict(self.disk.waiting())
        room = self.disk.store.usage.parked_bytes < self.world.store.parked_max_bytes / 2
        for name, stays in self.stays.items():
            stay = stays[-1]
            owed = waiting.get(stay.record.name, 0)
            for at, target in enumerate(stay.targets):
                is_waiting = bool(owed >> at & 1)
                self._check_end(stay, target, is_waiting, (_name(name), at) in parked)
                if is_waiting and room:
                    self.blame(f"{target} waits for ever")
        self._check_order()

    def _check_end(self, stay: Stay, target: str, is_waiting: bool, is_parked: bool) -> None:
        if is_waiting or is_parked:
            return
        copies = [c for c in self.history(target).copies if c.at >= stay.at]
        was_stored = self._stay_of_copies(copies, stay)
        if not was_stored:
            self.tally.lost += 1
            self.blame(f"{target} was stored, and is nowhere")
        # A process that ended may not have learned that its last settlement had become durable.
        is_certain = not self.tally.kills and (
            self.tally.shutdowns == 1 or not self.world.store.write_fails
        )
        if is_certain and not self._told_in.get((target, stay.number)):
            self.blame(f"{target} is settled, and nobody was told")

    def _stay_of_copies(self, copies: list[Copy], stay: Stay) -> bool:
        """Whether one of these was published for this stay; a stream may have had it before."""
        numbers = [self._stay_of.get(copy.publish.number) for copy in copies]
        return stay.number in numbers or (stay.number > 0 and not copies)

    def _check_order(self) -> None:
        """The first records of each lane stand in the order in which their events were stored."""
        seen: dict[object, float] = {}
        firsts = [
            (history.copies[0].at, history.copies[0].publish.number, target)
            for target, history in self.histories.items()
            # A record may have been given up while it was on its way, and arrive after all.
            if history.copies
            and target not in self._parked
            and not any(p.is_letter for p in history.publishes)
        ]
        for _, _, target in sorted(firsts):
            first = self.history(target).copies[0].publish
            stay = self.stays[target.partition(".")[0]][self._stay_of.get(first.number, 0)]
            lane = self._lane(stay, target)
            if seen.get(lane, 0.0) > stay.at:
                self.blame(f"{target} stands after what was stored later")
            seen[lane] = max(seen.get(lane, 0.0), stay.at)


def _at(stay: Stay, target: str) -> int:
    return stay.targets.index(target)


def _name(event: str) -> str:
    return f"clerk {event}"


class InboxGateway(Gateway[InboxJudge]):
    """One life of a gateway in inbox mode."""

    def __init__(
        self,
        world: World,
        life: int,
        clients: Mapping[str, Client],
        judge: InboxJudge,
        around: tuple[Outside, Random],
    ) -> None:
        super().__init__(world, life, clients, judge)
        judge.attempts = 0
        outside, chance = around
        self.store = SimStore(judge.disk, world, outside, chance, judge)
        self._outside = outside
        clock = partial(_unix, outside)
        self.dispatcher = Dispatcher(
            self.store, judge, self._terms(), clock=clock, chance=chance.random
        )
        self.inbox = Inbox(self.store, self.dispatcher, clock)
        self._draining = True

    def _terms(self) -> Terms:
        """Give the terms of the config that serves now."""
        world = self._world
        letters = world.letters_at(self._outside.now)
        dead_letter = DeadLetter(letters, "kafka", LETTERS) if letters is not None else None
        reaches = {
            spec.name: Reach(
                "kafka", Window(spec.max_in_flight - 1, 1 << 20), world.request_timeout
            )
            for spec in world.brokers
        }
        return Terms(Outlets(self._clients, dead_letter), reaches, world.max_age)

    def _reload(self) -> None:
        self._judge.note("the second config serves")
        self.inbox.apply(self._terms(), self._judge.disk.bounds)

    async def start(self) -> None:
        """Open the store, and connect."""
        if self._outside.now < self._world.reload_at < float("inf"):
            self._outside.tell(self._world.reload_at, self._reload)
        for client in self._clients.values():
            client.on_state = self.inbox.broker_state
            await client.start()
        await self.inbox.start()
        self._draining = False

    async def _deliver(self, request: Request, answer: Answer) -> None:
        self._judge.asked(request)
        deadline = request.at + self._world.deadline
        delivery = await self.inbox.deliver(request.plan, self._terms().outlets, deadline)
        self._judge.answered(request, delivery, deadline)
        answer(delivery.status != "failed")

    async def close(self, drain: float) -> None:
        """Stop as SIGTERM does: finish what is open, then give up, then disconnect."""
        await self._drain(drain, self.inbox.give_up)
        await self.inbox.close(drain)
        await self._disconnect(drain)

    def check_empty(self, *, at_rest: bool) -> None:
        """Look at what is left after `close`: no memory but of what waits on the disk."""
        blame, dispatcher = self._judge.blame, self.dispatcher
        self._check_clients()
        if not at_rest:
            return
        waiting = len(self._judge.disk.waiting())
        if len(dispatcher.lanes) != waiting:
            blame(f"{len(dispatcher.lanes)} records wait in memory, and {waiting} on the disk")
        for name in ("_flights", "_loading", "_loads"):
            if left := getattr(dispatcher, name):
                blame(f"the dispatcher keeps {len(left)} in {name}")
        if not waiting and (lanes := len(dispatcher.lanes._lanes)):  # noqa: SLF001 - memory is bounded
            blame(f"{lanes} empty lanes are left")


def _unix(outside: Outside) -> float:
    return EPOCH + outside.now
