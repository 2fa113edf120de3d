"""The inbox's store in a world: the fake one, which fails, stalls and fills up as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Protocol, TypeVar

from gateway.delivery.inbox.fake import FakeStore
from gateway.delivery.inbox.record import Record
from gateway.delivery.inbox.store import Bounds, InboxUnavailableError
from sim.clock import Outside
from sim.world import World

__all__ = ["Archivist", "Disk", "SimStore"]

T = TypeVar("T")


class Archivist(Protocol):
    """Who is told what is durable."""

    def inserted(self, record: Record) -> None:
        """Take a record that is durable from now on."""
        ...


class Disk:
    """What of a store outlives the process."""

    def __init__(self, world: World) -> None:
        window = world.window
        self.bounds = Bounds(world.store.max_bytes, world.store.parked_max_bytes, window)
        self.store = FakeStore(self.bounds)

    def owed(self, name: str) -> int | None:
        """Give what a waiting record owes, durably; None where it does not wait."""
        rows = self.store._disk.rows.values()  # noqa: SLF001 - the judge looks at the disk itself
        return next((row.owed for row in rows if row.name == name), None)

    def lower(self, name: str) -> list[tuple[str, int]]:
        """Give the records that came before one and wait still, with what they owe."""
        found = []
        for row in self.store._disk.rows.values():  # noqa: SLF001 - as above
            if row.name == name:
                break
            found.append((row.name, row.owed))
        return found

    def waiting(self) -> list[tuple[str, int]]:
        """Give all that waits, with what it owes."""
        return [(row.name, row.owed) for row in self.store._disk.rows.values()]  # noqa: SLF001 - as above

    def parked(self) -> list[tuple[str, int]]:
        """Give all that is parked: the record's name, and the place of the target."""
        return [(row.name, row.target) for row in self.store._disk.parked.values()]  # noqa: SLF001 - as above

    def is_finished(self, name: str) -> bool:
        """Whether a name is remembered as settled."""
        return name in self.store._disk.finished  # noqa: SLF001 - as above


class SimStore(FakeStore):
    """One life's hold on the disk."""

    def __init__(
        self, disk: Disk, world: World, outside: Outside, chance: Random, archivist: Archivist
    ) -> None:
        super().__init__(disk.bounds)
        self._disk = disk.store.crash()._disk  # noqa: SLF001 - of its own class
        disk.store = self
        self._world = world
        self._outside = outside
        self._chance = chance
        self._archivist = archivist

    def _hits(self, share: float) -> bool:
        return self._outside.now < self._world.faults_end and self._chance.random() < share

    def _schedule(self) -> None:
        """Let each commit take its time."""
        slow = self._hits(self._world.store.slow)
        self._commit_after = self._chance.choice((0.1, 1.0, 12.0)) if slow else 0.0
        super()._schedule()

    def _flush(self, *, commits: bool = True) -> None:
        """Fail a commit as a whole, or not."""
        self._failing = int(commits and self._hits(self._world.store.write_fails))
        super()._flush(commits=commits)
        self._failing = 0
        self._schedule()

    def _write(self, what: Callable[[], T]) -> asyncio.Future[T]:
        """Now and then say that a write failed, although it is durable."""

        def lossy() -> T:
            result = what()
            if self._hits(self._world.store.write_fails / 4):
                raise InboxUnavailableError("the inbox", "inbox_unavailable", "no answer")
            return result

        return super()._write(lossy)

    async def load(self, ref: int) -> Record:
        """Read slowly, and fail now and then."""
        if self._hits(self._world.store.slow):
            await asyncio.sleep(self._chance.random())
        if self._hits(self._world.store.read_fails):
            raise InboxUnavailableError("the inbox", "inbox_unavailable", "told to fail")
        return await super().load(ref)

    def _insert(self, row: object, record: Record) -> None:
        # Before the feed is told of it: it is durable with this very commit.
        self._archivist.inserted(record)
        super()._insert(row, record)  # type: ignore[arg-type]  # the fake's own row
