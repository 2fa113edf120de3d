"""An inbox at its bounds, at its end, and when its settings change."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.e2e.client import Client, event, new_id, signed, until
from tests.e2e.conftest import Start
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.readback import create_stream
from tests.e2e.test_contract_delivery import nats, route
from tests.e2e.test_contract_inbox import STORED, ids_in, inbox, until_count, until_settled
from tests.e2e.test_rotation import held, replace, until_said
from tests.e2e.test_shutdown import SHUTDOWN, SLACK, ended
from tests.servers.nats import NatsServer

Unique = Callable[[str], str]


async def test_a_full_inbox_is_503_until_there_is_room(
    gateways: Start, own_nats: NatsServer, unique: Unique, tmp_path: Path
) -> None:
    stream = await create_stream(own_nats.url, unique("full"), "full.>")
    limit = tmp_path / "limit"
    limit.write_text("256KiB")
    gateway = gateways(
        {
            "brokers": {"bus": nats(own_nats)},
            "routes": [route("all", {"broker": "bus", "subject": "full.{type}"})],
            "delivery": inbox(tmp_path, max_bytes=held(limit)),
        }
    )
    stored: list[str] = []

    async def post(client: Client) -> tuple[int, str]:
        body, svix_id = event(size=20_000), new_id()
        answer = await client.post(body, signed(body, svix_id))
        if answer.word == STORED:
            stored.append(svix_id)
            return answer.word
        assert answer.body["reason"] == "inbox_full"
        assert answer.headers["retry-after"] == "5"
        return answer.word

    async with Client(gateway) as client:
        await client.until_ready()
        own_nats.kill()
        await client.until_ready("degraded")
        while await post(client) == STORED:
            assert len(stored) < 100
        await client.until_ready("inbox_full")
        assert (await client.ready())[0] == 503
        body = event(size=20_000)
        copy = await client.post(body, signed(body, stored[0]))
        assert copy.word == STORED, "what waits already needs no room"

        limit.write_text("512KiB")
        gateway.hang_up()
        await until_said(gateway, "config reloaded")
        await client.until_ready("degraded")
        assert await post(client) == STORED
        while await post(client) == STORED:
            assert len(stored) < 100
        await client.until_ready("inbox_full")

        await asyncio.to_thread(own_nats.start)
        await client.until_ready()
        assert await post(client) == STORED
        await until_count(own_nats, stream, len(stored))
        full = (await client.counted())[("clerk", "failed", "inbox_full")]
    assert full >= 2
    # One entity's events keep their order; that of the answers is the order here.
    assert await ids_in(own_nats, stream) == stored


async def test_the_bounds_of_what_waits_and_of_what_is_parked_are_apart(
    gateways: Start, nats_server: NatsServer, unique: Unique, tmp_path: Path
) -> None:
    """More is parked than may wait; and when no more may be parked, the rest waits."""
    stream = unique("apart")
    await create_stream(nats_server.url, stream, f"{stream}.taken")
    gateway = gateways(
        {
            "brokers": {"bus": nats(nats_server)},
            "routes": [
                route("taken", {"broker": "bus", "subject": f"{stream}.taken"}, events=["user.*"]),
                route("refused", {"broker": "bus", "subject": "x.{data.no}"}, events=["role.*"]),
            ],
            "delivery": inbox(tmp_path, max_bytes="256KiB", parked_max_bytes="640KiB"),
        }
    )

    async def parked(result: str) -> float:
        return (await client.samples("gateway_inbox_parked_total")).get((result,), 0)

    async with Client(gateway) as client:
        await client.until_ready()
        count = 0
        while await parked("full") == 0:
            answer = await client.post(event("role.created", size=20_000, id=f"role_{count}"))
            assert answer.word == STORED
            count += 1
            assert count < 100

            async def is_parked(count: int = count) -> bool:
                return await parked("parked") + await parked("full") >= count

            await until(is_parked, f"{count} are parked")
        assert count * 20_000 > 512 * 1024, "more than twice what may wait"
        assert (await client.post(event())).word == STORED
        assert await until_settled(client, 1) == {("taken", "bus", "delivered", ""): 1}, (
            "what is parked is not settled"
        )

        async def shown() -> bool:
            (waiting,) = (await client.samples("gateway_inbox_events")).values()
            (kept,) = (await client.samples("gateway_inbox_parked_events")).values()
            return (waiting, kept) == (1, count - 1)

        await until(shown, "what has no room among the parked waits")
        assert (await client.ready())[1]["status"] == "ready"


async def test_sigterm_with_a_frozen_broker_ends_in_time_and_keeps_all(
    gateways: Start, own_nats: NatsServer, unique: Unique, tmp_path: Path
) -> None:
    stream = await create_stream(own_nats.url, unique("term"), "term.>")
    gateway: GatewayProcess = gateways(
        {
            "server": {"shutdown": f"{SHUTDOWN}s"},
            "brokers": {"bus": nats(own_nats)},
            "routes": [route("all", {"broker": "bus", "subject": "term.{type}"})],
            "delivery": inbox(tmp_path),
        }
    )
    stored: set[str] = set()

    async def post_on(client: Client, user: int) -> None:
        """Post until nobody answers any more."""
        while True:
            body, svix_id = event(id=f"user_{user}"), new_id()
            try:
                answer = await client.post(body, signed(body, svix_id))
            except httpx.TransportError:
                return
            if answer.status == 200:
                stored.add(svix_id)
            else:
                assert answer.word == (503, "failed")
                return

    async with Client(gateway) as client:
        await client.until_ready()
        senders = [asyncio.create_task(post_on(client, user)) for user in range(16)]
        await until_count(own_nats, stream, 50)
        own_nats.pause()

        async def many() -> bool:
            return len(stored) > 200

        await until(many, "some events wait")
        gateway.terminate()
        code, seconds = await ended(gateway)
        await asyncio.gather(*senders)
    assert code == 0
    assert seconds < SHUTDOWN + SLACK
    own_nats.resume()
    await asyncio.to_thread(gateway.start)

    async def all_there() -> bool:
        return stored <= set(await ids_in(own_nats, stream))

    await until(all_there, "all that was answered 200 is there")
    assert max(Counter(await ids_in(own_nats, stream)).values()) == 1


async def test_a_changed_mode_or_place_of_the_inbox_needs_a_restart(
    gateways: Start, nats_server: NatsServer, unique: Unique, tmp_path: Path
) -> None:
    """Everything goes on as before: an event is still stored in the old place."""
    stream = unique("mode")
    await create_stream(nats_server.url, stream, f"{stream}.>")
    mode, path = tmp_path / "mode", tmp_path / "path"
    mode.write_text("inbox")
    path.write_text(str(tmp_path / "inbox.db"))
    gateway = gateways(
        {
            "brokers": {"bus": nats(nats_server)},
            "routes": [route("all", {"broker": "bus", "subject": f"{stream}.{{type}}"})],
            "delivery": {"mode": held(mode), "inbox": {"path": held(path)}},
        }
    )
    async with Client(gateway) as client:
        await client.until_ready()
        for file, before, after in (
            (mode, "inbox", "direct"),
            (path, str(tmp_path / "inbox.db"), str(tmp_path / "other.db")),
        ):
            replace(file, after)
            gateway.hang_up()

            async def config_is(state: str) -> bool:
                code, body = await client.ready()
                assert code == 200
                return bool(body["config"] == state)

            await until(lambda: config_is("needs_restart"), "it needs a restart")
            assert (await client.post()).word == STORED
            replace(file, before)
            gateway.hang_up()
            await until(lambda: config_is("current"), "it is as it was")
        await until_settled(client, 2)
    assert not (tmp_path / "other.db").exists()
    said = [line for line in gateway.lines() if line["event"].startswith("config needs a restart")]
    assert len(said) == 2
    assert all("delivery" in json.dumps(line) for line in said)
