"""Two gateways share an inbox in JetStream: what one dies with, the other delivers."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from typing import Any

import httpx

from tests.e2e.client import Client, event, new_id, signed
from tests.e2e.conftest import Start
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.readback import create_stream, stream_messages
from tests.inbox.harness import until
from tests.servers.nats import NatsServer

USERS = 8


def config(server: NatsServer) -> dict[str, Any]:
    return {
        "brokers": {"bus": {"kind": "nats", "servers": [server.url]}},
        "routes": [
            {"name": "all", "events": ["*"], "targets": [{"broker": "bus", "subject": "out.all"}]}
        ],
        "delivery": {"mode": "inbox", "inbox": {"store": "jetstream", "broker": "bus"}},
    }


class Senders:
    """One per user, each sending one event after the other, to whichever gateway takes it."""

    def __init__(self, gateways: list[GatewayProcess]) -> None:
        self.gateways = gateways
        self.acknowledged: dict[str, list[str]] = {}
        """By user, in the order in which they were answered 200."""
        self.over = False

    async def send(self, user: int) -> None:
        """Send until it is over; what is not answered 200 is sent again, as Svix does."""
        taken = self.acknowledged.setdefault(f"user_{user}", [])
        while not self.over:
            svix_id, body = new_id(), event("user.updated", id=f"user_{user}")
            while not await self._posted(user, svix_id, body):  # noqa: ASYNC110 - each turn is a request
                await asyncio.sleep(0.05)
            taken.append(svix_id)
            await asyncio.sleep(0.02)

    async def _posted(self, user: int, svix_id: str, body: bytes) -> bool:
        gateway = self.gateways[user % len(self.gateways)]
        try:
            async with Client(gateway, connections=1) as client:
                answer = await client.post(body, signed(body, svix_id))
        except httpx.TransportError:
            return False
        return answer.status == 200 and answer.body["status"] in {"stored", "duplicate"}

    def count(self) -> int:
        """How many were answered 200."""
        return sum(map(len, self.acknowledged.values()))


async def test_a_killed_gateway_loses_nothing_and_no_user_goes_back(
    gateways: Start, own_nats: NatsServer
) -> None:
    await create_stream(own_nats.url, "OUT", "out.>")
    first, second = gateways(config(own_nats)), gateways(config(own_nats))
    senders = Senders([first, second])
    tasks = [asyncio.create_task(senders.send(user)) for user in range(USERS)]
    try:
        await until(lambda: senders.count() > 100, 60)
        first.send(signal.SIGKILL)
        first.exit_code()
        # The senders turn to the one that is left, before it has taken over all partitions.
        senders.gateways = [second]
        before = senders.count()
        await until(lambda: senders.count() > before + 200, 60)
    finally:
        senders.over = True
        await asyncio.gather(*tasks)
    acknowledged = {one for ids in senders.acknowledged.values() for one in ids}

    async def missing() -> set[str]:
        messages = await stream_messages(own_nats.url, "OUT")
        return acknowledged - {one.headers["svix-id"] for one in messages}

    async with asyncio.timeout(60):
        while await missing():  # noqa: ASYNC110 - it is looked at from outside
            await asyncio.sleep(0.5)
    arrived = [one.headers["svix-id"] for one in await stream_messages(own_nats.url, "OUT")]
    again = sum(count - 1 for count in Counter(arrived).values())
    print(f"kills 1, events {len(acknowledged)}, lost 0, duplicates {again}")
    # What was on its way may come twice; JetStream knows it by its id.
    assert again == 0
    for ids in senders.acknowledged.values():
        mine = set(ids)
        assert [one for one in arrived if one in mine] == ids
