"""The file of an inbox that a gateway may not have: it does not start, and leaves it as it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.commands.command import gateway
from tests.e2e.client import Client
from tests.e2e.conftest import Start
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.test_shutdown import ended, on, until_in_flight
from tests.inbox.sqlite_file import count
from tests.servers.nats import NatsServer

UNUSABLE = 2
"""The exit code of what the operator has to mend."""


@pytest.fixture
async def settings(
    nats_server: NatsServer, unique: Callable[[str], str], tmp_path: Path
) -> dict[str, Any]:
    delivery = {"mode": "inbox", "inbox": {"path": str(tmp_path / "inbox.db")}}
    return {**await on(nats_server, unique("inbox")), "delivery": delivery}


async def refused(prepared: GatewayProcess) -> str:
    """Start a gateway that must not come up, and give what it said last."""
    serve = ("serve", "--config", prepared.config)
    done = await asyncio.to_thread(gateway, *serve, cwd=prepared.directory)
    assert done.code == UNUSABLE
    return done.err.splitlines()[-1]


async def test_a_second_gateway_is_refused_and_the_first_goes_on(
    gateways: Start, settings: dict[str, Any]
) -> None:
    first = await asyncio.to_thread(gateways, settings)
    said = await refused(gateways(settings, start=False))
    assert said.startswith(settings["delivery"]["inbox"]["path"])
    assert str(first.pid) in said
    async with Client(first) as client:
        assert (await client.post()).word == (200, "stored")


async def test_a_foreign_file_is_left_as_it_is(
    gateways: Start, settings: dict[str, Any], tmp_path: Path
) -> None:
    content = b"somebody's accounts, and no inbox"
    (tmp_path / "inbox.db").write_bytes(content)
    said = await refused(gateways(settings, start=False))
    assert "is no SQLite file" in said
    assert "delivery.inbox.path" in said
    assert (tmp_path / "inbox.db").read_bytes() == content


async def test_what_is_on_its_way_at_sigterm_has_all_of_the_shutdown_to_settle(
    gateways: Start, own_nats: NatsServer, unique: Callable[[str], str], tmp_path: Path
) -> None:
    path = tmp_path / "inbox.db"
    delivery = {"mode": "inbox", "inbox": {"path": str(path)}}
    config = {**await on(own_nats, unique("drain")), "delivery": delivery}
    first = await asyncio.to_thread(gateways, {**config, "server": {"shutdown": "30s"}})
    async with Client(first) as client:
        await client.until_ready()
        own_nats.pause()
        assert (await client.post()).word == (200, "stored")
        await until_in_flight(client)
    first.terminate()
    # Longer than a quarter of the shutdown, which is what the brokers have to be flushed.
    await asyncio.sleep(9)
    own_nats.resume()
    assert (await ended(first))[0] == 0
    assert count(path, "body") == 0
