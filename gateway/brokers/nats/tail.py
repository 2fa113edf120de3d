"""Read back what arrives at subjects, for `gateway tail` and `gateway dev`.

JetStream: one ephemeral consumer per stream, made anew from the last sequence when one of its
deliveries is missing, as the ordered consumers of the official clients do (ADR-17). Core, and
what no stream takes: a subscription.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from gateway.brokers.base import Arrival, Need, TailUnavailable
from gateway.brokers.nats import ordered
from gateway.brokers.nats.errors import (
    CONNECT_ERRORS,
    ConnectionLost,
    Verdict,
    connection_problem,
    failure,
)
from gateway.brokers.nats.jetstream import ApiRefused, new_inbox
from gateway.brokers.nats.options import ClientOptions, client_options
from gateway.brokers.nats.session import Session
from gateway.brokers.nats.subjects import distinct, filter_of

if TYPE_CHECKING:
    from gateway.config.models import NatsConfig

log = logging.getLogger("gateway.brokers")

_ANSWER_WITHIN = 2.0
_MOST_WAITING = 1000
_MOST_WAITING_BYTES = 16 * 1024 * 1024
_STANDING = Arrival("", "", b"", ())


class _Delivery(NamedTuple):
    """A message as it came; `consumer` is None for a plain subscription."""

    msg: Msg
    consumer: _Consumer | None
    consumer_name: str


class _Consumer:
    """An ephemeral consumer of one stream, and how far it has come."""

    def __init__(self, stream: str, filters: list[str]) -> None:
        self.stream = stream
        self.filters = filters
        self.name = ""
        self.subscription: Subscription | None = None
        self.stream_seq = 0
        self.consumer_seq = 0
        self.heard = 0.0

    def settings(self, inbox: str) -> dict[str, Any]:
        """The consumer's configuration: from now on, or from where the last one was lost."""
        self.name = f"gateway-tail-{secrets.token_hex(8)}"
        self.consumer_seq = 0
        start: dict[str, Any] = {"deliver_policy": "new"}
        if self.stream_seq:
            start = {
                "deliver_policy": "by_start_sequence",
                "opt_start_seq": self.stream_seq + 1,
            }
        filters: dict[str, Any] = {"filter_subjects": self.filters}
        if len(self.filters) == 1:  # what servers before 2.10 know
            filters = {"filter_subject": self.filters[0]}
        return start | filters | ordered.consumer(self.name, inbox)


async def tail_subjects(
    broker: str, config: NatsConfig, needs: Sequence[Need]
) -> AsyncGenerator[Arrival, None]:
    """Follow the subjects of `needs`; returns once the subscriptions stand.

    Raises `TailUnavailable` when the server cannot be reached, as the generator does when it goes
    away, and `BrokerOptionsError` for options that cannot work.
    """
    arrivals = _follow(broker, config, needs)
    await anext(arrivals)
    return arrivals


async def _follow(
    broker: str, config: NatsConfig, needs: Sequence[Need]
) -> AsyncGenerator[Arrival, None]:
    """Yield `_STANDING`, then what arrives. Closing a generator that began disconnects it."""
    options = client_options(broker, config)
    try:
        session = await Session.open(options)
        try:
            tail = _Tail(options, session, needs)
            await tail.begin(jetstream=config.jetstream)
            yield _STANDING
            while True:
                for arrival in await tail.next():
                    yield arrival
        finally:
            await session.close()
    except (*CONNECT_ERRORS, ApiRefused) as error:
        problem = str(error)
        if not isinstance(error, ApiRefused):
            problem = connection_problem(options, error)
        verdict = Verdict(TailUnavailable, "broker_down")
        raise failure(broker, "*", verdict, problem) from error


