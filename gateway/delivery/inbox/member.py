"""Which process of its tree this one is, and so what it has: the file, or its owner's socket."""

from __future__ import annotations

from pathlib import Path

import msgspec

from gateway.delivery.inbox.owner import socket_path
from gateway.delivery.inbox.remote import RemoteStore
from gateway.delivery.inbox.store import Bounds, InboxUnusableError, Store

__all__ = ["ALONE", "Member", "store_at"]

_PREDECESSOR = 5.0
"""Seconds that a worker waits for the one in whose place it is started to let go of the file."""


class Member(msgspec.Struct, frozen=True):
    """The place of a process in its tree."""

    worker: int = 0
    """Its number. The first owns the file of an inbox, and dispatches what is in it."""
    tree: str = ""
    """The name of the tree, which no other has; empty for a process alone."""

    @property
    def is_first(self) -> bool:
        """Whether this is the one that owns what only one can own."""
        return self.worker == 0


ALONE = Member()


def store_at(path: Path, bounds: Bounds, member: Member) -> Store:
    """Make the store of a process whose tree has its inbox in a file; nothing is opened yet.

    Raises `InboxUnusableError` where the directory is missing.
    """
    if not path.absolute().parent.is_dir():
        problem = "its directory does not exist"
        raise InboxUnusableError(str(path), problem, "create it, or change delivery.inbox.path")
    if not member.is_first:
        return RemoteStore(socket_path(path), member.tree)
    from gateway.delivery.inbox.sqlite import ServedStore  # noqa: PLC0415 - only where it is used

    # Another gateway is not waited for, only one's own predecessor.
    patience = _PREDECESSOR if member.tree else 0.0
    return ServedStore(path, bounds, tree=member.tree, patience=patience)
