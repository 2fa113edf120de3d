"""Claims that replicas share in a key-value bucket of NATS, each held by a lease that runs out.

One key per event holds who delivers it and what is settled. Every write is made over what its
writer has read, so of two that want an event one gets it. A holder writes again before its lease is
over, for as long as a publish of the event is on its way; of one that is gone the key stays as it
is, and whoever has watched it unchanged for the length of the lease takes it over. So no clock is
compared with another's; the age of what is remembered is by the server's clock for all.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable, Iterable
from functools import partial

import msgspec

from gateway.brokers.nats.bucket import Bucket, BucketError, Revision, RevisionError
from gateway.delivery.claims import Known, Unshared
from gateway.delivery.memory import Retention
from gateway.delivery.settlement import Settlement

__all__ = ["Leases"]

_FIRST_LOOK = 0.02
_LAST_LOOK = 0.5
"""Seconds between looks at a key that another has: the first, and at the most."""
_REST = 1.0
"""Seconds without asking a store that has just not answered."""
_RENEWALS_AT_ONCE = 64
_FREE_FOR = 1.0
"""Seconds that a key with nothing in it stays, where the server lets keys go by themselves."""
_CLOSE_WITHIN = 1.0
_MAX_DETAIL = 300


class _Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a key holds, as JSON."""

    event: str
    """Source and svix-id, for those who look into the bucket; the key is their hash."""
    holder: str = ""
    """The process that delivers it; empty where none does."""
    lease: float = 0.0
    """Seconds without a write after which the holder is given up."""
    complete: bool = False
    since: float = 0.0
    """When it was complete, or last attempted: seconds of Unix time, by the server's clock."""
    targets: dict[str, Settlement] = msgspec.field(default_factory=dict)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Record).decode


class _Lease:
    """A claim of this process, and the write that holds it."""

    __slots__ = ("lock", "number", "record", "since")

    def __init__(self, record: _Record, number: int, since: float) -> None:
        self.record = record
        self.number = number
        self.since = since
        """Event-loop time before the write."""
        self.lock = asyncio.Lock()


