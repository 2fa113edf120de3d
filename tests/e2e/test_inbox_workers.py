"""`serve --workers` in inbox mode: the first worker owns the file, the others store through it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.client import Answer, Client, event, signed, until
from tests.e2e.conftest import Start
from tests.e2e.gateway_process import GatewayProcess, is_running
from tests.e2e.readback import stream_count, stream_messages
from tests.e2e.test_shutdown import SHUTDOWN, SLACK, ended, on
from tests.e2e.test_workers import until_workers
from tests.servers.nats import NatsServer

STORED = (200, "stored")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "inbox.db"


@pytest.fixture
def stream(unique: Callable[[str], str]) -> str:
    return unique("shared")


@pytest.fixture
async def config(own_nats: NatsServer, stream: str, path: Path) -> dict[str, Any]:
    direct = await on(own_nats, stream)
    return {**direct, "delivery": {"mode": "inbox", "inbox": {"path": str(path)}}}


@pytest.fixture
async def gateway(gateways: Start, config: dict[str, Any]) -> GatewayProcess:
    """Give a gateway with two workers, both of which serve."""
    gateway = gateways(config, workers=2)
    await until_workers(gateway, 2)
    return gateway


def owner_of(path: Path) -> int:
    """Give the process that has the file."""
    return int(Path(f"{path}.lock").read_text())


async def until_stored(client: Client) -> list[int]:
    """Post until an event is stored, and give the statuses before it."""
    refused = list[int]()

    async def is_stored() -> bool:
        answer = await client.post()
        if answer.word == STORED:
            return True
        assert answer.word == (503, "failed")
        refused.append(answer.status)
        return False

    await until(is_stored, "an event is stored")
    return refused


async def pinned(gateway: GatewayProcess, path: Path) -> Client:
    """Give a client whose one connection is with the worker that does not own the file."""
    owner = owner_of(path)
    client = await Client(gateway, connections=1).__aenter__()
    await until_stored(client)
    await client.__aexit__()
    os.kill(owner, signal.SIGSTOP)
    try:
        client = await Client(gateway, connections=1).__aenter__()
        # It needs no inbox, and so no owner; and unlike most refusals it keeps the connection.
        body = event()
        forged = signed(body) | {"svix-id": "msg_other"}
        assert (await client.post(body, forged)).word == (401, "rejected")
    finally:
        os.kill(owner, signal.SIGCONT)
    # It may have begun to look for the owner only while that was held.
    await until_stored(client)
    return client


async def until_delivered(nats: NatsServer, stream: str, ids: set[str]) -> None:
    """Wait until all of these are in the stream."""

    async def all_there() -> bool:
        if await stream_count(nats.url, stream) < len(ids):
            return False
        return ids <= {one.headers["svix-id"] for one in await stream_messages(nats.url, stream)}

    await until(all_there, f"{len(ids)} events are delivered")


async def test_another_worker_stores_through_the_owner(
    gateway: GatewayProcess, path: Path, own_nats: NatsServer, stream: str
) -> None:
    client, ids = await pinned(gateway, path), set[str]()
    for _ in range(20):
        body = event()
        headers = signed(body)
        ids.add(headers["svix-id"])
        assert (await client.post(body, headers)).word == STORED
        # A copy that waits, or that was delivered meanwhile.
        assert (await client.post(body, headers)).word in {STORED, (200, "duplicate")}
    await until_delivered(own_nats, stream, ids)
    await client.__aexit__()


async def test_an_owner_that_is_killed_is_replaced_and_the_others_go_on(
    gateway: GatewayProcess, path: Path, own_nats: NatsServer, stream: str
) -> None:
    client, ids = await pinned(gateway, path), set[str]()
    for _ in range(3):
        victim = owner_of(path)
        others = set(await until_workers(gateway, 2)) - {victim}
        own_nats.pause()
        for _ in range(10):
            body = event()
            headers = signed(body)
            assert (await client.post(body, headers)).word == STORED
            ids.add(headers["svix-id"])
        # While nobody can replace the owner, the other one answers all the same.
        gateway.pause()
        os.kill(victim, signal.SIGKILL)
        refused = await client.post()
        assert refused.word == (503, "failed")
        assert {one["reason"] for one in refused.body["targets"]} == {"inbox_unavailable"}
        gateway.resume()
        own_nats.resume()
        await until_stored(client)
        assert owner_of(path) != victim
        assert others <= set(await until_workers(gateway, 2, without=victim))
    await until_delivered(own_nats, stream, ids)
    await client.until_ready()
    await client.__aexit__()


async def test_a_worker_that_is_not_the_owner_is_replaced_too(
    gateway: GatewayProcess, path: Path
) -> None:
    owner = owner_of(path)
    (victim,) = set(await until_workers(gateway, 2)) - {owner}
    os.kill(victim, signal.SIGKILL)
    assert owner in await until_workers(gateway, 2, without=victim)
    client = await pinned(gateway, path)
    await until_stored(client)
    assert owner_of(path) == owner
    await client.__aexit__()


async def test_sigterm_stores_what_is_in_hand_and_leaves_a_whole_file(
    gateway: GatewayProcess, path: Path
) -> None:
    workers = await until_workers(gateway, 2)
    async with Client(gateway) as client:
        await until_stored(client)
        answers = [asyncio.create_task(client.post()) for _ in range(40)]
        await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
        gateway.terminate()
        told = await asyncio.gather(*answers, return_exceptions=True)
    # A connection that was not yet read from when the port closed is the sender's to try again.
    answered = [one for one in told if not isinstance(one, httpx.TransportError)]
    assert {one.word for one in answered if isinstance(one, Answer)} == {STORED}
    assert all(isinstance(one, Answer) for one in answered)
    code, seconds = await ended(gateway)
    assert code == 0
    assert seconds < SHUTDOWN + SLACK
    assert not any(is_running(worker) for worker in workers)
    left = {one.name for one in path.parent.iterdir() if one.name.startswith("inbox.db")}
    assert left == {"inbox.db", "inbox.db.lock"}


async def test_a_second_gateway_on_the_file_is_refused(
    gateway: GatewayProcess, path: Path, tmp_path: Path
) -> None:
    serve = (sys.executable, "-m", "gateway", "serve", "--config", str(gateway.config))
    for workers in ("1", "2"):
        second = await asyncio.to_thread(
            subprocess.run,
            [*serve, "--workers", workers],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert second.returncode == 2
        assert f"process {owner_of(path)} has it open" in second.stderr
        assert "Traceback" not in second.stderr
    async with Client(gateway) as client:
        await until_stored(client)
