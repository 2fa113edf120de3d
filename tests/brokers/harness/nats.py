"""A real nats-server, with JetStream and without, read back by nats-py."""

from __future__ import annotations

import asyncio
import uuid

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from gateway.brokers.base import Broker, Headers, Receipt, Refused
from gateway.brokers.nats import NatsBroker
from gateway.config.models import NatsConfig
from tests.brokers.harness.base import (
    PATIENCE,
    Harness,
    Options,
    Place,
    Record,
    Subject,
    Traits,
    eventually,
)
from tests.servers.nats import NatsServer

_INVALID = ("", "a b", "a\nb", "a..b", ".a", "a.", "a.*", "a.>")


class _NatsHarness(Harness):
    """What both ways to publish share."""

    jetstream: bool

    def __init__(self, server: NatsServer) -> None:
        super().__init__()
        self._server = server

    def make(self, options: Options, subject: Subject) -> Broker:
        config = NatsConfig(
            kind="nats",
            servers=(self._server.url,),
            jetstream=self.jetstream,
            max_in_flight=options.max_in_flight,
            max_in_flight_bytes=options.max_in_flight_bytes,
            request_timeout=options.request_timeout,
        )
        return NatsBroker("contract", config, subject.listen)

    async def missing(self) -> str:
        return uuid.uuid4().hex

    async def start_server(self) -> None:
        await asyncio.to_thread(self._server.start)

    async def stop_server(self) -> None:
        await asyncio.to_thread(self._server.stop)

    async def kill_server(self) -> None:
        self._server.kill()

    async def pause_server(self) -> None:
        self._server.pause()

    async def resume_server(self) -> None:
        self._server.resume()

    async def _client(self) -> Client:
        return await nats.connect(self._server.url, error_cb=_quiet)


class JetStreamHarness(_NatsHarness):
    """Subjects of a stream each."""

    jetstream = True
    traits = Traits(deduplicates=True, missing=(Refused, "no_stream"), invalid=_INVALID)

    async def destination(self, name: str | None = None) -> str:
        name = name or uuid.uuid4().hex
        client = await self._client()
        await client.jetstream().add_stream(name=f"S-{name}", subjects=[name])
        await client.close()
        return name

    async def read(self, destination: str, at_least: int) -> list[Record]:
        stream = f"S-{destination}"
        client = await self._client()
        context = client.jetstream()
        records: list[Record] = []
        try:
            async with asyncio.timeout(PATIENCE):
                reader = await context.subscribe(destination, stream=stream, ordered_consumer=True)
                while len(records) < at_least or not await self._at_end(context, stream, records):
                    message = await reader.next_msg(timeout=PATIENCE)
                    place = (stream, message.metadata.sequence.stream)
                    records.append(_record(message.data, message.headers, place))
        finally:
            await client.close()
        return records

    async def _at_end(self, context: JetStreamContext, stream: str, records: list[Record]) -> bool:
        state = (await context.stream_info(stream)).state
        return len(records) >= state.messages

    def place(self, receipt: Receipt) -> Place | None:
        return receipt.stream, receipt.seq


class CoreNatsHarness(_NatsHarness):
    """Subjects with a subscriber each, which is all that core NATS delivers to."""

    jetstream = False
    traits = Traits(durable=False, invalid=_INVALID)

    def __init__(self, server: NatsServer) -> None:
        super().__init__(server)
        self._clients: list[Client] = []
        self._came: dict[str, tuple[Client, list[Record]]] = {}

    async def destination(self, name: str | None = None) -> str:
        name = name or uuid.uuid4().hex
        records: list[Record] = []

        async def take(message: Msg) -> None:
            records.append(_record(message.data, message.headers, None))

        client = await self._client()
        self._clients.append(client)
        await client.subscribe(name, cb=take)
        await client.flush()
        self._came[name] = (client, records)
        return name

    async def read(self, destination: str, at_least: int) -> list[Record]:
        client, records = self._came[destination]
        await eventually(lambda: len(records) >= at_least)
        # What the server had sent before it answers this has been taken too.
        await client.flush()
        return list(records)

    def place(self, receipt: Receipt) -> Place | None:
        assert (receipt.stream, receipt.seq, receipt.offset) == (None, None, None)
        return None

    async def close(self) -> None:
        await super().close()
        await asyncio.gather(*(client.close() for client in self._clients))


def _record(value: bytes, headers: dict[str, str] | None, place: Place | None) -> Record:
    pairs: Headers = tuple(sorted((headers or {}).items()))
    own = tuple(pair for pair in pairs if pair[0] != "Nats-Msg-Id")
    assert len(own) < len(pairs), "a record of ours always has its id"
    return Record(value, own, None, place)


async def _quiet(_: Exception) -> None:
    """Take the errors of a client whose server the test has just killed."""
