"""A connection for questions, used by `check` and `tail`."""

from __future__ import annotations

import asyncio

from gateway.brokers.nats.connection import connect_any
from gateway.brokers.nats.jetstream import Requests
from gateway.brokers.nats.options import ClientOptions


class Session:
    """One connection with its questions; `ended` tells why it is of no more use."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def open(self, options: ClientOptions) -> None:
        """Connect to one of the servers. Raises what `errors.CONNECT_ERRORS` lists."""
        self.connection = await connect_any(options, options.servers)
        self.requests = Requests(self.connection)
        self.connection.listen(self)

    def close(self) -> None:
        """Disconnect."""
        self.connection.abort()

    def connection_ended(self, problem: str) -> None:
        """See `Listener`."""
        if not self.ended.done():
            self.ended.set_result(problem)
        self.requests.fail(problem)

    def connection_silent(self, problem: str) -> None:
        """See `Listener`."""
        self.connection.abort()
        self.connection_ended(problem)

    def publish_denied(self, subject: str) -> None:
        """See `Listener`."""
        self.requests.denied(subject)