class _Tail:
    """The subscriptions and consumers of one tail, and what waits to be read."""

    def __init__(self, options: ClientOptions, session: Session, needs: Sequence[Need]) -> None:
        self._broker = options.broker
        self._connection = session.connection
        self._requests = session.requests
        self._ended = session.ended
        self._needs = needs
        self._loop = asyncio.get_running_loop()
        self._consumers: list[_Consumer] = []
        self._waiting: deque[_Delivery] = deque()
        self._waiting_bytes = 0
        self._dropped = False
        self._wake = asyncio.Event()
        self._ended.add_done_callback(lambda _: self._wake.set())

    async def begin(self, *, jetstream: bool) -> None:
        """Subscribe to everything. Raises `ConnectionLost` and `ApiRefused`."""
        filters = distinct(filter_of(need) for need in self._needs)
        streams = await self._streams(filters) if jetstream else {}
        taken = {pattern for patterns in streams.values() for pattern in patterns}
        for pattern in filters:
            if pattern not in taken:
                self._connection.subscribe(pattern, partial(self._came, None, ""))
        for stream, patterns in streams.items():
            consumer = _Consumer(stream, patterns)
            self._consumers.append(consumer)
            await self._consume(consumer)
        await self._requests.settled(_ANSWER_WITHIN)

    async def next(self) -> list[Arrival]:
        """Wait for the next arrivals. Raises `ConnectionLost` and `ApiRefused`."""
        while not self._waiting:
            if self._ended.done():
                raise ConnectionLost(self._ended.result())
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), ordered.HEARTBEAT)
            await self._renew_the_missing()
        arrivals = []
        while self._waiting:
            arrival = await self._read(self._waiting.popleft())
            if arrival is not None:
                arrivals.append(arrival)
        self._waiting_bytes = 0
        return arrivals

    async def _streams(self, filters: Sequence[str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for pattern in filters:
            for stream in await self._requests.streams_of(pattern, _ANSWER_WITHIN):
                found.setdefault(stream, []).append(pattern)
        return found

    async def _consume(self, consumer: _Consumer) -> None:
        if consumer.subscription is not None:
            self._connection.unsubscribe(consumer.subscription)
        inbox = f"{new_inbox()}deliver"
        settings = consumer.settings(inbox)
        consumer.heard = self._loop.time()
        consumer.subscription = self._connection.subscribe(
            inbox, partial(self._came, consumer, consumer.name)
        )
        await self._requests.create_consumer(consumer.stream, settings, _ANSWER_WITHIN)

    async def _renew_the_missing(self) -> None:
        for consumer in self._consumers:
            if self._loop.time() - consumer.heard > ordered.MISSED_AFTER:
                await self._consume(consumer)

    def _came(self, consumer: _Consumer | None, name: str, msg: Msg) -> None:
        size = len(msg.data)
        if consumer is not None:
            consumer.heard = self._loop.time()
        elif self._is_full(size):
            self._drop()
            return
        self._waiting.append(_Delivery(msg, consumer, name))
        self._waiting_bytes += size
        self._wake.set()

    def _is_full(self, size: int) -> bool:
        # A consumer's deliveries are bounded by its flow control: 32 MiB are not answered at most.
        return (
            len(self._waiting) >= _MOST_WAITING or self._waiting_bytes + size > _MOST_WAITING_BYTES
        )

    def _drop(self) -> None:
        if not self._dropped:
            log.warning("nats broker %s: tail is too slow; records are left out", self._broker)
        self._dropped = True

    async def _read(self, delivery: _Delivery) -> Arrival | None:
        msg, consumer = delivery.msg, delivery.consumer
        if consumer is None:
            return self._arrival(msg)
        if delivery.consumer_name != consumer.name:
            return None  # from the consumer before this one: it comes again
        headers = msg.headers or {}
        if ordered.is_control(msg, headers):
            if subject := ordered.answer_to(msg, headers):
                self._connection.publish(subject, "", None, b"")
            return None
        stream_seq, consumer_seq, _ = ordered.numbers(msg.reply)
        # Deliveries have no gap; one means that the server gave some up for us.
        if consumer_seq != consumer.consumer_seq + 1:
            await self._consume(consumer)
            return None
        consumer.consumer_seq, consumer.stream_seq = consumer_seq, stream_seq
        return self._arrival(msg, consumer.stream, stream_seq)

    def _arrival(
        self, msg: Msg, stream: str | None = None, seq: int | None = None
    ) -> Arrival | None:
        if not any(_wanted(need, msg.subject) for need in self._needs):
            return None
        return Arrival(
            broker=self._broker,
            destination=msg.subject,
            value=msg.data,
            headers=tuple((msg.headers or {}).items()),
            stream=stream,
            seq=seq,
        )


def _wanted(need: Need, subject: str) -> bool:
    if need.templated:
        return subject.startswith(need.destination)
    return subject == need.destination
