"""A NATS system as a `Broker`: its life, its state, and what it hands to the other modules.

A connection never reconnects. When it ends or falls silent a new one is made, with a publisher
of its own; the publisher of a silent one waits on for late acks.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING

from gateway.brokers.base import (
    Arrival,
    Finding,
    Message,
    Need,
    Receipt,
    State,
    StateListener,
    Unavailable,
)
from gateway.brokers.nats.check import check_system
from gateway.brokers.nats.connection import Connection, connect_any
from gateway.brokers.nats.errors import (
    CONNECT_ERRORS,
    ConnectionLost,
    Verdict,
    connection_problem,
    failure,
)
from gateway.brokers.nats.in_flight import InFlight, failed
from gateway.brokers.nats.options import ClientOptions, Server, client_options
from gateway.brokers.nats.provision import Provisioner
from gateway.brokers.nats.publisher import Publisher
from gateway.brokers.nats.tail import tail_subjects

if TYPE_CHECKING:
    from gateway.config.models import NatsConfig

log = logging.getLogger("gateway.brokers")

_OPEN_WITHIN = 3.0
_PROVISION_AGAIN_AFTER = 10.0
_BACKOFF = 0.1
_MAX_BACKOFF = 2.0
_STEADY_AFTER = 5.0
"""A connection that lasted so long was a good one: the next attempt is made at once."""
_MAX_SERVERS = 64
_CLOSE_WITHIN = 1.0


class NatsBroker:
    """Publishes to one NATS system; fulfils `gateway.brokers.base.Broker`."""

    def __init__(self, name: str, config: NatsConfig, on_state: StateListener) -> None:
        self._name = name
        self._config = config
        self._on_state = on_state
        self._state = State.CONNECTING
        self._in_flight = InFlight(config.max_in_flight, config.max_in_flight_bytes)
        self._publisher: Publisher | None = None
        self._publishers: set[Publisher] = set()
        self._last_server: Server | None = None
        self._discovered: list[Server] = []
        self._keeper: asyncio.Task[None] | None = None
        self._provisioner = Provisioner(name, config.streams if config.jetstream else ())
        self._problem = ""
        self._closing = False
        self._closed: asyncio.Future[None] | None = None

    @property
    def name(self) -> str:
        """See `Broker.name`."""
        return self._name

    @property
    def state(self) -> State:
        """See `Broker.state`."""
        return self._state

    @property
    def in_flight(self) -> tuple[int, int]:
        """See `Broker.in_flight`."""
        return self._in_flight.count, self._in_flight.bytes

    async def start(self) -> None:
        """See `Broker.start`."""
        if self._keeper is not None or self._closing:
            return
        options = client_options(self._name, self._config)
        self._keeper = asyncio.create_task(self._keep(options))

    def publish(self, message: Message, deadline: float) -> asyncio.Future[Receipt]:
        """See `Broker.publish`."""
        if self._publisher is not None and not self._closing:
            return self._publisher.publish(message, deadline)
        verdict = Verdict(Unavailable, "closing" if self._closing else "broker_down")
        return failed(failure(self._name, message.destination, verdict, self._problem))

    async def check(self, needs: Sequence[Need]) -> list[Finding]:
        """See `Broker.check`."""
        return await check_system(self._name, self._config, needs)

    async def tail(self, needs: Sequence[Need]) -> AsyncGenerator[Arrival, None]:
        """See `Broker.tail`."""
        return await tail_subjects(self._name, self._config, needs)

    async def close(self, timeout: float) -> None:
        """See `Broker.close`."""
        if self._closed is not None:
            await asyncio.shield(self._closed)
            return
        self._closed = asyncio.get_running_loop().create_future()
        self._closing = True
        try:
            await self._in_flight.drain(timeout)
        finally:
            ending = [asyncio.ensure_future(publisher.close()) for publisher in self._publishers]
            if self._keeper is not None:
                self._keeper.cancel()
                ending.append(self._keeper)
            if ending:
                await asyncio.wait(ending, timeout=_CLOSE_WITHIN)
            self._become(State.DOWN)
            self._closed.set_result(None)

    async def _keep(self, options: ClientOptions) -> None:
        """Connect, stay, and begin again, for ever."""
        loop = asyncio.get_running_loop()
        backoff = _BACKOFF
        while True:
            started = loop.time()
            try:
                connection = await connect_any(options, self._servers(options))
                started = loop.time()
                await self._serve(connection)
            except CONNECT_ERRORS as error:
                self._report(connection_problem(options, error))
            except Exception:
                # A bug must not end the reconnecting: that would be silent and for good.
                log.exception("nats broker %s: the connection's keeper failed", self._name)
            self._become(State.DOWN)
            # A server that takes us and drops us again must not be called in a tight loop.
            if loop.time() - started > _STEADY_AFTER:
                backoff = _BACKOFF
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            backoff = min(backoff * 2, _MAX_BACKOFF)

    async def _serve(self, connection: Connection) -> None:
        """Publish on `connection` until it ends. Always raises: `ConnectionLost` tells why."""
        self._last_server = connection.server
        ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        publisher = Publisher(
            self._name,
            connection,
            self._in_flight,
            jetstream=self._config.jetstream,
            request_timeout=self._config.request_timeout,
            on_ended=lambda problem: self._leave(ended, problem),
        )
        self._publishers.add(publisher)
        try:
            await publisher.open(_OPEN_WITHIN)
            # Before UP: without its stream a first record would only wait.
            provisioned = await self._provisioner.run(publisher.requests)
            self._enter(ended, publisher)
            while not ended.done():
                again = None if provisioned else _PROVISION_AGAIN_AFTER
                await asyncio.wait([ended], timeout=again)
                if not ended.done():
                    provisioned = await self._provisioner.run(publisher.requests)
            raise ConnectionLost(ended.result())
        finally:
            publisher.retire()
            self._discovered = connection.discovered()[:_MAX_SERVERS]
            self._publishers = {kept for kept in self._publishers if not kept.idle}

    def _enter(self, ended: asyncio.Future[str], publisher: Publisher) -> None:
        if ended.done():
            return
        self._publisher = publisher
        if self._problem:
            log.info("nats broker %s: connected", self._name)
        self._problem = ""
        self._become(State.UP)

    def _leave(self, ended: asyncio.Future[str], problem: str) -> None:
        """The current connection is gone: later publishes fail from this moment on."""
        if ended.done():
            return
        self._publisher = None
        ended.set_result(problem)
        self._report(problem)
        self._become(State.DOWN)

    def _servers(self, options: ClientOptions) -> list[Server]:
        """Every known server in random order, the one that was used last at the end."""
        known = list(dict.fromkeys([*options.servers, *self._discovered]))
        random.shuffle(known)
        return sorted(known, key=lambda server: server == self._last_server)

    def _report(self, problem: str) -> None:
        if problem != self._problem:
            log.warning("nats broker %s: not connected: %s", self._name, problem)
        self._problem = problem

    def _become(self, state: State) -> None:
        if state is self._state:
            return
        self._state = state
        self._on_state(self._name, state)
