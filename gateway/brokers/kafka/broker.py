"""A Kafka cluster as a `Broker`: its life, its state, and what it hands to the other modules."""

from __future__ import annotations

import asyncio
import contextlib
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
from gateway.brokers.kafka.check import check_cluster
from gateway.brokers.kafka.connection import Cluster
from gateway.brokers.kafka.errors import CLIENT_ERRORS, connection_problem
from gateway.brokers.kafka.in_flight import InFlight
from gateway.brokers.kafka.options import client_options, publish_options, quiet_client_logs
from gateway.brokers.kafka.provision import create_topics
from gateway.brokers.kafka.publisher import Publisher
from gateway.brokers.kafka.tail import tail_topics

if TYPE_CHECKING:
    from gateway.config.models import KafkaConfig

log = logging.getLogger("gateway.brokers")

_CONNECT_WITHIN = 5.0
_PROBE_EVERY = 1.0
_IMPATIENT_AFTER = 0.5
"""Without an answer for so long, another node is tried as well."""
_ANSWER_WITHIN = 1.5
"""Without any answer for so long after that, the cluster is down."""
_REFRESH_EVERY = 30.0
_BACKOFF = 0.2
_MAX_BACKOFF = 2.0
_CLOSE_WITHIN = 1.0


class KafkaBroker:
    """Publishes to one Kafka cluster with `acks=all`; fulfils `gateway.brokers.base.Broker`."""

    def __init__(
        self,
        name: str,
        config: KafkaConfig,
        on_state: StateListener,
        destinations: Sequence[Need] = (),
    ) -> None:
        """`destinations` are what the config publishes to: created when `topics.create` says so."""
        quiet_client_logs()
        self._name = name
        self._config = config
        self._on_state = on_state
        self._destinations = tuple(destinations)
        self._state = State.CONNECTING
        self._in_flight = InFlight(name, config.max_in_flight, config.max_in_flight_bytes)
        self._cluster: Cluster | None = None
        self._publisher: Publisher | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._trouble = asyncio.Event()
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
        self._cluster = Cluster(options, self._trouble.set)
        publishing = publish_options(self._config)
        self._publisher = Publisher(self._cluster, publishing, self._in_flight, self._trouble.set)
        self._keeper = asyncio.create_task(self._keep(self._cluster, self._publisher))

    def publish(self, message: Message, deadline: float) -> asyncio.Future[Receipt]:
        """See `Broker.publish`."""
        if self._state is State.UP and self._publisher is not None and not self._closing:
            return self._publisher.publish(message, deadline)
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        reason = "closing" if self._closing else "broker_down"
        self._in_flight.reject(future, message.destination, Unavailable, reason, self._problem)
        return future

    async def check(self, needs: Sequence[Need]) -> list[Finding]:
        """See `Broker.check`."""
        return await check_cluster(self._name, self._config, needs)

    async def tail(self, needs: Sequence[Need]) -> AsyncGenerator[Arrival, None]:
        """See `Broker.tail`."""
        return await tail_topics(self._name, self._config, needs)

    async def close(self, timeout: float) -> None:
        """See `Broker.close`."""
        if self._closed is not None:
            await asyncio.shield(self._closed)
            return
        self._closed = asyncio.get_running_loop().create_future()
        self._closing = True
        try:
            await self._close(timeout)
        finally:
            self._closed.set_result(None)

    async def _close(self, timeout: float) -> None:
        # The keeper lives on while the queue drains: a cluster may come back in that time.
        if self._publisher is not None:
            await self._in_flight.drain(timeout)
            await self._publisher.abandon(_CLOSE_WITHIN)
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper], timeout=_CLOSE_WITHIN)
        if self._cluster is not None:
            await self._cluster.close(_CLOSE_WITHIN)
        self._become(State.DOWN)

    async def _keep(self, cluster: Cluster, publisher: Publisher) -> None:
        """Connect, watch, and begin again, for ever."""
        backoff = _BACKOFF
        while True:
            try:
                await cluster.connect(_CONNECT_WITHIN)
                await self._connected(cluster, publisher)
                backoff = _BACKOFF
                await self._watch(cluster, publisher)
            except CLIENT_ERRORS as error:
                self._lost(error)
            except Exception:
                # A bug must not end the reconnecting: that would be silent and for good.
                log.exception("kafka broker %s: the connection's keeper failed", self._name)
                self._become(State.DOWN)
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            backoff = min(backoff * 2, _MAX_BACKOFF)

    async def _connected(self, cluster: Cluster, publisher: Publisher) -> None:
        if self._config.topics.create:
            await create_topics(cluster, self._config.topics, self._destinations)
        # Leaders may have moved meanwhile; the first publish should not have to find that out.
        await publisher.directory.refreshed()
        if self._state is not State.UP:
            log.info("kafka broker %s: connected", self._name)
        self._problem = ""
        self._become(State.UP)

    async def _watch(self, cluster: Cluster, publisher: Publisher) -> None:
        """Ask the cluster when it was quiet or stumbled; raises when it is gone."""
        loop = asyncio.get_running_loop()
        refreshed = heard = loop.time()
        while True:
            # An answer to a publish says as much as an answer to a probe.
            heard = max(heard, publisher.last_ack)
            quiet_for = loop.time() - heard
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._trouble.wait(), max(0.0, _PROBE_EVERY - quiet_for))
            if self._trouble.is_set() or publisher.last_ack <= heard:
                self._trouble.clear()
                await _hear_from(cluster)
                heard = loop.time()
            if loop.time() - refreshed > _REFRESH_EVERY:
                refreshed = loop.time()
                publisher.directory.refresh()

    def _lost(self, error: BaseException) -> None:
        problem = connection_problem(self._name, error)
        if problem != self._problem:
            log.warning("kafka broker %s: not connected: %s", self._name, problem)
        self._problem = problem
        self._become(State.DOWN)

    def _become(self, state: State) -> None:
        if state is self._state:
            return
        self._state = state
        self._on_state(self._name, state)


async def _hear_from(cluster: Cluster) -> None:
    """Get an answer on the connection that there is, or else soon on a new one to any node."""
    probe = asyncio.ensure_future(cluster.probe(_IMPATIENT_AFTER + _ANSWER_WITHIN))
    try:
        await asyncio.wait([probe], timeout=_IMPATIENT_AFTER)
        if probe.done() and probe.exception() is None:
            return
        await cluster.connect(_ANSWER_WITHIN)
    except CLIENT_ERRORS:
        if not probe.done() or probe.exception() is not None:
            raise
    finally:
        probe.cancel()
        await asyncio.wait([probe])
        if not probe.cancelled():
            probe.exception()
