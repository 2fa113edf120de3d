"""The ingress in process: a real table and fan-out over brokers in memory, driven as ASGI."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import msgspec
from pydantic import SecretStr

from gateway.address import Networks
from gateway.brokers.fake import FakeBroker, Stored
from gateway.delivery.dead_letter import DeadLetter
from gateway.delivery.fanout import FanOut, Outlets
from gateway.delivery.ledger import Ledger
from gateway.delivery.memory import Retention
from gateway.event import Sender
from gateway.ingress import Ingress
from gateway.observability.metrics import Metrics
from gateway.observability.record import Recorder
from gateway.routing.expressions import Expression
from gateway.serving import Edge, Endpoint, Limits, Serving
from gateway.signature import Verifier
from tests.canaries import SECRET
from tests.core.builders import BODY, RequestHeaders, route, signed, table, target

if TYPE_CHECKING:
    from litestar.types import HTTPScope

PATH = "/webhooks/clerk"
LETTERS = "clerk.dead-letter"
# Never reached by what answers at once, however slow the machine.
AMPLE = 30.0

RETENTION = Retention(window=120.0, incomplete_for=3600.0, max_bytes=1024 * 1024)

Unmatched = Literal["accept", "dead_letter", "reject"]


class Answer(msgspec.Struct, frozen=True):
    """What came back; status 0 where nothing did."""

    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object of the body."""
        content: dict[str, Any] = json.loads(self.raw)
        return content

    @property
    def word(self) -> tuple[int, str]:
        """The HTTP status and the body's own."""
        return self.status, self.body["status"]

    @property
    def targets(self) -> list[tuple[str, str]]:
        """Each target's status and reason."""
        return [(found["status"], found.get("reason", "")) for found in self.body["targets"]]


class Service:
    """One ingress with its brokers `events` and `bus`, and what it was set up with."""

    def __init__(
        self,
        *routes: dict[str, Any],
        limits: Limits | None = None,
        unmatched: Unmatched = "accept",
        dead_letter: bool = False,
        allow_from: Sequence[str] = (),
        trusted_proxies: Sequence[str] = (),
        type_required: bool = True,
        abort_permanent: bool = False,
        retention: Retention | None = None,
    ) -> None:
        self.events, self.bus = FakeBroker("events"), FakeBroker("bus")
        self.recorder = Recorder(Metrics())
        self.table = table(*(routes or (route(target(), target("bus", "clerk.{type}")),)))
        endpoint = Endpoint(
            sender=Sender("clerk", "clerk/clerk", type_required, Expression("type")),
            verifier=Verifier((SecretStr(SECRET),), 300.0),
            allow_from=Networks(allow_from),
            abort_permanent=abort_permanent,
        )
        edge = Edge(
            endpoints={PATH: endpoint},
            limits=limits or Limits(max_body=4096, deadline=AMPLE, body_timeout=AMPLE),
            trusted_proxies=Networks(trusted_proxies),
        )
        letter = DeadLetter("events", "kafka", LETTERS) if dead_letter else None
        outlets = Outlets({"events": self.events, "bus": self.bus}, letter)
        self.serving = Serving(edge, self.table, unmatched, outlets)
        self.ledger = Ledger(retention or RETENTION, self.recorder.evicted)
        self.fan_out = FanOut(self.recorder, self.ledger)
        self.ingress = Ingress(self.serving, self.fan_out, self.recorder)
        self.requests = 0

    async def __aenter__(self) -> Service:
        await self.events.start()
        await self.bus.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.events.close(0)
        await self.bus.close(0)

    def forget(self) -> None:
        """Empty the ledger, as a restart does."""
        self.ledger.retain(Retention(0, 0, 0))
        self.ledger.retain(RETENTION)

    @property
    def timed(self) -> float:
        """How many answers were timed."""
        (collected,) = self.recorder.metrics.event_seconds.collect()
        return sum(one.value for one in collected.samples if one.name.endswith("_count"))

    @property
    def stored(self) -> list[Stored]:
        """All that reached a broker."""
        return [*self.events.stored(), *self.bus.stored()]

    def counted(self, metric: str) -> dict[tuple[str, ...], float]:
        """The samples of a counter by their labels, in the order of its declaration."""
        family = getattr(self.recorder.metrics, metric)
        (collected,) = family.collect()
        return {
            tuple(sample.labels[name] for name in family._labelnames): sample.value
            for sample in collected.samples
            if sample.name.endswith("_total")
        }

    async def post(
        self,
        body: bytes = BODY,
        headers: RequestHeaders | None = None,
        *,
        chunks: Sequence[bytes] | None = None,
        ends: Literal["whole", "disconnect", "silence"] = "whole",
        hosts: Sequence[bytes] = (b"gateway.example:8080",),
        **scope: Any,
    ) -> Answer:
        """Send a genuine request, or what the arguments make of it, and give its answer.

        `chunks` is the body in parts. After the last one nothing more is sent (`whole`), or the
        client leaves, or stays silent though the body is not complete. `hosts` are the values of
        `Host`, before `headers`. Fails the test unless exactly one outcome is counted.
        """
        if headers is None:
            headers = signed(body, timestamp=int(time.time()))
        headers = [*((b"host", host) for host in hosts), *headers]
        self.requests += 1
        answer = await drive(
            self.ingress, [body] if chunks is None else chunks, ends, headers, scope
        )
        assert sum(self.counted("events").values()) == self.requests
        return answer

    @property
    def outcome(self) -> tuple[str, ...]:
        """The one outcome that was counted."""
        (outcome,) = self.counted("events")
        return outcome


async def drive(
    app: Ingress,
    chunks: Sequence[bytes],
    ends: str,
    headers: RequestHeaders,
    scope: dict[str, Any],
) -> Answer:
    """Play the part of an ASGI server for one request."""
    incoming: list[dict[str, Any]] = [
        {
            "type": "http.request",
            "body": chunk,
            "more_body": ends != "whole" or at + 1 < len(chunks),
        }
        for at, chunk in enumerate(chunks)
    ]
    if ends == "disconnect":
        incoming.append({"type": "http.disconnect"})
    outgoing: list[Any] = []

    async def receive() -> Any:
        if not incoming:
            await asyncio.Event().wait()
        return incoming.pop(0)

    async def send(message: Any) -> None:
        outgoing.append(message)

    full = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": PATH,
        "query_string": b"",
        "client": ("192.0.2.1", 50000),
        "headers": headers,
        **scope,
    }
    await app(cast("HTTPScope", full), receive, send)
    if not outgoing:
        return Answer(0, {}, b"")
    start, end = outgoing
    assert (start["type"], end["type"]) == ("http.response.start", "http.response.body")
    assert not end["more_body"]
    shown = {name.decode(): value.decode() for name, value in start["headers"]}
    assert int(shown["content-length"]) == len(end["body"]) < 4000
    return Answer(start["status"], shown, end["body"])
