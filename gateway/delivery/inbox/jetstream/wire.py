"""One connection of the inbox: pipelined writes with their acks, and questions to JetStream.

As `brokers.nats.publisher` does it: every write names a reply subject under one subscription, so
that an ack costs neither a subscription nor a task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from nats.aio.msg import Msg

from gateway.brokers.nats.connection import Connection, connect_any
from gateway.brokers.nats.errors import ApiError, ConnectionLost
from gateway.brokers.nats.jetstream import new_inbox, nobody
from gateway.brokers.nats.options import ClientOptions, Server
from gateway.brokers.nats.session import Session

__all__ = ["Ack", "Wire", "seen"]

_SWEEP_EVERY = 0.25
_ANSWER_WITHIN = 5.0
_MSG_ID = "Nats-Msg-Id"
_EXPECTED = "Nats-Expected-Last-Subject-Sequence"


class Ack(msgspec.Struct, frozen=True, gc=False):
    """The answer to a write: a PubAck, or that of a call of the API."""

    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    success: bool = False
    error: ApiError | None = None


_NOBODY = Ack(error=ApiError(503, 0, "no stream takes it now"))

_AROUND_HEADERS = 32
"""Bytes of a header block beside names and values, and a little more."""

_decode = msgspec.json.Decoder(Ack).decode


class _Write(msgspec.Struct, eq=False, gc=False):
    future: asyncio.Future[Ack]
    expires: float
    subject: str
    size: int


class Wire(Session):
    """A session that writes too; of no more use once `ended` is done."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._loop = asyncio.get_running_loop()
        self._inbox = new_inbox()
        self._pending: dict[int, _Write] = {}
        """By token, in the order of writing, which is that of expiry."""
        self._token = 0
        self.pending_bytes = 0
        """Of the writes that have no answer yet."""
        self._sweeper = self._loop.call_later(_SWEEP_EVERY, self._sweep)

    @classmethod
    async def dial(cls, options: ClientOptions, servers: Sequence[Server]) -> Wire:
        """Connect to one of the servers. Raises what `errors.CONNECT_ERRORS` lists."""
        wire = cls(await connect_any(options, servers))
        try:
            wire.connection.subscribe(f"{wire._inbox}*", wire._answered)
            await wire.requests.settled(_ANSWER_WITHIN)
        except BaseException:
            await wire.close()
            raise
        return wire

    @property
    def pending(self) -> int:
        """How many writes have no answer yet."""
        return len(self._pending)

    def write(
        self, subject: str, value: bytes = b"", *, msg_id: str = "", expected: int | None = None
    ) -> asyncio.Future[Ack]:
        """Publish, and give the future of the answer, an error of the server included.

        `expected` is the sequence that the subject's last message must have, 0 for none. The
        future fails with `ConnectionLost`: then it is not known whether it was written.
        """
        headers = {_MSG_ID: msg_id} if msg_id else {}
        if expected is not None:
            headers[_EXPECTED] = str(expected)
        size = len(value) + sum(len(n) + len(v) for n, v in headers.items()) + _AROUND_HEADERS
        future: asyncio.Future[Ack] = self._loop.create_future()
        if size > self.connection.max_payload:
            # Sending it would make the server close the connection.
            limit = f"max_payload of the server is {self.connection.max_payload} bytes"
            future.set_result(Ack(error=ApiError(413, 0, f"{size} bytes are too many: {limit}")))
        elif self.ended.done():
            future.set_exception(ConnectionLost(self.ended.result()))
        else:
            self._token = token = self._token + 1
            self._pending[token] = _Write(future, self._loop.time() + _ANSWER_WITHIN, subject, size)
            self.pending_bytes += size
            self.connection.publish(subject, f"{self._inbox}{token}", headers or None, value)
        return future

    def call(self, name: str, body: Any) -> asyncio.Future[Ack]:
        """Ask JetStream's API for a change, as `write` does: `call("STREAM.MSG.DELETE.X", …)`."""
        return self.write(f"$JS.API.{name}", msgspec.json.encode(body))

    async def close(self) -> None:
        """Disconnect; what has no answer fails."""
        await super().close()
        self.connection_ended("the gateway is shutting down")

    def connection_ended(self, problem: str) -> None:
        """See `Listener`."""
        super().connection_ended(problem)
        self._sweeper.cancel()
        for token in list(self._pending):
            self._fail(token, problem)

    def publish_denied(self, subject: str) -> None:
        """See `Listener`."""
        super().publish_denied(subject)
        denied = [at for at, one in self._pending.items() if one.subject.lower() == subject]
        for token in denied:
            what = self._pending[token].subject
            self._fail(token, f"the login may not publish to {what}; allow it on the server")

    def _answered(self, msg: Msg) -> None:
        try:
            token = int(msg.subject[len(self._inbox) :])
            ack = _NOBODY if nobody(msg) else _decode(msg.data)
        except (ValueError, msgspec.MsgspecError):
            return  # no answer of JetStream's: that is still to come
        write = self._take(token)
        if write is not None and not write.future.done():
            write.future.set_result(ack)

    def _take(self, token: int) -> _Write | None:
        write = self._pending.pop(token, None)
        if write is not None:
            self.pending_bytes -= write.size
        return write

    def _fail(self, token: int, problem: str) -> None:
        write = self._take(token)
        if write is not None and not write.future.done():
            write.future.set_exception(ConnectionLost(problem))

    def _sweep(self) -> None:
        self._sweeper = self._loop.call_later(_SWEEP_EVERY, self._sweep)
        now = self._loop.time()
        expired = []
        for token, write in self._pending.items():
            if write.expires > now:
                break
            expired.append(token)
        for token in expired:
            self._fail(token, "no answer in time")


def seen(future: asyncio.Future[Any]) -> None:
    """Take note of a failure that nobody waits for."""
    if not future.cancelled():
        future.exception()
