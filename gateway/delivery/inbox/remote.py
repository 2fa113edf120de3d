"""The inbox as other processes than its owner have it: a client of the owner's socket.

A worker stores through it; it dispatches nothing, so it is fed nothing. It connects by itself, over
and over. While the owner is away every put fails at once: nothing was sent, so nothing is stored.
What was sent and not answered when the connection ended may be stored: the sender's retry is then a
copy, and finds it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gateway.delivery.inbox.record import Record, RecordError, encode
from gateway.delivery.inbox.store import (
    Bounds,
    Feed,
    Held,
    InboxFullError,
    InboxUnavailableError,
    Parked,
    Placed,
    Usage,
    Writable,
)
from gateway.delivery.inbox.wire import (
    VERSION,
    Answer,
    Count,
    Discard,
    End,
    Failed,
    Frames,
    Hello,
    Item,
    List,
    Outgoing,
    Put,
    Request,
    State,
    Stored,
    Unpark,
    WireError,
    frame,
    peer_uid,
    read_answer,
)

__all__ = ["RemoteStore"]

_READ = 64 * 1024
_IN_FLIGHT = 8192
_IN_FLIGHT_BYTES = 64 * 1024 * 1024
_RETRY = (0.02, 0.05, 0.1, 0.25)
"""Seconds between tries to connect; a supervisor replaces a worker in a tenth of a second."""
_CONNECT = 5.0
_STALLED = 5.0
"""Seconds without an answer after which the owner takes nothing, whatever it last said."""
_ITEMS = 64
"""Items of a list that wait for their reader; the connection stalls beyond."""


class RemoteStore:
    """Fulfils `Store` for a process that does not own it."""

    def __init__(self, path: Path, tree: str = "") -> None:
        """`path` is the socket's, and `tree` the name of a worker's process tree.

        Without it this is a command, which stores nothing and for which no owner waits.
        """
        self._path = path
        self._tree = tree
        self._link: _Link | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._closed = False
        self._detail = "its owner has not been reached yet"

    @property
    def writable(self) -> Writable:
        """What the owner says; NO while it is away, or leaves a record unanswered."""
        link = self._link
        if link is None or link.state is None or self._closed or link.is_stalled():
            return Writable.NO
        return Writable(link.state.writable)

    @property
    def usage(self) -> Usage:
        """What the owner says. It counts there: this process adds nothing to it."""
        return Usage(0, 0, 0, 0)

    @property
    def commits(self) -> int:
        """None are this process's own."""
        return 0

    @property
    def owner_usage(self) -> Usage | None:
        """What is in the store, as the owner last said; None while it is away."""
        state = None if self._link is None else self._link.state
        if state is None:
            return None
        return Usage(state.events, state.bytes, state.parked, state.parked_bytes)

    def bound(self, bounds: Bounds) -> None:
        """Leave the bounds to the owner."""

    async def start(self, feed: Feed) -> None:  # noqa: ARG002 - the owner dispatches
        """Begin to connect; an owner that is away does not stop the start."""
        self._keeper = asyncio.create_task(self._keep())

    async def connect(self) -> None:
        """Connect once, for a command. Raises `InboxUnavailableError`."""
        try:
            self._link = await self._connected()
        except (OSError, TimeoutError, WireError) as error:
            raise self._away(_said(error)) from error
        self._keeper = asyncio.create_task(self._attend(self._link))

    def put(self, record: Record) -> asyncio.Future[Placed]:
        """Have the owner store a record; see `Store.put`."""
        encoded = encode(record)
        return self._ask(lambda number: Put(number, encoded), len(encoded))

    async def load(self, ref: int) -> Record:
        """Fail: what waits is the owner's to load."""
        raise self._away(f"record {ref} is its owner's to load")

    def settle(self, ref: int, owed: int) -> asyncio.Future[None]:  # noqa: ARG002 - the contract's
        """Fail: what waits is the owner's to settle."""
        return _failed(self._away(f"record {ref} is its owner's to settle"))

    def park(self, ref: int, owed: int, parked: Parked) -> asyncio.Future[None]:  # noqa: ARG002 - the contract's
        """Fail: what waits is the owner's to park."""
        return _failed(self._away(f"record {ref} is its owner's to park"))

    async def held(self) -> AsyncIterator[Held]:
        """Give all that is held, on a connection of its own. Raises `InboxUnavailableError`."""
        async for held in self._list(None):
            yield held

    async def show(self, ids: Sequence[str]) -> list[Held]:
        """Give what is held under these ids. Raises `InboxUnavailableError`."""
        return [held async for held in self._list(list(ids))]

    async def unpark(self, ids: Sequence[str], *, rerouted: dict[str, Record]) -> int:
        """Have the owner put parked targets back; see `Store.unpark`."""
        encoded = {one: encode(record) for one, record in rerouted.items()}
        size = sum(map(len, encoded.values()))
        asked = self._ask(lambda number: Unpark(number, list(ids), encoded), size)
        return int(await asked)

    async def discard(self, ids: Sequence[str]) -> int:
        """Have the owner drop records; see `Store.discard`."""
        return int(await self._ask(lambda number: Discard(number, list(ids)), 0))

    async def close(self, timeout: float) -> None:
        """Wait for what was asked, for at most `timeout` seconds, and let go. Idempotent."""
        self._closed = True
        link = self._link
        if link is not None:
            await link.idle(timeout)
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait((self._keeper,))
        if link is not None:
            link.end("closing", "")
        self._link = None

    def _ask(self, request: Any, size: int) -> asyncio.Future[Any]:
        link = self._link
        if self._closed:
            return _failed(InboxUnavailableError(str(self._path), "closing"))
        if link is None:
            return _failed(self._away(self._detail))
        return link.ask(request, size)

    def _away(self, detail: str) -> InboxUnavailableError:
        return InboxUnavailableError(str(self._path), "inbox_unavailable", detail)

    async def _keep(self) -> None:
        """Be connected, for as long as there is an owner."""
        failures = 0
        while True:
            try:
                link = await self._connected()
            except (OSError, TimeoutError, WireError) as error:
                self._detail = f"its owner is away: {_said(error)}"
                await asyncio.sleep(_RETRY[min(failures, len(_RETRY) - 1)])
                failures += 1
                continue
            failures = 0
            self._link = link
            await self._attend(link)

    async def _attend(self, link: _Link) -> None:
        try:
            await link.run()
        finally:
            self._detail = "its owner is away: the connection ended"
            if self._link is link and not self._closed:
                self._link = None

    async def _connected(self) -> _Link:
        """Connect and greet. Raises `OSError`, `TimeoutError`, `WireError`."""
        async with asyncio.timeout(_CONNECT):
            reader, writer = await asyncio.open_unix_connection(str(self._path))
            link = _Link(str(self._path), reader, writer)
            try:
                await link.greet(self._tree)
            except BaseException:
                writer.close()
                raise
        return link

    async def _list(self, ids: list[str] | None) -> AsyncIterator[Held]:
        try:
            link = await self._connected()
        except (OSError, TimeoutError, WireError) as error:
            raise self._away(_said(error)) from error
        running = asyncio.create_task(link.run())
        try:
            asked = link.ask(lambda number: List(number, ids), 0)
            while (item := await link.item()) is not None:
                yield item.value()
            await asked
        except RecordError as error:
            raise self._away(str(error)) from error
        finally:
            running.cancel()
            await asyncio.wait((running,))


