"""The ASGI application that stands before the admin port's routes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.observability.admin import AdminRecorder
from gateway.server.admin.admission import Admission, Denial, Head
from gateway.server.admin.throttle import client_of

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Receive, Send

__all__ = ["SAFE_HEADERS", "Guard"]

SAFE_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)
"""On every answer of the port, those to what is no HTTP as well."""


class Guard:
    """Asks `Admission` about every request, and gives every answer the safe headers.

    It is no middleware of Litestar's, because those run only for a path and method that exist.
    """

    def __init__(self, app: ASGIApp, admission: Admission, recorder: AdminRecorder) -> None:
        self._app = app
        self._admission = admission
        self._recorder = recorder

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""

        async def send_safely(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *SAFE_HEADERS]}
            await send(message)

        client = scope.get("client")
        peer = client[0] if client else None
        head = Head(scope["method"], scope["path"], scope["headers"], peer)
        now = time.monotonic()
        denial = self._admission.check(head, now)
        if denial is not None:
            self._recorder.refused(denial.reason, client_of(peer), now)
            await _answer(denial, send_safely)
            return
        if head.method == "HEAD":
            # Answered like GET; the server leaves out the body.
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send_safely)


async def _answer(denial: Denial, send: Any) -> None:
    body = msgspec.json.encode({"error": denial.message})
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        *denial.headers,
    ]
    await send({"type": "http.response.start", "status": denial.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
