"""What a tree of several workers says of itself, from what each of them reports."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from gateway.app import draw, load_contents
from gateway.brokers.base import State
from gateway.observability.health import ProcessHealth, readiness
from gateway.server.supervisor import Supervisor
from gateway.server.worker import _line
from tests.canaries import SECRET

CONFIG: dict[str, Any] = {
    "sources": {"clerk": {"secrets": [SECRET]}},
    "brokers": {"bus": {"kind": "nats", "servers": ["nats://localhost:4222"]}},
    "routes": [{"name": "all", "events": ["*"], "targets": [{"broker": "bus", "subject": "a"}]}],
}
SERVES = ProcessHealth("ready", {"bus": State.UP}, {"all": ("bus",)})


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Supervisor]:
    """Give one of two workers that are not started."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    loaded = load_contents("config.yaml", SecretStr(json.dumps(CONFIG)), {}, {})
    with socket.socket() as bound:
        yield Supervisor(draw(loaded), bound, 2)
    shutil.rmtree(tmp_path, ignore_errors=True)


def word(supervisor: Supervisor) -> str:
    return str(readiness(supervisor.healths())[1]["status"])


def report(supervisor: Supervisor, number: int, health: ProcessHealth | None) -> None:
    """Take a report of a worker, or its end."""
    worker = supervisor._workers[number]
    worker.health = health
    worker.has_reported = worker.has_reported or health is not None


def test_it_loads_until_each_worker_serves_and_not_again_while_one_is_replaced(
    supervisor: Supervisor,
) -> None:
    assert word(supervisor) == "loading"
    report(supervisor, 0, SERVES)
    assert word(supervisor) == "loading"
    report(supervisor, 1, SERVES)
    assert word(supervisor) == "ready"
    report(supervisor, 0, None)
    assert word(supervisor) == "ready"
    report(supervisor, 0, SERVES)
    assert word(supervisor) == "ready"


async def test_a_supervisor_that_dies_with_a_report_unread_has_said_its_last() -> None:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=theirs)
    writer.write(b"a report that nobody reads\n")
    await writer.drain()
    ours.close()
    assert await _line(reader) == b""
    writer.close()
