"""The ASGI factory, for those who run their own server: plain uvicorn, one event delivered."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from tests.e2e.client import event, signed
from tests.e2e.gateway_process import PATH, GatewayProcess
from tests.e2e.readback import create_stream, stream_messages
from tests.e2e.wire import connected, head
from tests.servers.nats import NatsServer
from tests.servers.process import LOOPBACK, free_port

STREAM = "asgi"
MAX_BODY = 4096


class Uvicorn(GatewayProcess):
    """Somebody's own server around our application."""

    ends_with = -signal.SIGTERM  # uvicorn drains, and then ends by the signal it was sent

    def __init__(self, directory: Path, nats: NatsServer) -> None:
        route = {
            "name": "all",
            "events": ["*"],
            "targets": [{"broker": "bus", "subject": "asgi.{type}"}],
        }
        brokers = {"bus": {"kind": "nats", "servers": [nats.url]}}
        server = {"max_body": MAX_BODY, "body_timeout": "1s"}
        super().__init__(directory, {"server": server, "brokers": brokers, "routes": [route]})
        self._port = free_port()

    @property
    def port(self) -> int:
        return self._port

    def _command(self) -> Sequence[str]:
        factory = ("--factory", "gateway.app:create_app", "--log-level", "error")
        environment = f"GATEWAY_CONFIG={self.config}"
        uvicorn = (sys.executable, "-m", "uvicorn", *factory)
        return ["/usr/bin/env", environment, *uvicorn, "--host", LOOPBACK, "--port", str(self.port)]

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"http://{LOOPBACK}:{self.port}/", trust_env=False).status_code == 404
        except httpx.TransportError:
            return False


@pytest.fixture(scope="module")
def uvicorn(tmp_path_factory: pytest.TempPathFactory, nats_server: NatsServer) -> Iterator[Uvicorn]:
    asyncio.run(create_stream(nats_server.url, STREAM, "asgi.>"))
    server = Uvicorn(tmp_path_factory.mktemp("asgi"), nats_server)
    with server:
        yield server
        server.end()


async def test_an_event_is_delivered(uvicorn: Uvicorn, nats_server: NatsServer) -> None:
    body = event()
    headers = signed(body)
    async with httpx.AsyncClient(trust_env=False) as http:
        async with asyncio.timeout(30):
            while True:
                answer = await http.post(uvicorn.url, content=body, headers=headers)
                if answer.status_code == 200:
                    break
                assert answer.status_code == 503
        assert answer.json()["status"] == "delivered"
        forged = await http.post(uvicorn.url, content=body + b" ", headers=headers)
        assert forged.status_code == 401
        large = await http.post(uvicorn.url, content=b"x" * (MAX_BODY + 1), headers=headers)
        assert large.status_code == 413
        assert (await http.get(uvicorn.url)).status_code == 405
        assert (await http.post(uvicorn.url + "/x")).status_code == 404
        assert (await http.get(f"http://{LOOPBACK}:{uvicorn.port}/schema")).status_code == 404
    (stored,) = await stream_messages(nats_server.url, STREAM)
    assert (stored.data, stored.headers["svix-id"]) == (body, headers["svix-id"])


async def test_a_slow_body_is_cut_off_there_too(uvicorn: Uvicorn) -> None:
    async with connected(uvicorn.port) as wire:
        await wire.send(head({**signed(b"x"), "Content-Length": "10"}, target=PATH) + b"x")
        assert (await wire.reply()).word == (408, "rejected")
