"""One process that serves webhooks: the brokers' clients, the ingress port, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
import socket

import structlog

from gateway.app import Blueprint, Gateway, build
from gateway.config.models import ServerConfig
from gateway.delivery.claims import Claims
from gateway.delivery.inbox.member import ALONE, Member
from gateway.server.connections import Connections, WireLimits
from gateway.server.http import HttpServer

__all__ = ["ServingProcess", "stop_event", "wire_limits"]

_FLUSH_SHARE = 0.25
"""Of `server.shutdown`: what is kept back for flushing the brokers."""


_OWN_FILES = 200
"""Open files beside those of webhooks: brokers, the admin port, logs, modules."""

_GC_THRESHOLD = 20_000
"""Allocations between collections of the youngest objects; an event makes few hundred."""


class ServingProcess:
    """A gateway with its ingress port open."""

    def __init__(
        self,
        blueprint: Blueprint,
        bound: socket.socket,
        member: Member = ALONE,
        claims: Claims | None = None,
    ) -> None:
        """`claims` are of the ledger that the processes of one tree share."""
        self._config = blueprint.config.server
        self.gateway: Gateway = build(blueprint, member, claims)
        self.connections = Connections(
            wire_limits(self._config), self.gateway.recorder.metrics.connections.set
        )
        self.http = HttpServer(self.gateway.ingress, bound, self.connections, self._turned_away)

    async def start(self) -> None:
        """Begin to connect to the brokers and to accept."""
        _allow_open_files(self._config.max_connections + _OWN_FILES)
        await self.gateway.start()
        await self.http.start()
        # What is loaded now stays; without it in every collection an event costs a tenth less.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GC_THRESHOLD)

    async def apply(self, blueprint: Blueprint) -> None:
        """See `Gateway.apply`."""
        await self.gateway.apply(blueprint)

    async def stop(self) -> None:
        """Stop accepting, finish or fail what is in flight within `server.shutdown`, flush."""
        began, flush = asyncio.get_running_loop().time(), self._config.shutdown * _FLUSH_SHARE
        within = self._config.shutdown - flush
        self.gateway.drain(within)
        asyncio.get_running_loop().call_later(within, self.connections.give_up)
        await self.http.stop(within + 1)
        # What the requests have left is for what the inbox has on its way to the brokers.
        spare = max(0.0, began + within - asyncio.get_running_loop().time())
        await self.gateway.close(flush, spare)

    def _turned_away(self, status: int, reason: str, seconds: float) -> None:
        now = asyncio.get_running_loop().time()
        self.gateway.recorder.turned_away(status, reason, seconds, now)


def _allow_open_files(wanted: int) -> None:
    """Raise the process's limit of open files as far as it may; tell where that is not enough."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    reached = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (reached, hard))
    except (OSError, ValueError):
        # A sandbox may forbid the call.
        reached = soft
    if reached < wanted:
        structlog.get_logger().warning(
            "too few open files for server.max_connections: raise the limit, or lower it",
            limit=reached,
            wanted=wanted,
        )


def wire_limits(config: ServerConfig) -> WireLimits:
    """Take from the config what bounds the webhook port; no timeout outlasts the deadline."""
    return WireLimits(
        max_head=config.max_head,
        max_headers=config.max_headers,
        header_timeout=min(config.header_timeout, config.deadline),
        body_timeout=min(config.body_timeout, config.deadline),
        idle_timeout=config.idle_timeout,
        max_pipelined=config.max_pipelined,
        max_connections=config.max_connections,
        max_arriving=config.max_arriving,
    )


def stop_event(*signals: signal.Signals) -> asyncio.Event:
    """Give an event that any of these signals sets."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    return stop
