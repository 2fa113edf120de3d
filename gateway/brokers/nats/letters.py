"""Read dead letters back from the JetStream stream that has their subject.

They are asked for one after another by sequence, which needs no consumer and leaves nothing
behind on the server. A letter that is dealt with is deleted from the stream.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Collection
from datetime import datetime
from typing import TYPE_CHECKING

from gateway.brokers.base import BrokerOptionsError, Headers
from gateway.brokers.letters import Letter, LettersError, LettersUnavailable, Progress
from gateway.brokers.nats.errors import CONNECT_ERRORS, Denied, connection_problem
from gateway.brokers.nats.jetstream import ApiRefused, Requests, StoredMessage, StreamView
from gateway.brokers.nats.options import client_options
from gateway.brokers.nats.session import Session

if TYPE_CHECKING:
    from gateway.config.models import NatsConfig

__all__ = ["NatsLetters"]

_ANSWER_WITHIN = 5.0
_ID = re.compile(r"\d{1,18}")
_AT_ONCE = 16
"""Letters that are asked for at once, and held in memory."""
_NO_SEQUENCE = 0
"""No message has it."""


class NatsLetters:
    """The letters of one subject; fulfils `gateway.brokers.letters.Letters`."""

    def __init__(self, broker: str, config: NatsConfig, subject: str) -> None:
        """Raise `BrokerOptionsError` for options that cannot work, and for a core subject."""
        if not config.jetstream:
            problem = (
                f"is false, so nothing keeps what is published to {subject}: a core NATS subject"
                " has no letters to list or to replay"
            )
            raise BrokerOptionsError(broker, "jetstream", problem)
        self._broker = broker
        self._subject = subject
        self._options = client_options(broker, config)
        self._session: Session | None = None
        self._stream = ""
        self._view = StreamView()

    async def open(self) -> None:
        """See `Letters.open`."""
        try:
            session = self._session = await Session.open(self._options)
            streams = await session.requests.streams_of(self._subject, _ANSWER_WITHIN)
            if not streams:
                raise self._problem("no stream takes it", "create one, or correct the subject")
            self._stream = streams[0]
            self._view = await session.requests.stream_state(self._stream, _ANSWER_WITHIN)
        except (*CONNECT_ERRORS, ApiRefused) as error:
            raise self._failed(error, "read") from error

    async def read(self, ids: Collection[str] | None = None) -> AsyncIterator[Letter]:
        """See `Letters.read`."""
        if ids is None:
            async for letter in self._all():
                yield letter
            return
        wanted = sorted({int(name) for name in ids if _ID.fullmatch(name)})
        for start in range(0, len(wanted), _AT_ONCE):
            some = wanted[start : start + _AT_ONCE]
            found = await asyncio.gather(*(self._message({"seq": seq}) for seq in some))
            for one in found:
                if one is not None and one.subject == self._subject:
                    yield _letter(one)

    async def prepare(self) -> None:
        """See `Letters.prepare`."""
        config = self._view.config
        if config.deny_delete or config.sealed:
            raise self._problem(
                f"its stream {self._stream} lets nobody delete, and a letter that is dealt with is"
                " deleted",
                "make a stream without deny_delete for the dead letter; nothing was done",
            )
        try:
            # A right is only told of by using it: no message has this sequence.
            requests = self._requested()
            await requests.delete_message(self._stream, _NO_SEQUENCE, _ANSWER_WITHIN, erase=False)
        except (*CONNECT_ERRORS, ApiRefused) as error:
            raise self._failed(error, "delete") from error

    async def keep(self, letter: Letter, progress: Progress) -> None:
        """See `Letters.keep`. What was discarded is overwritten in the stream's file as well."""
        if progress.word == "partial":
            return
        erase = progress.word == "discarded"
        try:
            requests = self._requested()
            await requests.delete_message(self._stream, int(letter.id), _ANSWER_WITHIN, erase=erase)
        except (*CONNECT_ERRORS, ApiRefused) as error:
            raise self._failed(error, "delete") from error

    async def close(self) -> None:
        """See `Letters.close`."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _all(self) -> AsyncIterator[Letter]:
        last = self._view.state.last_seq
        seq, width = self._view.state.first_seq, 1
        while seq <= last:
            # Each answer takes a round trip, so several are asked for at once: as many as gave
            # different letters before. In a stream of many subjects that is one at a time.
            wanted = range(seq, min(seq + width, last + 1))
            found = await asyncio.gather(*(self._next(one) for one in wanted))
            distinct = {one.seq: one for one in found if one is not None and one.seq <= last}
            for one in distinct.values():
                yield _letter(one)
            if not distinct:
                return
            seq = max(distinct) + 1
            width = min(width * 2, _AT_ONCE) if len(distinct) == width else len(distinct)

    async def _next(self, seq: int) -> StoredMessage | None:
        return await self._message({"seq": seq, "next_by_subj": self._subject})

    async def _message(self, wanted: dict[str, object]) -> StoredMessage | None:
        try:
            return await self._requested().message(self._stream, wanted, _ANSWER_WITHIN)
        except (*CONNECT_ERRORS, ApiRefused) as error:
            raise self._failed(error, "read") from error

    def _requested(self) -> Requests:
        if self._session is None:
            raise RuntimeError("open comes first")
        return self._session.requests

    def _failed(self, error: BaseException, verb: str) -> Exception:
        if isinstance(error, Denied):
            return self._problem(f"could not {verb} letters: {error.problem}", "nothing was done")
        if isinstance(error, ApiRefused):
            refused = error.error.description
            remedy = "see the server's log and the stream"
            return self._problem(f"could not {verb} letters: {refused}", remedy)
        problem = connection_problem(self._options, error)
        return LettersUnavailable(self._broker, self._subject, "broker_down", problem)

    def _problem(self, problem: str, remedy: str) -> LettersError:
        return LettersError(self._broker, self._subject, problem, remedy)


def _letter(found: StoredMessage) -> Letter:
    return Letter(
        id=str(found.seq),
        value=found.data,
        headers=_headers(found.hdrs),
        key=None,
        stored_at=_seconds(found.time),
    )


def _headers(block: bytes) -> Headers:
    """Read a header block (ADR-4), without JetStream's own headers."""
    _, *lines = block.decode(errors="replace").split("\r\n")
    pairs = (line.partition(":") for line in lines if ":" in line)
    return tuple(
        (name, value.strip()) for name, _, value in pairs if not name.lower().startswith("nats-")
    )


def _seconds(time: str) -> float:
    """Read a time of the server, which has nanoseconds and no zone but UTC; 0 where it is none."""
    try:
        return datetime.fromisoformat(f"{time[:19]}+00:00").timestamp()
    except ValueError:
        return 0.0
