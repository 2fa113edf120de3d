"""The embedded store of the inbox: one SQLite file, one owner."""

from gateway.delivery.inbox.sqlite.served import ServedStore
from gateway.delivery.inbox.sqlite.store import SqliteStore

__all__ = ["ServedStore", "SqliteStore"]
