"""The composition root: from a loaded config to a wired gateway.

`build` is what our own server runs; `create_app` is an ASGI factory for those who run theirs:
`GATEWAY_CONFIG=config.yaml uvicorn --factory gateway.app:create_app`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from litestar import Litestar
from pydantic import SecretStr

from gateway.address import Networks
from gateway.brokers.base import Broker, Headers, Message, Need, State, StateListener
from gateway.config import FileContent, GatewayConfig, LoadedConfig, load_config, load_config_text
from gateway.config.files import reader_of
from gateway.delivery.clients import Clients, Recipe
from gateway.delivery.dead_letter import DeadLetter
from gateway.delivery.fanout import FanOut, Outlets
from gateway.delivery.inbox.dispatcher import Dispatcher
from gateway.delivery.inbox.inbox import Inbox
from gateway.delivery.inbox.member import ALONE, Member
from gateway.delivery.inbox.terms import Terms
from gateway.delivery.ledger import Ledger
from gateway.event import Sender
from gateway.inboxes import bounds, make_store, reach
from gateway.ingress import Ingress
from gateway.ledgers import change_leases, retention, share
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
from gateway.routing.needs import Types, needs_of
from gateway.routing.table import HEADROOM, Table
from gateway.serving import Edge, Endpoint, Limits, Serving
from gateway.signature import Verifier
from gateway.svix.addresses import expand

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from litestar.types import ASGIApp, Receive, Send

    from gateway.config.models import BrokerConfig, SourceConfig
    from gateway.delivery.claims import Claims
    from gateway.delivery.deliverer import Deliverer

__all__ = [
    "Blueprint",
    "Gateway",
    "build",
    "create_app",
    "dead_letter_of",
    "draw",
    "load",
    "load_contents",
    "make_broker",
    "recipes",
    "sent_headers",
]

_TICK = 1.0
"""Seconds between samples of the gauges."""
_CLOSE_INBOX_SHARE = 0.6
"""Of the time to close: for what is on its way out of the inbox; the rest is for the brokers."""
_EXPIRED_PER_TICK = 1000
"""Entries of the ledger that a tick clears away while no events come; about a millisecond."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Blueprint:
    """A config that is proven to be runnable: routing compiled, nothing connected."""

    loaded: LoadedConfig
    table: Table
    endpoints: dict[str, Endpoint]
    generation: int = 1
    """The how-many-th config of its process tree this is, from 1."""

    @property
    def config(self) -> GatewayConfig:
        """The config it was drawn from."""
        return self.loaded.config

    def needs(self, types: Types | None = None) -> dict[str, tuple[Need, ...]]:
        """Give what each broker must have: the routes' destinations and the dead letter.

        `types` are those that each source is known to send, for who wants to know what templates
        give for them.
        """
        size = self.config.server.max_body + HEADROOM
        needs = needs_of(self.table, size, types)
        letter = dead_letter_of(self.config)
        if letter is not None:
            need = Need(letter.destination, False, size, "the dead letter", keeps_letters=True)
            needs.setdefault(letter.broker, []).append(need)
        return {broker: tuple(found) for broker, found in needs.items()}


def load(
    path: str | os.PathLike[str], env: Mapping[str, str], *, stand_in: bool = False
) -> LoadedConfig:
    """Load a config file, with every fault of the file and of its routing table at once.

    `stand_in` lets brokers leave out their `servers`. Raises `ConfigError`.
    """
    return load_config(path, env, allow_missing_servers=stand_in, checks=(find_faults,))


def load_contents(
    name: str,
    text: str | SecretStr,
    files: Mapping[str, FileContent],
    env: Mapping[str, str],
    *,
    stand_in: bool = False,
) -> LoadedConfig:
    """As `load`, of a config file and of files that were read before: no disk is read.

    `name` stands for the text in messages. Raises `ConfigError`.
    """
    read, checks = reader_of(files), (find_faults,)
    return load_config_text(
        text, name, env, allow_missing_servers=stand_in, checks=checks, read=read
    )


