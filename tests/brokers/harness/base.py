"""The harness that every kind of broker is tested by."""

from __future__ import annotations

import asyncio
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from gateway.brokers.base import Broker, BrokerError, Headers, Message, Receipt, State

PATIENCE = 40.0
"""Seconds for something outside to happen: a JVM that comes back on two busy cores."""

Place = tuple[str | int | None, ...]


@dataclass(frozen=True)
class Record:
    """What a client that is not ours reads back."""

    value: bytes
    headers: Headers
    """Sorted where the protocol keeps no order."""
    key: str | None
    place: Place | None
    """Partition and offset, or stream and sequence; None where nothing is stored."""


@dataclass(frozen=True)
class Traits:
    """Where kinds of broker truly differ."""

    durable: bool = True
    """What was acked is still there after the server was killed."""
    keyed: bool = False
    ordered_headers: bool = False
    deduplicates: bool = False
    """A second record with the same dedupe id is not stored, and its receipt says so."""
    missing: tuple[type[BrokerError], str] | None = None
    """What a publish to a destination that does not exist fails with; None: it does not."""
    invalid: tuple[str, ...] = ("", "a b", "a\nb")
    """Destinations that no server of this kind can have."""


@dataclass(frozen=True)
class Options:
    """What a test asks of a broker: the settings that every kind has."""

    max_in_flight: int = 10_000
    max_in_flight_bytes: int = 64 * 1024 * 1024
    request_timeout: float = 30.0


class Subject:
    """A broker under test, with every state that it told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, State]] = []
        self.broker: Broker

    def listen(self, name: str, state: State) -> None:
        """Be its state listener."""
        self.told.append((name, state))

    def publish(
        self,
        destination: str,
        value: bytes = b"{}",
        *,
        headers: Headers = (),
        key: str | None = "key",
        dedupe_id: str | None = None,
        within: float = 10.0,
    ) -> asyncio.Future[Receipt]:
        """Publish one record, to be retried for `within` seconds."""
        message = Message(destination, value, headers, dedupe_id or uuid.uuid4().hex, key)
        return self.broker.publish(message, asyncio.get_running_loop().time() + within)

    def publish_and_forget(self, destination: str, value: bytes = b"{}") -> None:
        """Publish one record and drop the future."""
        future = self.publish(destination, value)
        del future

    async def is_up(self) -> None:
        """Wait until it is up by itself."""
        await eventually(lambda: self.broker.state is State.UP)


class Harness(ABC):
    """One server of one kind: makes brokers for it, and reads what they stored."""

    traits: Traits

    def __init__(self) -> None:
        self.subjects: list[Subject] = []

    @abstractmethod
    def make(self, options: Options, subject: Subject) -> Broker:
        """Make a broker that tells its states to `subject.listen`."""

    @abstractmethod
    async def destination(self, name: str | None = None) -> str:
        """Make a destination that is empty and takes records, of this name or of any."""

    @abstractmethod
    async def missing(self) -> str:
        """Give a destination of which the server knows nothing."""

    @abstractmethod
    async def read(self, destination: str, at_least: int) -> list[Record]:
        """Read all records in order, once there are so many, with a client that is not ours."""

    @abstractmethod
    def place(self, receipt: Receipt) -> Place | None:
        """Give the place that a receipt names, in the form that `read` gives it."""

    @abstractmethod
    async def start_server(self) -> None:
        """Start the server, on the same address and data."""

    @abstractmethod
    async def stop_server(self) -> None:
        """Stop the server in the orderly way."""

    @abstractmethod
    async def kill_server(self) -> None:
        """Kill the server."""

    @abstractmethod
    async def pause_server(self) -> None:
        """Freeze the server: connections stay and nothing answers."""

    @abstractmethod
    async def resume_server(self) -> None:
        """Let the server run on."""

    def subject(self, options: Options | None = None) -> Subject:
        """Make a broker under test that is not started."""
        subject = Subject()
        subject.broker = self.make(options or Options(), subject)
        self.subjects.append(subject)
        return subject

    async def started(self, options: Options | None = None) -> Subject:
        """Make a broker under test, start it, and wait until it is up."""
        subject = self.subject(options)
        await subject.broker.start()
        await subject.is_up()
        return subject

    async def close(self) -> None:
        """Close every broker that was made, and clients of its own."""
        await asyncio.gather(*(subject.broker.close(0) for subject in self.subjects))


async def eventually(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Watch something outside until it is so; fail when it takes longer than `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it was not so after {seconds} s"
        await asyncio.sleep(0.01)


async def outcome(future: asyncio.Future[Receipt]) -> Receipt | BrokerError:
    """Give what a publish ended in; fail when it was something that no publish may end in."""
    async with asyncio.timeout(PATIENCE):
        try:
            return await future
        except BrokerError as error:
            return error
