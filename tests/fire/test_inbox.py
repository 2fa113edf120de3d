"""An inbox that can take no more: 503, and all by itself 200 again when there is room."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.client import Client, until
from tests.e2e.gateway_process import GatewayProcess
from tests.fire.conftest import Reckon
from tests.fire.field import Field
from tests.fire.fight import Fight, fight
from tests.fire.load import SENDERS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
_SMALL_DISK = 'mount -t tmpfs -o size=64m tmpfs "$1" && shift && exec "$@"'


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Give where the small disk is mounted, in the gateway's own namespace."""
    place = tmp_path / "disk"
    place.mkdir()
    return place


@pytest.fixture
def delivery(disk: Path) -> dict[str, Any]:
    """Give the one mode that these rows are about."""
    return {"mode": "inbox", "inbox": {"path": str(disk / "inbox.db")}}


class OnSmallDisk(GatewayProcess):
    """A gateway with a tmpfs of its own under its inbox (mount_namespaces(7))."""

    disk: Path

    def _command(self) -> Sequence[str]:
        shell = ("sh", "-c", _SMALL_DISK, "small-disk", str(self.disk))
        return ["/usr/bin/env", *_NAMESPACE, *shell, *super()._command()]

    @property
    def ballast(self) -> Path:
        """A file on that disk, as it is seen from here (proc_pid_root(5))."""
        return Path(f"/proc/{self.pid}/root{self.disk}/ballast")

    def fill(self) -> None:
        """Write until the disk is full."""
        with self.ballast.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(64 * 1024))
            except OSError as error:
                assert error.errno == errno.ENOSPC  # noqa: PT017 - any other is a fault

    def empty(self) -> None:
        """Give the space back."""
        self.ballast.unlink()


@pytest.fixture
def on_small_disk(tmp_path: Path, disk: Path) -> Iterator[Callable[..., OnSmallDisk]]:
    """Prepare gateways on a small disk, as `gateways` does."""
    if sys.platform != "linux":
        pytest.skip("namespaces are Linux's")
    tried = subprocess.run([*_NAMESPACE, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        why = f"unprivileged user namespaces are not allowed here: {tried.stderr.strip()}"
        pytest.fail(why) if os.environ.get("CI") else pytest.skip(why)
    made: list[OnSmallDisk] = []

    def prepare(config: dict[str, Any], workers: int = 1, *, start: bool = True) -> OnSmallDisk:
        assert not start
        gateway = OnSmallDisk(tmp_path / "small", config, workers)
        gateway.disk = disk
        made.append(gateway)
        return gateway

    yield prepare
    for gateway in made:
        gateway.end()


@asynccontextmanager
async def piling_up(ground: Field, **config: Any) -> AsyncIterator[Fight]:
    """Let the inbox fill while Kafka is away."""
    async with fight(ground, **config) as row:
        row.kill(ground.kafka)
        yield row
        await row.start(ground.kafka)


async def until_says(row: Fight, status: str) -> None:
    """Wait until `/readyz` says so."""
    async with Client(row.gateway) as client:
        await client.until_ready(status)


async def test_the_disk_is_full(
    ground: Field, on_small_disk: Callable[..., OnSmallDisk], reckon: Reckon
) -> None:
    ground.gateways = on_small_disk
    async with piling_up(ground) as row:
        assert isinstance(row.gateway, OnSmallDisk)
        row.gateway.fill()
        await row.load.until_failed(SENDERS)
        await until_says(row, "inbox_unavailable")
        row.gateway.empty()
        # Nobody tells the gateway that there is room; it finds out.
        await row.load.until_taken()
    reckon(row)
    assert row.load.words["503 inbox_unavailable"] >= SENDERS
    assert set(row.load.words) == {"200 stored", "503 inbox_unavailable"}


async def test_the_inbox_is_full(ground: Field, reckon: Reckon) -> None:
    bounded = {**ground.delivery, "inbox": {**ground.delivery["inbox"], "max_bytes": "1MiB"}}
    async with piling_up(ground, delivery=bounded) as row:
        await row.load.until_failed(SENDERS)
        await until_says(row, "inbox_full")
        waiting = await _bytes(row)
        assert waiting <= 1024 * 1024
    reckon(row)
    assert set(row.load.words) == {"200 stored", "503 inbox_full"}

    async def is_empty() -> bool:
        return await _bytes(row) == 0

    await until(is_empty, "all of it is delivered")


async def _bytes(row: Fight) -> float:
    async with Client(row.gateway) as client:
        (size,) = (await client.samples("gateway_inbox_bytes")).values()
    return size


async def test_every_broker_is_away_from_the_start(ground: Field, reckon: Reckon) -> None:
    """Events are stored all the same, also over kills of the gateway, and arrive in order."""
    for server in (ground.kafka, ground.nats):
        await asyncio.to_thread(server.stop)
    async with fight(ground, ready="degraded") as row:
        for _ in range(2):
            row.kill(row.gateway)
            await row.start(row.gateway)
            await row.load.until_taken()
        for server in (ground.kafka, ground.nats):
            await row.start(server)
    reckon(row)
    assert row.came_to.duplicates == 0, "nothing had been published when it was killed"
