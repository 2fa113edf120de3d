"""The contract for reading dead letters back, and for keeping what became of them.

What a broker cannot do is in the kind's package: Kafka cannot delete one record, so what an
operator did is kept beside the topic; JetStream can, so a letter that is dealt with is gone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from typing import Literal, Protocol

import msgspec

from gateway import GatewayError
from gateway.brokers.base import Headers, Unavailable

__all__ = ["Letter", "Letters", "LettersError", "LettersUnavailable", "Progress"]


class Progress(msgspec.Struct, frozen=True, gc=False):
    """What an operator has done with a letter."""

    word: Literal["replayed", "partial", "discarded"]
    """`partial`: some of the records that it became are delivered, and others are not."""
    replays: int = 0
    """The number of its last replay, begun or done: `.r<n>` of the dedupe ids."""
    published: tuple[str, ...] = ()
    """The dedupe ids that a `partial` replay has delivered."""


class Letter(msgspec.Struct, frozen=True, gc=False):
    """One record of the dead letter."""

    id: str
    """Kafka: `<partition>-<offset>`; JetStream: the stream's sequence."""
    value: bytes
    headers: Headers
    """As they are stored; a value that is no UTF-8 has the replacement character."""
    key: str | None
    stored_at: float
    """Unix seconds, by the broker's account."""
    progress: Progress | None = None


class LettersError(GatewayError):
    """Letters that cannot be read, or whose progress cannot be kept, until somebody mends it."""

    def __init__(self, broker: str, destination: str, problem: str, remedy: str) -> None:
        self.broker = broker
        self.destination = destination
        """The topic, subject or stream."""
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{broker}: {destination}: {problem}; {remedy}")


class LettersUnavailable(Unavailable):
    """The broker of the letters cannot be reached, or fell silent."""

    outcome = "could not reach"


class Letters(Protocol):
    """The letters of one topic or subject, as they were when it was opened.

    Every wait is bounded. All methods raise `LettersUnavailable` and `LettersError`.
    """

    async def open(self) -> None:
        """Connect, and note where the letters end now. Call `close` also when it fails."""
        ...

    def read(self, ids: Collection[str] | None = None) -> AsyncIterator[Letter]:
        """Give all letters, or those of `ids` that are there, in the order that the broker keeps.

        That is each partition from its oldest to its newest, one after the other. What was dealt
        with is given too, where it is still there. One read at a time.
        """
        ...

    async def prepare(self) -> None:
        """Make sure that progress can be kept, before anything is published.

        Kafka: creates the topic of the progress when it is missing.
        """
        ...

    async def keep(self, letter: Letter, progress: Progress) -> None:
        """Keep what was done with a letter, durably; may be called for several at once.

        JetStream keeps no `partial`, and deletes the letter for the others.
        """
        ...

    async def close(self) -> None:
        """Disconnect. Idempotent; never raises."""
        ...
