"""Senders that put an event, wait until it is durable, settle it, wait again, and go on."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Iterable

from gateway.delivery.inbox.record import Record
from gateway.delivery.inbox.store import Entry, Store

__all__ = ["Refs", "measure"]


class Refs:
    """A feed that hands each sender the number of what it has put."""

    def __init__(self) -> None:
        self.of: dict[str, int] = {}

    def stored(self, entry: Entry, record: Record | None) -> None:
        if record is not None:
            self.of[record.name] = entry.ref

    def withdrawn(self, _: int) -> bool:
        """Let a store that closes have it back."""
        return True

    def discarded(self, record: Record, targets: int) -> None:
        raise AssertionError(record.name, targets)

    def lost(self, partition: int) -> None:
        """The store lets go of each when it closes."""


async def measure(store: Store, feed: Refs, senders: int, records: Iterable[Record]) -> str:
    """Put and settle all; give what that cost, of the whole process, in one line."""
    given, count = iter(records), 0

    async def send() -> None:
        nonlocal count
        for one in given:
            await store.put(one)
            await store.settle(feed.of.pop(one.name), 0)
            count += 1

    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    await asyncio.gather(*(send() for _ in range(senders)))
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    user = (after.ru_utime - before.ru_utime) / count * 1e6
    system = (after.ru_stime - before.ru_stime) / count * 1e6
    return (
        f"{senders:>4} senders  {count / seconds:>8,.0f} events/s"
        f"  {user:>6.1f} us user  {system:>6.1f} us system"
    )
