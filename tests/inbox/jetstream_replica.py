"""A replica of the gateway that only dispatches, into a file; others freeze and kill it.

    python -m tests.inbox.jetstream_replica URL NAME FILE LEASE

It takes the records of a lane one after the other. Each is a publish that takes a moment: it
writes `NAME begins LANE NUMBER` and `NAME lands LANE NUMBER`, and settles. Lines are appended
whole, so that the file has the order of all replicas.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from contextlib import suppress

from gateway.delivery.inbox.record import Record
from gateway.delivery.inbox.store import Entry, InboxUnavailableError, Store
from tests.inbox.jetstream_place import jetstream_store

TAKES = 0.002
"""Seconds that a publish is on its way."""


class Dispatching:
    """A feed that empties a store."""

    def __init__(self, name: str, path: str) -> None:
        self._name = name
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._lanes: dict[tuple[int, int], deque[Entry]] = {}
        self._tasks: dict[tuple[int, int], asyncio.Task[None]] = {}
        self._busy: set[int] = set()
        self._withdrawn: set[int] = set()
        self.store: Store | None = None

    def say(self, words: str) -> None:
        """Append a line."""
        os.write(self._file, f"{self._name} {words}\n".encode())

    def stored(self, entry: Entry, record: Record | None) -> None:  # noqa: ARG002 - it is loaded
        """See `Feed`."""
        lane = (entry.partition, entry.targets[0].lane)
        self._lanes.setdefault(lane, deque()).append(entry)
        if lane not in self._tasks:
            self._tasks[lane] = asyncio.create_task(self._empty(lane))

    def withdrawn(self, ref: int) -> bool:
        """See `Feed`."""
        if ref in self._busy:
            return False
        self._withdrawn.add(ref)
        return True

    def discarded(self, record: Record, targets: int) -> None:
        """See `Feed`."""
        raise AssertionError(record, targets)

    def lost(self, partition: int) -> None:
        """See `Feed`."""
        self.say(f"lost {partition}")
        for lane, waiting in self._lanes.items():
            if lane[0] == partition:
                self._withdrawn.difference_update(entry.ref for entry in waiting)
                waiting.clear()

    async def _empty(self, lane: tuple[int, int]) -> None:
        assert self.store is not None
        try:
            while self._lanes[lane]:
                entry = self._lanes[lane][0]
                if entry.ref in self._withdrawn:
                    self._withdrawn.discard(self._lanes[lane].popleft().ref)
                    continue
                self._busy.add(entry.ref)
                try:
                    await self._dispatch(self.store, lane, entry)
                finally:
                    self._busy.discard(entry.ref)
                if self._lanes[lane] and self._lanes[lane][0] is entry:
                    self._lanes[lane].popleft()
        finally:
            del self._tasks[lane]

    async def _dispatch(self, store: Store, lane: tuple[int, int], entry: Entry) -> None:
        with suppress(InboxUnavailableError):
            record = await store.load(entry.ref)
            if self._lanes[lane] and self._lanes[lane][0] is entry:
                what = f"{lane[0]} {record.plan.key} {record.plan.metadata.id}"
                self.say(f"begins {what}")
                await asyncio.sleep(TAKES)
                self.say(f"lands {what}")
        while self._lanes[lane] and self._lanes[lane][0] is entry:
            try:
                await store.settle(entry.ref, 0)
            except InboxUnavailableError:
                await asyncio.sleep(0.05)
            else:
                return


async def work(url: str, name: str, path: str, lease: float) -> None:
    """Dispatch until killed, or until standard input ends."""
    feed = Dispatching(name, path)
    store = jetstream_store(url, lease=lease)
    feed.store = store
    await store.start(feed)
    print(f"holds {len(store.partitions)}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await store.close(10)


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])))
