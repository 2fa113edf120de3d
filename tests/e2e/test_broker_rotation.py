"""Logins to brokers that change while the gateway serves; what did not change is not touched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.client import Client, event, until
from tests.e2e.conftest import Start
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.test_rotation import STALE, held, replace, said, until_said
from tests.servers.kafka import SecureKafka
from tests.servers.nats import NatsServer
from tests.servers.nats_access import nkey_access

BEFORE, AFTER = "bus-token-before", "bus-token-after"
NewNats = Callable[..., NatsServer]


def route(name: str, events: str, **target: str) -> dict[str, Any]:
    return {"name": name, "events": [events], "targets": [target]}


def connections(server: NatsServer) -> int:
    """Give how many clients a server has ever had, by its own log; nobody else comes here."""
    return server.log.read_text().count("Client connection created")


async def replacing(client: Client) -> list[str]:
    found: list[str] = (await client.ready())[1].get("replacing", [])
    return found


class TwoBuses:
    """A gateway with a bus that wants a token, and another one that wants none."""

    def __init__(self, gateways: Start, new_nats: NewNats, directory: Path, workers: int) -> None:
        self.workers = workers
        self.token = directory / "token"
        self.token.write_text(BEFORE)
        self.bus = new_nats(jetstream=False, options={"authorization": {"token": BEFORE}})
        self.other = new_nats(jetstream=False)

        def broker(server: NatsServer, **login: str) -> dict[str, Any]:
            return {"kind": "nats", "servers": [server.url], "jetstream": False, **login}

        self.gateway: GatewayProcess = gateways(
            {
                "brokers": {
                    "bus": broker(self.bus, token=held(self.token)),
                    "other": broker(self.other),
                },
                "routes": [
                    route("users", "user.*", broker="bus", subject="clerk.{type}"),
                    route("orgs", "organization.*", broker="other", subject="clerk.{type}"),
                ],
            },
            workers,
        )

    async def until_connected(self) -> int:
        """Wait for every worker; give how many clients the other bus has seen by then."""

        async def is_so() -> bool:
            return connections(self.other) == 1 + self.workers  # 1: the test's own first look

        await until(is_so, "every worker is connected")
        return connections(self.other)

    def change_server(self) -> None:
        """Let the server take the new token only; it sends away who came with the old one."""
        self.bus.reload({"authorization": {"token": AFTER}})

    async def until_delivered_again(self, client: Client, other_before: int) -> None:
        """Wait for the bus; the other one must have kept its connections all the time."""
        await client.until_ready()
        await client.until_delivered()
        assert (await client.post(event("organization.created"))).word == (200, "delivered")
        assert connections(self.other) == other_before

        async def all_have() -> bool:
            # Each worker replaces its client by itself, and one may have delivered before.
            return await replacing(client) == []

        await until(all_have, "every worker has its new client")
        await until_said(self.gateway, "config reloaded")
        (reloaded,) = said(self.gateway, "config reloaded")
        assert reloaded["brokers"] == ["bus"]
        assert "bus-token" not in self.gateway.log.read_text()


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_token_that_the_server_does_not_know_yet_costs_nothing(
    gateways: Start, new_nats: NewNats, tmp_path: Path, workers: int
) -> None:
    buses = TwoBuses(gateways, new_nats, tmp_path, workers)
    async with Client(buses.gateway) as client:
        await client.until_ready()
        await client.until_delivered()
        other = await buses.until_connected()
        replace(buses.token, AFTER)

        async def is_waiting() -> bool:
            return await replacing(client) == ["bus"]

        await until(is_waiting, "the new client waits for the server to know its token")
        for _ in range(10):
            assert (await client.post()).word == (200, "delivered")
        assert (await client.ready())[1]["status"] == "ready"
        buses.change_server()
        await buses.until_delivered_again(client, other)


async def test_a_token_that_the_server_knows_first(
    gateways: Start, new_nats: NewNats, tmp_path: Path
) -> None:
    buses = TwoBuses(gateways, new_nats, tmp_path, workers=1)
    async with Client(buses.gateway) as client:
        await client.until_ready()
        other = await buses.until_connected()
        buses.change_server()
        await client.until_ready("degraded")
        assert (await client.post()).word == (503, "failed")
        replace(buses.token, AFTER)
        await buses.until_delivered_again(client, other)


async def test_options_that_cannot_work_are_refused_as_a_whole(
    gateways: Start, new_nats: NewNats, tmp_path: Path
) -> None:
    """Not all is proven by the config's text: a file that it names must be there."""
    server = new_nats(jetstream=False)
    name = tmp_path / "name"
    name.write_text(str(seed_file(tmp_path)))
    login = {"nkey_seed_file": held(name), "jetstream": False}
    config = {
        "brokers": {"bus": {"kind": "nats", "servers": [server.url], **login}},
        "routes": [route("users", "user.*", broker="bus", subject="clerk.{type}")],
    }
    gateway = gateways(config)
    async with Client(gateway) as client:
        await client.until_ready()
        replace(name, str(tmp_path / "nowhere"))
        await until_said(gateway, STALE)
        (line,) = said(gateway, STALE)
        assert line["problems"] == [
            f"brokers.bus.nkey_seed_file: {tmp_path}/nowhere cannot be read:"
            " No such file or directory"
        ]
        assert (await client.post()).word == (200, "delivered")


def seed_file(directory: Path) -> Path:
    """Make a seed that is one; this server asks for none."""
    _, seed = nkey_access(directory)
    return seed


async def test_the_user_of_kafka_changes(
    gateways: Start, secured_kafka: SecureKafka, unique: Callable[[str], str], tmp_path: Path
) -> None:
    """From one who may write, to one who may not, and back: so it is seen whose login counts."""
    topic = await secured_kafka.server.create_topic(unique("users"))
    user, password = tmp_path / "user", tmp_path / "password"
    user.write_text(secured_kafka.username)
    password.write_text(secured_kafka.password)
    config = {
        "server": {"deadline": "5s"},
        "brokers": {
            "events": {
                "kind": "kafka",
                "servers": [secured_kafka.sasl],
                "tls": {"ca_file": str(secured_kafka.certificates.ca)},
                "sasl": {
                    "mechanism": "SCRAM-SHA-512",
                    "username": held(user),
                    "password": held(password),
                },
            }
        },
        "routes": [route("users", "user.*", broker="events", topic=topic)],
    }
    gateway = gateways(config)
    async with Client(gateway) as client:
        await client.until_ready()
        await client.until_delivered()
        replace(user, secured_kafka.restricted_username)

        async def is_refused() -> bool:
            return (await client.post()).status == 503

        await until(is_refused, "the restricted user is refused")
        replace(user, secured_kafka.username)
        await client.until_delivered()
        replace(password, "wrong-password")
        await until_said(gateway, "config reloaded", 3)
        for _ in range(5):
            assert (await client.post()).word == (200, "delivered")
        assert await replacing(client) == ["events"]
        replace(password, secured_kafka.password)
        await until_said(gateway, "config reloaded", 4)
        assert (await client.post()).word == (200, "delivered")
        assert await replacing(client) == []
    assert "wrong-password" not in gateway.log.read_text()
