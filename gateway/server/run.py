"""The process tree of `gateway serve`: one process alone, or workers under a supervisor."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import ExitStack

import msgspec
import structlog

from gateway.app import Blueprint
from gateway.config import FileContent, GatewayConfig
from gateway.observability.admin import AdminRecorder
from gateway.observability.health import ProcessHealth, readiness
from gateway.observability.metrics import render
from gateway.server.admin import SAFE_HEADERS, AdminSource, admin_app, assert_guarded
from gateway.server.connections import Connections, WireLimits
from gateway.server.contents import ContentsReader, is_followed
from gateway.server.http import HttpServer, listen
from gateway.server.process import ServingProcess, stop_event
from gateway.server.redraw import Load, loader
from gateway.server.reload import Reloader
from gateway.server.supervisor import Supervisor

__all__ = ["Apply", "Following", "Running", "Started", "serve"]

Apply = Callable[[Blueprint], Awaitable[None]]
"""Makes a process tree serve by another config."""

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

    def metrics(self, brokers: Collection[str]) -> bytes:
        return render(self.gateway.recorder.metrics.registry, brokers)


class Running(msgspec.Struct, frozen=True):
    """A process tree whose ports accept."""

    port: int
    """The ingress port."""
    admin_port: int
    healths: Callable[[], list[ProcessHealth]]


Started = Callable[[Running], None]
"""Called once, when both ports accept."""


class Following(msgspec.Struct, frozen=True):
    """How a config is followed while it is served."""

    env: Mapping[str, str]
    """What it was loaded with."""
    watch: bool = True
    """Look by itself; otherwise on SIGHUP only."""
    load: Load | None = None
    """What makes a config of what was read; left out, what `gateway serve` makes of it."""
    apply: Callable[[Blueprint, Apply], Awaitable[None]] | None = None
    """Called with each changed config in place of what makes the tree serve by it."""


async def serve(
    blueprint: Blueprint,
    workers: int = 1,
    *,
    stop: asyncio.Event | None = None,
    started: Started | None = None,
    following: Following | None = None,
) -> None:
    """Serve until `stop` is set, or SIGTERM or SIGINT comes; then drain.

    With `following` the config is read again when it changes, or on SIGHUP; without it the config
    stays. Raises `ListenError`, `UnguardedError`, `InboxUnusableError`, and `BrokerOptionsError`
    for broker options that cannot work.
    """
    ingress, admin_socket = _listen(blueprint.config)
    tree = _Alone(blueprint, ingress) if workers == 1 else Supervisor(blueprint, ingress, workers)
    reloader = _reloader(blueprint, tree.apply, following)
    admin = _admin(blueprint, tree, reloader, admin_socket)
    stop = stop or stop_event(signal.SIGTERM, signal.SIGINT)
    if following is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reloader.hang_up)
        # One that came during the start was kept until now; workers must not inherit the block.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
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
            if following is not None:
                watching = asyncio.create_task(reloader.run())
            await stop.wait()
    finally:
        await _cancelled(watching)
        await tree.stop()
        await admin.stop(1)


def _reloader(blueprint: Blueprint, apply: Apply, following: Following | None) -> Reloader:
    name = blueprint.loaded.path
    if following is None:
        return Reloader(blueprint, apply, loader(name, {}), ContentsReader(name, {}))
    own = following.apply
    return Reloader(
        blueprint,
        apply if own is None else lambda changed: own(changed, apply),
        following.load or loader(name, following.env),
        _reader(blueprint, following.env),
        watch=following.watch,
    )


def _reader(blueprint: Blueprint, env: Mapping[str, str]) -> ContentsReader:
    """Give what reads the config again; of what can be read only once its text stays."""
    name = blueprint.loaded.path
    if is_followed(name):
        return ContentsReader(name, env)
    structlog.get_logger().warning("config is not followed: it is no regular file", file=name)
    return ContentsReader(name, env, lambda _: FileContent(blueprint.loaded.text))


def _admin(
    blueprint: Blueprint, tree: _Alone | Supervisor, reloader: Reloader, bound: socket.socket
) -> HttpServer:
    recorder = AdminRecorder()

    def metrics() -> bytes:
        brokers = reloader.current.config.brokers
        config = render(reloader.metrics.registry)
        return tree.metrics(brokers) + config + recorder.metrics()

    source = AdminSource(
        readiness=lambda: readiness(tree.healths(), reloader.health),
        metrics=metrics,
        token=reloader.admin_token,
        metrics_public=blueprint.config.admin.metrics_public,
    )
    return HttpServer(
        admin_app(source, recorder),
        bound,
        Connections(_ADMIN),
        lambda _, reason, __: recorder.refused(reason, "", time.monotonic()),
        SAFE_HEADERS,
    )


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
