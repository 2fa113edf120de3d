"""The broker clients of one process, and how a changed one takes over from its predecessor.

A client whose settings did not change is not touched. New ones connect while all is served as
before, for a bounded time; then the change is made in one step. So a request finds either all of
what was before, or all of what is new, and connected. What is not up by then serves all the same,
unless its predecessor leads to the same place: that one serves on until its successor is up, or
until it is no longer up itself. So a new password that the broker does not know yet costs nothing
while the old connection lasts. A predecessor is kept for as long as a request may still use it,
then finishes what is in flight, and closes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from gateway.brokers.base import Broker, State, StateListener

__all__ = ["Clients", "Recipe"]

_CONNECT_WITHIN = 5.0
"""Seconds that a change waits for its new clients to be up."""
_FINISH_WITHIN = 30.0
"""Seconds that a predecessor has for what is in flight."""
_CLOSE_MARGIN = 2.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a client is made of. Equal ones make equal clients."""

    settings: object = field(repr=False)
    place: object = field(repr=False)
    """Where it leads; two recipes of one place differ in how to get in, or in limits."""
    make: Callable[[StateListener], Broker] = field(repr=False, compare=False)


class _Client:
    """One client, whose state is told from when it serves until it no longer does."""

    def __init__(self, recipe: Recipe, on_state: StateListener) -> None:
        self.recipe = recipe
        self.serves = False
        self.watched: Callable[[], None] | None = None
        self._on_state = on_state
        self.broker = recipe.make(self._state_changed)

    def _state_changed(self, name: str, state: State) -> None:
        if self.watched is not None:
            self.watched()
        if self.serves:
            self._on_state(name, state)


