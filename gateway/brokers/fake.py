"""A broker in memory, for tests of what stands on `Broker`: it does what it is told.

It passes the same contract suite as the brokers over the network. Left alone it stores every
record and acks it, as JetStream does: by stream and sequence, each `dedupe_id` once. Told to, it
refuses, stalls, is late, loses acks, or is down:

    broker = FakeBroker()
    await broker.start()
    broker.fail("no_leader", times=1)
    broker.refuse("not_authorized", "clerk.users")

Its only clock is the event loop's, and it uses no chance: a test that runs twice sees the same.
"""

from __future__ import annotations

import asyncio
import re
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Sequence

import msgspec

from gateway.brokers.base import (
    Arrival,
    BrokerError,
    Finding,
    Message,
    Need,
    Receipt,
    Refused,
    State,
    StateListener,
    Unavailable,
    Unknown,
)

__all__ = ["FakeBroker", "Stored"]

_STREAM = "FAKE"
_NO_NAME = re.compile(r"[\x00-\x20\x7f]")


class Stored(msgspec.Struct, frozen=True):
    """A record that the fake holds."""

    message: Message
    receipt: Receipt


class _Behaviour(msgspec.Struct, frozen=True):
    """What happens to a record: it is stored where there is no error."""

    error: type[BrokerError] | None = None
    reason: str = ""
    after: float = 0.0
    """Seconds until the answer."""
    at_deadline: bool = False
    """The answer comes at the publish's deadline instead."""
    silent: bool = False
    """No answer comes."""


class _Rule(msgspec.Struct):
    behaviour: _Behaviour
    destination: str | None
    left: int | None
    """How many records it still holds for; None for all."""


class _Flight(msgspec.Struct, eq=False):
    """A record that is published and not yet answered."""

    message: Message
    size: int
    deadline: float
    future: asyncio.Future[Receipt]
    timers: list[asyncio.Handle] = []


