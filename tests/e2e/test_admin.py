"""The admin port: health for the orchestrator, metrics for the scraper, nothing for others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.canaries import TOKEN
from tests.e2e.client import Client, event
from tests.e2e.conftest import Start
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.readback import create_stream
from tests.e2e.wire import connected, head
from tests.servers.nats import NatsServer
from tests.servers.process import LOOPBACK, free_port

SAFE = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
FAMILIES = {
    "gateway_events": "counter",
    "gateway_settlements": "counter",
    "gateway_late_acks": "counter",
    "gateway_event_seconds": "histogram",
    "gateway_connections": "gauge",
    "gateway_broker_up": "gauge",
    "gateway_broker_in_flight_records": "gauge",
    "gateway_broker_in_flight_bytes": "gauge",
}


def config(nats: NatsServer, **admin: Any) -> dict[str, Any]:
    return {
        "admin": admin,
        "brokers": {"bus": {"kind": "nats", "servers": [nats.url]}},
        "routes": [
            {
                "name": "all",
                "events": ["user.*"],
                "targets": [{"broker": "bus", "subject": "admin.{type}"}],
            }
        ],
    }


@pytest.fixture(scope="module")
def gateway(module_gateways: Start, nats_server: NatsServer) -> GatewayProcess:
    asyncio.run(create_stream(nats_server.url, "admin", "admin.>"))
    return module_gateways(config(nats_server))


@pytest.fixture
async def client(gateway: GatewayProcess) -> AsyncIterator[Client]:
    async with Client(gateway) as client:
        await client.until_ready()
        yield client


async def test_health_needs_no_token(client: Client) -> None:
    live, ready = await client.admin("/livez", None), await client.admin("/readyz", None)
    assert (live.status_code, live.json()) == (200, {"status": "alive"})
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "brokers": {"bus": "up"}})


@pytest.mark.parametrize("token", [None, "wrong", TOKEN.upper(), TOKEN + "x"])
async def test_metrics_need_the_token(client: Client, token: str | None) -> None:
    answer = await client.admin("/metrics", token)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "gateway_events" not in answer.text


@pytest.mark.parametrize("value", [b"Bearer", b"Basic eA==", b"\xff\xfc", b"Bearer \xc3\xbc"])
async def test_a_strange_authorization_is_refused(gateway: GatewayProcess, value: bytes) -> None:
    async with connected(int(gateway.admin_url.rpartition(":")[2])) as wire:
        await wire.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: %b\r\n\r\n" % value)
        assert (await wire.reply()).status == 401


@pytest.mark.parametrize(
    ("path", "status"),
    [("/livez", 200), ("/readyz", 200), ("/metrics", 200), ("/nowhere", 404), ("/", 404)],
)
async def test_every_answer_has_the_safe_headers(client: Client, path: str, status: int) -> None:
    answer = await client.admin(path)
    assert answer.status_code == status
    assert {name: answer.headers.get(name) for name in SAFE} == SAFE
    assert "server" not in answer.headers


async def test_refused_metrics_have_the_safe_headers(client: Client) -> None:
    answer = await client.admin("/metrics", None)
    assert {name: answer.headers.get(name) for name in SAFE} == SAFE


@pytest.mark.parametrize("path", ["/livez", "/metrics", "/webhooks/clerk"])
async def test_it_takes_no_post(gateway: GatewayProcess, path: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.post(gateway.admin_url + path, content=event())
    assert answer.status_code in {404, 405}
    assert answer.json()["error"] in {"not found", "method not allowed"}


async def test_garbage_does_no_harm(gateway: GatewayProcess, client: Client) -> None:
    port = int(gateway.admin_url.rpartition(":")[2])
    async with connected(port) as wire:
        await wire.send(head({"x": "y" * 50_000}, "GET", "/%00%ff/../metrics"))
        await wire.send(b"\x00garbage")
        assert (await wire.reply()).status >= 400
    assert (await client.admin("/livez")).status_code == 200


async def test_the_names_and_types_of_the_metrics(client: Client) -> None:
    await client.post()
    await client.post(event("session.created"))
    answer = await client.admin("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    shown = {name: family.type for name, family in families.items()}
    # prometheus-client adds a gauge of when each counter began.
    assert {name: kind for name, kind in shown.items() if not name.endswith("_created")} == FAMILIES
    assert all(family.documentation for family in families.values())


async def test_each_answer_moves_its_metrics(client: Client) -> None:
    settled = await client.samples("gateway_settlements_total")
    timed = await client.samples("gateway_event_seconds_count")
    async with client.counting(("clerk", "delivered", ""), ("clerk", "unmatched", "")):
        await client.post()
        await client.post(event("session.created"))
    key = ("all", "bus", "delivered", "")
    now = await client.samples("gateway_settlements_total")
    after = {tuple(sorted(labels)): value for labels, value in now.items()}
    before = {tuple(sorted(labels)): value for labels, value in settled.items()}
    changed = tuple(sorted(key))
    assert after[changed] - before.get(changed, 0) == 1
    assert sum((await client.samples("gateway_event_seconds_count")).values()) == (
        sum(timed.values()) + 1
    )


async def test_metrics_may_be_public(gateways: Start, nats_server: NatsServer) -> None:
    async with Client(gateways(config(nats_server, metrics_public=True))) as client:
        assert (await client.admin("/metrics", None)).status_code == 200


async def test_without_a_token_none_is_asked_for(gateways: Start, nats_server: NatsServer) -> None:
    async with Client(gateways(config(nats_server, token=""))) as client:
        assert (await client.admin("/metrics", None)).status_code == 200


async def test_the_webhook_port_serves_no_admin_page(client: Client) -> None:
    for path in ("/livez", "/readyz", "/metrics", "/schema"):
        assert (await client.post(path=path, method="GET")).status == 404


async def test_not_ready_without_a_broker(
    gateways: Start, nats_server: NatsServer, unique: Callable[[str], str]
) -> None:
    away = config(nats_server)
    away["brokers"]["bus"]["servers"] = [f"nats://{LOOPBACK}:{free_port()}"]
    async with Client(gateways(away)) as client:
        await client.until_ready("undeliverable")
        status, body = await client.ready()
        assert (status, body["broken"]) == (503, ["bus"])
        assert (await client.admin("/livez", None)).status_code == 200
