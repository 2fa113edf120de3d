"""uvicorn's HTTP/1.1 protocol with what it lacks: a bound on the time and size of a request head.

A connection that opens and says nothing, or drips its head, is cut off after `header_timeout`.
Requests that are no HTTP get our JSON and are counted like any other. The time of a request's
first byte is noted for the ingress, whose deadline counts from it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from gateway import GatewayError
from gateway.answer import rejection_body
from gateway.ingress import CONNECTION

__all__ = ["RejectionListener", "bounded_protocol"]

RejectionListener = Callable[[int, str, float], None]
"""Called with the status, the reason and the seconds since the first byte."""

MAX_HEAD = 32 * 1024
"""Bytes of request line and headers together; Svix sends under 1 KiB."""

_RESOLUTION = 0.01
_LINGER = 1.0


def bounded_protocol(
    header_timeout: float, body_timeout: float, on_rejection: RejectionListener
) -> type[HttpToolsProtocol]:
    """Make the protocol class that uvicorn is given; timeouts in seconds."""

    class BoundProtocol(_BoundedProtocol):
        _header_timeout = header_timeout
        _body_timeout = body_timeout
        _on_rejection = staticmethod(on_rejection)

    return BoundProtocol


class HeadTooLargeError(GatewayError):
    """Ends the parsing of a request whose head is over the limit, in bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(f"the request's head is over {limit} bytes")


class _BoundedProtocol(HttpToolsProtocol):
    _header_timeout: float
    _body_timeout: float
    _on_rejection: RejectionListener

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.first_byte = 0.0
        self._extensions: dict[Any, Any] = {CONNECTION: self}
        self._head_size = 0
        """Bytes since the head began; more than the head's where the body came with it."""
        self._in_head = False
        self._head_too_large = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._body_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self.first_byte = time.monotonic()
        self._head_timer = self.loop.call_later(self._header_timeout, self._head_expired)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        if self._body_timer is not None:
            self._body_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._in_head:
            # The event loop's own clock, unrounded: uvloop's `time()` counts milliseconds.
            self.first_byte = time.monotonic()
            self._head_size = 0
        self._head_size += len(data)
        super().data_received(data)
        # The ordinary request comes whole and pays nothing below.
        if self._in_head:
            self._bound_head()
            return
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and cycle.more_body and self._body_timer is None:
            # A timer may be early by its resolution, and must not wake the read too early.
            until = self.first_byte + self._body_timeout + _RESOLUTION
            self._body_timer = self.loop.call_at(until, self._body_expired, cycle)

    def _bound_head(self) -> None:
        if self._head_size > MAX_HEAD:
            self._turn_away(431, "head_too_large")
        elif self._head_timer is None:
            self._head_timer = self.loop.call_at(
                self.first_byte + self._header_timeout, self._head_expired
            )

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self.scope["extensions"] = self._extensions

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._disarm()
        if self._head_size > MAX_HEAD and self._measured_head() > MAX_HEAD:
            self._head_too_large = True
            raise HeadTooLargeError(MAX_HEAD)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words are not ours
        if self._head_too_large:
            self._turn_away(431, "head_too_large")
        else:
            self._turn_away(400, "malformed_http")

    def _measured_head(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def _head_expired(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        if self._is_answering():
            # A pipelined head waits behind a request that is still being answered.
            self.first_byte = time.monotonic()
            self._head_timer = self.loop.call_later(self._header_timeout, self._head_expired)
        elif self._in_head:
            self._turn_away(408, "head_too_slow")
        else:
            self.transport.close()

    def _body_expired(self, cycle: RequestResponseCycle) -> None:
        """Wake the read of a late body: the ingress sees the time and answers 408."""
        self._body_timer = None
        cycle.message_event.set()

    def answer(
        self, scope: Any, status: int, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> bool:
        """See `gateway.ingress.Connection`: what `cycle.send` does for two messages, in one."""
        cycle: RequestResponseCycle = self.cycle
        # With pipelining `self.cycle` is the latest request, not the one that is answered.
        if cycle.scope is not scope or self.flow.write_paused or cycle.response_started:
            return False
        if cycle.disconnected:
            return True
        if (b"connection", b"close") in headers:
            cycle.keep_alive = False
        elif not cycle.keep_alive:
            headers.append((b"connection", b"close"))
        cycle.response_started = cycle.response_complete = True
        parts = [STATUS_LINE[status]]
        for name, value in (*cycle.default_headers, *headers):
            parts += (name, b": ", value, b"\r\n")
        parts += (b"\r\n", b"" if cycle.scope["method"] == "HEAD" else body)
        self.transport.write(b"".join(parts))
        cycle.message_event.set()
        if not cycle.keep_alive:
            self._close(unread=cycle.more_body)
        cycle.on_response()
        return True

    def _close(self, *, unread: bool) -> None:
        """Close; but with more on its way linger, or the reset would overtake the answer."""
        if unread and self.transport.can_write_eof():
            self.transport.write_eof()
            self.flow.resume_reading()
            self.loop.call_later(_LINGER, self.transport.close)
        else:
            self.transport.close()

    def _turn_away(self, status: int, reason: str) -> None:
        """Answer outside of ASGI and close.

        Where a request is with the ingress, only close: it sees the disconnect and counts it.
        """
        self._disarm()
        self._in_head = False
        if not self._is_answering():
            self._on_rejection(status, reason, time.monotonic() - self.first_byte)
            body = rejection_body(reason)
            head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n"
            self.transport.write(STATUS_LINE[status] + head % len(body) + b"\r\n" + body)
        self.transport.close()

    def _is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _disarm(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
