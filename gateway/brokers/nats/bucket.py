"""A key-value bucket of JetStream: a few bytes per key, each written over what its writer has seen.

A bucket is a stream, `KV_<name>`, whose subjects are its keys, and this is what the clients of
NATS make of it (https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-8.md).
It has a connection of its own, which is kept up. Where there is none, nothing waits for one.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from gateway import GatewayError
from gateway.brokers.base import Finding
from gateway.brokers.nats.bucket_check import check_bucket
from gateway.brokers.nats.errors import (
    CONNECT_ERRORS,
    ApiError,
    ConnectionLost,
    Denied,
    connection_problem,
)
from gateway.brokers.nats.jetstream import ApiRefused, Requests, StreamConfigView
from gateway.brokers.nats.options import client_options
from gateway.brokers.nats.session import Session

if TYPE_CHECKING:
    from gateway.config.models import NatsConfig

__all__ = ["Bucket", "BucketError", "BucketSettings", "Revision", "RevisionError"]

log = logging.getLogger("gateway.brokers")

_WITHIN = 1.0
"""Seconds for one write or read."""
_MAKE_WITHIN = 5.0
_BACKOFF = 0.1
_MAX_BACKOFF = 2.0
_STEADY_AFTER = 5.0
_NANOSECONDS = 1_000_000_000
_REPLICAS = (3, 1)
"""Tried one after another: a server that is alone, or two, refuse three."""
_NOBODYS = "0" * 32
"""A key that is never written."""
_TTL_SINCE = (2, 11)
_WRONG_REVISION = 10071
_STORE_FAILED = 10077
_NO_STREAM = 503
"""No stream takes a subject: it is deleted, or has no leader."""
_FULL = ("maximum messages", "maximum bytes", "insufficient", "no space")

BucketReason = Literal["unreachable", "timeout", "full", "refused"]


class BucketSettings(msgspec.Struct, frozen=True):
    """How a bucket is made that is not there."""

    name: str
    max_bytes: int
    max_age: float
    """Seconds after which a key that nobody writes is gone."""


class Revision(msgspec.Struct, frozen=True):
    """What a key holds, and the number of the write that made it so."""

    number: int
    value: bytes
    """Empty where the key was deleted: that is a write, too."""


class BucketError(GatewayError):
    """A write or read that failed, or whose end is not known."""

    def __init__(self, bucket: str, reason: BucketReason, detail: str) -> None:
        self.bucket = bucket
        self.reason: BucketReason = reason
        self.detail = detail
        super().__init__(f"bucket {bucket}: {reason} ({detail})")


class RevisionError(GatewayError):
    """Another writer was there before: nothing was written."""

    def __init__(self, bucket: str, key: str) -> None:
        self.bucket = bucket
        self.key = key
        super().__init__(f"bucket {bucket}: {key} was written by another")


class Bucket:
    """Reads and writes keys, which are tokens of a subject: letters, digits, `-` and `_`."""

    def __init__(self, broker: str, config: NatsConfig, settings: BucketSettings) -> None:
        """Of the broker's config only how to get in is used."""
        self._broker = broker
        self._config = config
        self._settings = settings
        self._session: Session | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._moved = asyncio.Event()
        self._missed = asyncio.Event()
        """Set when the stream did not take a write: it may be deleted."""
        self._ahead: float | None = None
        """Seconds from event-loop time to the server's Unix time."""
        self._problem = ""
        self.has_ttl = False
        """Whether a write may say how long it lasts."""

    @property
    def up(self) -> bool:
        """Whether a write could succeed now."""
        return self._session is not None

    def clock(self) -> float:
        """Unix seconds by the server's clock, which is one for all who share the bucket."""
        if self._ahead is None:
            return time.time()
        return asyncio.get_running_loop().time() + self._ahead

    def start(self) -> None:
        """Begin to connect, in the background and for ever."""
        self._keeper = asyncio.create_task(self._keep())

    def change(self, config: NatsConfig) -> None:
        """Get in by other settings from now on; a connection to the same servers stays."""
        if config.servers != self._config.servers:
            self._moved.set()
        self._config = config

    async def close(self) -> None:
        """Disconnect."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])

    async def check(self) -> list[Finding]:
        """See `bucket_check.check_bucket`. Works without `start`."""
        settings = self._settings
        return await check_bucket(self._broker, self._config, settings.name, settings.max_age)

    async def put(self, key: str, value: bytes, over: int, ttl: float | None = None) -> int:
        """Write a key over the revision `over`, 0 where there is none; give the new revision.

        `ttl`, in seconds, is when it is gone, on servers that know this. Raises `RevisionError`,
        and `BucketError`, after which it may have been written all the same.
        """
        headers = {"Nats-Expected-Last-Subject-Sequence": str(over)}
        if ttl is not None and self.has_ttl:
            headers["Nats-TTL"] = f"{max(1, round(ttl))}s"
        requests = self._requests()
        try:
            ack = await requests.store(self._subject(key), headers, value, _WITHIN)
        except (ConnectionLost, ApiRefused) as error:
            raise self._failed(error) from error
        if ack.error is None:
            return ack.seq
        if ack.error.err_code == _WRONG_REVISION:
            raise RevisionError(self._settings.name, key)
        raise self._failed(ApiRefused(ack.error))

    async def get(self, key: str) -> Revision | None:
        """Read a key, from the leader. Raises `BucketError`."""
        requests = self._requests()
        try:
            found = await requests.last(self._stream, self._subject(key), _WITHIN)
        except (ConnectionLost, ApiRefused) as error:
            raise self._failed(error) from error
        return None if found is None else Revision(found.seq, found.data)

    @property
    def _stream(self) -> str:
        return f"KV_{self._settings.name}"

    def _subject(self, key: str) -> str:
        return f"$KV.{self._settings.name}.{key}"

    def _requests(self) -> Requests:
        if self._session is None:
            raise BucketError(self._settings.name, "unreachable", self._problem)
        return self._session.requests

    def _failed(self, error: ConnectionLost | ApiRefused) -> BucketError:
        if isinstance(error, Denied):
            return BucketError(self._settings.name, "refused", error.problem)
        if isinstance(error, ConnectionLost):
            lost = self._session is None or self._session.ended.done()
            reason: BucketReason = "unreachable" if lost else "timeout"
            return BucketError(self._settings.name, reason, error.problem)
        if error.error.code == _NO_STREAM:
            self._missed.set()
        full = _is_full(error.error)
        return BucketError(self._settings.name, "full" if full else "refused", str(error))

    async def _keep(self) -> None:
        """Connect, stay, and begin again, for ever."""
        loop = asyncio.get_running_loop()
        backoff = _BACKOFF
        while True:
            started = loop.time()
            try:
                await self._serve()
            except ApiRefused as error:
                self._report(str(error))
            except CONNECT_ERRORS as error:
                self._report(connection_problem(client_options(self._broker, self._config), error))
            except Exception:
                # A bug must not end the reconnecting: that would be silent and for good.
                log.exception("bucket %s: the connection's keeper failed", self._settings.name)
            if loop.time() - started > _STEADY_AFTER:
                backoff = _BACKOFF
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            backoff = min(backoff * 2, _MAX_BACKOFF)

    async def _serve(self) -> None:
        """Be up until the connection ends or leads to the wrong place. Raises why it does not."""
        self._moved.clear()
        session = await Session.open(client_options(self._broker, self._config))
        moving = asyncio.create_task(self._moved.wait())
        try:
            while not moving.done():
                self._missed.clear()
                await self._open(session)
                await self._until_missed(session.ended, moving)
                if session.ended.done():
                    raise ConnectionLost(session.ended.result())
        finally:
            self._session = None
            moving.cancel()
            await session.close()

    async def _open(self, session: Session) -> None:
        """Be up, once the bucket is there and can be read. Raises why it cannot."""
        config = await self._provide(session)
        # Who may write and not read would hand over what nobody gets to see.
        await session.requests.last(self._stream, self._subject(_NOBODYS), _MAKE_WITHIN)
        view = await session.requests.stream_state(self._stream, _MAKE_WITHIN)
        self._ahead = _unix(view.ts) - asyncio.get_running_loop().time()
        self.has_ttl = config.allow_msg_ttl
        if self._problem:
            log.info("bucket %s: connected", self._settings.name)
        self._problem = ""
        self._session = session

    async def _until_missed(self, *ends: asyncio.Future[Any]) -> None:
        """Wait for an end, or until the stream does not take a write; then for a moment more."""
        missed = asyncio.create_task(self._missed.wait())
        try:
            await asyncio.wait((missed, *ends), return_when=asyncio.FIRST_COMPLETED)
            if missed.done():
                await asyncio.wait(ends, timeout=_BACKOFF, return_when=asyncio.FIRST_COMPLETED)
        finally:
            missed.cancel()

    async def _provide(self, session: Session) -> StreamConfigView:
        """Give the bucket's settings, and make it where it is not there."""
        requests = session.requests
        found = await requests.stream(self._stream, _MAKE_WITHIN)
        if found is not None:
            return found
        has_ttl = session.connection.version >= _TTL_SINCE
        for replicas in _REPLICAS:
            settings = bucket_stream(self._settings, replicas, has_ttl=has_ttl)
            try:
                await requests.create_stream(settings, _MAKE_WITHIN)
            except ApiRefused:
                if replicas == _REPLICAS[-1]:
                    raise
            else:
                name = self._settings.name
                log.info("bucket %s: created with %d replicas", name, replicas)
                break
        made = await requests.stream(self._stream, _MAKE_WITHIN)
        if made is None:
            raise ConnectionLost("the bucket is gone as soon as it is made")
        return made

    def _report(self, problem: str) -> None:
        if problem != self._problem:
            log.warning("bucket %s of %s: %s", self._settings.name, self._broker, problem)
        self._problem = problem


def bucket_stream(settings: BucketSettings, replicas: int, *, has_ttl: bool) -> dict[str, Any]:
    """The body of STREAM.CREATE for a bucket that keeps one value of a key, and is bounded."""
    ttl = {"allow_msg_ttl": True} if has_ttl else {}
    return {
        "name": f"KV_{settings.name}",
        "subjects": [f"$KV.{settings.name}.>"],
        "storage": "file",
        "num_replicas": replicas,
        "retention": "limits",
        "discard": "new",
        "max_age": int(settings.max_age * _NANOSECONDS),
        "max_bytes": settings.max_bytes,
        "max_msgs": -1,
        "max_msgs_per_subject": 1,
        "max_consumers": -1,
        "allow_direct": True,
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        "duplicate_window": int(min(120.0, settings.max_age) * _NANOSECONDS),
        **ttl,
    }


def _unix(time_of_server: str) -> float:
    """Unix seconds of a time as a server tells it; ours where it tells none."""
    try:
        return datetime.fromisoformat(f"{time_of_server[:19]}+00:00").timestamp()
    except ValueError:
        return time.time()


def _is_full(error: ApiError) -> bool:
    words = error.description.lower()
    return error.err_code == _STORE_FAILED and any(full in words for full in _FULL)
