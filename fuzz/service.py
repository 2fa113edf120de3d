"""The real edge, wired in one process: protocol, ingress, table, fan-out, recorder.

Only its ends are not real: the connection is a `Wire`, the brokers are the shipped fake. What
it counts, logs and publishes is watched here and judged elsewhere.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Literal, cast

import msgspec
import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from fuzz.wire import Wire
from gateway.address import Networks
from gateway.app import Blueprint, draw
from gateway.brokers.base import Message, Receipt, State
from gateway.brokers.fake import FakeBroker
from gateway.config.load import load_config_text
from gateway.delivery.dead_letter import DeadLetter
from gateway.delivery.fanout import FanOut, Outlets
from gateway.delivery.ledger import Ledger
from gateway.delivery.memory import Retention
from gateway.ingress import Ingress
from gateway.observability import logs
from gateway.observability.metrics import Metrics
from gateway.observability.record import Outcome, Recorder
from gateway.routing.compile import find_faults
from gateway.server.connections import Connections, WireLimits
from gateway.server.process import wire_limits
from gateway.server.protocol import bounded_protocol
from gateway.serving import Edge, Limits, Serving
from virtual.loop import Loop

__all__ = [
    "LETTERS",
    "MAX_BODY",
    "MAX_HEAD",
    "PATH",
    "Head",
    "Letter",
    "Mood",
    "Policy",
    "Service",
    "Setup",
    "Sink",
    "logging_to",
]

PATH = "/webhooks/clerk"
LETTERS = "dead-letter"
_RETENTION = Retention(window=120.0, incomplete_for=3600.0, max_bytes=1024 * 1024)
_FORGETFUL = Retention(window=0.0, incomplete_for=0.0, max_bytes=0)
MAX_BODY = 4096
MAX_HEAD = 32 * 1024
LONG = 120.0
"""Seconds after which nothing of a request may be left; the longest timer is keep-alive's 75."""

Policy = Literal["accept", "dead_letter", "reject"]
Letter = Literal["kafka", "nats", "none"]
Mood = Literal["well", "down", "refuses", "fails", "silent"]

CONFIG = """
server: {max_body: 4KiB, max_head: 32KiB, idle_timeout: 75s, body_timeout: 8s}
sources:
  clerk: {secrets: ["${OLD}", "${NEW}"]}
brokers:
  events: {kind: kafka, servers: ["localhost:9092"]}
  bus: {kind: nats, servers: ["nats://localhost:4222"]}
delivery:
  dead_letter: {broker: events, topic: dead-letter, unredacted: true}
routes:
  - name: users
    events: ["user.*"]
    targets:
      - {broker: events, topic: users}
      - {broker: bus, subject: "types.{type}"}
  - name: enterprise
    events: ["organization.*", "organizationMembership.*"]
    when: "data.public_metadata.tier == 'enterprise'"
    targets:
      - broker: events
        topic: orgs
        key: "{data.organization.id || data.id}"
        payload: data
        redact: [data.private_metadata, data.members.email]
  - name: tenants
    events: ["*"]
    exclude: ["session.*"]
    when: "length(data.public_metadata.tenant || '') > `0`"
    targets:
      - broker: events
        topic: "tenants.{data.public_metadata.tenant}"
        key: "{source}/{data.public_metadata.tenant}"
        headers: {x-tenant: "{data.public_metadata.tenant}", x-route: "{route} {svix_id}"}
      - broker: bus
        subject: "tenants.{data.public_metadata.tenant}.{type}"
        payload: cloudevents
        redact: [data.private_metadata, data.members.email]
  - name: ranked
    events: ["email.created", "waitlistEntry.*"]
    when: "sort_by(data.members, &rank)[-1].rank > `1`"
    targets:
      - broker: bus
        subject: "ranks.{sort_by(data.members, &rank)[-1].rank}"
        headers: {x-names: "{data.members[?rank > `1`].email}"}
"""


class Setup(msgspec.Struct, frozen=True):
    """How the gateway is set up for one input."""

    policy: Policy = "accept"
    letter: Letter = "kafka"
    events: Mood = "well"
    bus: Mood = "well"


