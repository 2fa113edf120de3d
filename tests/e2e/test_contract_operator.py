"""`gateway inbox` in inbox mode, sentence by sentence, beside a real gateway."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nats.js.api import StreamConfig

from tests.canaries import CANARY
from tests.commands.letters import Site
from tests.e2e.client import PATIENCE, Client, event, signed
from tests.e2e.conftest import Start
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.readback import create_stream, nats_client, stream_messages
from tests.e2e.test_contract_delivery import nats, route
from tests.e2e.test_contract_inbox import STORED, Settled, inbox, until_settled
from tests.servers.nats import NatsServer

Unique = Callable[[str], str]
TINY = 300
"""Of a stream: no event fits, which is final."""


def config(server: NatsServer, subject: str, directory: Path) -> dict[str, Any]:
    target = {"broker": "bus", "subject": f"{subject}.{{type}}"}
    return {
        "brokers": {"bus": nats(server)},
        "routes": [route("users", target)],
        "delivery": inbox(directory),
    }


def site_of(gateway: GatewayProcess, server: NatsServer, name: str) -> Site:
    """Give the operator's view of a gateway, whose config lies in its directory."""
    return Site("nats", gateway.directory, server.url.removeprefix("nats://"), name)


def store(gateway: GatewayProcess, **types: str) -> None:
    """Post an event of each type under its name; each is stored."""

    async def post() -> None:
        async with Client(gateway) as client:
            for name, event_type in types.items():
                body = event(event_type)
                assert (await client.post(body, signed(body, name))).word == STORED

    asyncio.run(post())


def until_listed(site: Site, wanted: Callable[[dict[str, dict[str, Any]]], bool]) -> dict[str, Any]:
    """List until it is as wanted, and give what is listed by svix-id."""
    deadline = time.monotonic() + PATIENCE
    while True:
        listed = {one["svix_id"]: one for one in site.listed()}
        if wanted(listed):
            return listed
        assert time.monotonic() < deadline, listed
        time.sleep(0.1)


def settled_by(gateway: GatewayProcess, count: int) -> Settled:
    async def wait() -> Settled:
        async with Client(gateway) as client:
            return await until_settled(client, count)

    return asyncio.run(wait())


async def let_all_fit(server: NatsServer, stream: str) -> None:
    async with nats_client(server.url) as client:
        settings = StreamConfig(name=stream, subjects=[f"{stream}.>"], max_msg_size=-1)
        await client.jetstream().update_stream(settings)


@pytest.mark.shows_payload("`gateway inbox show --body` shows the payload by contract")
def test_what_is_parked_is_filtered_replayed_and_discarded(
    gateways: Start, nats_server: NatsServer, unique: Unique, tmp_path: Path
) -> None:
    """Each replay has an id of its own, and what was done outlasts a kill of the gateway."""
    name = unique("operator")
    asyncio.run(create_stream(nats_server.url, name, f"{name}.>", max_msg_size=TINY))
    gateway = gateways(config(nats_server, name, tmp_path))
    site = site_of(gateway, nats_server, name)
    store(gateway, msg_1="user.created", msg_2="user.deleted")
    parked = until_listed(
        site, lambda all_: [one["state"] for one in all_.values()] == ["parked"] * 2
    )
    assert {one["reason"] for one in parked.values()} == {"too_large"}

    def listed(*filters: str) -> set[str]:
        return {one["svix_id"] for one in site.listed(*filters)}

    assert listed("--type", "user.deleted") == {"msg_2"}
    assert listed("--type", "user.*", "--route", "users") == {"msg_1", "msg_2"}
    assert listed("--route", "others") == set()
    assert listed("--since", "1h", "--state", "parked") == {"msg_1", "msg_2"}
    assert listed("--until", "1h") == set()
    assert listed("--state", "pending") == set()

    first = parked["msg_1"]["id"]
    shown = site.inbox("show", first)
    assert f"bus/{name}.user.created" in shown.out
    assert CANARY not in shown.out
    assert CANARY in site.inbox("show", first, "--body").out

    assert site.inbox("replay", first).out == "replayed 1 of 1\n"
    again = until_listed(
        site, lambda all_: "msg_1" in all_ and all_["msg_1"]["id"] != first and is_parked(all_)
    )
    assert again["msg_1"]["reason"] == "too_large"
    assert site.inbox("replay", first).code == 1, "it is not there under that id"

    asyncio.run(let_all_fit(nats_server, name))
    done = site.inbox("replay", "--all", "--type", "user.created", "--yes")
    assert done.out == "replayed 1 of 1\n", done.err
    assert settled_by(gateway, 1) == {("users", "bus", "delivered", ""): 1}
    assert site.inbox("discard", again["msg_2"]["id"], "--yes").out == "discarded 1 of 1\n"
    both = {("users", "bus", "delivered", ""): 1, ("users", "bus", "discarded", ""): 1}
    assert settled_by(gateway, 2) == both
    gateway.kill()
    gateway.start()
    until_listed(site, lambda all_: all_ == {})
    assert site.inbox("replay", "--all", "--yes").out == "replayed 0 of 0\n"
    (message,) = asyncio.run(stream_messages(nats_server.url, name))
    assert message.headers["svix-id"] == "msg_1"
    assert message.headers["Nats-Msg-Id"].startswith("msg_1.")
    assert message.headers["Nats-Msg-Id"].endswith(".r2")


