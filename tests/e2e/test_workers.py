"""`serve --workers 2`: one port, one admin port, one set of metrics, and an end for all."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.canaries import SECRET, TOKEN, canaries
from tests.e2e.client import Client, until
from tests.e2e.conftest import Start
from tests.e2e.gateway_process import GatewayProcess, children, is_running
from tests.e2e.test_shutdown import SHUTDOWN, SLACK, ended, on, until_in_flight
from tests.servers.nats import NatsServer

DELIVERED = ("clerk", "delivered", "")


@pytest.fixture
async def gateway(
    gateways: Start, own_nats: NatsServer, unique: Callable[[str], str]
) -> GatewayProcess:
    """Give a gateway with two workers, both of which serve."""
    gateway = gateways(await on(own_nats, unique("workers")), workers=2)
    await until_workers(gateway, 2)
    return gateway


@pytest.fixture
async def client(gateway: GatewayProcess) -> AsyncIterator[Client]:
    async with Client(gateway) as client:
        await client.until_ready()
        yield client


async def until_workers(gateway: GatewayProcess, count: int, without: int = 0) -> list[int]:
    """Wait until `count` workers run, and give their process ids."""
    found: set[int] = set()

    async def is_so() -> bool:
        found.clear()
        found.update(await asyncio.to_thread(children, gateway.pid))
        return len(found) == count and without not in found

    await until(is_so, f"{count} workers run")
    return sorted(found)


async def post_anew(gateway: GatewayProcess, times: int = 1) -> None:
    """Post over new connections, any worker of which may take one."""
    for _ in range(times):
        async with Client(gateway) as client:
            assert (await client.post()).word == (200, "delivered")


async def test_each_worker_serves(gateway: GatewayProcess, client: Client) -> None:
    first, second = await until_workers(gateway, 2)
    async with client.counting(*[DELIVERED] * 6):
        for frozen in (first, second):
            os.kill(frozen, signal.SIGSTOP)
            await post_anew(gateway, 3)
            os.kill(frozen, signal.SIGCONT)


async def test_a_killed_worker_is_replaced_and_its_counts_stay(
    gateway: GatewayProcess, client: Client
) -> None:
    victim, other = await until_workers(gateway, 2)
    for frozen in (other, victim):
        os.kill(frozen, signal.SIGSTOP)
        await post_anew(gateway, 2)
        os.kill(frozen, signal.SIGCONT)
    seen = [(await client.counted())[DELIVERED]]
    assert seen == [4]
    os.kill(victim, signal.SIGKILL)
    await post_anew(gateway, 2)
    seen.append((await client.counted())[DELIVERED])
    workers = await until_workers(gateway, 2, without=victim)
    assert other in workers
    await client.until_ready()
    # The new one serves alone.
    os.kill(other, signal.SIGSTOP)
    async with Client(gateway) as fresh:
        await fresh.until_delivered()
    os.kill(other, signal.SIGCONT)
    seen.append((await client.counted())[DELIVERED])
    assert seen == [4, 6, 7]
    assert any(line["event"] == "worker ended" for line in gateway.lines())


async def test_sigterm_drains_all(
    gateway: GatewayProcess, client: Client, own_nats: NatsServer
) -> None:
    workers = await until_workers(gateway, 2)
    own_nats.pause()
    answer = asyncio.create_task(client.post())
    await until_in_flight(client)
    gateway.terminate()
    own_nats.resume()
    assert (await answer).word == (200, "delivered")
    code, seconds = await ended(gateway)
    assert code == 0
    assert seconds < SHUTDOWN + SLACK
    assert not any(is_running(worker) for worker in workers)


async def test_sigterm_fails_what_cannot_be_delivered(
    gateway: GatewayProcess, client: Client, own_nats: NatsServer
) -> None:
    own_nats.pause()
    answer = asyncio.create_task(client.post())
    await until_in_flight(client)
    gateway.terminate()
    assert (await answer).word == (503, "failed")
    code, seconds = await ended(gateway)
    assert code == 0
    assert seconds < SHUTDOWN + SLACK


async def test_the_workers_end_with_their_supervisor(gateway: GatewayProcess) -> None:
    workers = await until_workers(gateway, 2)
    os.kill(gateway.pid, signal.SIGKILL)
    assert await asyncio.to_thread(gateway.exit_code) == -signal.SIGKILL

    async def are_gone() -> bool:
        return not any(is_running(worker) for worker in workers)

    await until(are_gone, "the workers are gone")


async def test_a_broker_that_is_down_is_degraded_in_all(
    gateway: GatewayProcess, client: Client, own_nats: NatsServer
) -> None:
    own_nats.kill()
    await client.until_ready("undeliverable")
    assert (await client.ready())[0] == 503
    async with Client(gateway) as fresh:
        assert (await fresh.post()).word == (503, "failed")
    await asyncio.to_thread(own_nats.start)
    await client.until_ready()
    await client.until_delivered()


async def test_sigterm_while_the_workers_start(
    gateways: Start, nats_server: NatsServer, unique: Callable[[str], str]
) -> None:
    gateway = gateways(await on(nats_server, unique("early")), workers=2, start=False)
    starting = asyncio.create_task(asyncio.to_thread(gateway.start))

    async def has_workers() -> bool:
        return bool(gateway.pid and await asyncio.to_thread(children, gateway.pid))

    await until(has_workers, "the workers are started")
    began = time.monotonic()
    gateway.terminate()
    await asyncio.gather(starting, return_exceptions=True)
    assert await asyncio.to_thread(gateway.exit_code) == 0
    assert time.monotonic() - began < SHUTDOWN + SLACK


async def test_no_secret_of_the_file_is_in_the_list_of_processes(
    gateways: Start, nats_server: NatsServer, unique: Callable[[str], str]
) -> None:
    config = await on(nats_server, unique("listed"))
    gateway = gateways({**config, "sources": {"clerk": {"secrets": [SECRET]}}}, workers=2)
    assert {SECRET, TOKEN} <= set(gateway.config.read_text().split('"'))
    workers = await until_workers(gateway, 2)
    listed = b"".join(map(_listed, (gateway.pid, *workers)))
    assert listed.count(b"gateway") >= 3
    found = [one.name for one in canaries() if any(form in listed for form in one.forms())]
    assert found == []
    async with Client(gateway) as client:
        assert (await client.until_delivered()).word == (200, "delivered")


def _listed(pid: int) -> bytes:
    """Give what others can see of a process: its arguments, and to its user its environment."""
    shown = subprocess.run(
        ["ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, check=True
    ).stdout
    if sys.platform != "linux":
        return shown
    return shown + Path(f"/proc/{pid}/environ").read_bytes()
