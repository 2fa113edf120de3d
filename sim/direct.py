"""Direct mode in a world: the real fan-out and ledger, and what must hold of them."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from gateway.delivery import fanout
from gateway.delivery.dead_letter import DeadLetter
from gateway.delivery.fanout import FanOut, Outlets
from gateway.delivery.ledger import Ledger
from gateway.delivery.memory import Retention
from gateway.delivery.settlement import Delivery
from sim.broker import Client, Publish
from sim.gateway import Gateway
from sim.judge import LETTERS, RESOLUTION, History, Judge, plan_targets
from sim.sender import Answer, Request
from sim.world import World

__all__ = ["DirectGateway", "DirectJudge"]

_FOR_EVER = 1e12


class _Memory(msgspec.Struct):
    """What the ledger of this life has to know of an event."""

    life: int
    opened: float
    complete_since: float | None = None
    forgot: int = 0
    """Publishes up to this number may be repeated: the time to remember them is over."""


class DirectJudge(Judge):
    """What direct mode promises."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._memories: dict[str, _Memory] = {}
        self._evicted_in: set[int] = set()
        self._open: dict[str, int] = {}
        self._anew: set[int] = set()
        """Requests that came alone, after the time to remember their event."""

    def evicted(self) -> None:
        """The ledger had no room: what it forgot may come twice, and that is counted."""
        self.note("the ledger evicts an event")
        self._evicted_in.add(self.life)

    def why_again(self, history: History, publish: Publish) -> str:
        """Nothing is published twice while the first is on its way, or known to be stored."""
        why = "first"
        memory = self._memories.get(publish.target.partition(".")[0])
        for one in history.publishes:
            if one.state in {"refused", "unavailable"}:
                continue
            if one.life != publish.life:
                why = "the process ended"
            elif one.state == "unknown":
                why = "the ack was lost"
            elif memory is not None and one.number <= memory.forgot:
                why = "the window had passed"
            elif publish.life in self._evicted_in:
                why = "the ledger was full"
            else:
                return ""
        return why

    def asked(self, request: Request) -> None:
        """Keep what the ledger may have forgotten when this request came."""
        super().asked(request)
        name, now = request.event.id, self.now()
        memory = self._memories.get(name)
        if memory is None or memory.life != self.life:
            memory = self._memories[name] = _Memory(self.life, now)
            self._open[name] = 0
        complete = memory.complete_since
        if complete is not None and now - complete >= self.world.window:
            memory.complete_since = None
            memory.forgot = self.publishes
            if self._open[name] == 0 and self.life not in self._evicted_in:
                self._anew.add(request.number)
        elif complete is None and now - memory.opened >= self.world.incomplete_for:
            memory.forgot = self.publishes
        memory.opened = now
        self._open[name] += 1

    def answered(self, request: Request, delivery: Delivery, deadline: float) -> None:
        """A 2xx is given when all is stored; a 503 is not, and not before the deadline."""
        super().answered(request, delivery, deadline)
        name = request.event.id
        memory = self._memories[name]
        self._open[name] -= 1
        if delivery.status == "failed":
            memory.complete_since = None
            self._check_failed(request, delivery, deadline)
            return
        if memory.complete_since is None:
            memory.complete_since = self.now()
        for target in plan_targets(request):
            if not self.is_there(target):
                self.blame(f"{target} is answered {delivery.status} before it is stored")
        if self.now() > self._settled_at(request):
            self.blame(f"request {request.number} is answered later than it could be")
        if delivery.status == "duplicate" and request.number in self._anew:
            self.blame(f"{name} is called a duplicate after its time")

    def _settled_at(self, request: Request) -> float:
        """Give when the last of its targets was settled, in this life."""
        settled = [
            one.ended
            for target in plan_targets(request)
            for one in self.history(target).publishes
            if one.life == self.life and one.state == "acked"
        ]
        return max([request.at, *settled])

    def _check_failed(self, request: Request, delivery: Delivery, deadline: float) -> None:
        """What is reported as late is still on its way, and the deadline has come."""
        for settlement in delivery.settlements:
            if settlement.reason != "deadline":
                continue
            if self.now() < deadline and not self.is_giving_up:
                self.blame(f"request {request.number} fails by the deadline before its time")
            (target,) = settlement.routes
            publishes = self.history(target).publishes
            mine = [one for one in publishes if one.life == self.life]
            is_open = bool(mine) and mine[-1].state == "open"
            if not is_open and self.life not in self._evicted_in:
                self.blame(f"{target} is reported as late, and is not on its way")

    def check_life(self, life: int) -> None:
        """Each ack of a life in good order was told exactly once."""
        for target, history in self.histories.items():
            acks = sum(p.life == life and p.state == "acked" for p in history.publishes)
            told = sum(t.life == life and t.status != "failed" for t in history.told)
            if acks != told:
                self.blame(f"{target} was acked {acks} times, and that is told {told} times")

    is_giving_up = False


class DirectGateway(Gateway[DirectJudge]):
    """One life of a gateway in direct mode."""

    def __init__(
        self, world: World, life: int, clients: Mapping[str, Client], judge: DirectJudge
    ) -> None:
        super().__init__(world, life, clients, judge)
        # What finds the late ones looks less often than in earnest: else it is most of the work.
        setattr(fanout, "_RESOLUTION", RESOLUTION)  # noqa: B010 - a constant of the module
        retention = Retention(world.window, world.incomplete_for, world.ledger_bytes)
        self.ledger = Ledger(retention, lambda _: judge.evicted())
        self.fan_out = FanOut(judge, self.ledger)

    async def start(self) -> None:
        """Connect."""
        for client in self._clients.values():
            await client.start()

    async def _deliver(self, request: Request, answer: Answer) -> None:
        self._judge.asked(request)
        deadline = request.at + self._world.deadline
        letters = self._world.letters_at(request.at)
        dead_letter = DeadLetter(letters, "kafka", LETTERS) if letters is not None else None
        outlets = Outlets(self._clients, dead_letter)
        delivery = await self.fan_out.deliver(request.plan, outlets, deadline)
        self._judge.answered(request, delivery, deadline)
        if self.ledger.size > self._world.ledger_bytes:
            self._judge.blame(f"the ledger has {self.ledger.size} bytes")
        answer(delivery.status != "failed")

    async def close(self, drain: float) -> None:
        """Stop as SIGTERM does: finish what is open, then give up, then disconnect."""
        await self._drain(drain, self._give_up)
        await self._disconnect(drain)
        self._judge.is_giving_up = False

    def _give_up(self) -> None:
        self._judge.is_giving_up = True
        self.fan_out.give_up()

    def check_empty(self, *, at_rest: bool) -> None:  # noqa: ARG002 - the same for both modes
        """Look at what is left after `close`: no memory but what may be remembered."""
        ledger, blame = self.ledger, self._judge.blame
        if self.fan_out.unanswered:
            blame(f"{self.fan_out.unanswered} events are still being delivered")
        self._check_clients()
        if ledger.size and not (ledger.complete or ledger.incomplete):
            blame(f"the empty ledger counts {ledger.size} bytes")
        ledger.expire(_FOR_EVER, 1000)
        left = (ledger.size, ledger.complete, ledger.incomplete)
        if left != (0, 0, 0):
            blame(f"the ledger never forgets: {left}")
