"""Makes the settlements of dispatched targets durable, and never loses one on the way.

One write per record at a time: a store may then keep what it is told last, and what lands
meanwhile goes into the next write together. A write that fails is repeated until it succeeds,
for the target is settled whatever the store says.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Protocol

import msgspec

from gateway.delivery.inbox.lanes import Lanes, Task
from gateway.delivery.inbox.store import InboxFullError, InboxUnavailableError, Parked, Store
from gateway.delivery.inbox.windows import Backoff
from gateway.delivery.settlement import Settlement

__all__ = ["Keeper", "Settling", "unavailable"]

_AGAIN = Backoff(first=0.2, most=10.0)


class Keeper(Protocol):
    """Who is told what became durable. Each call ends the task."""

    def kept(self, task: Task, settlement: Settlement) -> None:
        """Take note that a target's settlement is durable."""
        ...

    def parked(self, task: Task, parked: Parked) -> None:
        """Take note that a target is set aside, durably."""
        ...

    def not_parked(self, task: Task, parked: Parked, error: InboxUnavailableError) -> None:
        """Take note that a target is owed still, because it could not be set aside."""
        ...

    def not_kept(self, error: InboxUnavailableError) -> None:
        """Take note that a settlement could not be written yet."""
        ...

    def random(self) -> float:
        """Give a number from 0 to 1."""
        ...


class _Record(msgspec.Struct, eq=False):
    """What is to be written of one record."""

    settled: list[tuple[Task, Settlement]] = []
    parks: list[tuple[Task, Parked]] = []
    failures: int = 0


class Settling:
    """Writes settlements to the store."""

    def __init__(self, store: Store, lanes: Lanes, keeper: Keeper) -> None:
        self._store = store
        self._lanes = lanes
        self._keeper = keeper
        self._records: dict[int, _Record] = {}

    def __len__(self) -> int:
        """How many records have something that is not durable yet."""
        return len(self._records)

    def settle(self, task: Task, settlement: Settlement) -> None:
        """Make it durable that a target is settled, unless another replica now sees to that."""
        if not self._lanes.is_current(task):
            self._lanes.settled(task)
            return
        record = self._records.get(task.ref)
        if record is not None:
            record.settled.append((task, settlement))
            return
        self._records[task.ref] = record = _Record([(task, settlement)])
        self._write(task.ref, record)

    def park(self, task: Task, parked: Parked) -> None:
        """Set a target aside, if the store has room for it."""
        if not self._lanes.is_current(task):
            self._lanes.settled(task)
            return
        record = self._records.get(task.ref)
        if record is not None:
            record.parks.append((task, parked))
            return
        self._records[task.ref] = record = _Record(parks=[(task, parked)])
        self._write(task.ref, record)

    def _write(self, ref: int, record: _Record) -> None:
        """Write what there is of a record; the settled first, for those succeed in the end."""
        if record.settled:
            batch, record.settled = record.settled, []
            settled = sum({1 << task.at for task, _ in batch})
            owed = self._lanes.owed_after(batch[0][0], settled)
            writing = self._store.settle(ref, owed)
            writing.add_done_callback(partial(self._settled, ref, record, batch))
        elif record.parks:
            task, parked = record.parks.pop(0)
            owed = self._lanes.owed_after(task, 1 << task.at)
            writing = self._store.park(ref, owed, parked)
            writing.add_done_callback(partial(self._parked, ref, record, task, parked))
        else:
            del self._records[ref]

    def _settled(
        self,
        ref: int,
        record: _Record,
        batch: list[tuple[Task, Settlement]],
        written: asyncio.Future[None],
    ) -> None:
        error = _error(written)
        if error is None:
            record.failures = 0
            for task, settlement in batch:
                self._keeper.kept(task, settlement)
        elif any(self._lanes.is_current(task) for task, _ in batch):
            record.settled = [*batch, *record.settled]
            self._repeat(ref, record, error)
            return
        else:
            # The partition is another's now, who delivers it once more and settles it.
            for task, _ in batch:
                self._lanes.settled(task)
        self._write(ref, record)

    def _parked(
        self,
        ref: int,
        record: _Record,
        task: Task,
        parked: Parked,
        written: asyncio.Future[None],
    ) -> None:
        error = _error(written)
        if error is None:
            self._keeper.parked(task, parked)
        elif isinstance(error, InboxFullError) or not self._lanes.is_current(task):
            self._keeper.not_parked(task, parked, error)
        else:
            # It may be parked all the same. To serve the target again would settle it twice.
            record.parks.insert(0, (task, parked))
            self._repeat(ref, record, error)
            return
        self._write(ref, record)

    def _repeat(self, ref: int, record: _Record, error: InboxUnavailableError) -> None:
        """Write again what could not be written, after a while."""
        self._keeper.not_kept(error)
        record.failures += 1
        wait = _AGAIN.after(record.failures, self._keeper.random())
        asyncio.get_running_loop().call_later(wait, self._write, ref, record)


def _error(written: asyncio.Future[None]) -> InboxUnavailableError | None:
    if written.cancelled():
        return InboxUnavailableError("the inbox", "inbox_unavailable", "cancelled")
    error = written.exception()
    return None if error is None else unavailable(error)


def unavailable(error: BaseException) -> InboxUnavailableError:
    """Give a store's failure as what it promises to fail with: if it does not, nothing is lost."""
    if isinstance(error, InboxUnavailableError):
        return error
    return InboxUnavailableError("the inbox", "inbox_unavailable", type(error).__name__)
