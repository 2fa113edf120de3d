"""A connection for questions, used by `check` and `tail`."""

from __future__ import annotations

import asyncio

from gateway.brokers.nats.connection import Connection, connect_any
from gateway.brokers.nats.jetstream import Requests
from gateway.brokers.nats.options import ClientOptions


class Session:
    """One connection with its questions; `ended` tells why it is of no more use."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.requests = Requests(connection)
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        connection.listen(self)

    @classmethod
    async def open(cls, options: ClientOptions) -> Session:
        """Connect to one of the servers. Raises what `errors.CONNECT_ERRORS` lists."""
        return cls(await connect_any(options, options.servers))

    async def close(self) -> None:
        """Disconnect."""
        await self.connection.close()

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
