"""A cluster of real nats-servers, for streams with replicas."""

from __future__ import annotations

import time
from pathlib import Path

import httpx

from tests.servers.nats import NatsServer
from tests.servers.process import LOOPBACK, ServerError, free_port

_READY_SECONDS = 40.0


class NatsCluster:
    """Servers that elect a leader among themselves; each may be killed and started again."""

    def __init__(self, directory: Path, size: int = 3) -> None:
        ports = [free_port() for _ in range(size)]
        self._monitors = [free_port() for _ in range(size)]
        routes = [f"nats-route://{LOOPBACK}:{port}" for port in ports]
        self.servers = [
            NatsServer(
                directory / f"node-{at}",
                options={
                    "server_name": f"node-{at}",
                    "http": f"{LOOPBACK}:{self._monitors[at]}",
                    "cluster": {
                        "name": "cluster",
                        "listen": f"{LOOPBACK}:{ports[at]}",
                        "routes": routes,
                    },
                },
            )
            for at in range(size)
        ]

    @property
    def urls(self) -> list[str]:
        """The addresses for clients."""
        return [server.url for server in self.servers]

    def start(self) -> None:
        """Start all, and wait until JetStream has a leader and knows every server."""
        for server in self.servers:
            server.start()
        deadline = time.monotonic() + _READY_SECONDS
        while not self._is_ready():
            if time.monotonic() > deadline:
                raise ServerError(f"the cluster has no leader: {self.servers[0].log_tail()}")
            time.sleep(0.1)

    def kill(self) -> None:
        """End all at once."""
        for server in self.servers:
            server.kill()

    def _is_ready(self) -> bool:
        return all(self._knows_all(monitor) for monitor in self._monitors)

    def _knows_all(self, monitor: int) -> bool:
        try:
            answer = httpx.get(f"http://{LOOPBACK}:{monitor}/jsz", timeout=2)
        except httpx.TransportError:
            return False
        meta = answer.json().get("meta_cluster") or {}
        return bool(meta.get("leader")) and meta.get("cluster_size") == len(self.servers)
