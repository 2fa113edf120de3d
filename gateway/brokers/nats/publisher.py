"""The way of a record over one connection, from the wire to its ack.

JetStream: every publish names a reply subject under one wildcard subscription of our own, and the
PubAck that comes there settles it. Core: a PING follows the publishes of one turn of the event
loop, and its PONG settles them.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import msgspec
from nats.aio.msg import Msg

from gateway.brokers.base import BrokerError, Message, Receipt, Refused, Unavailable
from gateway.brokers.nats.connection import Connection
from gateway.brokers.nats.errors import NO_ACK, ConnectionLost, Verdict, failure, verdict_of
from gateway.brokers.nats.in_flight import Entry, InFlight, failed
from gateway.brokers.nats.jetstream import ApiRefused, PubAck, Requests, new_inbox, nobody
from gateway.brokers.nats.protocol import header_block, is_publishable

_SWEEP_EVERY = 0.25
_RETRY_FIRST = 0.05
_RETRY_MOST = 1.0
_ASK_BEFORE_DEADLINE = 1.0
_ASK_WITHIN = 0.8
_DENIED_AGAIN_AFTER = 1.0
"""A server that gets new permissions applies them to connections that are open."""

_INVALID_DESTINATION = Verdict(Refused, "invalid_destination")
_INVALID_RECORD = Verdict(Refused, "invalid_record")
_TOO_LARGE = Verdict(Refused, "too_large")
_NOT_AUTHORIZED = Verdict(Refused, "not_authorized")
_NO_STREAM = Verdict(Refused, "no_stream")
_NO_LEADER = Verdict(Unavailable, "no_leader")
_OVERLOADED = Verdict(Unavailable, "overloaded")
_DOWN = Verdict(Unavailable, "broker_down")
_TIMEOUT = Verdict(Unavailable, "timeout")

_ack_decoder = msgspec.json.Decoder(PubAck)


class Publisher:
    """Publishes on one connection until that ends; what it has then not answered, it fails."""

    def __init__(
        self,
        broker: str,
        connection: Connection,
        in_flight: InFlight,
        *,
        jetstream: bool,
        request_timeout: float,
        on_ended: Callable[[str], None],
    ) -> None:
        """`on_ended` is told, once, why no more can be published here."""
        self._broker = broker
        self._connection = connection
        self._in_flight = in_flight
        self._jetstream = jetstream
        self._request_timeout = request_timeout
        self._on_ended = on_ended
        self._loop = asyncio.get_running_loop()
        self._pending: dict[int, Entry] = {}
        """By token, in the order of publishing, which is that of expiry."""
        self._last_token = 0
        self._inbox = new_inbox()
        self._batch: list[tuple[int, int]] = []
        self._denied: set[str] = set()
        """In lower case, as nats-py tells them; two that differ only in case count as one."""
        self._asking: dict[str, list[int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._retired = False
        self._sweeper: asyncio.TimerHandle | None = None
        self.requests = Requests(connection)

    @property
    def idle(self) -> bool:
        """Whether it is of no more use: it takes nothing, waits for nothing, and is closed."""
        return self._retired and not self._pending and self._connection.closed

    async def open(self, timeout: float) -> None:
        """Begin: subscribe to the acks and wait until the server has taken that.

        Raises `ConnectionLost`.
        """
        self._connection.listen(self)
        if self._jetstream:
            self._connection.subscribe(f"{self._inbox}*", self._acked)
        await self.requests.settled(timeout)
        self._sweeper = self._loop.call_later(_SWEEP_EVERY, self._sweep)

    def publish(self, message: Message, deadline: float) -> asyncio.Future[Receipt]:
        """See `Broker.publish`."""
        if not is_publishable(message.destination):
            return self._reject(message, _INVALID_DESTINATION)
        block = header_block(message.headers, message.dedupe_id)
        if block is None:
            detail = "a header with a line break, a name that is no token, or a name twice"
            return self._reject(message, _INVALID_RECORD, detail)
        headers, size = block
        size += len(message.value)
        if size > self._connection.max_payload:
            limit = f"max_payload of the server is {self._connection.max_payload} bytes"
            return self._reject(message, _TOO_LARGE, limit)
        if not self._in_flight.has_room(size):
            return self._reject(message, _OVERLOADED)
        # No suspension from here to the wire: that keeps the order of the calls.
        expires = self._loop.time() + self._request_timeout
        future: asyncio.Future[Receipt] = self._loop.create_future()
        entry = Entry(message, headers, size, deadline, expires, future)
        self._in_flight.admit(entry)
        self._last_token = token = self._last_token + 1
        self._pending[token] = entry
        self._send(token, entry)
        return future

    def retire(self) -> None:
        """Take no more, but wait for the acks that are still due: a late one counts."""
        if self._retired:
            return
        self._retired = True
        for token, entry in list(self._pending.items()):
            if not entry.on_wire:
                self._fail(token, _DOWN)
        self._end_if_idle()

    def abandon(self, problem: str) -> None:
        """End now. What is on the wire may be stored; what waits for a retry is not."""
        self._retired = True
        for token, entry in list(self._pending.items()):
            self._fail(token, NO_ACK if entry.on_wire else _DOWN, problem)
        self._end_if_idle()
        self.requests.fail(problem)
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        """`abandon`, and wait until the connection is closed, for less than a second."""
        self.abandon("the gateway is shutting down")
        await self._connection.close()

    def connection_ended(self, problem: str) -> None:
        """See `Listener`."""
        told = self._retired
        self.abandon(problem)
        if not told:
            self._on_ended(problem)

    def connection_silent(self, problem: str) -> None:
        """See `Listener`."""
        if not self._retired:
            self._on_ended(problem)

    def publish_denied(self, subject: str) -> None:
        """See `Listener`."""
        # Each refused publish is told of, and one look serves those of one read.
        if not self._denied:
            self._loop.call_soon(self._apply_denials)
        self._denied.add(subject)
        self.requests.denied(subject)

    def _send(self, token: int, entry: Entry) -> None:
        message = entry.message
        if self._jetstream:
            reply = f"{self._inbox}{token}"
            self._connection.publish(message.destination, reply, entry.headers, message.value)
            return
        self._connection.publish(message.destination, "", entry.headers, message.value)
        if not self._batch:
            self._loop.call_soon(self._flush)
        self._batch.append((token, entry.attempts))

    def _flush(self) -> None:
        batch, self._batch = self._batch, []
        self._connection.ping(partial(self._flushed, batch))

    def _flushed(self, batch: list[tuple[int, int]]) -> None:
        # A refusal comes before the PONG: it must count first.
        self._apply_denials()
        for token, attempt in batch:
            entry = self._pending.get(token)
            if entry is not None and entry.on_wire and entry.attempts == attempt:
                self._settle(token, Receipt(entry.message.destination))

    def _acked(self, msg: Msg) -> None:
        # Whoever listens on the subject may answer here too, so nothing about it is trusted.
        try:
            token = int(msg.subject[len(self._inbox) :])
        except ValueError:
            return
        entry = self._pending.get(token)
        if entry is None:
            return  # given up already
        if nobody(msg):
            self._no_responders(token, entry)
            return
        try:
            ack = _ack_decoder.decode(msg.data)
        except msgspec.MsgspecError:
            return  # some other listener's answer, and no ack: that is still to come
        if ack.error is not None:
            detail = f"{ack.error.description} ({ack.error.err_code})"
            self._fail(token, verdict_of(ack.error), detail)
            return
        if not ack.stream:
            return  # the same in JSON
        destination = entry.message.destination
        self._settle(token, Receipt(destination, None, None, ack.stream, ack.seq, ack.duplicate))

    def _no_responders(self, token: int, entry: Entry) -> None:
        """No stream took it: there is none, or it has no leader now. Try until the deadline."""
        if not entry.on_wire:
            return
        entry.on_wire = False
        if self._retired:
            # Its server fell silent once; a new connection is for new records.
            self._fail(token, _DOWN)
            return
        # Spread out, so that records which failed together do not come back together.
        delay = min(_RETRY_MOST, _RETRY_FIRST * 2**entry.attempts) * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
        entry.attempts += 1
        last = min(entry.deadline, entry.expires) - _ASK_BEFORE_DEADLINE
        if self._loop.time() + delay < last:
            entry.timer = self._loop.call_later(delay, self._send_again, token, entry)
        else:
            self._ask_for_stream(token, entry.message.destination)

    def _send_again(self, token: int, entry: Entry) -> None:
        entry.timer = None
        entry.on_wire = True
        self._send(token, entry)

    def _ask_for_stream(self, token: int, subject: str) -> None:
        # One question per subject: all that wait for it get the same answer.
        waiting = self._asking.get(subject)
        if waiting is not None:
            waiting.append(token)
            return
        self._asking[subject] = [token]
        self._spawn(self._decide_without_stream(subject))

    async def _decide_without_stream(self, subject: str) -> None:
        verdict, detail = _NO_LEADER, "its stream has no leader"
        try:
            if not await self.requests.streams_of(subject, _ASK_WITHIN):
                verdict, detail = _NO_STREAM, "no stream takes this subject; create one"
        except (ConnectionLost, ApiRefused) as error:
            detail = str(error)
        for token in self._asking.pop(subject):
            self._fail(token, verdict, detail)

    def _apply_denials(self) -> None:
        """Give what was refused a second try, for permissions may have just changed."""
        denied, self._denied = self._denied, set()
        if not denied:
            return
        for token, entry in list(self._pending.items()):
            if entry.message.destination.lower() not in denied or not entry.on_wire:
                continue
            entry.on_wire = False
            if entry.denied or self._retired:
                detail = "the login may not publish to this subject; allow it on the server"
                self._fail(token, _NOT_AUTHORIZED, detail)
                continue
            entry.denied = True
            entry.attempts += 1
            entry.timer = self._loop.call_later(_DENIED_AGAIN_AFTER, self._send_again, token, entry)

    def _sweep(self) -> None:
        self._sweeper = self._loop.call_later(_SWEEP_EVERY, self._sweep)
        now = self._loop.time()
        expired = []
        # A retry keeps its token and so its place: the oldest is always first.
        for token, entry in self._pending.items():
            if entry.expires > now:
                break
            expired.append(token)
        for token in expired:
            self._fail(
                token, NO_ACK if self._pending[token].on_wire else _TIMEOUT, "no ack in time"
            )

    def _fail(self, token: int, verdict: Verdict, cause: BaseException | str = "") -> None:
        entry = self._pending.get(token)
        if entry is not None:
            error = failure(self._broker, entry.message.destination, verdict, cause)
            self._settle(token, error)

    def _settle(self, token: int, answer: Receipt | BrokerError) -> None:
        self._in_flight.settle(self._pending.pop(token), answer)
        if self._retired:
            self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._pending:
            return
        self._connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()

    def _reject(
        self, message: Message, verdict: Verdict, detail: str = ""
    ) -> asyncio.Future[Receipt]:
        return failed(failure(self._broker, message.destination, verdict, detail))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
