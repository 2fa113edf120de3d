"""The gateway of the contract's rows: routes whose targets take all, refuse all, or are away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.e2e.readback import stream_count
from tests.servers.process import free_port

MAX_BODY = 128 * 1024
MAX_PAYLOAD = 64 * 1024
"""Of the broker: what is larger and below `max_body` is refused by it."""
STREAM = "rows"
LETTERS = "letters.all"
RETRY_AFTER = "5"


@dataclass(frozen=True)
class Bus:
    """The broker of this module and its stream, which takes `rows.>` and the dead letters."""

    url: str

    async def count(self) -> int:
        return await stream_count(self.url, STREAM)


def config(bus: Bus, **more: Any) -> dict[str, Any]:
    """Routes whose targets take all, refuse all, or are away, by entity."""

    def route(entity: str, broker: str, **target: str) -> dict[str, Any]:
        targets = [{"broker": broker, **target}]
        return {"name": entity, "events": [f"{entity}.*"], "targets": targets}

    return {
        "server": {"max_body": MAX_BODY, "deadline": "3s"},
        "sources": {
            "clerk": {},
            "closed": {"path": "/closed", "allow_from": ["203.0.113.0/24"]},
            "aborting": {"path": "/aborting", "abort_permanent": True},
            "other": {"path": "/other", "kind": "svix"},
        },
        "brokers": {
            "bus": {"kind": "nats", "servers": [bus.url]},
            "away": {"kind": "kafka", "servers": [f"127.0.0.1:{free_port()}"]},
        },
        "routes": [
            route("user", "bus", subject="rows.{type}"),
            route("organization", "bus", subject="rows.{data.missing}"),
            route("session", "away", topic="sessions"),
            route("role", "bus", subject="nowhere.{type}"),
        ],
        **more,
    }
