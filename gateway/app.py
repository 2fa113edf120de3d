"""The composition root: from a loaded config to a wired gateway.

`build` is what our own server runs; `create_app` is an ASGI factory for those who run theirs:
`GATEWAY_CONFIG=config.yaml uvicorn --factory gateway.app:create_app`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal

from litestar import Litestar

from gateway.address import Networks
from gateway.brokers.base import Broker, Need, State, StateListener
from gateway.config import GatewayConfig, LoadedConfig, load_config
from gateway.delivery.dead_letter import DeadLetter
from gateway.delivery.fanout import FanOut
from gateway.event import Sender
from gateway.ingress import Edge, Endpoint, Ingress, Limits
from gateway.observability.health import ProcessHealth
from gateway.observability.logs import configure
from gateway.observability.metrics import Metrics
from gateway.observability.record import Recorder
from gateway.routing.compile import (
    Fault,
    TableError,
    compile_expression,
    compile_table,
    find_faults,
)
from gateway.routing.table import HEADROOM, Table
from gateway.signature import Verifier
from gateway.svix.addresses import expand

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from litestar.types import ASGIApp, Receive, Send

    from gateway.config.models import BrokerConfig, SourceConfig

__all__ = ["Blueprint", "Gateway", "build", "create_app", "draw", "load", "make_broker"]

_TICK = 1.0
"""Seconds between samples of the gauges."""


class Blueprint:
    """A config that is proven to be runnable: routing compiled, nothing connected."""

    def __init__(self, loaded: LoadedConfig, table: Table, endpoints: dict[str, Endpoint]) -> None:
        self.loaded = loaded
        self.table = table
        self.endpoints = endpoints

    @property
    def config(self) -> GatewayConfig:
        """The config it was drawn from."""
        return self.loaded.config

    def needs(self) -> dict[str, tuple[Need, ...]]:
        """Give what each broker must have: the routes' destinations and the dead letter."""
        size = self.config.server.max_body + HEADROOM
        needs = self.table.needs(size)
        letter = _dead_letter(self.config)
        if letter is not None:
            need = Need(letter.destination, False, size, "the dead letter")
            needs[letter.broker] = (*needs.get(letter.broker, ()), need)
        return needs


def load(
    path: str | os.PathLike[str], env: Mapping[str, str], *, stand_in: bool = False
) -> LoadedConfig:
    """Load a config file, with every fault of the file and of its routing table at once.

    `stand_in` lets brokers leave out their `servers`. Raises `ConfigError`.
    """
    return load_config(path, env, allow_missing_servers=stand_in, checks=(find_faults,))


def draw(loaded: LoadedConfig) -> Blueprint:
    """Compile a loaded config. Raises `TableError` for one that `load` has not checked."""
    faults: list[Fault] = []
    endpoints = {
        source.path: _endpoint(name, source, loaded.config.headers.signature, faults)
        for name, source in loaded.config.sources.items()
    }
    if faults:
        raise TableError(tuple(faults))
    return Blueprint(loaded, compile_table(loaded.config), endpoints)


