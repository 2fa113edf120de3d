"""What `check --connect` says of the inbox's streams, and what rights a login needs for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import nats
import pytest

from gateway.brokers.base import Finding
from gateway.config.models import GatewayConfig
from gateway.inboxes import check_inbox
from tests.inbox.harness import FeedLog, all_held, outcome, record, until
from tests.inbox.jetstream_place import STREAM, jetstream_store
from tests.servers.nats import NatsServer

RIGHTS = {
    "publish": [f"{STREAM}.>", "$JS.API.>", "$JS.FC.>", "_INBOX.>"],
    "subscribe": ["_INBOX.>", f"{STREAM}.withdraw.*"],
}
"""What docs/operations.md says that the inbox needs."""


async def findings(server: NatsServer) -> list[Finding]:
    """Check a config whose inbox is on the server."""
    return await check_inbox(
        GatewayConfig.model_validate(
            {
                "sources": {"clerk": {"kind": "clerk", "secrets": ["whsec_" + "a" * 32]}},
                "brokers": {"bus": {"kind": "nats", "servers": [server.url]}},
                "routes": [{"name": "all", "events": ["*"], "targets": [_TARGET]}],
                "delivery": {"mode": "inbox", "inbox": {"store": "jetstream", "broker": "bus"}},
            }
        )
    )


_TARGET = {"broker": "bus", "subject": "out.all"}


async def test_streams_that_can_be_created_are_fine(own_nats: NatsServer) -> None:
    (found,) = await findings(own_nats)
    assert (found.severity, found.about) == ("ok", f"inbox {STREAM}")
    assert found.message == "its streams do not exist; the gateway creates them"


async def test_what_is_there_is_shown_and_few_replicas_are_warned_of(own_nats: NatsServer) -> None:
    store = jetstream_store(own_nats.url)
    await store.start(FeedLog())
    await store.close(2)
    found = await findings(own_nats)
    warned = {one.about for one in found if one.severity == "warning"}
    assert warned == {f"stream {STREAM}", f"stream {STREAM}_PARKED", f"stream {STREAM}_STATE"}
    assert all("one replica" in one.message for one in found if one.severity == "warning")
    assert any("max_bytes will be the config's" in one.message for one in found)
    assert not [one for one in found if one.severity == "error"]


@pytest.mark.parametrize(
    ("name", "subjects", "message"),
    [
        (STREAM, "orders.>", "it is not an inbox"),
        ("ALL", f"{STREAM}.>", "stream ALL takes its subjects"),
    ],
)
async def test_what_is_in_the_way_is_an_error(
    own_nats: NatsServer, name: str, subjects: str, message: str
) -> None:
    client = await nats.connect(own_nats.url)
    await client.jetstream().add_stream(name=name, subjects=[subjects])
    await client.close()
    (found,) = await findings(own_nats)
    assert found.severity == "error"
    assert message in found.message


async def test_a_server_that_is_away_or_too_small_is_told(
    new_nats: Callable[..., NatsServer],
) -> None:
    server = new_nats(options={"max_payload": 65_536})
    found = await findings(server)
    assert [one.severity for one in found] == ["error", "ok"]
    assert "max_payload of the server is 65536" in found[0].message
    server.kill()
    assert [one.severity for one in await findings(server)] == ["unreachable"]


async def test_the_documented_rights_are_enough(new_nats: Callable[..., NatsServer]) -> None:
    users = [{"user": "gateway", "password": "right", "permissions": RIGHTS}]
    server = new_nats(options={"authorization": {"users": users}})
    login = {"username": "gateway", "password": "right"}
    store = jetstream_store(server.url, config=login)
    feed = FeedLog()
    await store.start(feed)
    assert len(store.partitions) == 16
    for number in range(3):
        assert await outcome(store.put(record(number))) == "stored"
    await until(lambda: len(feed.entries) == 3)
    assert await outcome(store.settle(feed.order[0], 0)) == "done"
    operator = jetstream_store(server.url, config=login, dispatches=False)
    await operator.start(FeedLog())
    ids = [one.id for one in await all_held(operator)]
    assert await operator.discard(ids) == 2
    await asyncio.gather(operator.close(2), store.close(2))
    assert "Permissions Violation" not in server.log.read_text()
