"""The contract of a store of the inbox: what goes in, what comes out, what each failure means.

A store keeps records in order of arrival, each with the targets that are still owed, until the
last one is settled. It knows nothing of brokers, routes or time-outs: the dispatcher does. One
suite in `tests/inbox/` holds every store to this contract, and the fake with them.

What waits is indexed in memory by the dispatcher (`Entry`, some 650 bytes an event); records
themselves stay in the store and are loaded when their turn comes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from gateway import GatewayError
from gateway.delivery.inbox.record import Record, Target

if TYPE_CHECKING:
    from asyncio import Future

__all__ = [
    "Bounds",
    "Entry",
    "Feed",
    "Held",
    "InboxFullError",
    "InboxUnavailableError",
    "InboxUnusableError",
    "Parked",
    "Placed",
    "Store",
    "Usage",
    "Writable",
]


class InboxUnusableError(GatewayError):
    """What is there cannot be opened, and is left as it is: foreign, corrupt, newer, or in use."""

    def __init__(self, where: str, problem: str, remedy: str) -> None:
        self.where = where
        """The file, or the stream."""
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{where}: {problem}; {remedy}")


class InboxUnavailableError(GatewayError):
    """A write or read that failed, and may succeed later. Nothing is known to be stored."""

    def __init__(self, where: str, reason: str, detail: str = "") -> None:
        self.where = where
        self.reason = reason
        """One bounded word: `inbox_full`, `inbox_unavailable`, `overloaded`, `closing`."""
        self.detail = detail
        """For the operator's log: no payload, no secret."""
        super().__init__(f"{where}: {reason}" + (f" ({detail})" if detail else ""))


