"""The HTTP edge: bytes in, status out, exactly one counted outcome per request.

A raw ASGI handler, because everything an event costs is spent here. The order is the first
promise: bounded raw bytes, then the signature over them, and only then a parser.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from gateway import GatewayError
from gateway.address import Networks, client_address
from gateway.answer import event_body, failure_body, rejection_body
from gateway.delivery.deliverer import Deliverer
from gateway.delivery.settlement import Delivery, Settlement
from gateway.event import Event, EventError, read_event
from gateway.observability.record import Outcome, OutcomeName, Recorder
from gateway.serving import Edge, Endpoint, Serving
from gateway.signature import Proof, SignatureError

if TYPE_CHECKING:
    from litestar.types import HTTPScope, Receive, Send

__all__ = [
    "ABORT",
    "CONNECTION",
    "RETRY_AFTER",
    "Connection",
    "Fault",
    "Ingress",
    "Rejection",
]

CONNECTION = "gateway.connection"
"""Key in the scope's `extensions`: the `Connection`, where our own server serves."""


class Fault(msgspec.Struct, frozen=True):
    """Why the rest of a request will not come: the status and the reason to answer with."""

    status: int
    reason: str


class Connection(Protocol):
    """What our own server can do beyond ASGI; other servers' requests go without."""

    @property
    def first_byte(self) -> float:
        """Event-loop time of the request's first byte; without it the call of the application."""
        ...

    @property
    def fault(self) -> Fault | None:
        """Set where what came last on the connection is broken, and nothing after it is read."""
        ...

    def answer(
        self, scope: HTTPScope, status: int, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> bool:
        """Write a whole answer at once, in half the time of two ASGI messages.

        False where the connection must be waited for: then nothing was written.
        """
        ...


RETRY_AFTER = ((b"retry-after", b"5"),)
"""On every 503: Svix and others wait so many seconds at least."""
ABORT = ((b"webhook-delivery", b"abort-message"),)
"""Svix's word to stop retrying, where the operator asked for it."""
_CLOSE = ((b"connection", b"close"),)
_JSON = (b"content-type", b"application/json")

_HOST = re.compile(rb"[A-Za-z0-9._~%!$&'()*+,;=:\[\]-]*").fullmatch
"""The letters of RFC 3986's host and port; empty is a host, too (RFC 9110, 7.2)."""


class Rejection(GatewayError):
    """A request that is answered without an event: status, and a bounded reason.

    Status 503 is a failure of ours, which the sender repeats; any other is its own.
    """

    def __init__(
        self, status: int, reason: str, *, unread: bool = False, verified_id: str = ""
    ) -> None:
        self.status = status
        self.reason = reason
        self.unread = unread
        """The body, or its rest, was not read: the connection ends with the answer."""
        self.verified_id = verified_id
        """The svix-id once it is proven; the sender may then be told to stop retrying."""
        super().__init__(reason.replace("_", " "))


class _Disconnected(GatewayError):
    """The client left before its request was whole; there is nobody to answer."""


class _Answer(msgspec.Struct, frozen=True, gc=False):
    """What is sent back, and what is recorded of it."""

    http_status: int
    body: bytes
    name: OutcomeName
    reason: str = ""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    svix_id: str = ""
    type: str | None = None
    settlements: tuple[Settlement, ...] = ()


class Ingress:
    """The ASGI application of the ingress port."""

    def __init__(self, serving: Serving, deliverer: Deliverer, recorder: Recorder) -> None:
        self._serving = serving
        self._deliverer = deliverer
        self._recorder = recorder

    def serve(self, serving: Serving) -> None:
        """Serve every request that begins from now on by another config."""
        self._serving = serving

    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Serve one request. Never raises for what a request holds."""
        connection = _connection(scope)
        started = time.monotonic() if connection is None else connection.first_byte
        serving = self._serving
        endpoint = _endpoint(serving.edge, scope)
        source = endpoint.sender.name if endpoint is not None else ""
        answer = await self._answer(serving, endpoint, scope, receive, started)
        now = time.monotonic()
        self._recorder.ended(
            Outcome(
                answer.name,
                answer.http_status,
                answer.reason,
                source,
                now - started,
                answer.svix_id,
                answer.type,
                answer.settlements,
            ),
            now,
        )
        if answer.http_status:
            await _send(scope, send, answer)

    async def _answer(
        self,
        serving: Serving,
        endpoint: Endpoint | None,
        scope: HTTPScope,
        receive: Receive,
        started: float,
    ) -> _Answer:
        try:
            return await self._serve(serving, endpoint, scope, receive, started)
        except Rejection as rejection:
            return _rejected(rejection, endpoint)
        except _Disconnected:
            return _Answer(0, b"", "rejected", "client_disconnected")
        except asyncio.CancelledError:
            self._recorder.ended(Outcome("failed", 0, "cancelled", "", 0.0), started)
            raise
        except Exception as error:  # noqa: BLE001 - a bug of ours: the sender retries, we are told
            self._recorder.failure("ingress", error)
            return _Answer(503, failure_body("internal"), "failed", "internal", RETRY_AFTER)

    async def _serve(
        self,
        serving: Serving,
        endpoint: Endpoint | None,
        scope: HTTPScope,
        receive: Receive,
        started: float,
    ) -> _Answer:
        if endpoint is None:
            raise Rejection(404, "unknown_path", unread=True)
        if scope["method"] != "POST":
            raise Rejection(405, "not_post", unread=True)
        _check_address(endpoint, scope, serving.edge.trusted_proxies)
        limits = serving.edge.limits
        _check_framing(scope, limits.max_body)
        until = started + min(limits.body_timeout, limits.deadline)
        # Our own server wakes a read that is late, so that a body which came with its head, as
        # nearly all do, costs no timer.
        read = _read_body if _connection(scope) is not None else _read_body_timed
        body = await read(scope, receive, limits.max_body, until)
        now = time.time()
        try:
            proof = endpoint.verifier.verify(scope["headers"], body, now)
        except SignatureError as error:
            raise Rejection(401, error.reason) from error
        deadline = started + limits.deadline
        return await self._accept(serving, endpoint, proof, body, now, deadline)

    async def _accept(
        self,
        serving: Serving,
        endpoint: Endpoint,
        proof: Proof,
        body: bytes,
        now: float,
        deadline: float,
    ) -> _Answer:
        """Route and deliver a proven body."""
        try:
            event = read_event(proof, body, endpoint.sender, now)
        except EventError as error:
            raise Rejection(400, error.reason, verified_id=proof.id) from error
        plan = serving.table.plan(event)
        if plan.is_unmatched:
            if serving.unmatched == "accept":
                return _event_answer(serving, event, 200, "unmatched")
            if serving.unmatched == "reject":
                return _event_answer(serving, event, 422, "unmatched", headers=_abort(endpoint))
            plan = plan.to_dead_letter()
        delivery = await self._deliverer.deliver(plan, serving.outlets, deadline)
        return _delivered(serving, event, delivery)


def _endpoint(edge: Edge, scope: HTTPScope) -> Endpoint | None:
    """Find the source of a path; an encoded slash is none (RFC 3986, 2.2), though decoded."""
    raw_path = scope.get("raw_path")
    if raw_path and b"%" in raw_path and b"%2f" in raw_path.lower():
        return None
    return edge.endpoints.get(scope["path"])


def _delivered(serving: Serving, event: Event, delivery: Delivery) -> _Answer:
    settlements = delivery.settlements
    if delivery.status != "failed":
        reason = next((s.reason for s in settlements if s.status == "dead_lettered"), "")
        return _event_answer(serving, event, 200, delivery.status, reason, settlements)
    reason = next(s.reason for s in settlements if s.status == "failed")
    return _event_answer(serving, event, 503, "failed", reason, settlements, headers=RETRY_AFTER)


def _event_answer(
    serving: Serving,
    event: Event,
    http_status: int,
    name: OutcomeName,
    reason: str = "",
    settlements: tuple[Settlement, ...] = (),
    *,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> _Answer:
    ids = (event.svix_id, event.type)
    body = event_body(name, ids, settlements, serving.table.kinds, reason)
    return _Answer(http_status, body, name, reason, headers, *ids, settlements)


def _check_address(endpoint: Endpoint, scope: HTTPScope, trusted_proxies: Networks) -> None:
    if not endpoint.allow_from:
        return
    client = scope["client"]
    peer = client[0] if client else None
    address = client_address(peer, scope["headers"], trusted_proxies)
    if address is None or address not in endpoint.allow_from:
        raise Rejection(401, "address_not_allowed", unread=True)


def _connection(scope: HTTPScope) -> Connection | None:
    extensions: Any = scope.get("extensions")
    return extensions.get(CONNECTION) if extensions else None


async def _read_body(scope: HTTPScope, receive: Receive, limit: int, until: float) -> bytes:
    """Read to the end, to the limit, or to the time.

    A late read, and one whose rest will not come, may be woken with nothing.
    """
    gathered = bytearray()
    more = True
    while more:
        message: Any = await receive()
        if message["type"] == "http.disconnect":
            raise _Disconnected
        chunk: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        if len(gathered) + len(chunk) > limit:
            raise Rejection(413, "body_too_large", unread=True)
        if more:
            _check_rest(scope, until)
        if not more and not gathered:
            return chunk
        gathered += chunk
    return bytes(gathered)


def _check_rest(scope: HTTPScope, until: float) -> None:
    """Refuse a body whose rest will not come, or comes too late."""
    connection = _connection(scope)
    if connection is not None and connection.fault is not None:
        raise Rejection(connection.fault.status, connection.fault.reason, unread=True)
    if time.monotonic() >= until:
        raise Rejection(408, "body_too_slow", unread=True)


async def _read_body_timed(scope: HTTPScope, receive: Receive, limit: int, until: float) -> bytes:
    """As `_read_body`, with a timer, for servers that do not wake a late read."""
    try:
        async with asyncio.timeout_at(until):
            return await _read_body(scope, receive, limit, until)
    except TimeoutError:
        raise Rejection(408, "body_too_slow", unread=True) from None


def _check_framing(scope: HTTPScope, limit: int) -> None:
    """Refuse by the head alone: a body that is too long, and what can be read in two ways.

    A proxy that reads `Host` or the body's end differently could find another request in these
    bytes: RFC 9112, sections 3.2, 6.1 and 6.3. Servers differ in what they let through.
    """
    hosts = codings = 0
    for name, value in scope["headers"]:
        if name == b"content-length":
            _check_length(value, limit)
        elif name == b"host":
            hosts += 1 if _HOST(value) else 2
        elif name == b"transfer-encoding":
            codings += 1 if value.lower() == b"chunked" else 2
    if not hosts and not codings and scope["http_version"] != "1.1":
        return
    if hosts != 1 or codings > 1 or (codings and scope["http_version"] != "1.1"):
        raise Rejection(400, "malformed_http", unread=True)


def _check_length(value: bytes, limit: int) -> None:
    """Refuse a body by its announced length, before any of it is read."""
    if not value.isdigit():
        raise Rejection(400, "malformed_length", unread=True)
    # Python reads no more than 4300 digits as a number.
    if len(value) > 100 or int(value) > limit:
        raise Rejection(413, "body_too_large", unread=True)


async def _send(scope: HTTPScope, send: Send, answer: _Answer) -> None:
    length = (b"content-length", b"%d" % len(answer.body))
    headers = [_JSON, length, *answer.headers]
    connection = _connection(scope)
    if connection is not None and connection.answer(
        scope, answer.http_status, headers, answer.body
    ):
        return
    await send({"type": "http.response.start", "status": answer.http_status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": False})


def _rejected(rejection: Rejection, endpoint: Endpoint | None) -> _Answer:
    headers: tuple[tuple[bytes, bytes], ...] = _CLOSE if rejection.unread else ()
    if rejection.status == 405:
        headers += ((b"allow", b"POST"),)
    elif rejection.verified_id and endpoint is not None:
        headers += _abort(endpoint)
    if rejection.status == 503:
        body = failure_body(rejection.reason)
        return _Answer(503, body, "failed", rejection.reason, headers + RETRY_AFTER)
    svix_id = rejection.verified_id
    body = rejection_body(rejection.reason, svix_id)
    return _Answer(rejection.status, body, "rejected", rejection.reason, headers, svix_id)


def _abort(endpoint: Endpoint) -> tuple[tuple[bytes, bytes], ...]:
    return ABORT if endpoint.abort_permanent else ()