class FakeBroker:
    """Fulfils `gateway.brokers.base.Broker` in memory."""

    def __init__(
        self,
        name: str = "fake",
        *,
        max_in_flight: int = 10_000,
        max_in_flight_bytes: int = 64 * 1024 * 1024,
        max_record_bytes: int = 1024 * 1024,
        request_timeout: float = 30.0,
        keep: int = 10_000,
        on_state: StateListener | None = None,
    ) -> None:
        """`request_timeout` is seconds; `keep` is how many of the newest records are held."""
        self._name = name
        self._max_in_flight = max_in_flight
        self._max_in_flight_bytes = max_in_flight_bytes
        self._max_record_bytes = max_record_bytes
        self._request_timeout = request_timeout
        self._keep = keep
        self._on_state = on_state
        self._state = State.CONNECTING
        self._reach = State.UP
        self._started = False
        self._closing = False
        self._stalled = False
        self._rules: list[_Rule] = []
        self._flights: dict[_Flight, None] = {}
        self._held: dict[_Flight, None] = {}
        self._bytes = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._seq = 0
        self._stored: deque[Stored] = deque(maxlen=keep)
        self._known: dict[str, Receipt] = {}
        self._followers: weakref.WeakSet[_Follower] = weakref.WeakSet()

    @property
    def name(self) -> str:
        """See `Broker.name`."""
        return self._name

    @property
    def state(self) -> State:
        """See `Broker.state`."""
        return self._state

    @property
    def in_flight(self) -> tuple[int, int]:
        """See `Broker.in_flight`."""
        return len(self._flights), self._bytes

    def stored(self, destination: str | None = None) -> tuple[Stored, ...]:
        """Give the records it holds in the order they came, of one destination or of all."""
        wanted = (one for one in self._stored if destination in {None, one.message.destination})
        return tuple(wanted)

    # What a test tells it. Rules hold in the order they were told: the first that fits is used,
    # `times` times, and then the next.

    def refuse(self, reason: str, destination: str | None = None, times: int | None = None) -> None:
        """Fail records with `Refused`."""
        self._rules.append(_Rule(_Behaviour(Refused, reason), destination, times))

    def fail(
        self,
        reason: str,
        destination: str | None = None,
        times: int | None = None,
        *,
        at_deadline: bool = False,
    ) -> None:
        """Fail records with `Unavailable`: now, or as if retried in vain until the deadline."""
        failing = _Behaviour(Unavailable, reason, at_deadline=at_deadline)
        self._rules.append(_Rule(failing, destination, times))

    def ack_late(
        self, seconds: float, destination: str | None = None, times: int | None = None
    ) -> None:
        """Store records at once and ack them `seconds` later."""
        self._rules.append(_Rule(_Behaviour(after=seconds), destination, times))

    def lose_acks(self, destination: str | None = None, times: int | None = None) -> None:
        """Store records and never ack them: `Unknown` after `request_timeout`."""
        self._rules.append(_Rule(_Behaviour(silent=True), destination, times))

    def obey(self) -> None:
        """Forget every rule: records that come from now on are stored and acked."""
        self._rules.clear()

    def stall(self) -> None:
        """Freeze: nothing is stored or answered, and nobody is told."""
        self._stalled = True

    def resume(self) -> None:
        """Go on after `stall`, with what is still waited for, in order."""
        self._stalled = False
        held, self._held = self._held, {}
        for flight in held:
            self._treat(flight)

    def go_down(self, state: State = State.DOWN) -> None:
        """Lose the connection, or never have had it: what is unanswered fails with `Unknown`.

        `state` is `down`, or `connecting` for one that is being made again.
        """
        self._reach = state
        self._stalled = False
        self._abandon()
        self._reflect()

    def come_up(self) -> None:
        """Be reachable again."""
        self._reach = State.UP
        self._reflect()

    async def start(self) -> None:
        """See `Broker.start`."""
        self._started = True
        self._reflect()

    def publish(self, message: Message, deadline: float) -> asyncio.Future[Receipt]:
        """See `Broker.publish`."""
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        size = _size(message)
        problem = self._problem(message, size)
        if problem is not None:
            _resolve(future, problem)
            return future
        flight = _Flight(message, size, deadline, future)
        self._take(flight)
        if self._stalled:
            self._held[flight] = None
        else:
            self._treat(flight)
        return future

    async def check(self, needs: Sequence[Need]) -> list[Finding]:
        """See `Broker.check`."""
        if self._reach is not State.UP:
            return [Finding("unreachable", self._name, "it was told to be down")]
        return [Finding("ok", self._name, "reached"), *map(self._look_at, needs)]

    async def tail(self, needs: Sequence[Need]) -> AsyncGenerator[Arrival, None]:
        """See `Broker.tail`. A reader that is slow loses the oldest beyond `keep`."""
        if self._reach is not State.UP:
            raise Unavailable(self._name, "any destination", "broker_down")
        follower = _Follower(needs, self._keep)
        self._followers.add(follower)
        return follower.arrivals()

    async def close(self, timeout: float) -> None:
        """See `Broker.close`."""
        self._closing = True
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            self._abandon()
        self._become(State.DOWN)

    def _behaviour_for(self, destination: str) -> _Behaviour:
        for rule in self._rules:
            if rule.left == 0 or rule.destination not in {None, destination}:
                continue
            if rule.left is not None:
                rule.left -= 1
            return rule.behaviour
        return _Behaviour()

    def _problem(self, message: Message, size: int) -> BrokerError | None:
        """Why a record is not even tried."""
        if self._closing:
            return Unavailable(self._name, message.destination, "closing")
        if self._state is not State.UP:
            return Unavailable(self._name, message.destination, "broker_down")
        flaw = self._flaw(message, size)
        if flaw:
            return Refused(self._name, message.destination, flaw)
        full = len(self._flights) >= self._max_in_flight
        if full or self._bytes + size > self._max_in_flight_bytes:
            return Unavailable(self._name, message.destination, "overloaded")
        return None

    def _flaw(self, message: Message, size: int) -> str:
        if not message.destination or _NO_NAME.search(message.destination):
            return "invalid_destination"
        if size < 0:
            return "invalid_record"
        return "too_large" if size > self._max_record_bytes else ""

    def _take(self, flight: _Flight) -> None:
        self._flights[flight] = None
        self._bytes += flight.size
        self._idle.clear()
        error = Unknown(self._name, flight.message.destination, "no_ack")
        self._later(flight, self._request_timeout, error)

    def _treat(self, flight: _Flight) -> None:
        destination = flight.message.destination
        behaviour = self._behaviour_for(destination)
        if behaviour.error is None:
            outcome: Receipt | BrokerError = self._store(flight.message)
        else:
            outcome = behaviour.error(self._name, destination, behaviour.reason)
        after = behaviour.after
        if behaviour.at_deadline:
            after = flight.deadline - asyncio.get_running_loop().time()
        if not behaviour.silent:
            self._later(flight, after, outcome)

    def _store(self, message: Message) -> Receipt:
        known = self._known.get(message.dedupe_id)
        if known is not None:
            return msgspec.structs.replace(known, duplicate=True)
        self._seq += 1
        receipt = Receipt(message.destination, stream=_STREAM, seq=self._seq)
        self._known[message.dedupe_id] = receipt
        if len(self._known) > self._keep:
            del self._known[next(iter(self._known))]
        record = Stored(message, receipt)
        self._stored.append(record)
        for follower in self._followers:
            follower.offer(self._name, record)
        return receipt

    def _later(self, flight: _Flight, seconds: float, outcome: Receipt | BrokerError) -> None:
        """Answer on a later turn of the loop, as a network would, even after 0 seconds."""
        loop = asyncio.get_running_loop()
        if seconds <= 0:
            flight.timers.append(loop.call_soon(self._settle, flight, outcome))
        else:
            flight.timers.append(loop.call_later(seconds, self._settle, flight, outcome))

    def _settle(self, flight: _Flight, outcome: Receipt | BrokerError) -> None:
        del self._flights[flight]
        self._held.pop(flight, None)
        self._bytes -= flight.size
        for timer in flight.timers:
            timer.cancel()
        if not self._flights:
            self._idle.set()
        _resolve(flight.future, outcome)

    def _abandon(self) -> None:
        for flight in list(self._flights):
            self._settle(flight, Unknown(self._name, flight.message.destination, "no_ack"))

    def _reflect(self) -> None:
        if self._started and not self._closing:
            self._become(self._reach)

    def _become(self, state: State) -> None:
        if state is self._state:
            return
        self._state = state
        if self._on_state is not None:
            self._on_state(self._name, state)

    def _look_at(self, need: Need) -> Finding:
        where = need.destination
        for rule in self._rules:
            if (rule.destination, rule.left, rule.behaviour.error) == (where, None, Refused):
                return Finding("error", where, f"told to refuse: {rule.behaviour.reason}")
        if need.record_bytes > self._max_record_bytes:
            needed = f"{need.used_by} may need {need.record_bytes}"
            limit = f"takes {self._max_record_bytes} bytes a record, {needed}"
            return Finding("error", where, limit)
        return Finding("ok", where, f"takes records of {need.used_by}")