class Head(msgspec.Struct, frozen=True):
    """A request line and headers that the server let pass."""

    method: str
    size: int
    """Bytes of the URL, and of names and values."""


class Broker(FakeBroker):
    """The fake, noting what is published to it, whether or not it takes it."""

    def __init__(self, name: str, mood: Mood) -> None:
        super().__init__(name)
        self.mood = mood
        self.published: list[Message] = []
        if mood == "down":
            self.go_down(State.DOWN)
        elif mood == "refuses":
            self.refuse("not_authorized")
        elif mood == "fails":
            self.fail("no_leader", at_deadline=True)
        elif mood == "silent":
            self.lose_acks()

    def publish(self, message: Message, deadline: float) -> asyncio.Future[Receipt]:
        """See `Broker.publish`."""
        self.published.append(message)
        return super().publish(message, deadline)


class WatchedRecorder(Recorder):
    """The recorder, and what it was told since `forget`."""

    def __init__(self) -> None:
        super().__init__(Metrics())
        self.outcomes: list[Outcome] = []
        self.turned_away_count = 0
        self.bugs: list[str] = []
        self.total = 0

    def forget(self) -> None:
        """Begin with the next input."""
        self.outcomes, self.turned_away_count, self.bugs = [], 0, []

    def ended(self, outcome: Outcome, now: float) -> None:
        """See `Recorder.ended`."""
        self.outcomes.append(outcome)
        self.total += 1
        super().ended(outcome, now)

    def turned_away(self, http_status: int, reason: str, seconds: float, now: float) -> None:
        """See `Recorder.turned_away`."""
        self.turned_away_count += 1
        super().turned_away(http_status, reason, seconds, now)

    def failure(self, where: str, error: BaseException) -> None:
        """See `Recorder.failure`."""
        self.bugs.append(f"{where}: {error!r}")
        super().failure(where, error)

    def counted(self) -> float:
        """Add up the counter of requests, as Prometheus would see it."""
        (family,) = self.metrics.events.collect()
        return sum(one.value for one in family.samples if one.name.endswith("_total"))


class Sink:
    """Where the log goes: kept for one input."""

    def __init__(self) -> None:
        self.text = bytearray()

    def write(self, data: bytes) -> None:
        """Take lines."""
        self.text += data

    def flush(self) -> None:
        """Nothing is held back."""


