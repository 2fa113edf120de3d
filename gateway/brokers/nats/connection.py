"""One connection to one NATS server by nats-py, for as long as it lasts; never reconnects.

What nats-py 2.16 does by itself that this package cannot have, and what is done here about it:

- It reconnects, and then sends what was published meanwhile, after its outcome was told; or it
  closes for good, and says so only sometimes. Here one client is one connection
  (`allow_reconnect=False`), its end is told once, and `broker` makes a new one.
- While connecting it tries a dead address again and again: an error callback that raises ends
  that, with the true error. It calls a server that hangs up instead of logging us in connected,
  and goes on in plain text where TLS is wanted and not offered: both are checked, TLS before a
  password or a token is sent.
- A publish waits once 2 MiB are pending: `pending_size=0` takes that away, so that publishing has
  no suspension, and keeps the order of the calls. The caps of `in_flight` are the bound.
- `flush` sends PING ahead of publishes that are still pending, succeeds without a PONG when the
  read loop has ended, and a PONG after its timeout ends the read loop (nats-io/nats.py#914):
  `rtt` is used instead, once all is written, and is never let time out.
- Acks are dropped when a subscription's queue is full: here it has no limit. Its callbacks never
  wait, so it holds what one read of the socket brings.
- `js.publish` sets up a future, a timer and an error path per record, and `publish_async` never
  resolves on a negative ack (nats-io/nats.py#985): `publisher` reads acks from an inbox of its own.
- It looks for a silent server every two minutes: `_tick` does so within seconds.
- Closing waits for a peer that no longer reads, and when it fails, tells nobody and leaves tasks
  behind: the socket is dropped first (`client`), the tasks are ended (`_close`), and `_tick` looks.
- It gives the text of an error in lower case: subjects are compared so.
- Headers are not counted against `max_payload`, which closes the connection: see `protocol`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from nats.aio.client import RawCredentials
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.errors import StaleConnectionError
from pydantic import SecretStr

from gateway.brokers.nats.client import Client
from gateway.brokers.nats.errors import (
    CONNECT_ERRORS,
    CertificateWanted,
    ConnectionLost,
    most_telling,
    refusal,
    server_problem,
    server_text,
)
from gateway.brokers.nats.options import CLIENT_NAME, ClientOptions, Server, servers_beside
from gateway.brokers.nats.protocol import denied_publish, denied_subscribe, is_denial

log = logging.getLogger("gateway.brokers")

CONNECT_WITHIN = 3
"""Seconds for one server: TCP, TLS and login."""

_NEVER = 7 * 24 * 3600
_TICK = 0.5
_PING_AFTER = 1
_SILENT_AFTER = 6
"""Ticks without a word from the server. Counted, not timed: a busy event loop is not a silence."""
_LOOK_AGAIN = 0.001
_LOOK_AGAIN_MOST = 0.05
_CLOSE_WITHIN = 0.5
_SENT = ("user", "password", "token")
"""What the server gets to read; of a key it sees only a signature."""
_HEADERS_SINCE = (2, 2)

Handler = Callable[[Msg], None]

T = TypeVar("T")


class Listener(Protocol):
    """What a connection tells its owner."""

    def connection_ended(self, problem: str) -> None:
        """Nothing more will come or go. Told once, unless the owner ended it."""
        ...

    def connection_silent(self, problem: str) -> None:
        """The server has answered nothing for seconds; it may yet."""
        ...

    def publish_denied(self, subject: str) -> None:
        """The server refused a publish to `subject`, which nats-py gives in lower case."""
        ...


class Connection:
    """Writes what it is told in order, and hands on what comes."""

    def __init__(self, options: ClientOptions, server: Server) -> None:
        self.server = server
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._client = Client()
        self._listener: Listener | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing: asyncio.Task[None] | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._heard = 0
        self._quiet = 0
        self._problem = "the server closed it"
        self._opening = True
        self._ended = False
        self.denied = False
        """It ended because the server refused a subscription."""

    @property
    def ended(self) -> bool:
        """Whether the connection is of no more use."""
        return self._ended

    @property
    def closed(self) -> bool:
        """Whether nothing of it is left."""
        return self._closing is not None and self._closing.done()

    @property
    def max_payload(self) -> int:
        """The most bytes of header block and value that the server takes."""
        return self._client.max_payload

    @property
    def secured(self) -> bool:
        """Whether it is encrypted."""
        return self._client.secured

    @property
    def version(self) -> tuple[int, ...]:
        """The server's version; empty where it tells none that can be read."""
        version = self._client.connected_server_version
        try:
            return version.major, version.minor, version.patch
        except ValueError:
            return ()

    async def open(self) -> None:
        """Connect and log in. Raises what `errors.CONNECT_ERRORS` lists."""
        try:
            await self._client.connect(**self._settings())
        except (OSError, UnicodeError) as error:  # some of them are a ValueError too
            # The server's own words, an alert of TLS, are lost where nats-py writes on.
            if isinstance(error, ConnectionError) and self._client.wants_certificate:
                raise CertificateWanted(self._options.broker) from error
            raise
        except NatsError as error:
            raise refusal(error) from error
        except ValueError as error:
            raise ConnectionLost("it sent what is not the NATS protocol") from error
        finally:
            self._opening = False
        self._client.keep_quiet()
        self._check()

    def listen(self, listener: Listener) -> None:
        """Tell `listener` from now on, and watch whether the server answers."""
        if not self._ended:
            self._listener = listener
            self._ticker = self._loop.call_later(_TICK, self._tick)

    def publish(
        self, subject: str, reply: str, headers: dict[str, str] | None, value: bytes
    ) -> None:
        """Publish; `reply` may be empty."""
        if not self._ended:
            self._run(self._client.publish(subject, value, reply, headers))

    def subscribe(self, subject: str, handler: Handler) -> Subscription | None:
        """Hand what comes on `subject` to `handler`; None when the connection has ended."""
        if self._ended:
            return None

        async def deliver(msg: Msg) -> None:
            handler(msg)

        before = asyncio.all_tasks()
        subscription = self._run(
            self._client.subscribe(subject, cb=deliver, pending_msgs_limit=0, pending_bytes_limit=0)
        )
        for task in asyncio.all_tasks() - before:
            self._keep(task)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription; messages under way are dropped."""
        if not self._ended:
            self._run(subscription.unsubscribe())

    def ping(self, answered: Callable[[], None]) -> None:
        """Call `answered` once the server has handled everything published before this."""
        if not self._ended:
            self._keep(self._loop.create_task(self._prove(answered)))

    def abort(self) -> None:
        """End now, without telling the listener. What is not sent yet is dropped."""
        if self._ended:
            return
        self._ended = True
        self._listener = None
        if self._ticker is not None:
            self._ticker.cancel()
        self._client.drop()
        self._closing = self._loop.create_task(self._close())

    async def close(self) -> None:
        """`abort`, and wait until nothing is left, for less than a second."""
        self.abort()
        if self._closing is not None:
            await asyncio.wait([self._closing])

    def discovered(self) -> list[Server]:
        """The addresses that the server told of its cluster, each with its certificate's name."""
        return list(servers_beside(self.server, self._client.discovered_servers))

    def _settings(self) -> dict[str, Any]:
        return {
            "servers": [f"nats://{self.server}"],
            "name": CLIENT_NAME,
            "allow_reconnect": False,
            "connect_timeout": CONNECT_WITHIN,
            "pending_size": 0,
            "error_cb": self._on_error,
            "closed_cb": self._on_closed,
            # A server may demand TLS that the config does not name: the system's authorities count.
            "tls": self._options.tls,
            "tls_hostname": self.server.tls_host or self.server.host,
        } | {
            name: partial(self._tell, value) if name in _SENT else _bare(name, value)
            for name, value in self._options.login(self.server).items()
        }

    def _tell(self, secret: SecretStr) -> str:
        self._check_tls()
        return secret.get_secret_value()

    def _check_tls(self) -> None:
        if (self._options.tls is not None or self.server.tls) and not self._client.secured:
            raise ConnectionLost(
                "it offers no TLS, or does not require it; require it there, or remove"
                f" brokers.{self._options.broker}.tls"
            )

    def _check(self) -> None:
        self._check_tls()
        if not self._client.is_connected:
            raise ConnectionLost(self._problem)
        if self.version and self.version < _HEADERS_SINCE:
            raise ConnectionLost("the server is too old: it knows no headers")

    def _run(self, call: Coroutine[Any, Any, T]) -> T | None:
        """Run a call that has nothing to wait for; None when the connection is gone."""
        try:
            call.send(None)
        except StopIteration as done:
            result: T = done.value
            return result
        except (NatsError, OSError, RuntimeError):  # uvloop's, for a socket that is closed
            pass
        else:
            call.close()  # It waits for a writer that has ended.
        self._loop.call_soon(self._lose)
        return None

    async def _prove(self, answered: Callable[[], None]) -> None:
        try:
            await self._written()
            await self._client.rtt(timeout=_NEVER)
        except (NatsError, OSError, RuntimeError):
            return  # it ended, which is told elsewhere
        self._quiet = 0
        answered()

    async def _written(self) -> None:
        """Wait until what is pending now is on the socket."""
        pause = 0.0
        pending = self._client.pending_data_size
        while pending:
            await asyncio.sleep(pause)
            pause = min(_LOOK_AGAIN_MOST, pause * 2 or _LOOK_AGAIN)
            before, pending = pending, self._client.pending_data_size
            # It only shrinks to nothing: what is there now was published since.
            if pending < before:
                return

    async def _on_error(self, error: Exception) -> None:
        if self._opening:
            raise error
        if self._ended or isinstance(error, OSError):
            return
        if not isinstance(error, NatsError):
            log.error("nats broker %s: an answer failed", self._options.broker, exc_info=error)
            return
        text = server_text(error)
        subject = denied_publish(text)
        if subject is not None and self._listener is not None:
            self._listener.publish_denied(subject)
        elif denied_subscribe(text) is not None:
            # Without its inbox this connection would wait for answers that cannot come.
            self._problem = self._words(text)
            self.denied = True
            self._lose()
        else:
            self._note()

    async def _on_closed(self) -> None:
        self._note()
        self._lose()

    def _note(self) -> None:
        """Keep what the server said before it closed the connection, if it did."""
        error = self._client.last_error
        text = server_text(error)
        # A refused publish is not why; nor is what nats-py makes of a socket that is closed.
        if isinstance(error, StaleConnectionError) or is_denial(text):
            return
        if isinstance(error, NatsError):
            self._problem = self._words(text)

    def _words(self, text: str) -> str:
        return server_problem(self._options, text)

    def _lose(self) -> None:
        """Tell the owner of an end that it did not ask for."""
        listener = self._listener
        self.abort()
        # Ended first: what the listener does in answer must not write any more.
        if listener is not None:
            listener.connection_ended(self._problem)

    def _tick(self) -> None:
        self._ticker = self._loop.call_later(_TICK, self._tick)
        if self._client.is_closed:  # it does not say so when closing failed
            self._lose()
            return
        heard, self._heard = self._heard, self._client.stats["in_msgs"]
        self._quiet = 0 if heard != self._heard else self._quiet + 1
        if self._quiet == _PING_AFTER + 1:
            # Nobody waits for its PONG, which is a sign of life.
            self.ping(lambda: None)
        elif self._quiet == _SILENT_AFTER and self._listener is not None:
            self._listener.connection_silent("the server does not answer")

    async def _close(self) -> None:
        # Whatever closing fails with, the socket is gone already.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_CLOSE_WITHIN):
                await self._client.close()
        # Only now: a PONG for a ping that was cancelled would be an error in the read loop.
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _bare(name: str, secret: SecretStr) -> str | RawCredentials:
    """Give nats-py what it signs with, or reads a key from."""
    text = secret.get_secret_value()
    return RawCredentials(text) if name == "user_credentials" else text


async def connect(options: ClientOptions, server: Server) -> Connection:
    """Connect to `server` within `CONNECT_WITHIN` seconds.

    Raises what `errors.CONNECT_ERRORS` lists.
    """
    connection = Connection(options, server)
    try:
        async with asyncio.timeout(CONNECT_WITHIN):
            await connection.open()
    except BaseException:
        await connection.close()
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
