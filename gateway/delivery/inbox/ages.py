"""Records by their age. Pure: the times are given."""

from __future__ import annotations

from collections.abc import Container, Sized
from heapq import heapify, heappop, heappush
from typing import Protocol

__all__ = ["Ages"]


class _Known(Container[int], Sized, Protocol):
    """The refs of the records that there are."""


class Ages:
    """Records by when they were stored. Those that are not `known` any more are passed over."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []

    def add(self, stored_at: float, ref: int, known: _Known) -> None:
        """Take a record that is known from now on."""
        heappush(self._heap, (stored_at, ref))
        if len(self._heap) > 2 * len(known) + 64:
            self._heap = [one for one in self._heap if one[1] in known]
            heapify(self._heap)

    def first(self, known: _Known) -> float | None:
        """Give when the oldest was stored."""
        while self._heap and self._heap[0][1] not in known:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop(self, until: float, known: _Known) -> int | None:
        """Take the oldest out, if it was stored until then, and give its ref."""
        first = self.first(known)
        return heappop(self._heap)[1] if first is not None and first <= until else None