class _Follower:
    """One reader of `tail`. It leaves the broker when its generator is dropped."""

    def __init__(self, needs: Sequence[Need], keep: int) -> None:
        self._exact = {need.destination for need in needs if not need.templated}
        self._prefixes = tuple(need.destination for need in needs if need.templated)
        self._waiting: deque[Arrival] = deque(maxlen=keep)
        self._came = asyncio.Event()

    def offer(self, broker: str, record: Stored) -> None:
        """Take a record, if it is one of those wanted."""
        message, seq = record.message, record.receipt.seq
        where = message.destination
        if where not in self._exact and not where.startswith(self._prefixes):
            return
        texts = (broker, where, message.value, message.headers, message.key)
        self._waiting.append(Arrival(*texts, stream=_STREAM, seq=seq))
        self._came.set()

    async def arrivals(self) -> AsyncGenerator[Arrival, None]:
        """Yield what is offered, for ever."""
        while True:
            while self._waiting:
                yield self._waiting.popleft()
            self._came.clear()
            await self._came.wait()


def _size(message: Message) -> int:
    """Bytes of value, key and headers, or -1 where a text has no UTF-8 form (a lone surrogate)."""
    texts = [message.key or "", *(text for header in message.headers for text in header)]
    try:
        return len(message.value) + sum(len(text.encode()) for text in texts)
    except UnicodeEncodeError:
        return -1


def _resolve(future: asyncio.Future[Receipt], outcome: Receipt | BrokerError) -> None:
    if future.done():
        return
    if isinstance(outcome, Receipt):
        future.set_result(outcome)
    else:
        future.set_exception(outcome)
        # Marks it as seen: a caller that has gone is no reason for a complaint in the log.
        future.exception()