def draw(loaded: LoadedConfig, generation: int = 1) -> Blueprint:
    """Compile a loaded config. Raises `TableError` for one that `load` has not checked."""
    faults: list[Fault] = []
    endpoints = {
        source.path: _endpoint(name, source, loaded.config.headers.signature, faults)
        for name, source in loaded.config.sources.items()
    }
    if faults:
        raise TableError(tuple(faults))
    return Blueprint(loaded, compile_table(loaded.config), endpoints, generation)


class Gateway:
    """All that one process needs to serve webhooks."""

    def __init__(
        self,
        blueprint: Blueprint,
        recorder: Recorder,
        member: Member = ALONE,
        claims: Claims | None = None,
    ) -> None:
        """Wire; nothing connects before `start`. `claims` are those of this process tree.

        Raises `InboxUnusableError`.
        """
        self._member = member
        self.recorder = recorder
        self._blueprint = blueprint
        self._routes = _brokers_of_routes(blueprint)
        deadline = blueprint.config.server.deadline
        self._clients = Clients(
            self._recipes(blueprint), self._state_changed, self._serve, deadline
        )
        self._ledger = Ledger(retention(blueprint.config), recorder.evicted)
        self._inbox = None if blueprint.config.delivery.mode == "direct" else self._make_inbox()
        self._shared = share(blueprint.config, self._ledger, claims, recorder)
        fan_out = FanOut(recorder, self._ledger, self._shared)
        self._deliverer: Deliverer = fan_out if self._inbox is None else self._inbox
        self._phase: Literal["loading", "ready", "draining"] = "loading"
        self._closing = False
        self._ticker: asyncio.Task[None] | None = None
        self.ingress = Ingress(self._serving(), self._deliverer, recorder)

    async def start(self) -> None:
        """Open the inbox, and begin to connect to all. Raises `InboxUnusableError`."""
        if self._inbox is not None:
            await self._inbox.start()
        await self._clients.start()
        if self._shared is not None:
            await self._shared.connect()
        self._ticker = asyncio.create_task(self._tick())
        self._phase = "ready"

    async def apply(self, blueprint: Blueprint) -> None:
        """Serve by another config from the next request on.

        Requests in flight end with what they began with. Only brokers whose settings changed get
        a new client, which is waited for: see `Clients.change`. The ledger keeps what it knows.
        Raises `BrokerOptionsError`, and then nothing has changed.
        """
        await self._clients.change(self._recipes(blueprint))
        self._blueprint = blueprint
        self._routes = _brokers_of_routes(blueprint)
        self._ledger.retain(retention(blueprint.config))
        if self._shared is not None:
            change_leases(self._shared.claims, blueprint.config)
        self._serve()

    def drain(self, within: float) -> None:
        """Stop being ready; what is open in `within` seconds is then answered as failed."""
        self._phase = "draining"
        asyncio.get_running_loop().call_later(within, self._deliverer.give_up)

    async def close(self, timeout: float, spare: float = 0.0) -> None:
        """Flush and disconnect, for at most `timeout` seconds, and the inbox for `spare` more."""
        self._phase = "draining"
        self._closing = True
        if self._inbox is not None:
            await self._inbox.close(timeout * _CLOSE_INBOX_SHARE + spare)
            timeout *= 1 - _CLOSE_INBOX_SHARE
        await self._clients.close(timeout)
        if self._shared is not None:
            await self._shared.disconnect()
        if self._ticker is not None:
            self._ticker.cancel()
            with suppress(asyncio.CancelledError):
                await self._ticker

    def health(self) -> ProcessHealth:
        """Say how this process is."""
        states = {name: broker.state for name, broker in self._clients.brokers.items()}
        writable = None if self._inbox is None else self._inbox.writable
        replacing = self._clients.replacing
        generation = self._blueprint.generation
        return ProcessHealth(self._phase, states, self._routes, replacing, writable, generation)

    def _recipes(self, blueprint: Blueprint) -> dict[str, Recipe]:
        # Who stores through another process publishes nothing, and needs no client.
        publishes = self._member.is_first or not blueprint.config.delivery.has_owner
        return recipes(blueprint) if publishes else {}

    def _make_inbox(self) -> Inbox:
        store = make_store(self._blueprint.config, self._member)
        return Inbox(store, Dispatcher(store, self.recorder, self._terms()))

    def _terms(self) -> Terms:
        config, brokers = self._blueprint.config, self._clients.brokers
        reaches = {
            name: reach(broker) for name, broker in config.brokers.items() if name in brokers
        }
        outlets = Outlets(brokers, dead_letter_of(config))
        return Terms(outlets, reaches, config.delivery.inbox.max_age)

    def _serve(self) -> None:
        self.ingress.serve(self._serving())
        if self._inbox is not None:
            self._inbox.apply(self._terms(), bounds(self._blueprint.config))

    def _serving(self) -> Serving:
        blueprint = self._blueprint
        server = blueprint.config.server
        edge = Edge(
            endpoints=blueprint.endpoints,
            limits=Limits(server.max_body, server.deadline, server.body_timeout),
            trusted_proxies=Networks(server.trusted_proxies),
        )
        outlets = Outlets(self._clients.brokers, dead_letter_of(blueprint.config))
        return Serving(edge, blueprint.table, blueprint.config.unmatched, outlets)

    def _state_changed(self, broker: str, state: State) -> None:
        # A broker that goes down because we leave it is no news.
        if not self._closing:
            self.recorder.broker_state(broker, state)
        if self._inbox is not None:
            self._inbox.broker_state(broker, state)

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._ledger.expire(loop.time(), _EXPIRED_PER_TICK)
            self.recorder.tick(self._clients.in_flight(), self._shared or self._ledger, loop.time())
            if (inbox := self._inbox) is not None:
                self.recorder.inbox_tick(inbox.usage, inbox.commits, inbox.oldest_age)
            await asyncio.sleep(_TICK)


