"""One uvicorn server on one socket, started and stopped by us instead of by its own signals."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import uvicorn

from gateway import GatewayError
from gateway.server.connections import Connections
from gateway.server.heads import Headers
from gateway.server.protocol import FaultListener, bounded_protocol

__all__ = ["HttpServer", "ListenError", "listen"]

_BACKLOG = 2048


class ListenError(GatewayError):
    """The address cannot be listened on."""

    def __init__(self, setting: str, host: str, port: int, problem: str) -> None:
        self.setting = setting
        self.host = host
        self.port = port
        self.problem = problem
        super().__init__(
            f"cannot listen on {host}:{port}: {problem}; change {setting}.host or {setting}.port"
        )


def listen(setting: str, host: str, port: int) -> socket.socket:
    """Bind a TCP socket, port 0 taking any free one. Raises `ListenError`; `setting` names it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        raise ListenError(setting, host, port, (error.strerror or "error").lower()) from None
    bound.setblocking(False)
    bound.set_inheritable(True)
    return bound


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process has its own."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.accepting = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.accepting.set()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class HttpServer:
    """Serves an ASGI application on a bound socket, within the bounds of its `connections`."""

    def __init__(
        self,
        app: Any,
        bound: socket.socket,
        connections: Connections,
        on_fault: FaultListener,
        fault_headers: Headers = (),
    ) -> None:
        config = uvicorn.Config(
            app,
            loop="none",
            http=bounded_protocol(connections, on_fault, fault_headers),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
        )
        self._server = _Server(config)
        self._socket = bound
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port listened on."""
        port: int = self._socket.getsockname()[1]
        return port

    async def start(self) -> None:
        """Accept from now on."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        await self._server.accepting.wait()

    async def stop(self, timeout: float) -> None:
        """Stop accepting; wait `timeout` seconds for what is in flight, then cut it off."""
        if self._task is None:
            return
        self._server.config.timeout_graceful_shutdown = max(1, round(timeout))
        self._server.should_exit = True
        await self._task
        self._task = None
