"""What one life of a gateway is in either mode: it takes requests, and ends as SIGTERM ends it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from gateway.delivery.plan import Plan
from sim.broker import Client
from sim.judge import Judge
from sim.sender import Answer, Request
from sim.world import Event, World

__all__ = ["Gateway"]

J = TypeVar("J", bound=Judge)


class Gateway(ABC, Generic[J]):
    """Takes requests until it drains. What a mode adds is in its own subclass."""

    def __init__(self, world: World, life: int, clients: Mapping[str, Client], judge: J) -> None:
        self._world = world
        self._life = life
        self._judge = judge
        self._clients = clients
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False

    def post(self, event: Event, plan: Plan, answer: Answer) -> bool:
        """Take a request, unless it starts or is draining."""
        if self._draining:
            return False
        now = asyncio.get_running_loop().time()
        self._judge.posted += 1
        request = Request(self._judge.posted, event, plan, self._life, now)
        task = asyncio.create_task(self._deliver(request, answer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    @abstractmethod
    async def _deliver(self, request: Request, answer: Answer) -> None:
        """Have a request delivered, and answer it."""

    async def _drain(self, seconds: float, give_up: Callable[[], None]) -> None:
        """Take nothing more; finish what is open in so many seconds, then give up the rest."""
        self._draining = True
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=seconds)
        give_up()
        if self._tasks:
            await asyncio.wait(list(self._tasks))

    async def _disconnect(self, seconds: float) -> None:
        await asyncio.gather(*(client.close(seconds) for client in self._clients.values()))

    def _check_clients(self) -> None:
        """Look at what is in flight after `close`: nothing."""
        for client in self._clients.values():
            if client.in_flight != (0, 0):
                self._judge.blame(f"{client.name} still has {client.in_flight} in flight")
