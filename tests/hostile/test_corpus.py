"""The table of hostile requests, sent as raw bytes to one running gateway with a real broker.

After each row: the exact status and reason, one counted outcome, nothing published, and a
connection that is closed or in step, so that no second request was found in the bytes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from nats.js import JetStreamContext

from tests.e2e.client import Client, until
from tests.e2e.gateway_process import GatewayProcess, assert_clean
from tests.e2e.readback import create_stream, nats_client, stream_messages
from tests.e2e.wire import Reply, Wire, connected
from tests.hostile.conftest import Tally
from tests.hostile.row import MAX_BODY, Row
from tests.hostile.table import CLASSES
from tests.servers.nats import NatsServer

STREAM = "hostile"
TABLE = [
    pytest.param(kind, row, id=f"{kind}-{row.name}")
    for kind, rows in CLASSES.items()
    for row in rows
]
PROBE = b"GET /probe HTTP/1.1\r\nHost: localhost\r\n\r\n"
"""Answered 404 by a gateway that takes its first byte for the beginning of a request."""

NOT_PROVEN = {401, 404, 405, 408, 413, 431}
Ended = tuple[str, str]
"""Outcome and reason."""


@dataclass
class Target:
    """What the rows are sent to, and what is known of it from outside."""

    gateway: GatewayProcess
    client: Client
    stream: JetStreamContext
    ended: Counter[Ended] = field(default_factory=Counter)
    """What was counted when it was last looked at."""
    taken: set[str] = field(default_factory=set)
    """The svix-id of each control row that was delivered."""

    async def stored(self) -> int:
        """Give how many messages the stream has taken."""
        return (await self.stream.stream_info(STREAM)).state.last_seq

    async def newly_ended(self, due: int) -> Counter[Ended]:
        """Wait for so many outcomes, and give what was counted since it was last asked."""
        before = self.ended

        async def are_counted() -> bool:
            self.ended = Counter()
            for (_, outcome, reason), count in (await self.client.counted()).items():
                self.ended[outcome, reason] += count
            return self.ended.total() >= before.total() + due

        await until(are_counted, f"{due} outcomes")
        return self.ended - before


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        asyncio.run(create_stream(server.url, STREAM, "hostile.>"))
        yield server


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, bus: NatsServer) -> Iterator[GatewayProcess]:
    config = {
        "server": {"max_body": MAX_BODY, "header_timeout": "2s", "body_timeout": "2s"},
        "sources": {"clerk": {}, "closed": {"path": "/closed", "allow_from": ["203.0.113.0/24"]}},
        "brokers": {"bus": {"kind": "nats", "servers": [bus.url]}},
        "routes": [
            {
                "name": "all",
                "events": ["*"],
                "targets": [{"broker": "bus", "subject": "hostile.{type}"}],
            }
        ],
    }
    gateway = GatewayProcess(tmp_path_factory.mktemp("gateway"), config)
    gateway.start()
    try:
        yield gateway
        gateway.end()
    finally:
        gateway.kill()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def target(gateway: GatewayProcess, bus: NatsServer) -> AsyncIterator[Target]:
    async with Client(gateway) as client, nats_client(bus.url) as nats:
        await client.until_ready()
        yield Target(gateway, client, nats.jetstream())


@pytest.fixture(autouse=True, scope="module")
def table_of(tally: Tally) -> None:
    """Say how many hostile rows there are, whether or not all of them are sent."""
    for kind, rows in CLASSES.items():
        tally.of_class[kind] = sum(not row.is_control for row in rows)


async def final(wire: Wire) -> Reply:
    """Read one answer that is no interim one."""
    while (reply := await wire.reply()).status == 100:
        continue
    return reply


async def ask(port: int, row: Row) -> tuple[list[Reply], bool]:
    """Send a row; give its answers, and whether the connection took a probe after them."""
    async with connected(port) as wire:
        # Beside the reading: an answer may come, and the end, before all is sent.
        sending = asyncio.create_task(wire.send(row.sent()))
        try:
            replies = [await final(wire) for _ in range(1 + len(row.then))]
            if replies[-1].headers.get("connection") == "close":
                assert await wire.closed(), "more came after the end"
                return replies, False
            await wire.send(PROBE)
            probed = await final(wire)
            assert (probed.status, probed.body["error"]) == (404, "unknown path")
            return replies, True
        finally:
            sending.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await sending


def assert_answer(reply: Reply, status: int, reason: str) -> None:
    """Assert the status, the reason, and that nothing else is told."""
    assert len(reply.raw) < 4000
    assert_clean(reply.raw.decode())
    if status == 200:
        assert reply.word == (200, "delivered")
        return
    assert (reply.status, reply.body["error"]) == (status, reason.replace("_", " "))
    assert reply.body["status"] == "rejected"
    proven = status not in NOT_PROVEN and not reason.startswith("malformed_")
    assert set(reply.body) == ({"status", "id", "error"} if proven else {"status", "error"})


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("kind", "row"), TABLE)
async def test_the_answer_is_the_tables(target: Target, tally: Tally, kind: str, row: Row) -> None:
    due = [(row.status, row.reason), *row.then]
    expected = Counter(("rejected" if reason else "delivered", reason) for _, reason in due)
    stored = await target.stored()
    try:
        replies, probed = await ask(target.gateway.port, row)
    finally:
        published = await target.stored() - stored
        tally.published += 0 if row.is_control else published
        counted = await target.newly_ended(1)
    for reply, (status, reason) in zip(replies, due, strict=True):
        assert_answer(reply, status, reason)
    assert published == (1 if row.is_control else 0)
    expected.update([("rejected", "unknown_path")] * probed)
    assert counted == expected
    if row.is_control:
        target.taken.add(replies[0].body["id"])
        tally.taken += 1
    else:
        tally.refused[kind] += 1


@pytest.mark.asyncio(loop_scope="module")
async def test_the_gateway_lives_and_its_log_is_clean(target: Target) -> None:
    assert target.gateway.running
    assert_clean(target.gateway.log.read_text())
    row = Row("after-all", "a genuine request", lambda request: request, 200, "")
    (reply,), probed = await ask(target.gateway.port, row)
    assert_answer(reply, 200, "")
    assert probed
    assert await target.newly_ended(2) == {("delivered", ""): 1, ("rejected", "unknown_path"): 1}
    target.taken.add(reply.body["id"])


@pytest.mark.asyncio(loop_scope="module")
async def test_only_the_genuine_ones_are_in_the_stream(target: Target, bus: NatsServer) -> None:
    messages = await stream_messages(bus.url, STREAM)
    assert {message.headers["svix-id"] for message in messages} == target.taken
    assert len(messages) == len(target.taken)
