"""uvicorn's HTTP/1.1 protocol with what it lacks: a bound on everything that a sender can do.

A connection that opens and says nothing, drips its head or its body, or does not take its
answers is cut off in time; heads are bounded in bytes and headers, and the port in connections
and in bytes that arrive. What is no HTTP gets our JSON and is counted like any other request.
The time of a request's first byte is noted for the ingress, whose deadline counts from it.

A `Fault` in what is received ends the reading for good. Requests before it are answered first;
the broken one is answered by the ingress if its head was whole, and here if it was not.
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

from gateway.ingress import CONNECTION, Fault
from gateway.server.connections import Connections
from gateway.server.faults import HEAD_TOO_LARGE, HEAD_TOO_SLOW, MALFORMED, OVERLOADED, FaultError
from gateway.server.flow import Flow
from gateway.server.heads import Headers, refusal, size_of
from gateway.server.parsing import ParsingProtocol

__all__ = ["FaultListener", "bounded_protocol"]

FaultListener = Callable[[int, str, float], None]
"""Called with the status, the reason and the seconds since the first byte."""

_VERSIONS = frozenset({"1.0", "1.1"})

_RESOLUTION = 0.01
_LINGER = 2.0
_LAST_LINGER = 0.5
"""Seconds that an answer has to arrive while more is on its way in; and when the process ends."""


def bounded_protocol(
    connections: Connections, on_fault: FaultListener, fault_headers: Headers = ()
) -> type[HttpToolsProtocol]:
    """Make the protocol class that uvicorn is given, for one port.

    `on_fault` is told of what is answered here and not by the application; those answers have
    `fault_headers` beside their own.
    """

    class BoundProtocol(_BoundedProtocol):
        _connections = connections
        _on_fault = staticmethod(on_fault)
        _fault_headers = fault_headers

    return BoundProtocol


class _BoundedProtocol(ParsingProtocol):
    _connections: Connections
    _on_fault: FaultListener
    _fault_headers: Headers

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.first_byte = 0.0
        self.fault: Fault | None = None
        self._limits = self._connections.limits
        self.timeout_keep_alive = self._limits.idle_timeout  # type: ignore[assignment]  # a float will do
        self._head_size = 0
        """Bytes since the head began; more than the head's where the body came with it, and
        without those of its first piece where it began in the middle of that."""
        self._at_start = True
        """Nothing of the current piece has been parsed into a message yet."""
        self._in_head = False
        self._is_deaf = False
        """Nothing that still comes is of use: a fault was found, or the last answer is out."""
        self._linger = _LINGER
        self._arriving = 0
        self._barren = 0
        """Bytes in a row within a body that brought nothing of it: trailers, chunk extensions."""
        self._head_timer: asyncio.TimerHandle | None = None
        self._body_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    # --- the connection's life

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self.flow = Flow(transport, self.pipeline)
        # Whatever the sender does not take is timed, be it one byte: see `pause_writing`.
        transport.set_write_buffer_limits(high=0)
        self.first_byte = time.monotonic()
        if not self._connections.enter(self):
            self._turn_away(OVERLOADED)
            return
        self._head_timer = self.loop.call_later(self._limits.header_timeout, self._head_expired)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._disarm_write()
        self._connections.leave(self)
        self._settle()
        super().connection_lost(exc)
        # These point back here. What a sender made large must not wait for the garbage collector,
        # which counts objects and not bytes.
        self.forget_head()
        self.cycle = None  # type: ignore[assignment]  # as before the first request
        self.pipeline.clear()

    def give_up(self, reason: str) -> None:
        """See `Waiting`; an idle connection just closes, one that takes no answers too."""
        self._linger = _LAST_LINGER
        if self.flow.write_paused:
            self.transport.abort()
        elif not self._is_deaf and (self._in_head or self._is_answering()):
            self._end(Fault(503, reason))
        else:
            self.transport.close()

    def shutdown(self) -> None:
        """Take no further request; one whose head is not whole yet is not begun any more."""
        if self._in_head and not self._is_answering():
            self.give_up("closing")
        else:
            super().shutdown()

    def pause_writing(self) -> None:
        """The sender takes no answers: wait, but not for ever, and not at others' expense.

        When it is closing, too.
        """
        super().pause_writing()
        if self._write_timer is None:
            timeout, abort = self._limits.idle_timeout, self.transport.abort
            self._write_timer = self.loop.call_later(timeout, abort)
        self._connections.wait(self)

    def resume_writing(self) -> None:
        """The sender takes answers again."""
        super().resume_writing()
        self._disarm_write()
        if self._is_answering() and not self._is_body_due():
            self._connections.work(self)

    # --- bytes in

    def take(self, data: memoryview, now: float) -> None:
        if self._is_deaf:
            return
        if self._in_head:
            self._head_size += len(data)
        else:
            self.first_byte = now
            self._head_size = len(data)
            self._at_start = True
        arrived = self._arriving
        fault = self.parse(data)
        if fault is not None:
            self._end(fault)
            return
        # The ordinary request comes whole and pays nothing below.
        if self._in_head:
            self._bound_head()
            return
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and cycle.more_body:
            self._bound_body(cycle, len(data) if self._arriving == arrived else 0)

    def _bound_head(self) -> None:
        if self._head_size > self._limits.max_head or self._is_head_too_large():
            self._end(HEAD_TOO_LARGE)
        elif self._head_timer is None:
            until = self.first_byte + self._limits.header_timeout
            self._head_timer = self.loop.call_at(until, self._head_expired)

    def _bound_body(self, cycle: RequestResponseCycle, barren: int) -> None:
        self._barren = self._barren + barren if barren else 0
        if self._barren > self._limits.max_head:
            self._end(HEAD_TOO_LARGE)
        elif self._body_timer is None:
            self._time_body(cycle)

    def _time_body(self, cycle: RequestResponseCycle) -> None:
        # A timer may be early by its resolution, and must not wake the read too early.
        until = self.first_byte + self._limits.body_timeout + _RESOLUTION
        self._body_timer = self.loop.call_at(until, self._body_expired, cycle)

    # --- what the parser calls

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._unset_keepalive_if_required()
        self._in_head = True
        if not self._at_start:
            self._head_size = 0
        self.scope["extensions"] = {CONNECTION: self}  # type: ignore[dict-item]  # not ASGI's own

    def on_header(self, name: bytes, value: bytes) -> None:
        # What comes behind the head are trailers, which count for nothing: they came after what
        # they would speak of (RFC 9110, section 6.5.1).
        if not self._in_head:
            return
        if len(self.headers) >= self._limits.max_headers:
            raise FaultError(HEAD_TOO_LARGE)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        # The parser takes any version, and none; a fragment is for no server, and CONNECT for a
        # proxy (RFC 9112, 2.3, 3.2; RFC 9110, 9.3.6).
        is_http_1 = self.parser.get_http_version() in _VERSIONS
        if not is_http_1 or b"#" in self.url or self.parser.get_method() == b"CONNECT":
            raise FaultError(MALFORMED)
        if self.parser.should_upgrade():
            self._upgrade_ignored = True
            return
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        # The ordinary head need not be measured: it came at a piece's start, and is small.
        measured = self._at_start and self._head_size <= self._limits.max_head
        if not measured and self._is_head_too_large():
            raise FaultError(HEAD_TOO_LARGE)
        if len(self.pipeline) >= self._limits.max_pipelined:
            raise FaultError(OVERLOADED)
        self._at_start = False
        super().on_headers_complete()
        self._barren = 0

    def on_body(self, body: bytes) -> None:
        if self.cycle.response_complete:
            return
        self._arriving += len(body)
        if not self._connections.arrive(len(body)):
            raise FaultError(OVERLOADED)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._at_start = False
        if self._upgrade_ignored or self.cycle.response_complete:
            return
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None
        if not self.pipeline:
            # Bodies in the pipeline count until their turn comes.
            self._settle()
        if not self.flow.write_paused:
            self._connections.work(self)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the next request, wait for one, or answer for a fault that came behind."""
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self._in_head:
            self._unset_keepalive_if_required()
        if not self.pipeline and not self.cycle.more_body:
            self._settle()
        if self._is_answering():
            self._begin_turn()
            return
        self._connections.wait(self)
        # With a body that is not whole, the fault was in it, and this was its answer.
        if self.fault is not None and not self.cycle.more_body:
            self._end(self.fault)

    def _begin_turn(self) -> None:
        """Start the clock of a pipelined request: until now it was we who did not read."""
        self.first_byte = time.monotonic()
        if not self._is_body_due():
            return
        self._connections.wait(self)
        if self._body_timer is not None:
            self._body_timer.cancel()
        self._time_body(self.cycle)

    def _is_body_due(self) -> bool:
        """Tell whether the request whose turn it is waits for its body. The latest can only."""
        return not self.pipeline and self.cycle.more_body

    def _is_head_too_large(self) -> bool:
        """Measure what the parser has given of the head so far."""
        return size_of(self.url, self.headers) > self._limits.max_head

    def _settle(self) -> None:
        self._connections.settle(self._arriving)
        self._arriving = 0

    # --- time

    def _head_expired(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        if self._is_answering():
            # A pipelined head waits behind a request that is still being answered.
            self.first_byte = time.monotonic()
            self._head_timer = self.loop.call_later(self._limits.header_timeout, self._head_expired)
        elif self._in_head:
            self._end(HEAD_TOO_SLOW)
        else:
            self.transport.close()

    def _body_expired(self, cycle: RequestResponseCycle) -> None:
        """Wake the read of a late body: the ingress sees the time and answers 408."""
        self._body_timer = None
        cycle.message_event.set()

    # --- bytes out

    def answer(
        self, scope: Any, status: int, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> bool:
        """See `gateway.ingress.Connection`: what `cycle.send` does for two messages, in one."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.disconnected:
            return True
        # With pipelining `self.cycle` is the latest request, not the one that is answered.
        if cycle.scope is not scope or self.flow.write_paused or cycle.response_started:
            return False
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

    def _end(self, fault: Fault) -> None:
        """Read no more; answer for the fault once all that came before it is answered."""
        self.fault = fault
        self._is_deaf = True
        self.forget_head()
        self._settle()
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or (cycle.response_complete and not cycle.more_body):
            self._turn_away(fault)
        elif cycle.response_complete:
            self.transport.close()  # The rest of a body that was refused already.
        elif cycle.more_body:
            # The ingress waits for this body, or will: it sees the fault and answers.
            cycle.message_event.set()

    def _turn_away(self, fault: Fault) -> None:
        """Answer outside of ASGI and close."""
        self._disarm()
        self._in_head = False
        self._on_fault(fault.status, fault.reason, time.monotonic() - self.first_byte)
        self.transport.write(refusal(fault, self._fault_headers))
        self._close(unread=True)

    def _close(self, *, unread: bool) -> None:
        """Close; but with more on its way linger, or the reset would overtake the answer."""
        # Not where the port is full: who comes fast would use up the process's open files.
        self._is_deaf = True
        if unread and not self._connections.is_over and self.transport.can_write_eof():
            self.transport.write_eof()
            self.flow.resume_reading()
            self.loop.call_later(self._linger, self.transport.close)
        else:
            self.transport.close()

    def _is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _disarm(self) -> None:
        """Cancel the timers of what comes; that of what goes runs on."""
        for timer in (self._head_timer, self._body_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._body_timer = None

    def _disarm_write(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
