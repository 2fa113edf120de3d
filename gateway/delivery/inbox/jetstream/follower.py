"""Reads part of a stream in order, from its beginning or from a number on, and then what comes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from gateway.brokers.nats import ordered
from gateway.brokers.nats.errors import ApiError, ConnectionLost
from gateway.brokers.nats.jetstream import ApiRefused, new_inbox
from gateway.delivery.inbox.jetstream.layout import header_block, stored_size
from gateway.delivery.inbox.jetstream.questions import WITHIN
from gateway.delivery.inbox.jetstream.wire import Wire, seen

__all__ = ["Follower", "Found"]

log = logging.getLogger("gateway.delivery")

_LOOK_EVERY = 1.0


class Found(msgspec.Struct, frozen=True, gc=False):
    """A message as it was read."""

    subject: str
    seq: int
    data: bytes
    size: int = 0
    """Bytes that it takes in its stream."""


class _Created(msgspec.Struct, frozen=True):
    num_pending: int = 0
    error: ApiError | None = None


class Follower:
    """One part of one stream, over one connection."""

    def __init__(
        self,
        wire: Wire,
        stream: str,
        filters: Sequence[str],
        take: Callable[[Found], None],
        *,
        after: int = 0,
        last_only: bool = False,
    ) -> None:
        """`take` gets each message; `after` is the number of the last one that is known.

        `last_only` begins with the last message of each subject.
        """
        self._wire = wire
        self._stream = stream
        self._filters = list(filters)
        self._take = take
        self._last_only = last_only
        self.after = after
        self._consumer_seq = 0
        self._name = ""
        self._subscription: Subscription | None = None
        self._heard = 0.0
        self._stopped = False
        self._loop = asyncio.get_running_loop()
        self._gap = asyncio.Event()
        self.caught_up = asyncio.Event()
        """All that there was when it began has been taken."""
        self._task = self._loop.create_task(self._run())

    def stop(self) -> None:
        """Take no more. The server removes the consumer by itself."""
        self._stopped = True
        self._task.cancel()
        self._unsubscribe()
        if self._name and not self._wire.ended.done():
            removal = self._wire.call(f"CONSUMER.DELETE.{self._stream}.{self._name}", None)
            removal.add_done_callback(seen)

    async def _run(self) -> None:
        while not self._wire.ended.done():
            try:
                await self._consume()
            except (ApiRefused, ConnectionLost) as error:
                # Without a leader, or without the stream: both may come back.
                log.warning("inbox: could not read stream %s: %s", self._stream, error)
            except Exception:
                log.exception("inbox: reading stream %s failed", self._stream)
            await asyncio.sleep(_LOOK_EVERY)

    async def _consume(self) -> None:
        """Read with one consumer until it has to be made anew. Raises what the API does."""
        self._unsubscribe()
        self._gap.clear()
        self._consumer_seq = 0
        self._name = name = f"gateway-inbox-{secrets.token_hex(8)}"
        inbox = f"{new_inbox()}deliver"
        self._heard = self._loop.time()
        self._subscription = self._wire.connection.subscribe(
            inbox, lambda msg: self._came(name, msg)
        )
        body = {"stream_name": self._stream, "config": self._settings(inbox), "action": "create"}
        call = f"CONSUMER.CREATE.{self._stream}.{name}"
        created = await self._wire.requests.api(call, body, _Created, WITHIN)
        if not created.num_pending:
            self.caught_up.set()
        while (
            self._loop.time() - self._heard < ordered.MISSED_AFTER and not self._wire.ended.done()
        ):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._gap.wait(), _LOOK_EVERY)
                return

    def _settings(self, inbox: str) -> dict[str, Any]:
        start: dict[str, Any] = {"deliver_policy": "all"}
        if self.after:
            start = {"deliver_policy": "by_start_sequence", "opt_start_seq": self.after + 1}
        elif self._last_only:
            start = {"deliver_policy": "last_per_subject"}
        filters = {"filter_subjects": self._filters}
        return start | filters | ordered.consumer(self._name, inbox)

    def _came(self, name: str, msg: Msg) -> None:
        if self._stopped or name != self._name or self._gap.is_set():
            return  # from the consumer before this one: it comes again
        self._heard = self._loop.time()
        headers = msg.headers or {}
        if ordered.is_control(msg, headers):
            self._control(msg, headers)
            return
        seq, consumer_seq, pending = ordered.numbers(msg.reply)
        # Deliveries have no gap; one means that the server gave some up for us.
        if consumer_seq != self._consumer_seq + 1:
            self._gap.set()
            return
        self._consumer_seq, self.after = consumer_seq, seq
        size = stored_size(msg.subject, header_block(headers), msg.data)
        self._take(Found(msg.subject, seq, msg.data, size))
        if not pending:
            self.caught_up.set()

    def _control(self, msg: Msg, headers: dict[str, str]) -> None:
        if subject := ordered.answer_to(msg, headers):
            self._wire.connection.publish(subject, "", None, b"")
            return
        # A heartbeat is sent when there is nothing to deliver; it tells what was.
        if headers.get("Nats-Last-Consumer", "0") == str(self._consumer_seq):
            self.caught_up.set()
        else:
            self._gap.set()

    def _unsubscribe(self) -> None:
        if self._subscription is not None:
            self._wire.connection.unsubscribe(self._subscription)
            self._subscription = None
