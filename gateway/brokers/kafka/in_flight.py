"""The records that are published and not yet answered: their caps, and their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from gateway.brokers.base import BrokerError, Receipt
from gateway.brokers.kafka.errors import failure
from gateway.brokers.kafka.lanes import Batch, Record


class InFlight:
    """Counts records in and out, and ends each one's future exactly once."""

    def __init__(self, broker: str, max_records: int, max_bytes: int) -> None:
        self.count = 0
        self.bytes = 0
        self._broker = broker
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._empty: asyncio.Future[None] | None = None

    def admit(self, record: Record) -> bool:
        """Count `record` in, or say that a cap is reached."""
        held = self.bytes + record.size
        if self.count >= self._max_records or held > self._max_bytes:
            return False
        self.count += 1
        self.bytes = held
        return True

    def deliver(self, batch: Batch, topic: str, partition: int, offset: int) -> None:
        """Answer a batch whose first record is stored at `offset`."""
        records, unsure = batch.records, batch.unsure
        size = 0
        for record in records:
            size += record.size
            if not record.future.done():
                record.future.set_result(Receipt(topic, partition, offset, unsure=unsure))
            offset += 1
        self._release(len(records), size)

    def fail(
        self,
        records: Collection[Record],
        destination: str,
        outcome: type[BrokerError],
        reason: str,
        cause: BaseException | str = "",
    ) -> None:
        """Answer each of `records` with an error of its own."""
        if not records:
            return
        for record in records:
            self.reject(record.future, destination, outcome, reason, cause)
        self._release(len(records), sum(record.size for record in records))

    def reject(
        self,
        future: asyncio.Future[Receipt],
        destination: str,
        outcome: type[BrokerError],
        reason: str,
        cause: BaseException | str = "",
    ) -> None:
        """Fail a future, whether or not its record was counted in."""
        if future.done():
            return
        future.set_exception(failure(outcome, self._broker, destination, reason, cause))
        # Marks it as seen: a caller that has gone is no reason for a complaint in the log.
        future.exception()

    async def drain(self, timeout: float) -> None:
        """Wait until every record is answered, for at most `timeout` seconds."""
        if self.count == 0:
            return
        self._empty = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._empty], timeout=timeout)

    def _release(self, count: int, size: int) -> None:
        self.count -= count
        self.bytes -= size
        if self.count == 0 and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)