def is_parked(listed: dict[str, dict[str, Any]]) -> bool:
    return all(one["state"] == "parked" for one in listed.values())


def test_what_waits_is_left_by_a_replay_and_dropped_by_a_discard(
    gateways: Start, own_nats: NatsServer, unique: Unique, tmp_path: Path
) -> None:
    name = unique("waiting")
    asyncio.run(create_stream(own_nats.url, name, f"{name}.>"))
    own_nats.kill()
    gateway = gateways(config(own_nats, name, tmp_path))
    site = site_of(gateway, own_nats, name)
    store(gateway, msg_1="user.created", msg_2="user.updated", msg_3="user.deleted")
    waiting = until_listed(site, lambda all_: len(all_) == 3)
    assert {one["state"] for one in waiting.values()} == {"pending"}
    left = site.inbox("replay", "--all", "--yes")
    assert left.code == 1
    assert left.out.count("not replayed: pending") == 3
    dropped = site.inbox("discard", waiting["msg_2"]["id"], "--yes")
    assert (dropped.code, dropped.out) == (0, "discarded 1 of 1\n")
    assert set(until_listed(site, lambda all_: len(all_) == 2)) == {"msg_1", "msg_3"}
    own_nats.start()
    both = {("users", "bus", "delivered", ""): 2, ("users", "bus", "discarded", ""): 1}
    assert settled_by(gateway, 3) == both
    assert site.delivered_ids() == ["msg_1", "msg_3"]


def test_reroute_alone_resolves_the_targets_of_what_is_parked_anew(
    gateways: Start, nats_server: NatsServer, unique: Unique, tmp_path: Path
) -> None:
    """The config leads elsewhere since; a plain replay sends what was rendered when it came."""
    old, new = unique("old"), unique("new")
    asyncio.run(create_stream(nats_server.url, old, f"{old}.>", max_msg_size=TINY))
    asyncio.run(create_stream(nats_server.url, new, f"{new}.>"))
    before = gateways(config(nats_server, old, tmp_path))
    store(before, msg_1="user.created")
    site = site_of(before, nats_server, old)
    first = until_listed(site, lambda all_: len(all_) == 1 and is_parked(all_))["msg_1"]["id"]
    before.end()

    gateway = gateways(config(nats_server, new, tmp_path))
    site = site_of(gateway, nats_server, new)
    assert site.inbox("replay", first).out == "replayed 1 of 1\n"
    second = until_listed(
        site,
        lambda all_: len(all_) == 1 and is_parked(all_) and all_["msg_1"]["id"] != first,
    )["msg_1"]
    assert second["targets"] == [f"bus/{old}.user.created"]
    assert site.inbox("replay", second["id"], "--reroute").out == "replayed 1 of 1\n"
    until_listed(site, lambda all_: all_ == {})
    (message,) = asyncio.run(stream_messages(nats_server.url, new))
    assert (message.subject, message.headers["svix-id"]) == (f"{new}.user.created", "msg_1")