class Service:
    """The gateway, for one input after the other."""

    def __init__(self, loop: Loop, sink: Sink) -> None:
        """Take a loop that nothing else runs on, and where `logging_to` has sent the log."""
        self.loop = loop
        self.log = sink
        self.secrets = tuple(secrets.token_bytes(24) for _ in range(2))
        self.secret_texts = tuple(base64.b64encode(key) for key in self.secrets)
        self.recorder = WatchedRecorder()
        self._blueprint = _blueprint([text.decode() for text in self.secret_texts])
        self._brokers: dict[str, Broker] = {}
        self._ledger = Ledger(_RETENTION, self.recorder.evicted)
        self._ingresses = {
            (policy, letter): self._ingress(policy, letter)
            for policy in ("accept", "dead_letter", "reject")
            for letter in ("kafka", "nats", "none")
        }
        self._app = self._ingresses["accept", "kafka"]
        self.heads: list[Head] = []
        """Of every request whose head the server let pass."""
        self.begun = 0
        """How many of them the ingress was given."""
        self._state = ServerState()
        server = self._blueprint.config.server
        self._config = uvicorn.Config(
            self._serve,
            interface="asgi3",
            loop="none",
            http=_protocol_class(wire_limits(server), self.recorder, self.heads),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
        )
        self._config.load()

    def connect(self, setup: Setup, *, slow: bool = False) -> Wire:
        """Forget the last input and open a connection; `slow` as in `Wire`."""
        self.recorder.forget()
        self.heads.clear()
        self.begun = 0
        self.log.text.clear()
        self._ledger.retain(_FORGETFUL)
        self._ledger.retain(_RETENTION)
        for name, mood in (("events", setup.events), ("bus", setup.bus)):
            self._renew(name, mood)
        self._app = self._ingresses[setup.policy, setup.letter]
        wire = Wire(self.loop, slow=slow)
        make: Any = self._config.http_protocol_class
        wire.connect(make(config=self._config, server_state=self._state, app_state={}))
        return wire

    @property
    def published(self) -> list[tuple[str, Message]]:
        """All that was published, or tried, by broker."""
        return [(name, one) for name, broker in self._brokers.items() for one in broker.published]

    @property
    def stored(self) -> list[tuple[str, Message]]:
        """All that reached a broker, with its name."""
        return [
            (name, one.message) for name, broker in self._brokers.items() for one in broker.stored()
        ]

    def leftovers(self) -> list[str]:
        """Say what is still there once everybody has gone and every timer has run out."""
        self.loop.pass_time(LONG)
        found = []
        if self._state.connections or self._state.tasks:
            found.append(f"{len(self._state.connections)} connections, {self._state.tasks} tasks")
            self._state = ServerState()
        if not self.loop.is_quiet:
            found.append("a timer that never ends")
        found += [
            f"in flight at {name}: {broker.in_flight}"
            for name, broker in self._brokers.items()
            if broker.in_flight != (0, 0)
        ]
        return found

    def _renew(self, name: str, mood: Mood) -> None:
        """Have a broker that holds nothing; one that was told nothing is as good as new."""
        broker = self._brokers.get(name)
        if broker is None or broker.published or broker.mood != mood:
            self._brokers[name] = Broker(name, mood)
            self.loop.run_until_complete(self._brokers[name].start())

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        self.begun += 1
        await self._app(scope, receive, send)

    def _ingress(self, policy: Policy, letter: Letter) -> Ingress:
        server = self._blueprint.config.server
        edge = Edge(
            endpoints=self._blueprint.endpoints,
            limits=Limits(server.max_body, server.deadline, server.body_timeout),
            trusted_proxies=Networks(()),
        )
        broker: Literal["events", "bus"] = "events" if letter == "kafka" else "bus"
        letters = DeadLetter(broker, letter, LETTERS) if letter != "none" else None
        serving = Serving(edge, self._blueprint.table, policy, Outlets(self._brokers, letters))
        return Ingress(serving, FanOut(self.recorder, self._ledger), self.recorder)


def _blueprint(keys: list[str]) -> Blueprint:
    env = {"OLD": f"whsec_{keys[0]}", "NEW": f"whsec_{keys[1]}"}
    return draw(load_config_text(CONFIG, "fuzz", env, checks=(find_faults,)))


def _protocol_class(
    limits: WireLimits, recorder: Recorder, heads: list[Head]
) -> type[HttpToolsProtocol]:
    """Make the server's own protocol class, noting every head that it lets pass."""

    def turned_away(status: int, reason: str, seconds: float) -> None:
        recorder.turned_away(status, reason, seconds, asyncio.get_running_loop().time())

    bounded: Any = bounded_protocol(Connections(limits), turned_away)

    class Watched(bounded):  # type: ignore[misc]  # a class that is made at run time
        def on_headers_complete(self) -> None:
            before = self.cycle
            super().on_headers_complete()
            if self.cycle is before:
                return  # a wish for another protocol is ignored: the head is read once more
            headers = self.scope["headers"]
            size = len(self.url) + sum(len(name) + len(value) for name, value in headers)
            heads.append(Head(self.scope["method"], size))

    return cast("type[HttpToolsProtocol]", Watched)


@contextmanager
def logging_to(sink: Sink) -> Iterator[None]:
    """Send the process's log there, and afterwards back to where it went."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    before, structured = logs._configured, structlog.get_config()  # noqa: SLF001 - to put it back
    logs.configure("info", "json", cast("BinaryIO", sink))
    try:
        yield
    finally:
        logs._configured = before  # noqa: SLF001 - as above
        structlog.configure(**structured)
        root.handlers[:] = handlers
        root.setLevel(level)