class Clients:
    """All clients by name; `brokers` is those that serve now."""

    def __init__(
        self,
        recipes: Mapping[str, Recipe],
        on_state: StateListener,
        on_takeover: Callable[[], None],
        linger: float,
    ) -> None:
        """Make every client; none connects before `start`.

        `on_takeover` is called when a successor took over by itself. `linger` is how many seconds
        a request may take that was begun with a predecessor.
        """
        self._on_state = on_state
        self._on_takeover = on_takeover
        self._linger = linger
        self._serving = {name: _Client(recipe, on_state) for name, recipe in recipes.items()}
        self._joining: Mapping[str, _Client] = {}
        self._successors: dict[str, tuple[_Client, asyncio.Task[None]]] = {}
        self._leaving: dict[asyncio.Task[None], _Client] = {}
        self._closing = asyncio.Event()
        self._finish_within = _FINISH_WITHIN
        self.brokers: Mapping[str, Broker] = {}
        """Never changed: each change makes another mapping."""
        self._publish()

    @property
    def replacing(self) -> tuple[str, ...]:
        """The names whose new client is not up yet."""
        return tuple(sorted(self._joining.keys() | self._successors.keys()))

    def in_flight(self) -> Mapping[str, tuple[int, int]]:
        """Records and bytes in flight by name, those of predecessors included."""
        records: Counter[str] = Counter()
        size: Counter[str] = Counter()
        for client in (*self._serving.values(), *self._leaving.values()):
            count, sized = client.broker.in_flight
            records[client.broker.name] += count
            size[client.broker.name] += sized
        return {name: (records[name], size[name]) for name in records}

    async def start(self) -> None:
        """Begin to connect. Raises `BrokerOptionsError`."""
        for name, client in self._serving.items():
            client.serves = True
            self._on_state(name, client.broker.state)
            await client.broker.start()

    async def change(self, recipes: Mapping[str, Recipe]) -> None:
        """Make the clients be what `recipes` say, once those that are new are up.

        That is waited for, five seconds at the most; until then all stays as it was. Raises
        `BrokerOptionsError`, and then, or where it is cancelled, nothing has changed. One change
        at a time.
        """
        made: dict[str, _Client] = {}
        self._joining = made
        try:
            # Again where a successor took over meanwhile from the one that is to stay.
            while lacking := self._lacking(recipes, made):
                for name in lacking:
                    made[name] = _Client(recipes[name], self._on_state)
                await _connect([made[name] for name in lacking])
        except BaseException:
            await asyncio.gather(*(client.broker.close(0) for client in made.values()))
            raise
        finally:
            self._joining = {}
        # From here to the end nothing fails and nothing waits: it is one step for the event loop.
        for name in (*self._successors,):
            if name in made or self._serving[name].recipe == recipes.get(name):
                self._dismiss(name)
        for name in self._serving.keys() - recipes.keys():
            self._dismiss(name)
            self._leave(self._serving.pop(name), self._linger)
        for name, client in made.items():
            self._succeed(name, client)
        self._publish()

    async def close(self, timeout: float) -> None:
        """Flush and disconnect all, for at most `timeout` seconds; tell of no state any more."""
        for name in (*self._successors,):
            self._dismiss(name)
        for client in self._serving.values():
            self._leave(client, 0)
        self._finish_within = timeout
        self._closing.set()
        if self._leaving:
            _, late = await asyncio.wait(self._leaving, timeout=timeout + _CLOSE_MARGIN)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _lacking(self, recipes: Mapping[str, Recipe], made: Collection[str]) -> list[str]:
        """Name those whose recipe no client has, neither here nor among those made anew."""
        return [
            name
            for name, recipe in recipes.items()
            if name not in made and recipe not in self._recipes_of(name)
        ]

    def _recipes_of(self, name: str) -> list[Recipe]:
        """Give the recipes of the client that serves and of its successor."""
        found = [self._serving[name]] if name in self._serving else []
        found += [self._successors[name][0]] if name in self._successors else []
        return [client.recipe for client in found]

    def _succeed(self, name: str, client: _Client) -> None:
        """Let a new client serve, or wait for its turn where its predecessor can serve on."""
        predecessor = self._serving.get(name)
        if predecessor is not None:
            is_same_place = predecessor.recipe.place == client.recipe.place
            if is_same_place and _waits(predecessor.broker, client.broker):
                task = asyncio.create_task(self._await_takeover(name, client))
                self._successors[name] = client, task
                return
            self._leave(predecessor, self._linger)
        self._enter(name, client)

    async def _await_takeover(self, name: str, successor: _Client) -> None:
        predecessor = self._serving[name]
        changed = asyncio.Event()
        predecessor.watched = successor.watched = changed.set
        while _waits(predecessor.broker, successor.broker):
            changed.clear()
            await changed.wait()
        del self._successors[name]
        self._leave(predecessor, self._linger)
        self._enter(name, successor)
        self._publish()
        self._on_takeover()

    def _enter(self, name: str, client: _Client) -> None:
        self._serving[name] = client
        client.serves = True
        self._on_state(name, client.broker.state)

    def _dismiss(self, name: str) -> None:
        """Give up a successor that never served."""
        client, task = self._successors.pop(name, (None, None))
        if client is not None and task is not None:
            task.cancel()
            self._leave(client, 0)

    def _leave(self, client: _Client, linger: float) -> None:
        client.serves = False
        task = asyncio.create_task(self._close_after(client, linger))
        self._leaving[task] = client
        task.add_done_callback(self._leaving.pop)

    async def _close_after(self, client: _Client, linger: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(linger):
                await self._closing.wait()
        await client.broker.close(self._finish_within)

    def _publish(self) -> None:
        self.brokers = {name: client.broker for name, client in self._serving.items()}


async def _connect(clients: Collection[_Client]) -> None:
    """Start them, and wait until all are up, for a bounded time. Raises `BrokerOptionsError`."""
    changed = asyncio.Event()
    for client in clients:
        client.watched = changed.set
        await client.broker.start()
    with suppress(TimeoutError):
        async with asyncio.timeout(_CONNECT_WITHIN):
            while any(client.broker.state is not State.UP for client in clients):
                changed.clear()
                await changed.wait()


def _waits(predecessor: Broker, successor: Broker) -> bool:
    return successor.state is not State.UP and predecessor.state is State.UP
