"""The life of a connection to a real nats-server that stops, freezes, dies and comes back."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from gateway.brokers.base import State
from gateway.brokers.nats import NatsBroker
from gateway.brokers.nats.connection import Connection, connect
from gateway.brokers.nats.errors import ConnectionLost
from gateway.brokers.nats.options import client_options
from gateway.config.models import NatsConfig
from tests.brokers.nats.conftest import Starter
from tests.brokers.nats.support import (
    client,
    create_stream,
    eventually,
    message,
    outcome,
    stored,
    wait_for,
)
from tests.servers.nats import NatsServer
from tests.servers.process import free_port

NewNats = Callable[..., NatsServer]
STREAM = [{"name": "S", "subjects": ["s"]}]
KINDS = pytest.mark.parametrize("jetstream", [True, False], ids=["jetstream", "core"])


async def test_a_server_that_comes_later_is_found(
    tmp_path: Path, start: Starter, caplog: pytest.LogCaptureFixture
) -> None:
    server = NatsServer(tmp_path)
    under_test = await start(server.url, until=State.DOWN, streams=STREAM)
    future = under_test.publish("s")
    assert future.done()
    assert await outcome(future) == "Unavailable(broker_down)"

    with server:
        await asyncio.to_thread(server.start)
        await wait_for(lambda: under_test.broker.state is State.UP)
        assert await under_test.outcome("s") == "Receipt"
        assert under_test.states == [State.DOWN, State.UP]
        await under_test.broker.close(1)
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "nothing listens there; check brokers.bus.servers" in warning.getMessage()


@KINDS
async def test_killed_and_restarted(own_nats: NatsServer, start: Starter, jetstream: bool) -> None:
    under_test = await start(own_nats.url, streams=STREAM, jetstream=jetstream)
    own_nats.pause()
    sent = [under_test.publish("s") for _ in range(5)]
    await asyncio.sleep(0)
    own_nats.kill()

    assert {await outcome(future) for future in sent} == {"Unknown(no_ack)"}
    assert under_test.broker.state is State.DOWN
    later = under_test.publish("s")
    assert later.done()
    assert await outcome(later) == "Unavailable(broker_down)"
    await asyncio.to_thread(own_nats.start)
    await wait_for(lambda: under_test.broker.state is State.UP)
    assert await under_test.outcome("s") == "Receipt"
    assert under_test.states == [State.UP, State.DOWN, State.UP]


@KINDS
async def test_frozen_is_down_within_seconds_and_a_late_ack_counts(
    own_nats: NatsServer, start: Starter, jetstream: bool
) -> None:
    under_test = await start(own_nats.url, streams=STREAM, jetstream=jetstream)
    own_nats.pause()
    sent = under_test.publish("s")

    took = await wait_for(lambda: under_test.broker.state is State.DOWN)
    at_once = under_test.publish("s")

    assert took < 4.0
    assert at_once.done()
    assert await outcome(at_once) == "Unavailable(broker_down)"
    assert not sent.done()
    own_nats.resume()
    assert await outcome(sent) == "Receipt"
    await wait_for(lambda: under_test.broker.state is State.UP)
    assert await under_test.outcome("s") == "Receipt"
    assert under_test.broker.in_flight == (0, 0)


async def test_frozen_for_longer_than_the_request_timeout_is_unknown(
    own_nats: NatsServer, start: Starter
) -> None:
    under_test = await start(own_nats.url, streams=STREAM, request_timeout=4.0)
    own_nats.pause()

    assert await under_test.outcome("s") == "Unknown(no_ack)"
    assert under_test.broker.in_flight == (0, 0)


async def test_an_idle_connection_notices_too(own_nats: NatsServer, start: Starter) -> None:
    under_test = await start(own_nats.url)
    own_nats.pause()

    assert await wait_for(lambda: under_test.broker.state is State.DOWN) < 4.0


async def test_a_busy_event_loop_is_not_a_silent_server(
    nats_server: NatsServer, start: Starter
) -> None:
    under_test = await start(nats_server.url)

    for _ in range(2):
        time.sleep(2.5)  # noqa: ASYNC251 - blocking the loop is what is tested
        await asyncio.sleep(0.6)

    assert under_test.states == [State.UP]


async def test_nothing_acknowledged_is_lost_through_kills(
    own_nats: NatsServer, start: Starter
) -> None:
    under_test = await start(own_nats.url, streams=STREAM)
    acked: list[int] = []

    async def publish(at: int) -> None:
        if await under_test.outcome("s", b"%d" % at, dedupe_id=str(at)) == "Receipt":
            acked.append(at)

    for round_ in range(3):
        wave = [asyncio.create_task(publish(round_ * 1000 + at)) for at in range(300)]
        await asyncio.sleep(0.002)
        own_nats.kill()
        await asyncio.gather(*wave)
        await asyncio.to_thread(own_nats.start)
        await wait_for(lambda: under_test.broker.state is State.UP)
        await publish(round_ * 1000 + 999)

    kept = [int(record.data) for record in await stored(own_nats.url, "S")]
    assert len(acked) >= 3
    assert set(acked) <= set(kept)
    assert len(kept) == len(set(kept))


async def test_a_second_server_takes_over(new_nats: NewNats, start: Starter) -> None:
    servers = [await asyncio.to_thread(new_nats, jetstream=False) for _ in range(2)]
    under_test = await start(*(server.url for server in servers), jetstream=False)

    for server in servers:
        server.kill()
        await eventually(lambda: under_test.outcome("s"), "Receipt")
        await asyncio.to_thread(server.start)

    assert State.DOWN in under_test.states


async def test_a_discovered_server_takes_over(new_nats: NewNats, start: Starter) -> None:
    routes = [free_port(), free_port()]
    servers = [
        await asyncio.to_thread(
            new_nats,
            jetstream=False,
            options={
                "server_name": f"n{port}",
                "cluster": {
                    "name": "C",
                    "listen": f"127.0.0.1:{port}",
                    "routes": [f"nats://127.0.0.1:{other}" for other in routes],
                },
            },
        )
        for port in routes
    ]
    await wait_for(lambda: all("Route connection created" in s.log_tail() for s in servers))
    under_test = await start(servers[0].url, jetstream=False)

    servers[0].kill()
    await wait_for(lambda: State.DOWN in under_test.states)
    await wait_for(lambda: under_test.broker.state is State.UP)

    assert await under_test.outcome("s") == "Receipt"


async def test_close_waits_for_acks_and_then_takes_nothing(
    own_nats: NatsServer, start: Starter
) -> None:
    under_test = await start(own_nats.url, streams=STREAM)
    sent = [under_test.publish("s") for _ in range(100)]

    await under_test.broker.close(5)
    after = under_test.publish("s")

    assert {await outcome(future) for future in sent} == {"Receipt"}
    assert await outcome(after) == "Unavailable(closing)"
    assert under_test.states == [State.UP, State.DOWN]
    await under_test.broker.close(5)
    await under_test.broker.start()
    assert under_test.broker.state is State.DOWN


async def test_close_does_not_wait_for_a_frozen_server(
    own_nats: NatsServer, start: Starter
) -> None:
    under_test = await start(own_nats.url, streams=STREAM)
    own_nats.pause()
    before = asyncio.all_tasks()
    # More than a socket takes, so that closing would have to wait for a reader.
    sent = [under_test.publish("s", b"x" * 500_000) for _ in range(40)]
    loop = asyncio.get_running_loop()
    began = loop.time()

    await under_test.broker.close(0.5)

    assert loop.time() - began < 1.5
    assert {await outcome(future) for future in sent} == {"Unknown(no_ack)"}
    assert asyncio.all_tasks() < before
    assert asyncio.current_task() in asyncio.all_tasks()


async def test_a_server_killed_under_a_backlog_is_told_in_words_only(
    own_nats: NatsServer, start: Starter, caplog: pytest.LogCaptureFixture
) -> None:
    under_test = await start(own_nats.url, streams=STREAM)
    own_nats.pause()
    sent = [under_test.publish("s", b"x" * 500_000) for _ in range(40)]
    await asyncio.sleep(0.05)
    sent += [under_test.publish("s") for _ in range(40)]
    own_nats.kill()

    assert {await outcome(future) for future in sent} == {"Unknown(no_ack)"}
    await under_test.broker.close(1)
    gc.collect()
    assert {record.name for record in caplog.records} == {"gateway.brokers"}
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_server_that_hangs_up_instead_of_logging_us_in_is_no_connection() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"version":"2.12.0","headers":true}\r\n')
        await reader.readuntil(b"PING\r\n")
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        with pytest.raises(ConnectionLost, match="the server closed it"):
            await connect_to(server)


async def connect_to(server: asyncio.Server) -> Connection:
    """Connect to a server of the test's own."""
    port = server.sockets[0].getsockname()[1]
    config = NatsConfig(kind="nats", servers=(f"127.0.0.1:{port}",))
    options = client_options("bus", config)
    return await connect(options, options.servers[0])