class _Link:
    """One connection to the owner, from its greeting to its end."""

    def __init__(
        self, where: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._where = where
        self._reader = reader
        self._writer = writer
        self._frames = Frames()
        self._asked: dict[int, tuple[asyncio.Future[Any], int, float]] = {}
        """By number, in order: each with its size, and the event-loop time of its asking."""
        self._bytes = 0
        self._number = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._outgoing = Outgoing(writer)
        self._items = asyncio.Queue[Item | None](_ITEMS)
        self._ended = False
        self.state: State | None = None

    async def greet(self, tree: str) -> None:
        """Say hello, and take the owner's and its state. Raises `OSError`, `WireError`."""
        uid = peer_uid(self._writer.get_extra_info("socket"))
        if uid is not None and uid not in {os.geteuid(), 0}:
            raise WireError(f"user {uid} listens there, and that is neither ours nor root")
        self._writer.write(frame(Hello(VERSION, tree)))
        while self.state is None:
            data = await self._reader.read(_READ)
            if not data:
                raise WireError("it ended the connection")
            for encoded in self._frames.feed(data):
                answer = read_answer(encoded)
                if isinstance(answer, Hello) and answer.version != VERSION:
                    raise WireError(f"it speaks version {answer.version}, and we {VERSION}")
                if isinstance(answer, State):
                    self.state = answer

    def ask(self, request: Any, size: int) -> asyncio.Future[Any]:
        """Send a request; its future has the answer."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if len(self._asked) >= _IN_FLIGHT or self._bytes + size > _IN_FLIGHT_BYTES:
            _fail(future, InboxUnavailableError(self._where, "overloaded"))
            return future
        self._number += 1
        asked: Request = request(self._number)
        try:
            encoded = frame(asked)
        except WireError as error:
            _fail(future, InboxUnavailableError(self._where, "inbox_unavailable", str(error)))
            return future
        self._asked[self._number] = (future, size, asyncio.get_running_loop().time())
        self._bytes += size
        self._idle.clear()
        self._outgoing.send(encoded)
        return future

    def is_stalled(self) -> bool:
        """Whether what was asked first has had no answer for long."""
        _, _, since = next(iter(self._asked.values()), (None, 0, None))
        return since is not None and asyncio.get_running_loop().time() - since > _STALLED

    async def item(self) -> Item | None:
        """Give the next item of the list that was asked for; None at its end."""
        if self._ended and self._items.empty():
            return None
        return await self._items.get()

    async def idle(self, timeout: float) -> None:
        """Wait until all is answered, for at most `timeout` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._idle.wait()

    async def run(self) -> None:
        """Take answers until the connection ends."""
        detail = "the connection to its owner ended"
        try:
            while data := await self._reader.read(_READ):
                for encoded in self._frames.feed(data):
                    await self._take(read_answer(encoded))
        except (OSError, WireError) as error:
            detail = f"{detail}: {_said(error)}"
        finally:
            self.end("inbox_unavailable", f"{detail}; it may be stored all the same")

    async def _take(self, answer: Answer) -> None:
        if isinstance(answer, State):
            self.state = answer
        elif isinstance(answer, Item):
            await self._items.put(answer)
        elif not isinstance(answer, Hello):
            future, size, _ = self._asked.pop(answer.id, (None, 0, 0.0))
            self._bytes -= size
            if not self._asked:
                self._idle.set()
            if future is not None:
                self._resolve(future, answer)
            if isinstance(answer, End | Failed):
                await self._items.put(None)

    def _resolve(self, future: asyncio.Future[Any], answer: Stored | Failed | Count | End) -> None:
        if future.done():
            return
        if isinstance(answer, Failed):
            _fail(future, self._error(answer))
        elif isinstance(answer, Stored):
            future.set_result(_PLACED[answer.state])
        else:
            future.set_result(answer.count if isinstance(answer, Count) else None)

    def _error(self, failed: Failed) -> InboxUnavailableError:
        if failed.reason == "inbox_full":
            return InboxFullError(self._where, failed.max_bytes)
        return InboxUnavailableError(self._where, failed.reason, failed.detail)

    def end(self, reason: str, detail: str) -> None:
        """Close, and fail what has no answer."""
        self._writer.close()
        self.state = None
        asked, self._asked = self._asked, {}
        for future, _, _ in asked.values():
            _fail(future, InboxUnavailableError(self._where, reason, detail))
        self._idle.set()
        self._ended = True
        # Full: then there is one to take, and the end is seen behind the last.
        with suppress(asyncio.QueueFull):
            self._items.put_nowait(None)


_PLACED = {
    "stored": Placed("stored"),
    "pending": Placed("pending"),
    "finished": Placed("finished"),
}


def _failed(error: InboxUnavailableError) -> asyncio.Future[Any]:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    _fail(future, error)
    return future


def _fail(future: asyncio.Future[Any], error: InboxUnavailableError) -> None:
    if not future.done():
        future.set_exception(error)
        # Who asked may have gone; asyncio need not report what nobody waits for.
        future.exception()


def _said(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or "no answer"
