"""What the tests of this broker share: ways to wait, to publish, and to read back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import StreamConfig

from gateway.brokers.base import Arrival, BrokerError, Finding, Message, Need, Receipt, State
from gateway.brokers.nats import NatsBroker
from tests.servers.nats import NatsServer

PATIENCE = 20.0


async def wait_for(condition: Callable[[], bool], patience: float = PATIENCE) -> float:
    """Watch something outside until it is so, and give the seconds that it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < patience, "it did not happen in time"
        await asyncio.sleep(0.01)
    return time.monotonic() - began


def message(
    subject: str,
    value: bytes = b"{}",
    headers: tuple[tuple[str, str], ...] = (),
    dedupe_id: str = "",
) -> Message:
    """A record; without a `dedupe_id` one of its own."""
    return Message(subject, value, headers, dedupe_id or f"id-{time.monotonic_ns()}")


@dataclass
class Started:
    """A broker under test."""

    broker: NatsBroker
    states: list[State]
    """Every state it told, in order."""

    def publish(
        self, subject: str, value: bytes = b"{}", *, within: float = 10.0, **arguments: Any
    ) -> asyncio.Future[Receipt]:
        """Publish one record with a deadline `within` seconds."""
        deadline = asyncio.get_running_loop().time() + within
        return self.broker.publish(message(subject, value, **arguments), deadline)

    async def outcome(self, subject: str, value: bytes = b"{}", **arguments: Any) -> str:
        """Publish one record and give its outcome: a class name and a reason."""
        return await outcome(self.publish(subject, value, **arguments))


async def outcome(future: asyncio.Future[Receipt]) -> str:
    """`Receipt`, or the class and the reason of what the future failed with."""
    try:
        return type(await future).__name__
    except BrokerError as error:
        return f"{type(error).__name__}({error.reason})"


async def eventually(probe: Callable[[], Awaitable[object]], wanted: object) -> None:
    """Try until `probe` gives what is wanted."""
    deadline = time.monotonic() + PATIENCE
    while (seen := await probe()) != wanted:
        assert time.monotonic() < deadline, f"still {seen!r} and not {wanted!r}"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def client(url: str, **options: Any) -> AsyncIterator[Client]:
    """Give a client that is not ours."""
    connected = await nats.connect(url, **options)
    try:
        yield connected
    finally:
        await connected.close()


@asynccontextmanager
async def jetstream(server: NatsServer) -> AsyncIterator[JetStreamContext]:
    """Look at a server, and change what is there, as another program would."""
    async with client(server.url) as connected:
        yield connected.jetstream()


async def create_stream(url: str, name: str, *subjects: str, **settings: Any) -> None:
    """Create a stream with a client that is not ours."""
    async with client(url) as connected:
        config = StreamConfig(name=name, subjects=list(subjects), **settings)
        await connected.jetstream().add_stream(config)


async def stored(url: str, stream: str) -> list[Msg]:
    """Read a whole stream with a client that is not ours, in order."""
    async with client(url) as connected:
        jetstream = connected.jetstream()
        count = (await jetstream.stream_info(stream)).state.messages
        subscription = await jetstream.subscribe(stream=stream, subject="", ordered_consumer=True)
        return [await subscription.next_msg(timeout=5) for _ in range(count)]


def said(findings: Sequence[Finding], severity: str) -> list[str]:
    """The findings of one severity as `about: message`."""
    return [
        f"{finding.about}: {finding.message}"
        for finding in findings
        if finding.severity == severity
    ]


def need(destination: str, *, record_bytes: int = 1000) -> Need:
    """A need; a destination that ends in `{}` is a template."""
    literal = destination.removesuffix("{}")
    return Need(literal, literal != destination, record_bytes, "route users")


async def first_arrivals(
    arrivals: AsyncIterator[Arrival], count: int, provoke: Callable[[], Awaitable[object]]
) -> list[Arrival]:
    """Publish by `provoke` again and again until the tail has shown `count` records."""
    seen: list[Arrival] = []

    async def read() -> None:
        async for arrival in arrivals:
            seen.append(arrival)
            if len(seen) == count:
                return

    reading = asyncio.create_task(read())
    async with asyncio.timeout(PATIENCE):
        while not reading.done():
            await provoke()
            await asyncio.wait([reading], timeout=0.05)
        await reading
    return seen
