"""What must hold in every world, whatever goes wrong in it.

The judge sees what the brokers see and what the senders are answered, and knows of the gateway
only what it tells its listener. What it finds is kept, with the time; the first is what matters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec

from gateway.brokers.base import Message
from gateway.delivery.settlement import Delivery, Settlement
from sim.broker import Copy, Publish
from sim.sender import Request
from sim.world import World

__all__ = ["LETTERS", "RESOLUTION", "Judge", "Tally", "Told", "target_of"]

LETTERS = "letters"
"""Where dead letters go."""
RESOLUTION = 0.5
"""Seconds by which an answer may come after its deadline."""


class Tally(msgspec.Struct):
    """What worlds came to, for the summary."""

    seeds: int = 0
    events: int = 0
    requests: int = 0
    kills: int = 0
    shutdowns: int = 0
    answered: int = 0
    """Requests with a 2xx."""
    records: int = 0
    """What stands in the brokers in the end, letters included."""
    lost: int = 0
    duplicates: dict[str, int] = {}
    """Records beyond the first of a target, by what explains them."""
    steps: int = 0

    def add(self, other: Tally) -> None:
        """Sum up."""
        for name in self.__struct_fields__:
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, dict):
                setattr(self, name, dict(Counter(mine) + Counter(theirs)))
            else:
                setattr(self, name, mine + theirs)


class Told(msgspec.Struct, frozen=True):
    """What the listener was told of a target."""

    life: int
    at: float
    status: str
    is_late: bool


class History(msgspec.Struct):
    """All that happened to one target of one event."""

    publishes: list[Publish] = []
    copies: list[Copy] = []
    told: list[Told] = []


def target_of(message: Message) -> tuple[str, bool]:
    """Give the target that a record is of, and whether it is a letter."""
    for name, value in message.headers:
        if name == "gateway-route":
            return value, True
    return message.dedupe_id.partition(" ")[0], False


class Judge:
    """Sees all, and keeps what should not be. What a mode adds is in its own subclass."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.now: Callable[[], float] = lambda: 0.0
        self.trace: list[tuple[float, str]] = []
        self.violations: list[str] = []
        self.histories: dict[str, History] = {}
        self.requests: list[Request] = []
        self.tally = Tally(seeds=1, events=len(world.events))
        self.known = {event.id: event for event in world.events}
        self.publishes = 0
        self.posted = 0
        self.life = 0

    def note(self, what: str) -> None:
        """Keep a line for the trace."""
        self.trace.append((self.now(), what))

    def blame(self, what: str) -> None:
        """Keep what should not be."""
        self.note(f"WRONG: {what}")
        self.violations.append(what)

    def history(self, target: str) -> History:
        """Give a target's history."""
        found = self.histories.get(target)
        if found is None:
            found = self.histories[target] = History()
        return found

    # What the brokers see.

    def published(self, broker: str, message: Message, life: int) -> Publish:
        """Take a publish that has begun: it must be of an event that was sent, and be needed."""
        target, is_letter = target_of(message)
        self.publishes += 1
        publish = Publish(self.publishes, target, is_letter, life, self.now())
        what = "letter" if is_letter else "record"
        self.note(f"life {life} publishes the {what} of {target} to {broker}")
        self._check_content(target, message)
        history = self.history(target)
        publish.why = self.why_again(history, publish)
        if not publish.why:
            self.blame(f"{target} is published again without a reason")
            publish.why = "unexplained"
        history.publishes.append(publish)
        return publish

    def why_again(self, history: History, publish: Publish) -> str:
        """Say what allows this publish beside those before it; empty where nothing does."""
        raise NotImplementedError

    def _check_content(self, target: str, message: Message) -> None:
        event = self.known.get(target.partition(".")[0])
        if event is None:
            self.blame(f"{target}: no such event was sent")
        elif message.value != b'{"id":"%s"}' % event.id.encode() or message.key != event.key:
            self.blame(f"{target}: the record is not what was sent")

    def stored(self, broker: str, copy: Copy) -> None:
        """Take a record that is now in the broker."""
        publish = copy.publish
        self.note(f"{broker} stores {publish.target}, published at {publish.at:.4f}")
        history = self.history(publish.target)
        if history.copies:
            # Where the first of them comes last, the one that overtook it says why.
            why = publish.why if publish.why != "first" else history.publishes[-1].why
            why = "the broker stored it twice" if publish.stored > 1 else why
            self.tally.duplicates[why] = self.tally.duplicates.get(why, 0) + 1
        history.copies.append(copy)
        self.tally.records += 1

    def ended(self, publish: Publish, state: str, reason: str = "") -> None:
        """Take what the client said of a publish."""
        assert state in {"acked", "refused", "unavailable", "unknown", "orphaned"}
        publish.state = state  # type: ignore[assignment]  # as asserted
        publish.ended = self.now()
        self.note(f"publish of {publish.target} is {state} {reason}")

    # What the listener is told.

    def settled(self, settlement: Settlement) -> None:
        """Take a target's settlement."""
        self._told(settlement, is_late=False)

    def acked_late(self, settlement: Settlement) -> None:
        """Take a settlement that came after its target was reported as failed."""
        self._told(settlement, is_late=True)

    def _told(self, settlement: Settlement, *, is_late: bool) -> None:
        (target,) = settlement.routes
        self.note(f"told: {target} is {settlement.status} {settlement.reason}, late {is_late}")
        if settlement.status != "failed" and not self._is_acked(target, settlement.status):
            self.blame(f"{target} is told to be {settlement.status}, and no broker acked that")
        told = Told(self.life, self.now(), settlement.status, is_late)
        self.history(target).told.append(told)

    def _is_acked(self, target: str, status: str) -> bool:
        """Whether this life has an ack of the target's record, or of its letter."""
        return any(
            one.state == "acked"
            and one.life == self.life
            and one.is_letter == (status == "dead_lettered")
            for one in self.history(target).publishes
        )

    def may_tell_nothing(self, request: Request, told: list[str]) -> bool:
        """Say whether an answer may leave the targets out."""
        del request, told
        return False

    # What the senders are answered.

    def asked(self, request: Request) -> None:
        """Take a request that has come."""
        self.requests.append(request)
        self.note(f"request {request.number}: {request.event.id}")

    def answered(self, request: Request, delivery: Delivery, deadline: float) -> None:
        """Take the answer to a request, at the moment at which it is given."""
        self.note(f"request {request.number}: {request.event.id} is {delivery.status}")
        if request.answered_at is not None:
            self.blame(f"request {request.number} is answered twice")
        if self.now() > deadline + RESOLUTION + 1e-6:
            self.blame(f"request {request.number} is answered after its deadline")
        request.answered_at = self.now()
        request.status = delivery.status
        told = sorted(".".join(one.routes) for one in delivery.settlements)
        if told != sorted(plan_targets(request)) and not self.may_tell_nothing(request, told):
            self.blame(f"request {request.number} does not tell of each target once")
        if delivery.status != "failed":
            self.tally.answered += 1

    def is_there(self, target: str) -> bool:
        """Whether a broker has the target's record, or its letter."""
        history = self.histories.get(target)
        return history is not None and bool(history.copies)

    def check_life(self, life: int) -> None:
        """Look at a life that has ended in good order."""
        raise NotImplementedError

    def check_all(self) -> None:
        """Look at what is left when all is over: what was answered 2xx is there."""
        for request in self.requests:
            if request.status in {"", "failed"}:
                continue
            for target in plan_targets(request):
                if not self.is_there(target):
                    self.tally.lost += 1
                    self.blame(f"{target} was answered {request.status}, and is nowhere")


def plan_targets(request: Request) -> list[str]:
    """Name the targets of a request's plan."""
    plan = request.plan
    routes = [one.routes for one in plan.assignments] + [one.routes for one in plan.refusals]
    return [route for (route,) in routes]