class Leases:
    """A process's claims on a bucket; see `Claims`."""

    def __init__(self, bucket: Bucket, retention: Retention, lease: float) -> None:
        """`lease` is in seconds; a retry must be able to outlast it."""
        self.bucket = bucket
        self._retention = retention
        self._lease = lease
        self._id = secrets.token_hex(8)
        self._held: dict[str, _Lease] = {}
        self._releasing: dict[str, asyncio.Task[None]] = {}
        self._on_lost: Callable[[str], None] = lambda _: None
        self._renewer: asyncio.Task[None] | None = None
        self._rests_until = 0.0

    def retain(self, retention: Retention) -> None:
        """Remember by other bounds from now on."""
        self._retention = retention

    async def start(self, on_lost: Callable[[str], None]) -> None:
        """See `Claims.start`."""
        self._on_lost = on_lost
        self.bucket.start()
        self._renewer = asyncio.create_task(self._renew_all())

    def claim(self, key: str) -> asyncio.Future[Known]:
        """See `Claims.claim`."""
        loop = asyncio.get_running_loop()
        if self.bucket.up and loop.time() >= self._rests_until:
            return loop.create_task(self._claim(key))
        future: asyncio.Future[Known] = loop.create_future()
        future.set_exception(Unshared("timeout" if self.bucket.up else "unreachable"))
        return future

    def release(self, key: str, known: Known, done: Callable[[bool], None]) -> None:
        """See `Claims.release`."""
        lease = self._held.pop(key, None)
        if lease is None:
            done(False)
            return
        task = asyncio.create_task(self._release(lease, known, done))
        self._releasing[key] = task
        task.add_done_callback(partial(self._forget, key))

    async def close(self) -> None:
        """See `Claims.close`."""
        if self._releasing:
            await asyncio.wait(self._releasing.values(), timeout=_CLOSE_WITHIN)
        if self._renewer is not None:
            self._renewer.cancel()
            await asyncio.wait([self._renewer])
        await self.bucket.close()

    async def _claim(self, key: str) -> Known:
        before = self._releasing.get(key)
        if before is not None:
            await asyncio.wait([before])
        try:
            return await self._take(key)
        except BucketError as error:
            if error.reason == "timeout":
                self._rests_until = asyncio.get_running_loop().time() + _REST
            raise Unshared(error.reason) from error
        except msgspec.MsgspecError as error:
            raise Unshared("refused") from error  # what no version of ours has written

    async def _take(self, key: str) -> Known:
        """Write us down as the holder, once nobody else is: at first as if it were a new event."""
        loop = asyncio.get_running_loop()
        watched, since, pause = 0, loop.time(), _FIRST_LOOK
        free: tuple[int, _Record] | None = 0, _Record(key)
        while True:
            if free is not None and (known := await self._write(key, *free)) is not None:
                return known
            found = await self.bucket.get(_name(key))
            if found is not None and found.number != watched:
                watched, since = found.number, loop.time()
            free = self._freed(key, found, loop.time() - since)
            if free is None:
                await asyncio.sleep(pause)
                pause = min(_LAST_LOOK, pause * 2)

    def _freed(
        self, key: str, found: Revision | None, unchanged: float
    ) -> tuple[int, _Record] | None:
        """Give what to write over, where nobody else has it: its number, and what it says."""
        if found is None or not found.value:
            # An operator has deleted it, which leaves a mark.
            return (0 if found is None else found.number), _Record(key)
        record = _decode(found.value)
        if record.holder not in ("", self._id) and unchanged < record.lease:
            return None
        age = self.bucket.clock() - record.since
        retention = self._retention
        if age >= (retention.window if record.complete else retention.incomplete_for):
            record = _Record(key)
        return found.number, record

    async def _write(self, key: str, over: int, record: _Record) -> Known | None:
        """Claim what is free; None where another was there before."""
        now = asyncio.get_running_loop().time()
        claimed = msgspec.structs.replace(record, holder=self._id, lease=self._lease)
        if not record.complete:
            claimed = msgspec.structs.replace(claimed, since=self.bucket.clock())
        try:
            number = await self.bucket.put(_name(key), _encode(claimed), over)
        except RevisionError:
            return None
        self._held[key] = _Lease(claimed, number, now)
        age = max(0.0, self.bucket.clock() - record.since) if record.complete else 0.0
        return Known(record.targets, record.complete, age)

    async def _release(self, lease: _Lease, known: Known, done: Callable[[bool], None]) -> None:
        window = self._retention.window
        record, ttl = _Record(lease.record.event), _FREE_FOR
        if known.targets and not (known.complete and known.age >= window):
            ttl = window - known.age if known.complete else self._retention.incomplete_for
            since = self.bucket.clock() - known.age
            targets = {target: _short(one) for target, one in known.targets.items()}
            record = _Record(record.event, "", 0.0, known.complete, since, targets)
        async with lease.lock:
            try:
                await self._over(lease, record, ttl)
            except (BucketError, RevisionError):
                done(False)
                return
        done(True)

    async def _over(self, lease: _Lease, record: _Record, ttl: float | None = None) -> None:
        """Write over this process's last write, also over one whose answer was lost.

        Raises `RevisionError` where the last write is another's, and `BucketError`.
        """
        name, value = _name(record.event), _encode(record)
        try:
            lease.number = await self.bucket.put(name, value, lease.number, ttl)
        except RevisionError:
            found = await self.bucket.get(name)
            if found is None or found.value != _encode(lease.record):
                raise
            lease.number = await self.bucket.put(name, value, found.number, ttl)

    def _forget(self, key: str, task: asyncio.Task[None]) -> None:
        if self._releasing.get(key) is task:
            del self._releasing[key]

    async def _renew_all(self) -> None:
        """Write every lease again that has run for a third of its time, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._lease / 6)
            due = loop.time() - self._lease / 3
            late = [key for key, lease in self._held.items() if lease.since <= due]
            for some in _chunks(late, _RENEWALS_AT_ONCE):
                await asyncio.gather(*(self._renew(key) for key in some))

    async def _renew(self, key: str) -> None:
        lease = self._held.get(key)
        if lease is None:
            return
        now = asyncio.get_running_loop().time()
        try:
            async with lease.lock:
                await self._over(lease, lease.record)
            lease.since = now
        except RevisionError:
            self._lose(key, lease)
        except BucketError:
            # Until it has run out nobody takes it.
            if now - lease.since >= self._lease:
                self._lose(key, lease)

    def _lose(self, key: str, lease: _Lease) -> None:
        if self._held.get(key) is lease:
            del self._held[key]
            self._on_lost(key)


def _name(key: str) -> str:
    """Give the bucket's key of an event: of bounded length, and of letters that every key may have.

    128 bits: nobody meets two events of one hash.
    """
    return hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=16).hexdigest()


def _short(settlement: Settlement) -> Settlement:
    if len(settlement.detail) <= _MAX_DETAIL:
        return settlement
    return msgspec.structs.replace(settlement, detail=settlement.detail[:_MAX_DETAIL])


def _chunks(keys: list[str], most: int) -> Iterable[list[str]]:
    return (keys[at : at + most] for at in range(0, len(keys), most))
