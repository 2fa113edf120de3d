"""What an operator does with the records of an inbox, from any process."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence

from gateway.brokers.nats.jetstream import ApiRefused, StoredMessage, is_gone
from gateway.delivery.inbox.jetstream import pages, questions
from gateway.delivery.inbox.jetstream.layout import Layout
from gateway.delivery.inbox.jetstream.meter import Meter
from gateway.delivery.inbox.jetstream.parked import decode_parked
from gateway.delivery.inbox.jetstream.wire import Wire
from gateway.delivery.inbox.record import Record, RecordError, decode, replayed, targets
from gateway.delivery.inbox.store import Held, InboxFullError, InboxUnavailableError, Placed

__all__ = ["Desk"]

_ID = re.compile(r"([wp])([1-9][0-9]{0,18})")
_ASK_WITHIN = 5.0


class Desk:
    """Shows, replays and drops."""

    def __init__(
        self,
        layout: Layout,
        meter: Meter,
        put: Callable[[Record], Awaitable[Placed]],
        withdraw: Callable[[int, int], Awaitable[bool | None]],
        discarded: Callable[[Record, int], None],
    ) -> None:
        """`withdraw(partition, ref)` is None where this process does not hold the partition.

        `discarded` is told what was dropped here, and its targets.
        """
        self._layout = layout
        self._meter = meter
        self._put = put
        self._withdraw = withdraw
        self._discarded = discarded

    async def held(self, wire: Wire) -> AsyncIterator[Held]:
        """See `Store.held`. Raises `ConnectionLost` and `ApiRefused`, as all here do."""
        waiting, parked = self._waiting(wire), self._parked(wire)
        try:
            first, second = await anext(waiting, None), await anext(parked, None)
            while first is not None or second is not None:
                if second is None or (first is not None and first.held_since <= second.held_since):
                    if first is not None:
                        yield first
                    first = await anext(waiting, None)
                else:
                    yield second
                    second = await anext(parked, None)
        finally:
            await waiting.aclose()
            await parked.aclose()

    async def unpark(self, wire: Wire, ids: Sequence[str], rerouted: dict[str, Record]) -> int:
        """See `Store.unpark`."""
        count = 0
        for one in dict.fromkeys(ids):
            seq = _number(one, "p")
            found = await questions.get(wire.requests, self._layout.parked, seq) if seq else None
            if found is None:
                continue
            parked = decode_parked(found.data)
            try:
                # Stored first: what fails in between is parked and waits, and a repetition finds
                # that it is there.
                again = rerouted.get(one) or replayed(parked.record, parked.target, time.time())
                await self._put(again)
            except InboxFullError:
                if not count:
                    raise
                return count
            count += await self._drop_parked(wire, found)
        return count

    async def discard(self, wire: Wire, ids: Sequence[str]) -> int:
        """See `Store.discard`."""
        count = 0
        for one in dict.fromkeys(ids):
            if seq := _number(one, "p"):
                found = await questions.get(wire.requests, self._layout.parked, seq)
                if found is not None and await self._drop_parked(wire, found):
                    parked = decode_parked(found.data)
                    self._discarded(parked.record, 1 << parked.target)
                    count += 1
            elif seq := _number(one, "w"):
                count += await self._drop_waiting(wire, seq)
        return count

    async def _drop_parked(self, wire: Wire, found: StoredMessage) -> bool:
        dropped = await _delete(wire, self._layout.parked, found.seq)
        if dropped:
            self._meter.unparked(questions.size_of(found))
        return dropped

    async def _drop_waiting(self, wire: Wire, ref: int) -> bool:
        found = await questions.get(wire.requests, self._layout.stream, ref)
        if found is None:
            return False
        partition = self._layout.partition_of(found.subject)
        withdrawn = await self._withdraw(partition, ref)
        if withdrawn is not None:
            return withdrawn
        # Its holder is asked: what is being published now is not dropped.
        subject = self._layout.withdraw(partition)
        answer = await wire.requests.ask(subject, ref, _ASK_WITHIN)
        if answer is not None:
            return answer == b"1"
        dropped = await _delete(wire, self._layout.stream, ref)
        if dropped:
            self._meter.finished(questions.size_of(found))
            record = decode(found.data)
            self._discarded(record, self._layout.owed(targets(record), partition))
        return dropped

    async def _waiting(self, wire: Wire) -> AsyncGenerator[Held, None]:
        settled: dict[int, int] = {}
        pattern = self._layout.progress_in()
        for subject in await questions.subjects(wire.requests, self._layout.state, pattern):
            mark = self._layout.mark_of(subject)
            settled[mark.ref] = settled.get(mark.ref, 0) | 1 << mark.target
        async for found in pages.read(wire, self._layout.stream, self._layout.waiting_in()):
            try:
                record = decode(found.data)
            except RecordError as error:
                raise _unreadable(self._layout.stream, found.seq, error) from error
            partition = self._layout.partition_of(found.subject)
            owed = self._layout.owed(targets(record), partition) & ~settled.get(found.seq, 0)
            if owed:
                since = record.stored_at
                held = Held(f"w{found.seq}", "pending", record, owed, found.size, held_since=since)
                yield held

    async def _parked(self, wire: Wire) -> AsyncGenerator[Held, None]:
        async for found in pages.read(wire, self._layout.parked, self._layout.parked_in()):
            try:
                one = decode_parked(found.data)
            except RecordError as error:
                raise _unreadable(self._layout.parked, found.seq, error) from error
            yield Held(
                f"p{found.seq}",
                "parked",
                one.record,
                1 << one.target,
                found.size,
                one.reason,
                one.detail,
                one.parked_at,
            )


def _unreadable(stream: str, seq: int, error: RecordError) -> InboxUnavailableError:
    return InboxUnavailableError(stream, "inbox_unavailable", f"message {seq}: {error}")


async def _delete(wire: Wire, stream: str, seq: int) -> bool:
    """Remove a message; False where it was not there any more."""
    ack = await wire.call(f"STREAM.MSG.DELETE.{stream}", {"seq": seq})
    if ack.error is None:
        return True
    if is_gone(ack.error):
        return False
    raise ApiRefused(ack.error)


def _number(text: str, kind: str) -> int:
    """The number in an id of a kind; 0 for what is none."""
    match = _ID.fullmatch(text)
    return int(match[2]) if match is not None and match[1] == kind else 0
