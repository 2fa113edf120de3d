"""The places that the contract suite runs on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.delivery.inbox.store import Bounds, Store
from tests.inbox.harness import ROOMY, FeedLog, MemoryPlace, Place, SqlitePlace
from tests.inbox.jetstream_place import JetStreamPlace

PLACES: dict[str, Callable[[Path], Place]] = {
    "memory": MemoryPlace,
    "jetstream": JetStreamPlace,
    "sqlite": SqlitePlace,
}
"""A new kind of store enters itself here."""


@pytest.fixture(params=sorted(PLACES))
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """Give an empty place of each kind."""
    place: Place = PLACES[request.param](tmp_path)
    yield place
    await place.clear()


class Opened:
    """Stores on one place, opened one after the other and closed at the end of the test."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._stores: list[Store] = []

    async def __call__(self, bounds: Bounds = ROOMY) -> tuple[Store, FeedLog]:
        """Close the one before, if there is one, and open the next."""
        await self.close()
        store, feed = self._place.store(bounds), FeedLog()
        self._stores.append(store)
        await store.start(feed)
        return store, feed

    async def close(self) -> None:
        """Close what is open."""
        for store in self._stores:
            await store.close(10)
        self._stores.clear()


@pytest.fixture
async def opened(place: Place) -> AsyncIterator[Opened]:
    """Give what opens stores on the place."""
    opened = Opened(place)
    yield opened
    await opened.close()