def build(blueprint: Blueprint, member: Member = ALONE, claims: Claims | None = None) -> Gateway:
    """Make the gateway of one process, with metrics and logs of its own; see `Gateway`."""
    recorder = Recorder(Metrics(), blueprint.config.log.sample)
    return Gateway(blueprint, recorder, member, claims)


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


def _brokers_of_routes(blueprint: Blueprint) -> dict[str, tuple[str, ...]]:
    return {
        route.name: tuple(sorted({target.broker for target in route.targets}))
        for route in blueprint.table.routes
    }


def dead_letter_of(config: GatewayConfig) -> DeadLetter | None:
    """Give what takes the records that a target refuses, where the config names it."""
    letter = config.delivery.dead_letter
    if letter is None:
        return None
    kind = config.brokers[letter.broker].kind
    return DeadLetter(letter.broker, kind, letter.topic or letter.subject or "")


def recipes(blueprint: Blueprint) -> dict[str, Recipe]:
    """Say what each broker's client is made of."""
    needs = blueprint.needs()
    return {
        name: _recipe(name, broker, needs.get(name, ()))
        for name, broker in blueprint.config.brokers.items()
    }


def _recipe(name: str, config: BrokerConfig, needs: Sequence[Need]) -> Recipe:
    # What a client does not create it need not know: then other routes are no other client.
    creates = config.kind == "kafka" and config.topics.create
    return Recipe(
        settings=(config, tuple(needs) if creates else ()),
        place=(config.kind, config.servers),
        make=lambda on_state: make_broker(name, config, needs, on_state),
    )


def make_broker(
    name: str, config: BrokerConfig, needs: Sequence[Need], on_state: StateListener
) -> Broker:
    """Make the client of one broker; its kind is imported only where it is used."""
    if config.kind == "kafka":
        from gateway.brokers.kafka import KafkaBroker  # noqa: PLC0415 - as the docstring says

        return KafkaBroker(name, config, on_state, needs)
    from gateway.brokers.nats import NatsBroker  # noqa: PLC0415 - as the docstring says

    return NatsBroker(name, config, on_state)


def sent_headers(kind: Literal["kafka", "nats"], message: Message) -> Headers | None:
    """Give a record's headers as its broker gets them; None for a destination it can never have.

    The first call for a kind imports its client, which takes some tenths of a second.
    """
    if kind == "kafka":
        from gateway.brokers.kafka import topics  # noqa: PLC0415 - as in make_broker

        return message.headers if topics.is_publishable(message.destination) else None
    from gateway.brokers.nats import protocol  # noqa: PLC0415 - as in make_broker

    publishable = protocol.is_publishable(message.destination)
    return protocol.sent_headers(message) if publishable else None
