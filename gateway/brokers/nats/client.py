"""nats-py's client with what it does not tell and has no call for.

All that is not its public API stands here. The dependency is pinned to one minor version for it.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import Any

from nats.aio.client import Client as NatsClient

# An error that ends its read loop is a traceback there, and a silent server to our `Connection`.
logging.getLogger("nats").setLevel(logging.CRITICAL)


class Client(NatsClient):
    """One connection that can be dropped, and that knows whether it used TLS."""

    secured = False
    """A handshake began; one that fails ends connecting."""

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """What nats-py asks for when it begins TLS, and only then."""
        self.secured = True
        return super().ssl_context

    @property
    def wants_certificate(self) -> bool:
        """Whether the server has said that it asks for a client certificate."""
        return bool(self._server_info.get("tls_verify"))

    def keep_quiet(self) -> None:
        """Keep asyncio from complaining of nats-py's tasks, which a lost connection can fail."""
        for task in (self._reading_task, self._flusher_task):
            if task is not None:
                task.add_done_callback(_seen)

    def drop(self) -> None:
        """Let go of the socket at once, with what is not sent yet."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()


def _seen(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
