"""One connection to one NATS server, for as long as it lasts; never reconnects.

nats-py is not used to publish, because its client cannot keep what this package promises: its
`flush` sends PING ahead of publishes that still wait in its own buffer, so a PONG proves nothing
about them; a flush that times out ends its read loop (nats-io/nats.py#914); publishes made while
it reconnects are sent later, after their outcome was reported; header bytes are not counted
against `max_payload`; closing waits for a peer that no longer reads. What is left is small: the
protocol is text, and a publish here costs a fifth of the CPU (`bench/nats_publish.py`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from gateway import __version__
from gateway.brokers.nats.errors import (
    CONNECT_ERRORS,
    ConnectionLost,
    ServerError,
    most_telling,
    server_problem,
)
from gateway.brokers.nats.options import CLIENT_NAME, ClientOptions, Server
from gateway.brokers.nats.protocol import (
    CRLF,
    PING,
    PONG,
    ServerInfo,
    decode_info,
    denied_publish,
    denied_subscribe,
    encode_publish,
)

CONNECT_WITHIN = 3.0
"""Seconds for one server: TCP, TLS and login."""

_TICK = 0.5
_PING_AFTER = 1
_SILENT_AFTER = 6
"""Ticks without a byte from the server. Counted, not timed: a busy event loop is not a silence."""
_MAX_LINE = 1024 * 1024
"""INFO of a large cluster is the longest line."""

Handler = Callable[[bytes, bytes, bytes, bytes], None]
"""Takes subject, reply subject, header block and value of a message."""


class Listener(Protocol):
    """What a connection tells its owner."""

    def connection_ended(self, problem: str) -> None:
        """Nothing more will come or go. Told once, unless the owner ended it."""
        ...

    def connection_silent(self, problem: str) -> None:
        """The server has answered nothing for seconds; it may yet."""
        ...

    def publish_denied(self, subject: str) -> None:
        """The server refused a publish to `subject`."""
        ...


class Connection(asyncio.Protocol):
    """The wire: writes what it is told in order, and hands on what comes."""

    def __init__(self, options: ClientOptions, server: Server) -> None:
        self.server = server
        self.info = ServerInfo()
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._listener: Listener | None = None
        self._handlers: dict[int, Handler] = {}
        self._next_sid = 1
        self._rest = b""
        self._out: list[bytes] = []
        self._pongs: deque[Callable[[], None]] = deque()
        self._greeting: asyncio.Future[None] = self._loop.create_future()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._ticker: asyncio.TimerHandle | None = None
        self._quiet = 0
        self._paused = False
        self._problem = "the server closed it"
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether the connection is of no more use."""
        return self._ended

    @property
    def max_payload(self) -> int:
        """The most bytes of header block and value that the server takes."""
        return self.info.max_payload

    def listen(self, listener: Listener) -> None:
        """Tell `listener` from now on, and watch whether the server answers."""
        self._listener = listener
        self._ticker = self._loop.call_later(_TICK, self._tick)

    def publish(self, subject: str, reply: str, head: bytes, value: bytes) -> None:
        """Write a publish; `head` is a header block or empty."""
        self._write(encode_publish(subject, reply, head, value))

    def subscribe(self, subject: str, handler: Handler) -> int:
        """Hand what comes on `subject` to `handler`. Returns the subscription's number."""
        sid = self._next_sid
        self._next_sid += 1
        self._handlers[sid] = handler
        self._write(f"SUB {subject} {sid}\r\n".encode())
        return sid

    def unsubscribe(self, sid: int) -> None:
        """End a subscription; messages under way are dropped."""
        self._handlers.pop(sid, None)
        self._write(f"UNSUB {sid}\r\n".encode())

    def ping(self, answered: Callable[[], None]) -> None:
        """Call `answered` once the server has handled everything written before this."""
        self._pongs.append(answered)
        self._write(PING)

    def pause_reading(self) -> None:
        """Take nothing more from the socket for now."""
        if self._transport is not None and not self._ended:
            self._paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""
        if self._transport is not None and not self._ended:
            self._paused = False
            self._transport.resume_reading()

    def abort(self) -> None:
        """End now, without telling the listener. What is not sent yet is dropped."""
        self._listener = None
        self._end()
        if self._transport is not None:
            self._transport.abort()

    async def open(self) -> None:
        """Connect and log in. Raises what `errors.CONNECT_ERRORS` lists."""
        server = self.server
        await self._loop.create_connection(lambda: self, server.host, server.port)
        await self._greeting
        if self._options.tls is not None or server.tls or self.info.tls_required:
            await self._start_tls()
        self._write(self._connect_line())
        self.ping(self._logged_in)
        await self._ready

    async def _start_tls(self) -> None:
        if not (self.info.tls_required or self.info.tls_available):
            setting = f"brokers.{self._options.broker}.tls"
            raise ConnectionLost(f"it offers no TLS; enable it there, or remove {setting}")
        if self._transport is None:
            raise ConnectionLost(self._problem)
        # A server may demand TLS that the config does not name: the system's authorities count.
        context = self._options.tls or ssl.create_default_context()
        host = self.server.tls_host or self.server.host
        secure = await self._loop.start_tls(self._transport, self, context, server_hostname=host)
        if secure is None:
            raise ConnectionLost(self._problem)
        self._transport = secure

    def _connect_line(self) -> bytes:
        fields = {
            "verbose": False,
            "pedantic": False,
            "lang": "python",
            "name": CLIENT_NAME,
            "version": __version__,
            "protocol": 1,
            "headers": True,
            "no_responders": True,
        }
        login = self._options.login(self.server, self.info.nonce)
        return f"CONNECT {json.dumps(fields | login)}\r\n".encode()

    def _logged_in(self) -> None:
        # CONNECT has no answer of its own: a PONG says that it was taken, an -ERR that it was not.
        if not self.info.headers:
            self._fail_opening(ConnectionLost("the server is too old: it knows no headers"))
        elif not self._ready.done():
            self._ready.set_result(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        if isinstance(transport, asyncio.Transport):
            self._transport = transport
        else:  # uvloop's transports are not subclasses of asyncio's
            self._transport = transport  # type: ignore[assignment]  # same methods

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the event loop."""
        self._fail_opening(error or ConnectionLost(self._problem))
        # Ended first: what the listener does in answer must not write any more.
        listener = self._listener
        self._listener = None
        self._end()
        if listener is not None:
            listener.connection_ended(self._problem)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        # Any byte is a sign of life, so a busy connection is never asked.
        self._quiet = 0
        if self._rest:
            data = self._rest + data
        try:
            self._rest = data[self._take(data) :]
        except (ValueError, IndexError, msgspec.MsgspecError):
            self._problem = "it sent what is not the NATS protocol"
            if self._transport is not None:
                self._transport.abort()

    def _take(self, data: bytes) -> int:
        """Handle every whole operation in `data`; returns where the incomplete one begins."""
        at = 0
        while not self._ended:
            end = data.find(CRLF, at)
            if end < 0:
                if len(data) - at > _MAX_LINE:
                    raise ValueError
                break
            line = data[at:end]
            if line.startswith((b"MSG ", b"HMSG ")):
                after = self._take_message(line, data, end + 2)
                if after < 0:
                    break
                at = after
            else:
                self._take_line(line)
                at = end + 2
        return at

    def _take_message(self, line: bytes, data: bytes, start: int) -> int:
        """Handle one message whose payload begins at `start`; returns its end, or -1."""
        fields = line.split()
        stop = start + int(fields[-1])
        if len(data) < stop + 2:
            return -1
        # MSG subject sid [reply] bytes; HMSG has the header block's size before the whole size.
        headed = line.startswith(b"H")
        split = start + int(fields[-2]) if headed else start
        reply = fields[3] if len(fields) == 5 + headed else b""
        handler = self._handlers.get(int(fields[2]))
        if handler is not None:
            handler(fields[1], reply, data[start:split], data[split:stop])
        return stop + 2

    def _take_line(self, line: bytes) -> None:
        if line.startswith(b"PONG"):
            if self._pongs:
                self._pongs.popleft()()
        elif line.startswith(b"PING"):
            self._write(PONG)
        elif line.startswith(b"-ERR"):
            self._take_error(line[4:].strip().strip(b"'").decode("utf-8", "replace"))
        elif line.startswith(b"INFO "):
            self.info = decode_info(line[5:])
            if not self._greeting.done():
                self._greeting.set_result(None)
        elif not line.startswith(b"+OK"):
            raise ValueError

    def _take_error(self, text: str) -> None:
        subject = denied_publish(text)
        if subject is not None:
            if self._listener is not None:
                self._listener.publish_denied(subject)
            return
        self._problem = server_problem(self._options.broker, self._options.login_setting, text)
        if not self._ready.done():
            self._fail_opening(ServerError(text))
        elif denied_subscribe(text) is not None and self._transport is not None:
            # Without its inbox this connection would wait for answers that cannot come.
            self._transport.abort()

    def _fail_opening(self, error: Exception) -> None:
        for future in (self._greeting, self._ready):
            if not future.done():
                future.set_exception(error)
                future.exception()  # the other one is awaited

    def _end(self) -> None:
        self._ended = True
        self._handlers.clear()
        self._pongs.clear()
        self._out.clear()
        if self._ticker is not None:
            self._ticker.cancel()

    def _write(self, data: bytes) -> None:
        # One system call for all that is written in one turn of the event loop.
        if not self._out:
            self._loop.call_soon(self._send)
        self._out.append(data)

    def _send(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and out and not self._ended:
            self._transport.write(b"".join(out))

    def _tick(self) -> None:
        self._ticker = self._loop.call_later(_TICK, self._tick)
        self._quiet = 0 if self._paused else self._quiet + 1
        if self._quiet == _PING_AFTER + 1:
            self.ping(_ignore)
        elif self._quiet == _SILENT_AFTER and self._listener is not None:
            self._listener.connection_silent("the server does not answer")


def _ignore() -> None:
    """A PONG that nobody waits for: the bytes themselves are the sign of life."""


async def connect(options: ClientOptions, server: Server) -> Connection:
    """Connect to `server` within `CONNECT_WITHIN` seconds.

    Raises what `errors.CONNECT_ERRORS` lists.
    """
    connection = Connection(options, server)
    try:
        async with asyncio.timeout(CONNECT_WITHIN):
            await connection.open()
    except BaseException:
        connection.abort()
        raise
    return connection


async def connect_any(options: ClientOptions, servers: Sequence[Server]) -> Connection:
    """Connect to the first of `servers` that takes us, tried one after another.

    Raises the most telling of what `errors.CONNECT_ERRORS` lists.
    """
    errors: list[BaseException] = []
    for server in servers:
        try:
            return await connect(options, server)
        except CONNECT_ERRORS as error:
            errors.append(error)
    raise most_telling(errors)


def discovered(connection: Connection) -> list[Server]:
    """The addresses that a server told of its cluster, with the certificate name to expect."""
    found = []
    seed = connection.server
    for address in connection.info.connect_urls:
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        if not host or not port.isdigit():
            continue
        tls_host = seed.tls_host if _is_address(host) else host
        found.append(msgspec.structs.replace(seed, host=host, port=int(port), tls_host=tls_host))
    return found


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