class InboxFullError(InboxUnavailableError):
    """The bound of bytes is reached, of what waits or of what is parked; or there is no room."""

    def __init__(self, where: str, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        """0: not the bound, but the storage of the server, or of its account, is reached."""
        problem = f"its bound of {max_bytes} bytes is reached"
        remedy = "wait until there is room, or raise the bound in delivery.inbox"
        if not max_bytes:
            problem = "the storage of the server, or of its account, is full"
            remedy = "make room there, or raise its limit"
        super().__init__(where, "inbox_full", f"{problem}: {remedy}")


class Writable(StrEnum):
    """Whether the store takes records now, as far as is known."""

    YES = "yes"
    FULL = "full"
    NO = "no"


class Placed(msgspec.Struct, frozen=True, gc=False):
    """What became of a record that was put."""

    state: Literal["stored", "pending", "finished"]
    """`stored`: it is durable now. `pending`: a copy of it waits already, durably. `finished`: a
    copy was settled less than the dedupe window ago."""


class Bounds(msgspec.Struct, frozen=True):
    """What a store is held to."""

    max_bytes: int
    """Of what waits; a record that does not fit is refused by `InboxFullError`."""
    parked_max_bytes: int
    """Of what is parked: a bound of its own, so that it never fills the live one."""
    window: float
    """Seconds that a finished record is remembered by its name: from its settlement on. JetStream
    counts them from when it was stored, for a look at each put would cost a round trip: a copy of
    one that waited longer than that is stored anew.
    """


class Entry(msgspec.Struct, frozen=True, gc=False):
    """What the dispatcher keeps in memory of a record that waits."""

    ref: int
    """The store's number for it. Within a partition a later arrival has a greater one."""
    partition: int
    """0 for a store that has one owner; see `Feed.lost`."""
    stored_at: float
    """The record's own: its age counts from there."""
    owed: int
    """Bitmask of the targets that are not settled, by their place in `targets`; never 0."""
    targets: tuple[Target, ...]
    size: int
    """Bytes that the record takes in the store."""


class Feed(Protocol):
    """Who is told what there is to dispatch; all calls come from the event loop."""

    def stored(self, entry: Entry, record: Record | None) -> None:
        """Take what is durable and waits: on start all that is there, in order, then each new one.

        `record` is given where it is at hand; else it is loaded when its turn comes.
        """
        ...

    def withdrawn(self, ref: int) -> bool:
        """Forget a waiting record that an operator discards; False while it is being published.

        Where discarding it then fails, the store gives it to `stored` once more.
        """
        ...

    def discarded(self, record: Record, targets: int) -> None:
        """Take note that an operator has dropped these targets (a bitmask), durably: waiting or
        parked, it is their settlement.
        """
        ...

    def lost(self, partition: int) -> None:
        """Stop to dispatch a partition: its lease has gone to another replica, or may have."""
        ...


class Parked(msgspec.Struct, frozen=True, gc=False):
    """One target of a record that was refused for good and has no dead letter to go to."""

    record: Record
    target: int
    """Its place in `targets`."""
    reason: str
    """A bounded word."""
    detail: str
    parked_at: float
    """Unix seconds."""


class Held(msgspec.Struct, frozen=True):
    """A record, as an operator sees it."""

    id: str
    """What `show`, `replay` and `discard` take; unique in the store."""
    state: Literal["pending", "parked"]
    record: Record
    owed: int
    """Bitmask of the targets that it is held for."""
    size: int
    reason: str = ""
    detail: str = ""
    held_since: float = 0.0
    """Unix seconds since which it is stored, or parked."""


class Usage(msgspec.Struct, frozen=True):
    """How much is in the store, by its own account; bytes are what the bounds are held to."""

    events: int
    bytes: int
    parked: int
    parked_bytes: int


class Store(Protocol):
    """Records that are not delivered yet, durable."""

    @property
    def writable(self) -> Writable:
        """What `/readyz` tells."""
        ...

    @property
    def usage(self) -> Usage:
        """What is in there now."""
        ...

    @property
    def commits(self) -> int:
        """How often what was written was made durable: for SQLite one fsync of the log each."""
        ...

    def bound(self, bounds: Bounds) -> None:
        """Be held to other bounds from now on; what is stored already stays."""
        ...

    async def start(self, feed: Feed) -> None:
        """Open or create, and feed what is there. Raises `InboxUnusableError`."""
        ...

    def put(self, record: Record) -> Future[Placed]:
        """Store a record; the future resolves when it is durable, or fails.

        It fails with `InboxUnavailableError` (or `InboxFullError`) and nothing else. Cancelling the
        future takes nothing back. Never blocks, never raises. A new record is given to
        the feed before the future resolves.
        """
        ...

    async def load(self, ref: int) -> Record:
        """Give the record that waits under a number. Raises `InboxUnavailableError`."""
        ...

    def settle(self, ref: int, owed: int) -> Future[None]:
        """Keep that only these targets are still owed; with 0 the record is finished.

        Resolves when that is durable. A finished record is remembered by name for the dedupe window
        and its bytes are given back. Fails with `InboxUnavailableError`; it may be called again.
        """
        ...

    def park(self, ref: int, owed: int, parked: Parked) -> Future[None]:
        """Set a target aside for an operator, and keep that these are still owed: both or none.

        Fails with `InboxFullError` where the parked ones have no room, `InboxUnavailableError`; it
        may be called again: a target that is parked already, because the answer was lost, is not
        parked twice.
        """
        ...

    def held(self) -> AsyncIterator[Held]:
        """Give all that waits and all that is parked, for the operator; the oldest first."""
        ...

    async def unpark(self, ids: Sequence[str], *, rerouted: dict[str, Record]) -> int:
        """Put parked targets back to be dispatched, last in their lanes; give how many.

        Where only some have room, gives how many; where none has, raises `InboxFullError`.

        Each becomes a record of its own, `replayed` with that target alone, or the record given in
        `rerouted` by id. Both or none for each; ids that are not parked are passed over, so that
        it may be repeated. Raises `InboxUnavailableError`.
        """
        ...

    async def discard(self, ids: Sequence[str]) -> int:
        """Drop records for good, parked or waiting; give how many. As `unpark` otherwise.

        The feed is asked by `withdrawn` first: what is being published now is not discarded.
        """
        ...

    async def close(self, timeout: float) -> None:
        """Write what was taken, for at most `timeout` seconds, and let go. Idempotent."""
        ...
