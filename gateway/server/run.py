"""The process tree of `gateway serve`: one process alone, or workers under a supervisor."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack

import msgspec
import structlog

from gateway.app import Blueprint
from gateway.config import GatewayConfig
from gateway.observability.admin import AdminRecorder
from gateway.observability.health import ProcessHealth, readiness
from gateway.observability.metrics import render
from gateway.server.admin import SAFE_HEADERS, AdminSource, admin_app, assert_guarded
from gateway.server.connections import Connections, WireLimits
from gateway.server.http import HttpServer, listen
from gateway.server.process import ServingProcess, stop_event
from gateway.server.reload import Reloader
from gateway.server.supervisor import Supervisor

__all__ = ["Running", "Started", "serve"]


_ADMIN = WireLimits(
    max_head=16 * 1024,
    max_headers=100,
    header_timeout=5.0,
    body_timeout=5.0,
    idle_timeout=75.0,
    max_pipelined=8,
    max_connections=256,
    max_arriving=1024 * 1024,
)
"""Scrapers, probes and a few people."""


class _Alone(ServingProcess):
    """The tree that is one process; it shows what a supervisor shows."""

    def healths(self) -> list[ProcessHealth]:
        return [self.gateway.health()]

    def metrics(self) -> bytes:
        return render(self.gateway.recorder.metrics.registry)


class Running(msgspec.Struct, frozen=True):
    """A process tree whose ports accept."""

    port: int
    """The ingress port."""
    admin_port: int
    healths: Callable[[], list[ProcessHealth]]


Started = Callable[[Running], None]
"""Called once, when both ports accept."""


async def serve(
    blueprint: Blueprint,
    workers: int = 1,
    *,
    stop: asyncio.Event | None = None,
    started: Started | None = None,
    env: Mapping[str, str] | None = None,
) -> None:
    """Serve until `stop` is set, or SIGTERM or SIGINT comes; then drain.

    With `env`, which the config was loaded with, the files of the config are watched, and SIGHUP
    looks at once; without it the config stays. Raises `ListenError`, `UnguardedError`,
    `InboxUnusableError`, and `BrokerOptionsError` for broker options that cannot
    work.
    """
    config = blueprint.config
    ingress, admin_socket = _listen(config)
    tree = _Alone(blueprint, ingress) if workers == 1 else Supervisor(blueprint, ingress, workers)
    reloader = Reloader(blueprint, tree.apply, env or {})
    recorder = AdminRecorder()
    source = AdminSource(
        readiness=lambda: readiness(tree.healths(), reloader.state),
        metrics=lambda: tree.metrics() + render(reloader.metrics.registry) + recorder.metrics(),
        token=reloader.admin_token,
        metrics_public=config.admin.metrics_public,
    )
    admin = HttpServer(
        admin_app(source, recorder),
        admin_socket,
        Connections(_ADMIN),
        lambda _, reason, __: recorder.refused(reason, "", time.monotonic()),
        SAFE_HEADERS,
    )
    stop = stop or stop_event(signal.SIGTERM, signal.SIGINT)
    if env is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reloader.hang_up)
    await admin.start()
    watching: asyncio.Task[None] | None = None
    try:
        if await _started_before(stop, tree):
            port = ingress.getsockname()[1]
            structlog.get_logger().info(
                "listening", port=port, admin_port=admin.port, workers=workers
            )
            if started is not None:
                started(Running(port, admin.port, tree.healths))
            if env is not None:
                watching = asyncio.create_task(reloader.run())
            await stop.wait()
    finally:
        await _cancelled(watching)
        await tree.stop()
        await admin.stop(1)


def _listen(config: GatewayConfig) -> tuple[socket.socket, socket.socket]:
    """Bind both ports, the ingress first; none stays bound where one cannot be used."""
    with ExitStack() as bound:
        ingress = bound.enter_context(listen("server", config.server.host, config.server.port))
        admin = bound.enter_context(listen("admin", config.admin.host, config.admin.port))
        assert_guarded(config.admin.host, admin.getsockname()[0], config.admin.token)
        bound.pop_all()
    return ingress, admin


async def _cancelled(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.wait((task,))


async def _started_before(stop: asyncio.Event, tree: _Alone | Supervisor) -> bool:
    """Start the tree; False where it is told to stop before it could serve."""
    starting = asyncio.create_task(tree.start())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not starting.done():
        starting.cancel()
        return False
    await starting
    return True
