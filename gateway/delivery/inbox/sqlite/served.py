"""The store of a process that owns the file: the others of its tree and the commands share it."""

from __future__ import annotations

from pathlib import Path

from gateway.delivery.inbox.owner import Owner, socket_path
from gateway.delivery.inbox.sqlite.store import SqliteStore
from gateway.delivery.inbox.store import Bounds, Feed

__all__ = ["ServedStore"]

_WORKERS_SHARE = 0.5
"""Of the time to close: for what the other workers have in hand; the rest is for the file."""
_FAILED = 5.0
"""Seconds for a file to be closed again beside which nothing can listen."""


class ServedStore(SqliteStore):
    """A `SqliteStore` that listens beside its file for as long as it is open."""

    def __init__(
        self, path: Path, bounds: Bounds, *, tree: str = "", patience: float = 0.0
    ) -> None:
        """`tree` is the name of the process tree whose workers may store here."""
        super().__init__(path, bounds, patience=patience)
        self._owner = Owner(self, socket_path(path), tree)

    async def start(self, feed: Feed) -> None:
        """See `SqliteStore.start`; then serve. Raises `InboxUnusableError`."""
        await super().start(feed)
        try:
            await self._owner.start()
        except BaseException:
            await super().close(_FAILED)
            raise

    async def close(self, timeout: float) -> None:
        """Serve the other workers to their end, then close the file; `timeout` seconds for both."""
        await self._owner.close(timeout * _WORKERS_SHARE)
        await super().close(timeout * (1 - _WORKERS_SHARE))
