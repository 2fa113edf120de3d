"""The contract of a broker: what goes in, what comes out, and what each failure means.

Nothing here does I/O. A new kind of broker is one package that fulfils `Broker`, plus its
config model; the contract suite in `tests/brokers/` decides whether it does.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from gateway import GatewayError

if TYPE_CHECKING:
    from asyncio import Future

Headers = tuple[tuple[str, str], ...]


class State(StrEnum):
    """What a broker's client knows of its connection, never a guess."""

    CONNECTING = "connecting"
    UP = "up"
    DOWN = "down"


StateListener = Callable[[str, State], None]
"""Called with the broker's name and its new state, on every change."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """One record to publish, complete: a broker adds nothing to it."""

    destination: str
    """Kafka topic or NATS subject."""
    value: bytes
    headers: Headers
    """Pairs in order; names are ASCII, values have no control characters."""
    dedupe_id: str
    """Same for every attempt to publish this record; NATS sends it as `Nats-Msg-Id`."""
    key: str | None = None
    """Kafka record key. NATS ignores it."""


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """A broker's ack: where the record now is."""

    destination: str
    partition: int | None = None
    offset: int | None = None
    stream: str | None = None
    seq: int | None = None
    duplicate: bool = False
    """The broker already had a record with this `dedupe_id`."""
    unsure: bool = False
    """An attempt before the one that was acknowledged was sent and had no answer: the record may be
    there twice."""


class Need(msgspec.Struct, frozen=True):
    """A destination that the config publishes to, for `Broker.check`."""

    destination: str
    """The whole name, or for a template the literal before its first placeholder."""
    templated: bool
    record_bytes: int
    """The largest record that may be sent there: `max_body` + 8 KiB."""
    used_by: str
    """Who publishes there, in words: `route users`, `the dead letter`."""
    expected: tuple[str, ...] = ()
    """Of a template: what it gives for the types that are known, where that was asked for. `*`
    stands for what only the event knows: one or more letters, digits, `_` and `-`."""
    later: tuple[str, ...] = ()
    """As `expected`, for the types that nobody has heard of yet."""
    keeps_letters: bool = False
    """Whether it is the dead letter, from which an operator deletes records."""


class Finding(msgspec.Struct, frozen=True):
    """One line of what `Broker.check` saw."""

    severity: Literal["ok", "warning", "error", "unreachable"]
    about: str
    """The broker, or its topic, stream or subject."""
    message: str


class Arrival(msgspec.Struct, frozen=True):
    """A record read back from a broker, for `gateway tail` and `gateway dev`."""

    broker: str
    destination: str
    value: bytes
    headers: Headers
    key: str | None = None
    partition: int | None = None
    offset: int | None = None
    stream: str | None = None
    seq: int | None = None


class BrokerOptionsError(GatewayError):
    """A setting of a broker that cannot work, such as a certificate file that cannot be read."""

    def __init__(self, broker: str, setting: str, problem: str) -> None:
        self.broker = broker
        self.setting = setting
        """The key below `brokers.<name>`: `tls.ca_file`."""
        self.problem = problem
        """What is wrong and what would be right: no secret."""
        super().__init__(f"brokers.{broker}.{setting}: {problem}")


class BrokerError(GatewayError):
    """A publish that did not end in a receipt."""

    def __init__(self, broker: str, destination: str, reason: str, detail: str = "") -> None:
        self.broker = broker
        self.destination = destination
        self.reason = reason
        """One bounded word, fit for a metric label and for the sender."""
        self.detail = detail
        """For the operator's log: no payload, no secret."""
        what = f"{broker}: {self.outcome} {destination}: {reason}"
        super().__init__(f"{what} ({detail})" if detail else what)

    outcome = "did not publish to"


class Unavailable(BrokerError):
    """Nothing was stored and a later attempt may succeed.

    Reasons: `broker_down`, `overloaded`, `no_topic`, `no_leader`, `not_enough_replicas`,
    `stream_full`, `timeout`, `closing`, `broker_error`.
    """

    outcome = "could not publish to"


class TailUnavailable(Unavailable):
    """The broker that is followed cannot be reached, or went away."""

    outcome = "could not read from"


class Refused(BrokerError):
    """This record will never be taken: repeating it is pointless.

    Reasons: `too_large`, `not_authorized`, `no_stream`, `invalid_destination`, `invalid_record`.
    """

    outcome = "refused a record for"


class Unknown(BrokerError):
    """The record was sent and no answer came: it may or may not be stored. Reason: `no_ack`."""

    outcome = "gave no answer for"


class Broker(Protocol):
    """A connection to one broker (cluster), kept up for as long as the gateway runs."""

    @property
    def name(self) -> str:
        """The broker's name in the config."""
        ...

    @property
    def state(self) -> State:
        """`up` only while a publish could succeed now."""
        ...

    @property
    def in_flight(self) -> tuple[int, int]:
        """Records and bytes that are published and not yet answered."""
        ...

    async def start(self) -> None:
        """Begin to connect, in the background and for ever; returns at once.

        A broker that is down is not an error here. Raises only for options that cannot work
        (`BrokerOptionsError`: an unreadable certificate or credentials file).
        """
        ...

    def publish(self, message: Message, deadline: float) -> Future[Receipt]:
        """Start to publish now; the future is the ack.

        It resolves with a `Receipt` once the record is durable, or fails with `Unavailable`,
        `Refused` or `Unknown`, and with nothing else. `deadline` (event-loop time, seconds) is
        how long a retry inside makes sense; the future itself may resolve later, up to the
        broker's `request_timeout`, because a late ack still counts. Dropping or cancelling the
        future does not take the record back. Fails at once when the broker is known to be down
        or its in-flight caps are full. Never blocks, never raises.
        """
        ...

    async def check(self, needs: Sequence[Need]) -> list[Finding]:
        """Look at the broker and at each destination with a connection of its own; bounded in time.

        Works without `start`. Never raises for what it finds: that is a `Finding`.
        """
        ...

    async def tail(self, needs: Sequence[Need]) -> AsyncGenerator[Arrival, None]:
        """Follow the destinations with a connection of its own; close the generator to end.

        Returns once the subscriptions stand, so that nothing published afterwards is missed.
        Raises `TailUnavailable` when the broker cannot be reached.
        """
        ...

    async def close(self, timeout: float) -> None:
        """Flush what is in flight, for at most `timeout` seconds, and disconnect.

        What is then unanswered fails with `Unknown`, and later publishes with `Unavailable`
        (`closing`). Idempotent; never raises.
        """
        ...
