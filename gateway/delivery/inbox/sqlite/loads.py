"""Gathers what is loaded in one round of the event loop into few reads."""

from __future__ import annotations

import asyncio
from functools import partial

from gateway.delivery.inbox.record import Record
from gateway.delivery.inbox.sqlite.operations import fail, resolve
from gateway.delivery.inbox.sqlite.reader import Reader, load
from gateway.delivery.inbox.store import InboxUnavailableError

__all__ = ["Loads"]

_AT_ONCE = 64
"""Records of one read."""


class Loads:
    """Records that are wanted by their numbers."""

    def __init__(self, where: str, reader: Reader) -> None:
        self._where = where
        self._reader = reader
        self._wanted: dict[int, asyncio.Future[Record]] = {}

    async def load(self, ref: int) -> Record:
        """Give a record. Raises `InboxUnavailableError`."""
        loop = asyncio.get_running_loop()
        future = self._wanted.get(ref)
        if future is None:
            if not self._wanted:
                loop.call_soon(self._read)
            future = self._wanted[ref] = loop.create_future()
        # Two who want it share it; neither takes it from the other by being cancelled.
        return await asyncio.shield(future)

    def fail(self, error: InboxUnavailableError) -> None:
        """Fail what is not being read yet."""
        for future in self._wanted.values():
            fail(future, error)

    def _read(self) -> None:
        wanted, self._wanted = self._wanted, {}
        refs = list(wanted)
        for start in range(0, len(refs), _AT_ONCE):
            some = refs[start : start + _AT_ONCE]
            job = self._reader.read(load, some)
            job.add_done_callback(partial(self._found, {ref: wanted[ref] for ref in some}))

    def _found(
        self,
        wanted: dict[int, asyncio.Future[Record]],
        job: asyncio.Future[dict[int, Record | str]],
    ) -> None:
        error = job.exception()
        for ref, future in wanted.items():
            found = "" if error else job.result().get(ref, "there is no such record")
            if isinstance(error, InboxUnavailableError):
                fail(future, error)
            elif isinstance(found, Record):
                resolve(future, found)
            else:
                detail = f"record {ref}: {found}"
                fail(future, InboxUnavailableError(self._where, "inbox_unavailable", detail))
