"""A nats-server of a test's own, and stores on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gateway.brokers.nats.options import client_options
from gateway.config.models import NatsConfig
from gateway.delivery.inbox.jetstream import JetStreamStore
from gateway.delivery.inbox.store import Bounds
from tests.inbox.harness import ROOMY, Place
from tests.servers.nats import NatsServer

STREAM = "GATEWAY_INBOX"
LEASE = 2.0
"""Seconds; short, for tests wait until it has run out."""


def jetstream_store(
    *urls: str,
    bounds: Bounds = ROOMY,
    partitions: int = 16,
    dispatches: bool = True,
    lease: float = LEASE,
    config: Mapping[str, object] | None = None,
) -> JetStreamStore:
    """Make a store on the servers, not started."""
    broker = NatsConfig.model_validate({"kind": "nats", "servers": urls, **(config or {})})
    return JetStreamStore(
        client_options("bus", broker),
        STREAM,
        bounds,
        dispatches=dispatches,
        lease=lease,
        partitions=partitions,
    )


class JetStreamPlace(Place):
    """A server with an inbox of one partition: its records come in one order."""

    groups_commits = False

    def __init__(self, directory: Path) -> None:
        self.server = NatsServer(directory / "nats")
        self.server.start()

    def store(self, bounds: Bounds = ROOMY) -> JetStreamStore:
        """Make a store on the server."""
        return jetstream_store(self.server.url, bounds=bounds, partitions=1)

    async def clear(self) -> None:
        """End the server."""
        self.server.kill()
