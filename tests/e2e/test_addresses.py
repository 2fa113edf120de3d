"""Who may send, by address: on real sockets, with and without a proxy in front."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.e2e.client import Client, event, signed
from tests.e2e.conftest import Start
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.readback import create_stream
from tests.e2e.wire import Reply, connected, head, request
from tests.servers.nats import NatsServer

SVIX_EU = "52.215.16.239"


def config(nats: NatsServer, server: dict[str, Any], allow_from: list[str]) -> dict[str, Any]:
    target = {"broker": "bus", "subject": "addresses.{type}"}
    return {
        "server": server,
        "sources": {"clerk": {"allow_from": allow_from}},
        "brokers": {"bus": {"kind": "nats", "servers": [nats.url]}},
        "routes": [{"name": "all", "events": ["*"], "targets": [target]}],
    }


@pytest.fixture(scope="module")
def behind_proxies(module_gateways: Start, nats_server: NatsServer) -> GatewayProcess:
    """Give a gateway that believes 127.0.0.2 and two networks behind it, and takes Svix's EU."""
    asyncio.run(create_stream(nats_server.url, "addresses", "addresses.>"))
    proxies = ["127.0.0.2", "::ffff:10.0.0.0/104", "fd00::/8"]
    return module_gateways(
        config(nats_server, {"trusted_proxies": proxies}, ["svix:eu", "2001:db8::/32"])
    )


@pytest.fixture
async def client(behind_proxies: GatewayProcess) -> AsyncIterator[Client]:
    async with Client(behind_proxies) as client:
        await client.until_ready()
        yield client


async def posted(gateway: GatewayProcess, source: str, *forwarded: str) -> Reply:
    """Post a genuine event from an address, with one X-Forwarded-For line for each text."""
    lines = "".join(f"X-Forwarded-For: {value}\r\n" for value in forwarded).encode()
    whole = request(event()).replace(b"\r\n", b"\r\n" + lines, 1)
    async with connected(gateway.port, source=source) as wire:
        await wire.send(whole)
        return await wire.reply()


@pytest.mark.parametrize(
    "forwarded",
    [
        pytest.param((SVIX_EU,), id="one-hop"),
        pytest.param((f"198.51.100.1, {SVIX_EU}",), id="forged-left"),
        pytest.param((f"junk, {SVIX_EU}, 10.0.0.7",), id="two-proxies"),
        pytest.param(("198.51.100.1", SVIX_EU, "10.0.0.7", "fd00::1"), id="lines"),
        pytest.param((f"{SVIX_EU}:41234",), id="port"),
        pytest.param(("[2001:db8::7]:443, [fd00::1]:80",), id="ipv6-ports"),
        pytest.param((f"::ffff:{SVIX_EU}, ::ffff:10.0.0.7",), id="mapped"),
        pytest.param(("2a05:d028:17:8000::9",), id="ipv6"),
    ],
)
async def test_an_allowed_sender_behind_proxies(client: Client, forwarded: tuple[str, ...]) -> None:
    async with client.counting(("clerk", "delivered", "")):
        reply = await posted(client.gateway, "127.0.0.2", *forwarded)
    assert reply.word == (200, "delivered")


@pytest.mark.parametrize(
    ("source", "forwarded"),
    [
        pytest.param("127.0.0.2", (), id="the-proxy-says-nothing"),
        pytest.param("127.0.0.2", ("",), id="empty"),
        pytest.param("127.0.0.2", ("198.51.100.1",), id="somebody-else"),
        pytest.param("127.0.0.2", (SVIX_EU, "198.51.100.1"), id="allowed-one-is-forged"),
        pytest.param("127.0.0.2", (f"{SVIX_EU}, unknown",), id="unknown"),
        pytest.param("127.0.0.2", (f"{SVIX_EU}, _hidden, 10.0.0.7",), id="obfuscated"),
        pytest.param("127.0.0.2", (f'"{SVIX_EU}"',), id="quoted"),
        pytest.param("127.0.0.2", (f"{SVIX_EU},",), id="empty-hop"),
        pytest.param("127.0.0.2", (f"{SVIX_EU}{', 10.0.0.7' * 40}",), id="endless"),
        pytest.param("127.0.0.2", ("44.228.126.217",), id="another-region"),
        pytest.param("127.0.0.3", (SVIX_EU,), id="no-trusted-proxy"),
        pytest.param("127.0.0.3", (f"{SVIX_EU}, 127.0.0.2",), id="a-proxy-is-forged"),
    ],
)
async def test_an_address_that_is_refused(
    client: Client, source: str, forwarded: tuple[str, ...]
) -> None:
    async with client.counting(("clerk", "rejected", "address_not_allowed")):
        reply = await posted(client.gateway, source, *forwarded)
    assert reply.word == (401, "rejected")
    assert reply.body == {"status": "rejected", "error": "address not allowed"}


async def test_it_is_refused_before_the_body_is_read(client: Client) -> None:
    body = event()
    announced = {**signed(body), "Content-Length": str(len(body))}
    refused = client.counting(("clerk", "rejected", "address_not_allowed"))
    async with refused, connected(client.gateway.port) as wire:
        await wire.send(head(announced))
        reply = await wire.reply()
    assert reply.word == (401, "rejected")
    assert reply.headers["connection"] == "close"


def needs_ipv6() -> None:
    """Fail where the machine has no IPv6 loopback: these tests would prove nothing."""
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))


async def deliver(gateway: GatewayProcess, host: str, headers: dict[str, str]) -> Reply:
    body = event()
    length = {"Content-Length": str(len(body))}
    async with Client(gateway) as client:
        await client.until_ready()
    async with connected(gateway.port, host) as wire:
        await wire.send(head({**signed(body), **length, **headers}) + body)
        return await wire.reply()


async def test_ipv6_loopback(gateways: Start, nats_server: NatsServer, client: Client) -> None:
    needs_ipv6()
    gateway = gateways(config(nats_server, {"host": "::1"}, ["::1"]))
    assert (await deliver(gateway, "::1", {})).word == (200, "delivered")


async def test_a_proxy_on_ipv6_loopback(
    gateways: Start, nats_server: NatsServer, client: Client
) -> None:
    needs_ipv6()
    server = {"host": "::1", "trusted_proxies": ["::1"]}
    gateway = gateways(config(nats_server, server, ["2001:db8::/32"]))
    for forwarded, status in (("2001:db8::9", 200), ("2001:db9::9", 401), ("2001:db8::9, x", 401)):
        reply = await deliver(gateway, "::1", {"X-Forwarded-For": forwarded})
        assert reply.status == status


async def test_ipv4_on_a_socket_of_both_families(
    gateways: Start, nats_server: NatsServer, client: Client
) -> None:
    """The peer's address is then a mapped one, and the config's `127.0.0.1` means it."""
    needs_ipv6()
    gateway = gateways(config(nats_server, {"host": "::"}, ["127.0.0.1"]))
    assert (await deliver(gateway, "127.0.0.1", {})).word == (200, "delivered")
    assert (await deliver(gateway, "::1", {})).word == (401, "rejected")
