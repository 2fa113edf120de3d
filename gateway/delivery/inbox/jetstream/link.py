"""Keeps a connection of the inbox's own: connects, stays, and begins again, for ever."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from gateway.brokers.base import BrokerOptionsError
from gateway.brokers.nats.errors import CONNECT_ERRORS, ConnectionLost, connection_problem
from gateway.brokers.nats.jetstream import ApiRefused
from gateway.brokers.nats.options import ClientOptions, Server
from gateway.delivery.inbox.jetstream.wire import Wire
from gateway.delivery.inbox.store import InboxUnusableError

__all__ = ["Link"]

log = logging.getLogger("gateway.delivery")

_BACKOFF = 0.1
_MAX_BACKOFF = 2.0
_STEADY_AFTER = 5.0
"""A connection that lasted so long was a good one: the next attempt is made at once."""
_UNUSABLE_AGAIN_AFTER = 10.0
_MAX_SERVERS = 64


class Link:
    """One connection at a time, to one of the servers."""

    def __init__(
        self,
        options: ClientOptions,
        use: Callable[[Wire], Awaitable[None]],
        down: Callable[[], None],
    ) -> None:
        """`use` prepares what hangs on a new connection, `down` is told of its end.

        `use` may raise `ConnectionLost` and `ApiRefused`, to be called with another connection,
        and `InboxUnusableError`.
        """
        self._options = options
        self._use = use
        self._down = down
        self._last: Server | None = None
        self._discovered: list[Server] = []
        self._problem = ""
        self.unusable: InboxUnusableError | None = None
        """Why the streams cannot be used, as far as is known."""
        self.tried = asyncio.Event()
        """The first attempt has ended, well or not."""
        self._task = asyncio.create_task(self._keep())

    @property
    def problem(self) -> str:
        """Why there is no connection, in words; empty while there is one."""
        return self._problem

    async def close(self) -> None:
        """Disconnect for good."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        backoff = _BACKOFF
        while True:
            started = loop.time()
            try:
                wire = await Wire.dial(self._options, self._servers())
                started = loop.time()
                await self._serve(wire)
            except InboxUnusableError as error:
                self.unusable = error
                if self.tried.is_set():
                    self._report(str(error))
                else:
                    self._problem = str(error)  # the start raises it
                backoff = _UNUSABLE_AGAIN_AFTER
            except BrokerOptionsError as error:
                self._report(str(error))
            except CONNECT_ERRORS as error:
                self._report(connection_problem(self._options, error))
            except ApiRefused as error:
                self._report(str(error))
            except Exception:
                # A bug must not end the reconnecting: that would be silent and for good.
                log.exception("inbox: the connection's keeper failed")
            self.tried.set()
            if loop.time() - started > _STEADY_AFTER and self.unusable is None:
                backoff = _BACKOFF
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            backoff = min(backoff * 2, _MAX_BACKOFF)

    async def _serve(self, wire: Wire) -> None:
        """Stay until the connection ends. Always raises: `ConnectionLost` tells why."""
        self._last = wire.connection.server
        try:
            await self._use(wire)
            if self._problem:
                log.info("inbox: connected to %s", self._options.broker)
            self._problem, self.unusable = "", None
            self.tried.set()
            problem = await asyncio.shield(wire.ended)
            self._report(problem)
            raise ConnectionLost(problem)
        finally:
            self._discovered = wire.connection.discovered()[:_MAX_SERVERS]
            self._down()
            await wire.close()

    def _servers(self) -> list[Server]:
        """Every known server in random order, the one that was used last at the end."""
        known = list(dict.fromkeys([*self._options.servers, *self._discovered]))
        random.shuffle(known)
        return sorted(known, key=lambda server: server == self._last)

    def _report(self, problem: str) -> None:
        if problem != self._problem:
            log.warning("inbox: not usable through %s: %s", self._options.broker, problem)
        self._problem = problem
