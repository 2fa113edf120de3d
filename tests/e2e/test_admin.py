"""The admin port: health for the orchestrator, metrics for the scraper, nothing for others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.canaries import TOKEN
from tests.e2e.client import Client, event
from tests.e2e.conftest import Start
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.readback import create_stream
from tests.e2e.wire import Reply, connected, head
from tests.servers.nats import NatsServer
from tests.servers.process import LOOPBACK, free_port

SAFE = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
FAMILIES = {
    "gateway_events": "counter",
    "gateway_settlements": "counter",
    "gateway_late_acks": "counter",
    "gateway_unsure_acks": "counter",
    "gateway_ledger_events": "gauge",
    "gateway_ledger_bytes": "gauge",
    "gateway_ledger_evicted": "counter",
    "gateway_ledger_unshared": "counter",
    "gateway_inbox_events": "gauge",
    "gateway_inbox_bytes": "gauge",
    "gateway_inbox_parked_events": "gauge",
    "gateway_inbox_parked_bytes": "gauge",
    "gateway_inbox_oldest_seconds": "gauge",
    "gateway_inbox_commits": "counter",
    "gateway_inbox_attempts": "counter",
    "gateway_inbox_parked": "counter",
    "gateway_event_seconds": "histogram",
    "gateway_connections": "gauge",
    "gateway_broker_up": "gauge",
    "gateway_broker_in_flight_records": "gauge",
    "gateway_broker_in_flight_bytes": "gauge",
    "gateway_admin_refusals": "counter",
    "gateway_config_reloads": "counter",
    "gateway_config_stale": "gauge",
    "gateway_config_needs_restart": "gauge",
    "gateway_config_generation": "gauge",
    "gateway_config_last_reload_success_timestamp_seconds": "gauge",
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
    assert (ready.status_code, ready.json()) == (
        200,
        {"status": "ready", "brokers": {"bus": "up"}, "config": "current", "generation": 1},
    )


def admin_port(gateway: GatewayProcess) -> int:
    return int(gateway.admin_url.rpartition(":")[2])


async def asked(
    gateway: GatewayProcess,
    target: str = "/metrics",
    headers: dict[str, str] | None = None,
    *,
    method: str = "GET",
    source: str = "127.0.0.1",
) -> Reply:
    """Send one request from an address of this machine, so that guesses count for that alone."""
    async with connected(admin_port(gateway), source=source) as wire:
        await wire.send(head(headers or {}, method, target))
        return await wire.reply(method=method)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    ("number", "token"),
    list(enumerate([None, "wrong", TOKEN.upper(), TOKEN + "x", TOKEN[:-1], ""])),
)
async def test_metrics_need_the_token(
    gateway: GatewayProcess, number: int, token: str | None
) -> None:
    headers = {} if token is None else bearer(token)
    reply = await asked(gateway, "/metrics", headers, source=f"127.1.0.{number + 1}")
    assert reply.status == 401
    assert reply.headers["www-authenticate"] == "Bearer"
    assert b"gateway_events" not in reply.raw


@pytest.mark.parametrize(
    ("number", "value"),
    list(enumerate([b"Bearer", b"Basic eA==", b"\xff\xfc", b"Bearer \xc3\xbc", b"x" * 9000])),
)
async def test_a_strange_authorization_is_refused(
    gateway: GatewayProcess, number: int, value: bytes
) -> None:
    async with connected(admin_port(gateway), source=f"127.2.0.{number + 1}") as wire:
        await wire.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: %b\r\n\r\n" % value)
        assert (await wire.reply()).status == 401


@pytest.mark.parametrize(
    "target",
    ["/metrics?token=@", "/metrics?access_token=@", "/metrics?authorization=Bearer%20@"],
)
async def test_the_token_counts_in_its_header_alone(gateway: GatewayProcess, target: str) -> None:
    cookie = {"Cookie": f"authorization=Bearer {TOKEN}; token={TOKEN}"}
    assert (await asked(gateway, target.replace("@", TOKEN), cookie)).status == 401


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/livez", {}, 200),
        ("GET", "/readyz", {}, 200),
        ("HEAD", "/livez", {}, 200),
        ("HEAD", "/metrics", bearer(TOKEN), 200),
        ("GET", "/metrics", bearer(TOKEN), 200),
        ("GET", "/metrics", {}, 401),
        ("HEAD", "/metrics", {}, 401),
        ("GET", "/nowhere", bearer(TOKEN), 404),
        ("GET", "/", bearer(TOKEN), 404),
        ("GET", "/schema", bearer(TOKEN), 404),
        ("GET", "/nowhere", {}, 401),
        ("POST", "/livez", {}, 401),
        ("POST", "/livez", bearer(TOKEN), 405),
        ("DELETE", "/metrics", bearer(TOKEN), 405),
        ("POST", "/webhooks/clerk", bearer(TOKEN), 404),
        ("POST", "/livez", bearer(TOKEN) | {"Origin": "http://evil.example"}, 403),
        ("POST", "/nowhere", {"Origin": "http://evil.example"}, 403),
        ("POST", "/metrics", bearer(TOKEN) | {"Sec-Fetch-Site": "cross-site"}, 403),
        ("OPTIONS", "/metrics", {"Origin": "http://evil.example"}, 403),
        ("POST", "/livez", bearer(TOKEN) | {"Origin": "http://localhost"}, 405),
        ("GET", "/livez", {"Content-Length": "5"}, 413),
        ("POST", "/livez", bearer(TOKEN) | {"Content-Length": "100000000"}, 413),
        ("POST", "/livez", bearer(TOKEN) | {"Transfer-Encoding": "chunked"}, 413),
    ],
)
async def test_every_answer_has_its_status_and_the_safe_headers(
    gateway: GatewayProcess, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    reply = await asked(gateway, path, headers, method=method)
    assert reply.status == status
    assert {name: reply.headers.get(name) for name in SAFE} == SAFE
    assert "server" not in reply.headers
    if status >= 400 and method != "HEAD":
        assert set(reply.body) == {"error"}


async def test_an_answer_to_head_has_no_body(gateway: GatewayProcess) -> None:
    async with connected(admin_port(gateway)) as wire:
        await wire.send(head({}, "HEAD", "/livez"), head({}, "GET", "/livez"))
        first = await wire.reply(method="HEAD")
        assert (first.status, first.headers["content-length"]) == (200, "18")
        assert (await wire.reply()).body == {"status": "alive"}


@pytest.mark.parametrize("workers", [1, 2])
async def test_guessing_is_slowed_for_the_one_who_guesses(
    gateways: Start, nats_server: NatsServer, workers: int
) -> None:
    gateway = gateways(config(nats_server), workers)
    guess = "guess-4f1d09a7"
    for _ in range(10):
        assert (await asked(gateway, headers=bearer(guess), source="127.0.0.2")).status == 401
    for token in (guess, TOKEN):
        reply = await asked(gateway, headers=bearer(token), source="127.0.0.2")
        assert reply.status == 429
        assert 1 <= int(reply.headers["retry-after"]) <= 30
        assert {name: reply.headers.get(name) for name in SAFE} == SAFE
    assert (await asked(gateway, "/livez", source="127.0.0.2")).status == 200
    async with Client(gateway) as client:
        assert (await client.admin("/metrics")).status_code == 200
        refused = await client.samples("gateway_admin_refusals_total")
    assert refused == {("wrong_token",): 10, ("too_many_wrong_tokens",): 2}
    written = gateway.log.read_text()
    assert guess not in written
    told = [line for line in gateway.lines() if line["event"] == "admin refused"]
    assert [line["reason"] for line in told] == (
        ["wrong_token"] * 5 + ["too_many_wrong_tokens"] * 2
    )
    assert {(line["level"], line["client"]) for line in told} == {("warning", "127.0.0.2")}


async def test_a_head_that_is_too_large_does_no_harm(
    gateway: GatewayProcess, client: Client
) -> None:
    async with connected(admin_port(gateway)) as wire:
        await wire.send(head({"x": "y" * 50_000}, "GET", "/livez"))
        assert (await wire.reply()).status == 431
    assert (await client.admin("/livez")).status_code == 200
    assert (await client.samples("gateway_admin_refusals_total"))[("head_too_large",)] >= 1


async def test_what_is_no_http_does_no_harm(gateway: GatewayProcess, client: Client) -> None:
    async with connected(admin_port(gateway)) as wire:
        await wire.send(b"\x00garbage\r\n\r\n")
        assert (await wire.reply()).status == 400
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


@pytest.fixture(scope="module")
def open_gateway(module_gateways: Start, nats_server: NatsServer) -> GatewayProcess:
    """Give a gateway whose admin port has no token, and so is on loopback."""
    return module_gateways(config(nats_server, token=""))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:9090", "[::1]:9090"])
async def test_without_a_token_none_is_asked_for(open_gateway: GatewayProcess, host: str) -> None:
    async with Client(open_gateway) as client:
        await client.until_ready()
    for path in ("/livez", "/readyz", "/metrics"):
        async with connected(admin_port(open_gateway)) as wire:
            await wire.send(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert (await wire.reply()).status == 200


@pytest.mark.parametrize("host", ["Host: evil.example", "Host: 192.0.2.1:9090", "X: no-host"])
@pytest.mark.parametrize("path", ["/livez", "/metrics", "/nowhere"])
async def test_without_a_token_a_name_of_somebody_elses_is_refused(
    open_gateway: GatewayProcess, host: str, path: str
) -> None:
    """A page whose name was pointed at 127.0.0.1 (DNS rebinding) reads nothing."""
    async with connected(admin_port(open_gateway)) as wire:
        await wire.send(f"GET {path} HTTP/1.1\r\n{host}\r\n\r\n".encode())
        reply = await wire.reply()
    assert reply.status == 403
    assert {name: reply.headers.get(name) for name in SAFE} == SAFE


async def test_without_a_token_nothing_is_done(open_gateway: GatewayProcess) -> None:
    for path in ("/livez", "/nowhere"):
        reply = await asked(open_gateway, path, bearer("x" * 20), method="POST")
        assert reply.status == 403


async def test_with_a_token_a_probe_may_use_any_name(
    gateways: Start, nats_server: NatsServer
) -> None:
    gateway = gateways(config(nats_server, host="0.0.0.0"))
    probe = b"GET /livez HTTP/1.1\r\nHost: 10.1.2.3:9090\r\n\r\n"
    async with connected(admin_port(gateway)) as wire:
        await wire.send(probe)
        assert (await wire.reply()).status == 200


async def test_it_listens_on_ipv6_loopback(gateways: Start, nats_server: NatsServer) -> None:
    gateway = gateways(config(nats_server, host="::1", token=""))
    async with connected(admin_port(gateway), "::1") as wire:
        await wire.send(b"GET /metrics HTTP/1.1\r\nHost: [::1]\r\n\r\n")
        assert (await wire.reply()).status == 200


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS"])
async def test_the_webhook_port_serves_no_admin_page(client: Client, method: str) -> None:
    admin = ("/", "/livez", "/readyz", "/healthz", "/metrics", "/console", "/admin")
    pages = ("/docs", "/schema", "/schema/openapi.json", "/openapi.json", "/redoc", "/favicon.ico")
    for path in (*admin, *pages):
        answer = await client.post(path=path, method=method)
        assert (path, answer.status) == (path, 404)


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
