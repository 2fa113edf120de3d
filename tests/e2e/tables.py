"""Routing tables that can be told apart by what they publish, and who waits for one to count."""

from __future__ import annotations

from typing import Any

from tests.e2e.client import Client, until
from tests.servers.nats import NatsServer


def table(nats: NatsServer, name: str, number: int, **more: Any) -> dict[str, Any]:
    """Give a config that publishes every event to `<name>.a.<number>` and `<name>.b.<number>`."""
    targets = [{"broker": "bus", "subject": f"{name}.{branch}.{number}"} for branch in "ab"]
    return {
        "brokers": {"bus": {"kind": "nats", "servers": [nats.url]}},
        "routes": [{"name": "all", "events": ["*"], "targets": targets}],
        **more,
    }


async def until_generation(client: Client, generation: int) -> None:
    """Wait until every worker serves by the config of this generation, or a later one."""

    async def is_so() -> bool:
        return bool((await client.ready())[1].get("generation", 0) >= generation)

    await until(is_so, f"generation {generation} serves everywhere")


async def numbers(client: Client, count: int = 1) -> set[int]:
    """Post events, and give the numbers of the tables that their answers tell of."""
    found = set()
    for _ in range(count):
        answer = await client.post()
        assert answer.word == (200, "delivered")
        found |= {int(target["subject"].split(".")[-1]) for target in answer.body["targets"]}
    return found
