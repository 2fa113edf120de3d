"""Inbox mode over fakes: a store, two brokers and a third for dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

from gateway.brokers.base import Message, State
from gateway.brokers.fake import FakeBroker
from gateway.delivery.dead_letter import DeadLetter
from gateway.delivery.fanout import Outlets
from gateway.delivery.inbox.dispatcher import Dispatcher
from gateway.delivery.inbox.fake import FakeStore
from gateway.delivery.inbox.inbox import Inbox
from gateway.delivery.inbox.outcomes import Attempt, Setback
from gateway.delivery.inbox.store import Bounds, InboxUnavailableError
from gateway.delivery.inbox.terms import Reach, Terms
from gateway.delivery.inbox.windows import Window
from gateway.delivery.plan import Assignment, Plan, Refusal
from gateway.delivery.settlement import Delivery, Settlement
from gateway.metadata import Metadata
from tests.core.builders import metadata

AMPLE = 30.0
MIB = 1024 * 1024
LETTERS = "clerk.dead-letter"
WINDOW = Window(1000, MIB)
BOUNDS = Bounds(max_bytes=MIB, parked_max_bytes=MIB, window=120.0)
START = 1_800_000_000.0


async def until(holds: Callable[[], bool], seconds: float = AMPLE) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - it is looked at from outside
            await asyncio.sleep(0.002)


def plan(
    svix_id: str, *brokers: str, key: str = "user_1", refusals: tuple[Refusal, ...] = ()
) -> Plan:
    """A plan with a target at each broker; its body is its id."""
    body = svix_id.encode()
    assignments = tuple(
        Assignment(
            (f"to-{broker}",),
            broker,
            Message(f"clerk.{broker}", body, (), f"{svix_id}.{broker}", key),
        )
        for broker in brokers
    )
    return Plan(key, body, metadata(id=svix_id), assignments, refusals)


class Listener:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Settlement] = []
        self.attempts: list[tuple[str, Attempt]] = []
        self.setbacks: list[tuple[Setback, str, str]] = []
        self.failures: list[str] = []

    def settled(self, settlement: Settlement) -> None:
        self.told.append(settlement)

    def attempted(self, broker: str, attempt: Attempt) -> None:
        self.attempts.append((broker, attempt))

    def set_back(self, setback: Setback, metadata: Metadata, settlement: Settlement) -> None:
        self.setbacks.append((setback, metadata.id, settlement.reason))

    def inbox_failed(self, error: InboxUnavailableError) -> None:
        self.failures.append(error.reason)


class Rig:
    """An inbox and its surroundings; a context manager that starts and closes them."""

    def __init__(
        self,
        store: FakeStore | None = None,
        *,
        dead_letter: Literal["kafka", "nats"] | None = None,
        window: Window = WINDOW,
        request_timeout: float = AMPLE,
    ) -> None:
        self.brokers = {
            name: FakeBroker(name, on_state=self._state_changed)
            for name in ("events", "bus", "letters")
        }
        self.events, self.bus, self.letters = self.brokers.values()
        self.reach = Reach("kafka", window, request_timeout)
        self.now = START
        self.max_age = 3600.0
        self.dead_letter = dead_letter
        self.listener = Listener()
        self.store = store or FakeStore(BOUNDS, now=lambda: self.now)
        self._make()

    def _make(self) -> None:
        self.dispatcher = Dispatcher(
            self.store, self.listener, self.terms(), clock=lambda: self.now, chance=lambda: 0.0
        )
        self.inbox = Inbox(self.store, self.dispatcher, lambda: self.now)

    def terms(self, **brokers: FakeBroker) -> Terms:
        """The terms as the attributes have them; `brokers` instead of all there are."""
        here = brokers or self.brokers
        letter = DeadLetter("letters", self.dead_letter, LETTERS) if self.dead_letter else None
        return Terms(Outlets(here, letter), dict.fromkeys(here, self.reach), self.max_age)

    def apply(self, **brokers: FakeBroker) -> None:
        """Reload."""
        self.inbox.apply(self.terms(**brokers), BOUNDS)

    def _state_changed(self, name: str, state: State) -> None:
        if hasattr(self, "inbox"):
            self.inbox.broker_state(name, state)

    async def __aenter__(self) -> Rig:
        for broker in self.brokers.values():
            await broker.start()
        await self.inbox.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.inbox.close(0)
        for broker in self.brokers.values():
            await broker.close(0)

    async def crash(self) -> None:
        """Kill the process at once, and start another on what is durable."""
        await self.dispatcher.close(0)
        self.store = self.store.crash()
        self._make()
        await self.inbox.start()

    async def deliver(self, what: Plan, within: float = AMPLE) -> Delivery:
        """Deliver a plan as the ingress does."""
        deadline = asyncio.get_running_loop().time() + within
        return await self.inbox.deliver(what, self.terms().outlets, deadline)

    @property
    def waiting(self) -> int:
        """How many events wait in the store, or have left it without that being told yet."""
        return max(self.store.usage.events, len(self.dispatcher.lanes))

    @property
    def told(self) -> list[Settlement]:
        """Every settlement that was told."""
        return self.listener.told

    def arrived(self) -> list[str]:
        """What is in the brokers: `broker body`."""
        return [
            f"{name} {one.message.value.decode()}"
            for name, broker in self.brokers.items()
            for one in broker.stored()
        ]

    def sent_letters(self) -> list[dict[str, str]]:
        """The headers of the dead letters, with the body and the dedupe id."""
        return [
            {
                **dict(one.message.headers),
                "body": one.message.value.decode(),
                "dedupe_id": one.message.dedupe_id,
            }
            for one in self.letters.stored(LETTERS)
        ]
