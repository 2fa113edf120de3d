"""What the contract suite needs of a kind of store, and what it gives to one."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.brokers.base import Message
from gateway.delivery.inbox.fake import FakeStore
from gateway.delivery.inbox.record import Record
from gateway.delivery.inbox.sqlite import SqliteStore
from gateway.delivery.inbox.store import Bounds, Entry, Held, InboxUnavailableError, Placed, Store
from gateway.delivery.plan import Assignment, Plan, Refusal
from tests.core.builders import metadata

MIB = 1024 * 1024
ROOMY = Bounds(max_bytes=64 * MIB, parked_max_bytes=16 * MIB, window=120.0)
NOW = 1_800_000_000.0


class Place(ABC):
    """Where a store keeps what it holds: it outlives the stores that are opened there."""

    groups_commits = True
    """Writes that come together become durable together, and count once."""

    @abstractmethod
    def store(self, bounds: Bounds = ROOMY) -> Store:
        """Make a store on this place, not started. Only one is open at a time."""

    async def clear(self) -> None:
        """Remove what is there; the test is over."""
        return


class SqlitePlace(Place):
    """A file in a directory of the test's own."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "inbox.db"

    def store(self, bounds: Bounds = ROOMY) -> SqliteStore:
        """Make a store on the file."""
        return SqliteStore(self.path, bounds)


class MemoryPlace(Place):
    """The fake: what it holds is given from one to the next, as a crash leaves it."""

    def __init__(self, _: Path) -> None:
        self._last: FakeStore | None = None

    def store(self, bounds: Bounds = ROOMY) -> FakeStore:
        """Make a store that has what the one before had."""
        self._last = FakeStore(bounds) if self._last is None else self._last.crash()
        self._last.bound(bounds)
        return self._last


class FeedLog:
    """A feed that keeps what it is told."""

    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}
        """In the order of their arrival."""
        self.order: list[int] = []
        self.publishing: set[int] = set()
        """Refs that are being published, and so are not withdrawn."""
        self.withdrawals: list[int] = []
        self.discards: list[tuple[Record, int]] = []

    def stored(self, entry: Entry, record: Record | None) -> None:  # noqa: ARG002 - the contract's
        """Keep an entry."""
        self.entries[entry.ref] = entry
        self.order.append(entry.ref)

    def withdrawn(self, ref: int) -> bool:
        """Let go of an entry, unless it is being published."""
        if ref in self.publishing or ref not in self.entries:
            return False
        self.withdrawals.append(ref)
        del self.entries[ref]
        return True

    def discarded(self, record: Record, targets: int) -> None:
        """Keep what was dropped."""
        self.discards.append((record, targets))

    def lost(self, partition: int) -> None:
        """Forget a partition."""
        for entry in list(self.entries.values()):
            if entry.partition == partition:
                del self.entries[entry.ref]


def record(
    number: int = 1,
    *,
    topics: Sequence[str] = ("clerk.users",),
    refused: int = 0,
    size: int = 100,
    source: str = "clerk",
) -> Record:
    """Give a record of its own for each number, whose body has `size` bytes."""
    about = metadata(id=f"msg_{number:08}", gateway_source=source)
    body = f'{{"number":{number}}}'.encode().ljust(size)
    assignments = tuple(
        Assignment(
            ("users",),
            "events",
            Message(topic, body, (("svix-id", about.id),), f"{about.id}.{topic}", "user_1"),
        )
        for topic in topics
    )
    refusals = tuple(
        Refusal(("users",), "bus", f"clerk.{at}", "destination", "too long")
        for at in range(refused)
    )
    return Record(Plan("user_1", body, about, assignments, refusals), NOW + number)


async def outcome(future: asyncio.Future[Placed] | asyncio.Future[None]) -> str:
    """Give the word for what became of a write: a state, `done`, or the reason it failed for."""
    try:
        async with asyncio.timeout(30):
            placed = await future
    except InboxUnavailableError as error:
        return error.reason
    return placed.state if isinstance(placed, Placed) else "done"


async def outcomes(futures: Sequence[asyncio.Future[Placed]]) -> list[str]:
    """Give what became of several."""
    return [await outcome(future) for future in futures]


def takes(store: Store) -> str:
    """Give what the store says of itself: asked anew each time, whatever it has said before."""
    return str(store.writable)


async def until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - it is looked at from outside
            await asyncio.sleep(0.01)


async def all_held(store: Store) -> list[Held]:
    """Give all that an operator sees."""
    return [held async for held in store.held()]