async def test_a_ping_never_overtakes_what_was_published_before_it() -> None:
    read_on = asyncio.Event()
    heard = bytearray()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"version":"2.12.0","headers":true,"max_payload":9000000}\r\n')
        await reader.readuntil(b"PING\r\n")
        writer.write(b"PONG\r\n")
        await read_on.wait()
        while not heard.endswith(b"PING\r\n"):
            heard.extend(await reader.read(1_000_000))
        writer.write(b"PONG\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        connection = await connect_to(server)
        # More than a socket takes, so that what comes next stays pending.
        connection.publish("first", "", None, b"x" * 8_000_000)
        await asyncio.sleep(0.05)
        connection.publish("last", "", None, b"")
        answered = asyncio.Event()
        connection.ping(answered.set)
        await asyncio.sleep(0.05)
        read_on.set()
        await asyncio.wait_for(answered.wait(), 10)
        await connection.close()

    assert heard.endswith(b"PUB last  0\r\n\r\nPING\r\n")


async def test_close_without_a_start_and_while_connecting(start: Starter, tmp_path: Path) -> None:
    server = NatsServer(tmp_path)
    under_test = await start(server.url, until=None)
    assert under_test.broker.state == "connecting"

    await under_test.broker.close(1)

    assert under_test.states == [State.DOWN]
    assert await under_test.outcome("s") == "Unavailable(closing)"


async def test_a_server_that_talks_nonsense_is_left_alone(start: Starter) -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        under_test = await start(f"127.0.0.1:{port}", until=State.DOWN)
        assert await under_test.outcome("s") == "Unavailable(broker_down)"
        await under_test.broker.close(1)


async def test_provisioning_creates_what_is_missing_and_leaves_what_is_there(
    own_nats: NatsServer, start: Starter
) -> None:
    await create_stream(own_nats.url, "OLD", "old.>", max_msgs=7)

    await start(
        own_nats.url,
        streams=[
            {"name": "OLD", "subjects": ["else"]},
            {
                "name": "NEW",
                "subjects": ["new.>"],
                "storage": "memory",
                "max_age": "1m",
                "max_bytes": "1MiB",
            },
        ],
    )

    async with client(own_nats.url) as connected:
        old = (await connected.jetstream().stream_info("OLD")).config
        new = (await connected.jetstream().stream_info("NEW")).config
    assert (old.subjects, old.max_msgs) == (["old.>"], 7)
    assert (new.subjects, new.storage, new.max_age, new.max_bytes) == (
        ["new.>"], "memory", 60.0, 1024 * 1024
    )  # fmt: skip
    assert (new.duplicate_window, new.discard, new.retention) == (60.0, "old", "limits")


async def test_a_stream_that_cannot_be_created_is_told_once_and_retried(
    own_nats: NatsServer,
    start: Starter,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO, "gateway.brokers")
    monkeypatch.setattr("gateway.brokers.nats.broker._PROVISION_AGAIN_AFTER", 0.2)
    await create_stream(own_nats.url, "IN_THE_WAY", "s")

    under_test = await start(own_nats.url, streams=STREAM)

    assert await under_test.outcome("s") == "Receipt"
    async with client(own_nats.url) as connected:
        await connected.jetstream().delete_stream("IN_THE_WAY")
        await wait_for(lambda: "created stream S" in caplog.text, 5)
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "could not create stream S: subjects overlap" in warnings[0].getMessage()


def test_uvloop_runs_it_too(own_nats: NatsServer) -> None:
    async def run() -> list[str]:
        config = NatsConfig.model_validate(
            {"kind": "nats", "servers": (own_nats.url,), "streams": STREAM}
        )
        broker = NatsBroker("bus", config, lambda *_: None)
        await broker.start()
        await wait_for(lambda: broker.state is State.UP)
        deadline = asyncio.get_running_loop().time() + 5
        outcomes = [await outcome(broker.publish(message("s"), deadline)) for _ in range(3)]
        await broker.close(1)
        return outcomes

    assert uvloop.run(run()) == ["Receipt"] * 3
