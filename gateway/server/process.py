"""One process that serves webhooks: the brokers' clients, the ingress port, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket

from gateway.app import Blueprint, Gateway, build
from gateway.server.http import HttpServer
from gateway.server.protocol import bounded_protocol

__all__ = ["ServingProcess", "stop_event"]

_FLUSH_SHARE = 0.25
"""Of `server.shutdown`: what is kept back for flushing the brokers."""


_GC_THRESHOLD = 20_000
"""Allocations between collections of the youngest objects; an event makes few hundred."""


class ServingProcess:
    """A gateway with its ingress port open."""

    def __init__(self, blueprint: Blueprint, bound: socket.socket) -> None:
        self._config = blueprint.config.server
        self.gateway: Gateway = build(blueprint)
        protocol = bounded_protocol(
            min(self._config.header_timeout, self._config.deadline),
            min(self._config.body_timeout, self._config.deadline),
            self._turned_away,
        )
        self.http = HttpServer(self.gateway.ingress, bound, protocol)

    async def start(self) -> None:
        """Begin to connect to the brokers and to accept."""
        await self.gateway.start()
        await self.http.start()
        # What is loaded now stays; without it in every collection an event costs a tenth less.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GC_THRESHOLD)

    async def stop(self) -> None:
        """Stop accepting, finish or fail what is in flight within `server.shutdown`, flush."""
        within = self._config.shutdown * (1 - _FLUSH_SHARE)
        self.gateway.drain(within)
        await self.http.stop(within + 1)
        await self.gateway.close(self._config.shutdown * _FLUSH_SHARE)

    def _turned_away(self, status: int, reason: str, seconds: float) -> None:
        now = asyncio.get_running_loop().time()
        self.gateway.recorder.turned_away(status, reason, seconds, now)


def stop_event(*signals: signal.Signals) -> asyncio.Event:
    """Give an event that any of these signals sets."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    return stop