class Gateway:
    """All that one process needs to serve webhooks."""

    def __init__(self, blueprint: Blueprint, recorder: Recorder) -> None:
        """Wire; nothing connects before `start`."""
        config = blueprint.config
        self.recorder = recorder
        self.brokers = _brokers(blueprint, self._state_changed)
        self._fan_out = FanOut(self.brokers, _dead_letter(config), recorder)
        self._routes = {
            route.name: tuple(sorted({target.broker for target in route.targets}))
            for route in blueprint.table.routes
        }
        self._phase: Literal["loading", "ready", "draining"] = "loading"
        self._closing = False
        self._ticker: asyncio.Task[None] | None = None
        server = config.server
        edge = Edge(
            endpoints=blueprint.endpoints,
            limits=Limits(server.max_body, server.deadline, server.body_timeout),
            trusted_proxies=Networks(server.trusted_proxies),
        )
        self.ingress = Ingress(edge, blueprint.table, self._fan_out, recorder, config.unmatched)

    async def start(self) -> None:
        """Begin to connect to every broker; a broker that is down does not stop the start."""
        for broker in self.brokers.values():
            self.recorder.broker_state(broker.name, broker.state)
            await broker.start()
        self._ticker = asyncio.create_task(self._tick())
        self._phase = "ready"

    def drain(self, within: float) -> None:
        """Stop being ready; what is open in `within` seconds is then answered as failed."""
        self._phase = "draining"
        asyncio.get_running_loop().call_later(within, self._fan_out.give_up)

    async def close(self, timeout: float) -> None:
        """Flush and disconnect, for at most `timeout` seconds."""
        self._phase = "draining"
        self._closing = True
        await asyncio.gather(*(broker.close(timeout) for broker in self.brokers.values()))
        if self._ticker is not None:
            self._ticker.cancel()
            with suppress(asyncio.CancelledError):
                await self._ticker

    def health(self) -> ProcessHealth:
        """Say how this process is."""
        states = {name: broker.state for name, broker in self.brokers.items()}
        return ProcessHealth(self._phase, states, self._routes)

    def _state_changed(self, broker: str, state: State) -> None:
        # A broker that goes down because we leave it is no news.
        if not self._closing:
            self.recorder.broker_state(broker, state)

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        brokers = tuple(self.brokers.values())
        while True:
            self.recorder.tick(brokers, loop.time())
            await asyncio.sleep(_TICK)


def build(blueprint: Blueprint) -> Gateway:
    """Make the gateway of one process, with metrics and logs of its own."""
    return Gateway(blueprint, Recorder(Metrics(), blueprint.config.log.sample))


def create_app() -> ASGIApp:
    """Make the ASGI application for another server than ours; the config is `$GATEWAY_CONFIG`.

    Such a server has its own header timeout and its own admin port is not there: `/livez`,
    `/readyz` and `/metrics` come with `gateway serve`. Raises `ConfigError`.
    """
    loaded = load(os.environ.get("GATEWAY_CONFIG", "config.yaml"), os.environ)
    configure(loaded.config.log.level, loaded.config.log.format)
    gateway = build(draw(loaded))

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncGenerator[None, None]:
        await gateway.start()
        try:
            yield
        finally:
            await gateway.close(loaded.config.server.shutdown)

    app = Litestar([], lifespan=[lifespan], openapi_config=None, logging_config=None)

    async def serve(scope: Any, receive: Receive, send: Send) -> None:
        # A mount of Litestar's gives a path that it has made anew: `//a` and `a` become one.
        await (gateway.ingress if scope["type"] == "http" else app)(scope, receive, send)

    return serve


def _endpoint(name: str, source: SourceConfig, signature: bool, faults: list[Fault]) -> Endpoint:
    sender = Sender(
        name=name,
        uri=source.uri or f"clerk/{name}",
        type_required=source.kind == "clerk",
        type=compile_expression(source.type, ("sources", name, "type"), faults),
        signature=signature,
    )
    return Endpoint(
        sender=sender,
        verifier=Verifier(source.secrets, source.tolerance),
        allow_from=Networks(expand(source.allow_from)),
        abort_permanent=source.abort_permanent,
    )


def _dead_letter(config: GatewayConfig) -> DeadLetter | None:
    letter = config.delivery.dead_letter
    if letter is None:
        return None
    kind = config.brokers[letter.broker].kind
    return DeadLetter(letter.broker, kind, letter.topic or letter.subject or "")


def _brokers(blueprint: Blueprint, on_state: StateListener) -> Mapping[str, Broker]:
    needs = blueprint.needs()
    return {
        name: make_broker(name, broker, needs.get(name, ()), on_state)
        for name, broker in blueprint.config.brokers.items()
    }


def make_broker(
    name: str, config: BrokerConfig, needs: Sequence[Need], on_state: StateListener
) -> Broker:
    """Make the client of one broker; its kind is imported only where it is used."""
    if config.kind == "kafka":
        from gateway.brokers.kafka import KafkaBroker  # noqa: PLC0415 - as the docstring says

        return KafkaBroker(name, config, on_state, needs)
    from gateway.brokers.nats import NatsBroker  # noqa: PLC0415 - as the docstring says

    return NatsBroker(name, config, on_state)
