"""The records that are published and not yet answered: their caps, and their answers."""

from __future__ import annotations

import asyncio

from gateway.brokers.base import BrokerError, Message, Receipt


class Entry:
    """One record on its way."""

    __slots__ = (
        "attempts", "deadline", "denied", "expires", "future", "headers", "message", "on_wire",
        "size", "timer",
    )  # fmt: skip

    def __init__(
        self,
        message: Message,
        headers: dict[str, str],
        size: int,
        deadline: float,
        expires: float,
        future: asyncio.Future[Receipt],
    ) -> None:
        """`size` is in bytes. `deadline` ends retries, `expires` the wait for an ack."""
        self.message = message
        self.headers = headers
        self.size = size
        self.deadline = deadline
        self.expires = expires
        self.future = future
        self.attempts = 0
        self.on_wire = True
        """Sent and not answered: it may be stored."""
        self.denied = False
        """An attempt was refused as not permitted."""
        self.timer: asyncio.TimerHandle | None = None
        """Waits for its next attempt."""


class InFlight:
    """Counts records in and out, and ends each one's future exactly once."""

    def __init__(self, max_records: int, max_bytes: int) -> None:
        self.count = 0
        self.bytes = 0
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._empty: asyncio.Future[None] | None = None

    def has_room(self, size: int) -> bool:
        """Whether one more record of `size` bytes stays within the caps."""
        return self.count < self._max_records and self.bytes + size <= self._max_bytes

    def admit(self, entry: Entry) -> None:
        """Count `entry` in."""
        self.count += 1
        self.bytes += entry.size

    def settle(self, entry: Entry, answer: Receipt | BrokerError) -> None:
        """Count `entry` out and end its future."""
        self.count -= 1
        self.bytes -= entry.size
        if entry.timer is not None:
            entry.timer.cancel()
        if not entry.future.done():
            if isinstance(answer, Receipt):
                entry.future.set_result(answer)
            else:
                _fail(entry.future, answer)
        if not self.count and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    async def drain(self, timeout: float) -> None:
        """Wait until every record is answered, for at most `timeout` seconds."""
        if not self.count:
            return
        self._empty = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._empty], timeout=timeout)


def failed(error: BrokerError) -> asyncio.Future[Receipt]:
    """A future that ended with `error`."""
    future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
    _fail(future, error)
    return future


def _fail(future: asyncio.Future[Receipt], error: BrokerError) -> None:
    future.set_exception(error)
    # Marks it as seen: a caller that has gone is no reason for a complaint in the log.
    future.exception()
