"""Runs a world: one life of the process after the other, until all senders are done."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from random import Random
from typing import Protocol

import msgspec

from gateway.delivery.plan import Plan
from sim.broker import Client, Cluster
from sim.clock import DiedError, Outside, ProcessLoop, RunawayError
from sim.direct import DirectGateway, DirectJudge
from sim.inbox import InboxGateway, InboxJudge
from sim.judge import Tally
from sim.sender import Answer, Sender
from sim.store import Disk
from sim.world import START, End, Event, Mode, World, draw

__all__ = ["Report", "Stage", "simulate"]

_DRAIN = 20.0
_HORIZON = 30 * 86_400.0
_STEP = 3600.0
_REST = 1800.0
"""Seconds in which all that waits is delivered, once nothing goes wrong any more."""


class Report(msgspec.Struct, frozen=True):
    """What one seed came to."""

    world: World
    tally: Tally
    violations: tuple[str, ...]
    trace: tuple[tuple[float, str], ...]


class Gateway(Protocol):
    """One life of the gateway, in one of the modes."""

    async def start(self) -> None:
        """Begin to serve."""
        ...

    def post(self, event: Event, plan: Plan, answer: Answer) -> bool:
        """Take a request; False where it is not taken."""
        ...

    async def close(self, drain: float) -> None:
        """Stop in good order."""
        ...

    def check_empty(self, *, at_rest: bool) -> None:
        """Look at what is left after `close`; `at_rest`, nothing was to be done before it."""
        ...


class Stage:
    """A world, while it runs."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._chance = Random(f"run {world.mode} {world.seed}")
        self._outside = Outside(self._chance)
        self._disk = Disk(world)
        self.judge: DirectJudge | InboxJudge = (
            DirectJudge(world) if world.mode == "direct" else InboxJudge(world, self._disk)
        )
        self._clusters = {
            spec.name: Cluster(spec, world, self._outside, self._chance, self.judge)
            for spec in world.brokers
        }
        self._gateway: Gateway | None = None
        self._clients: Mapping[str, Client] = {}
        self._has_ended = False
        self._senders = [
            Sender(event, world, self._outside, self._chance, self)
            for event in world.events
            for _ in range(2 if event.twin else 1)
        ]

    def post(self, event: Event, plan: Plan, answer: Answer) -> bool:
        """Hand a request to the process, if there is one."""
        return self._gateway is not None and self._gateway.post(event, plan, answer)

    def run(self) -> Report:
        """Run to the end."""
        now, down_for = START, 0.0
        for life, end in enumerate((*self.world.ends, None)):
            now = self._live(life, now, down_for, end)
            down_for = end.down_for if end is not None else 0.0
        self._check_senders()
        self.judge.check_all()
        judge = self.judge
        judge.tally.requests = len(judge.requests)
        return Report(self.world, judge.tally, tuple(judge.violations), tuple(judge.trace))

    def _live(self, life: int, now: float, down_for: float, end: End | None) -> float:
        """Live one life of the process; give the time at which it ended."""
        loop = ProcessLoop(now)
        self.judge.now, self.judge.life = loop.time, life
        self._outside.attach(loop)
        if life == 0:
            for sender in self._senders:
                sender.begin()
        self._has_ended = False
        self._outside.tell(now + down_for, partial(self._start, loop, life))
        if end is not None and not end.graceful:
            loop.call_at(max(end.at, now), loop.die_after, end.steps)
        elif end is not None:
            loop.call_at(max(end.at, now + down_for + 0.001), self._stop, loop)
        try:
            if end is None:
                self._come_to_rest(loop)
                self._stop(loop)
            loop.pass_time(_HORIZON)
        except DiedError:
            self._die(life)
            loop.abandon()
        except RunawayError:
            self.judge.blame("the process does not come to rest")
            self._die(life)
            loop.abandon()
        else:
            if end is None or end.graceful:
                self._check_life(loop, life, at_rest=end is None)
            else:  # it came to rest before its last step, and is killed at rest
                self._die(life)
                loop.abandon()
        self.judge.tally.steps += loop.steps
        self._gateway, self._clients = None, {}
        return loop.time()

    def _come_to_rest(self, loop: ProcessLoop) -> None:
        """Let the senders finish, and then the process what it has taken."""
        while not self._outside.is_empty:
            loop.pass_time(_STEP)
        loop.pass_time(_REST)

    def _start(self, loop: ProcessLoop, life: int) -> None:
        self.judge.note(f"life {life} begins")
        self._clients = {
            name: Client(cluster, life, loop) for name, cluster in self._clusters.items()
        }
        self._gateway = gateway = self._make_gateway(life)
        self._running = loop.create_task(gateway.start())

    def _make_gateway(self, life: int) -> Gateway:
        judge = self.judge
        if isinstance(judge, DirectJudge):
            return DirectGateway(self.world, life, self._clients, judge)
        around = self._outside, self._chance
        return InboxGateway(self.world, life, self._clients, judge, around)

    def _stop(self, loop: ProcessLoop) -> None:
        if self._gateway is not None:
            self.judge.note("SIGTERM")
            self.judge.tally.shutdowns += 1
            self._running = loop.create_task(self._close(loop, self._gateway))

    async def _close(self, loop: ProcessLoop, gateway: Gateway) -> None:
        await gateway.close(_DRAIN)
        self._gateway = None
        self._ended = gateway
        self._has_ended = True
        loop.stop()

    def _die(self, life: int) -> None:
        self.judge.note(f"life {life} is killed")
        self.judge.tally.kills += 1
        for client in self._clients.values():
            client.kill()

    def _check_life(self, loop: ProcessLoop, life: int, *, at_rest: bool) -> None:
        """Look at a life that ended in good order: nothing of it is left."""
        if not self._has_ended:
            self.judge.blame("the process does not end")
        else:
            self._ended.check_empty(at_rest=at_rest)
        self.judge.check_life(life)
        left = [task for task in asyncio.all_tasks(loop) if not task.done()]
        if left:
            self.judge.blame(f"{len(left)} tasks are left over")
        for complaint in loop.complaints:
            self.judge.blame(complaint)
        loop.abandon()

    def _check_senders(self) -> None:
        """Once the faults are over, every event is taken, except for what never can be."""
        for sender in self._senders:
            if not sender.confirmed and not self._is_hopeless(sender.event):
                self.judge.blame(f"{sender.event.id} never gets a 2xx")

    def _is_hopeless(self, event: Event) -> bool:
        """Whether a target is refused for good, and its letter too."""
        world = self.world
        if world.mode == "inbox":
            # What cannot even be parked takes the place of others.
            return max(world.store.max_bytes, world.store.parked_max_bytes) < 1 << 20
        has_letters = world.letters_at(_HORIZON) is not None and not world.letters_refused
        targets = {*event.targets, *event.later_targets}
        refused = {at for at in targets if (event.id, at) in world.refusing}
        return not has_letters and bool(refused | (targets & {*event.unrendered}))


def simulate(seed: int, mode: Mode) -> Report:
    """Run the world of a seed. The same seed gives the same report, to the last line."""
    return Stage(draw(seed, mode)).run()
