"""SIGTERM to a single process: what is in flight is answered, and the exit code is 0."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.client import Client, event, signed, until
from tests.e2e.conftest import Start
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.readback import create_stream, stream_messages
from tests.e2e.wire import connected, head, request
from tests.servers.nats import NatsServer

SHUTDOWN = 3.0
SLACK = 2.0


async def on(nats: NatsServer, name: str) -> dict[str, Any]:
    """Make a stream, and give a config whose one route goes there."""
    await create_stream(nats.url, name, f"{name}.>")
    return {
        "server": {"shutdown": f"{SHUTDOWN}s"},
        "brokers": {"bus": {"kind": "nats", "servers": [nats.url]}},
        "routes": [
            {
                "name": "all",
                "events": ["*"],
                "targets": [{"broker": "bus", "subject": f"{name}.{{type}}"}],
            }
        ],
    }


async def until_in_flight(client: Client) -> None:
    """Wait until the gateway has published a record that no ack has come for."""

    async def is_so() -> bool:
        return (await client.samples("gateway_broker_in_flight_records"))[("bus",)] == 1

    await until(is_so, "a record is in flight")


async def ended(gateway: GatewayProcess) -> tuple[int, float]:
    """Wait for the end; give the exit code and the seconds it took."""
    began = time.monotonic()
    return await asyncio.to_thread(gateway.exit_code), time.monotonic() - began


async def test_what_is_in_flight_is_delivered(
    gateways: Start, own_nats: NatsServer, unique: Callable[[str], str]
) -> None:
    stream = unique("drain")
    gateway = gateways(await on(own_nats, stream))
    async with Client(gateway) as client:
        await client.until_ready()
        own_nats.pause()
        answer = asyncio.create_task(client.post())
        await until_in_flight(client)
        gateway.terminate()
        await client.until_ready("draining")
        assert (await client.ready())[0] == 503
        own_nats.resume()
        assert (await answer).word == (200, "delivered")
    code, seconds = await ended(gateway)
    assert code == 0
    assert seconds < SHUTDOWN + SLACK
    assert len(await stream_messages(own_nats.url, stream)) == 1


async def test_what_cannot_be_delivered_is_answered_503(
    gateways: Start, own_nats: NatsServer, unique: Callable[[str], str]
) -> None:
    gateway = gateways(await on(own_nats, unique("drain")))
    async with Client(gateway) as client:
        await client.until_ready()
        own_nats.pause()
        answer = asyncio.create_task(client.post())
        await until_in_flight(client)
        gateway.terminate()
        failed = await answer
        assert failed.word == (503, "failed")
        assert failed.headers["retry-after"]
        assert failed.headers["connection"] == "close"
    code, seconds = await ended(gateway)
    assert code == 0
    assert seconds < SHUTDOWN + SLACK


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_idle_connections_do_not_hold_it_up(
    gateways: Start, nats_server: NatsServer, unique: Callable[[str], str], number: signal.Signals
) -> None:
    gateway = gateways(await on(nats_server, unique("drain")))
    async with Client(gateway) as client, connected(gateway.port) as wire:
        await client.until_ready()
        await wire.send(request(event()))
        assert (await wire.reply()).word == (200, "delivered")
        gateway.send(number)
        code, seconds = await ended(gateway)
        assert code == 0
        assert seconds < SHUTDOWN
        assert await wire.closed()


@pytest.mark.parametrize("part", ["body", "head"])
async def test_a_request_that_never_comes_whole_is_answered_and_does_not_hold_it_up(
    gateways: Start, nats_server: NatsServer, unique: Callable[[str], str], part: str
) -> None:
    settings = await on(nats_server, unique("drain"))
    settings["server"]["header_timeout"] = "10s"
    gateway = gateways(settings)
    async with Client(gateway) as client, connected(gateway.port) as wire:
        await client.until_ready()
        whole = head(signed(b"") | {"Content-Length": "10", "Expect": "100-continue"})
        await wire.send(whole if part == "body" else whole[:-2])
        if part == "body":
            assert (await wire.reply()).status == 100
        gateway.terminate()
        reply = await wire.reply()
        assert (reply.word, reply.body["error"]) == ((503, "failed"), "closing")
        assert reply.headers["retry-after"] == "5"
        assert await wire.closed()
        code, seconds = await ended(gateway)
    assert code == 0
    assert seconds < SHUTDOWN + SLACK
    assert [line for line in gateway.lines() if line["level"] == "error"] == []


async def test_a_broker_that_never_came_does_not_hold_it_up(
    gateways: Start, own_nats: NatsServer, unique: Callable[[str], str]
) -> None:
    settings = await on(own_nats, unique("drain"))
    own_nats.kill()
    gateway = gateways(settings)
    gateway.terminate()
    code, seconds = await ended(gateway)
    assert code == 0
    assert seconds < SHUTDOWN + SLACK


async def test_a_killed_gateway_has_lost_nothing_it_acknowledged(
    gateways: Start, nats_server: NatsServer, unique: Callable[[str], str]
) -> None:
    stream = unique("killed")
    gateway = gateways(await on(nats_server, stream))
    taken: list[str] = []

    async def sender(client: Client) -> None:
        while gateway.running:
            body = event()
            headers = signed(body)
            try:
                answer = await client.post(body, headers)
            except OSError:
                return
            if answer.status == 200:
                taken.append(headers["svix-id"])

    async with Client(gateway) as client:
        await client.until_ready()
        senders = [asyncio.create_task(sender(client)) for _ in range(8)]

        async def enough() -> bool:
            return len(taken) > 50

        await until(enough, "50 events are taken")
        gateway.kill()
        await asyncio.gather(*senders, return_exceptions=True)
    stored = {
        message.headers["svix-id"] for message in await stream_messages(nats_server.url, stream)
    }
    print(f"{len(taken)} taken, {len(stored)} stored")
    assert set(taken) <= stored
