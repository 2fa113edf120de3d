"""The contract of claims: how processes share what they know of events.

A process delivers an event only while it has the claim on it, and on its release hands over what it
knows. So the copies and retries of an event that reach several processes are delivered as if one
process had them all. What cannot be claimed because nobody answers is delivered all the same,
*unshared*.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from gateway import GatewayError
from gateway.delivery.settlement import Settlement

if TYPE_CHECKING:
    from asyncio import Future

__all__ = ["Claims", "Known", "Unshared", "UnsharedReason"]

UnsharedReason = Literal["unreachable", "timeout", "full", "refused", "lost", "not_saved"]
"""`unreachable`: there is no connection to what is shared. `timeout`: it does not answer. `full`:
it takes no more. `refused`: it answers with another error. `lost`: another process may have taken
the claim. `not_saved`: what came of the delivery could not be handed over."""


class Known(msgspec.Struct, frozen=True, gc=False):
    """What is known of an event, from process to process."""

    targets: dict[str, Settlement] = msgspec.field(default_factory=dict)
    """What is settled, by the record's dedupe id."""
    complete: bool = False
    """A request for it was answered 2xx, and nothing is owed since."""
    age: float = 0.0
    """Of a complete one: seconds since that answer. Clocks of two machines are not compared."""


class Unshared(GatewayError):
    """There is no claim on an event, because what the processes share cannot be used."""

    def __init__(self, reason: UnsharedReason) -> None:
        self.reason: UnsharedReason = reason
        super().__init__(f"the ledger is not shared now: {reason}")


class Claims(Protocol):
    """One process's claims. Nothing here blocks, and nothing is held up for more than a second."""

    async def start(self, on_lost: Callable[[str], None]) -> None:
        """Begin to connect, in the background; `on_lost` gets the key of a claim that is gone."""
        ...

    def claim(self, key: str) -> Future[Known]:
        """Ask for the claim on an event; the future gives what others know of it.

        It stays open for as long as another process has the claim, and fails with `Unshared`
        where nobody answers. Who no longer waits cancels it. A process asks once at a time.
        """
        ...

    def release(self, key: str, known: Known, done: Callable[[bool], None]) -> None:
        """Give up a claim that was given, and hand over what is known; `done` is told if it was."""
        ...

    async def close(self) -> None:
        """Hand over what is on its way, for a second at the most, and disconnect."""
        ...
