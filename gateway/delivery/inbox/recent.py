"""Records that were just stored, so that dispatching them needs no reading. Bounded by bytes."""

from __future__ import annotations

from gateway.delivery.inbox.record import Record

__all__ = ["Recent"]


class Recent:
    """The newest records, by ref. What does not fit any more is loaded from the store."""

    __slots__ = ("_bytes", "_max_bytes", "_records")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._records: dict[int, tuple[Record, int]] = {}

    def put(self, ref: int, record: Record, size: int) -> None:
        """Keep a record of `size` bytes; the oldest make room for it."""
        self.drop(ref)
        self._records[ref] = (record, size)
        self._bytes += size
        while self._bytes > self._max_bytes:
            self.drop(next(iter(self._records)))

    def get(self, ref: int) -> Record | None:
        """Give a record, if it is here still."""
        found = self._records.get(ref)
        return None if found is None else found[0]

    def drop(self, ref: int) -> None:
        """Forget a record."""
        found = self._records.pop(ref, None)
        if found is not None:
            self._bytes -= found[1]
