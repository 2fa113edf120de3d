"""The owner's Unix socket: other workers store through it, and operators look and act.

One process has the file open and dispatches. What it serves here is bounded for each connection:
the size of a frame, requests in flight, their bytes, and what the other end has yet to read.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from gateway.delivery.inbox.record import RecordError, decode
from gateway.delivery.inbox.store import (
    InboxFullError,
    InboxUnavailableError,
    InboxUnusableError,
    Placed,
    Store,
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
    List,
    Outgoing,
    Put,
    State,
    Stored,
    Unpark,
    WireError,
    frame,
    item_of,
    peer_uid,
    read_request,
)

__all__ = ["Owner", "socket_path"]

log = logging.getLogger("gateway.inbox")

_CONNECTIONS = 256
_BACKLOG = 64
_READ = 64 * 1024
_IN_FLIGHT = 1024
_IN_FLIGHT_BYTES = 32 * 1024 * 1024
"""Of one connection: beyond these nothing more is read from it until something is answered."""
_UNREAD = 64 * 1024
"""Bytes that the other end has yet to read, beyond which it is told no news."""
_STATE_EVERY = 0.1
"""Seconds between looks at what the store says of itself."""
_HELLO_BYTES = 256
_HELLO = 5.0
"""Seconds in which the other end must say who it is."""


def socket_path(path: Path) -> Path:
    """Give the path of the socket beside an inbox's file."""
    return Path(f"{path.absolute().resolve()}.sock")


class Owner:
    """Serves a store on a socket, from its start to its close."""

    def __init__(self, store: Store, path: Path, tree: str = "") -> None:
        """`path` is the socket's, beside a file that this process has the lock of.

        Workers of `tree` are served; those of another gateway, which must not store here, are not.
        """
        self._tree = tree
        self._store = store
        self._path = path
        self._server: asyncio.Server | None = None
        self._connections: dict[_Connection, asyncio.Task[None]] = {}
        self._workers_gone = asyncio.Event()
        self._workers_gone.set()
        self._teller: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen. The store is started. Raises `InboxUnusableError`."""
        try:
            listening = _bound(self._path)
        except OSError as error:
            raise InboxUnusableError(
                str(self._path),
                f"cannot be made: {error.strerror or error}",
                "let the gateway's user write in its directory, or choose a shorter"
                " delivery.inbox.path",
            ) from error
        self._server = await asyncio.start_unix_server(
            self._accepted, sock=listening, backlog=_BACKLOG
        )
        self._teller = asyncio.create_task(self._tell())

    async def close(self, timeout: float) -> None:
        """Serve on for at most `timeout` seconds, until the other workers have gone, then end.

        Call it before the store is closed: what they have in hand still needs it.
        """
        if self._server is None:
            return
        with suppress(OSError):
            self._path.unlink()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._workers_gone.wait()
        self._server.close()
        self._server = None
        if self._teller is not None:
            self._teller.cancel()
        tasks = list(self._connections.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self._store, reader, writer)
        task = asyncio.create_task(self._serve(connection))
        self._connections[connection] = task

    async def _serve(self, connection: _Connection) -> None:
        try:
            if len(self._connections) > _CONNECTIONS or not connection.is_ours():
                log.warning("inbox %s: a connection was refused", self._path)
                return
            await connection.greet(self._tree)
            if connection.is_worker:
                self._workers_gone.clear()
            connection.send(self._state())
            await connection.serve()
        except (OSError, TimeoutError, WireError) as error:
            log.warning("inbox %s: a connection was ended: %s", self._path, _said(error))
        finally:
            del self._connections[connection]
            if not any(one.is_worker for one in self._connections):
                self._workers_gone.set()
            connection.end()

    def _state(self) -> State:
        store = self._store
        usage = store.usage
        return State(
            *(store.writable.value, usage.events, usage.bytes, usage.parked, usage.parked_bytes),
            store.commits,
        )

    async def _tell(self) -> None:
        last = self._state()
        while True:
            await asyncio.sleep(_STATE_EVERY)
            state = self._state()
            if state != last:
                last = state
                for connection in self._connections:
                    connection.tell(state)


class _Connection:
    """One process at the other end."""

    def __init__(
        self, store: Store, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._store = store
        self._reader = reader
        self._writer = writer
        self._frames = Frames()
        self._count = 0
        self._bytes = 0
        self._room = asyncio.Event()
        self._room.set()
        self._tasks = set[asyncio.Task[None]]()
        self._greeted = False
        self._outgoing = Outgoing(writer)
        self.is_worker = False

    def is_ours(self) -> bool:
        """Tell whether the other end is of our user, or root: both could read the file itself."""
        connected: socket.socket = self._writer.get_extra_info("socket")
        uid = peer_uid(connected)
        return uid is None or uid in {os.geteuid(), 0}

    async def greet(self, tree: str) -> None:
        """Take the other end's hello, and say ours. Raises `WireError`, `TimeoutError`."""
        async with asyncio.timeout(_HELLO):
            length = int.from_bytes(await self._read(4), "big")
            if length > _HELLO_BYTES:
                raise WireError("no hello")
            hello = read_request(await self._read(length))
        if not isinstance(hello, Hello):
            raise WireError("no hello")
        self._greeted = True
        self.send(Hello(VERSION))
        if hello.version != VERSION:
            raise WireError(f"it speaks version {hello.version}, and we {VERSION}")
        if hello.tree and hello.tree != tree:
            raise WireError("a worker of another gateway wants to store here")
        self.is_worker = bool(hello.tree)

    async def _read(self, count: int) -> bytes:
        try:
            return await self._reader.readexactly(count)
        except asyncio.IncompleteReadError as error:
            raise WireError("it ended too early") from error

    async def serve(self) -> None:
        """Take requests until the other end has gone. Raises `OSError`, `WireError`."""
        while data := await self._reader.read(_READ):
            for encoded in self._frames.feed(data):
                self._take(encoded)
            await self._room.wait()
            # One that reads no answers gets no more requests in.
            await self._writer.drain()

    def _take(self, encoded: bytes) -> None:
        request, size = read_request(encoded), len(encoded)
        if isinstance(request, Hello):
            raise WireError("a second hello")
        self._count += 1
        self._bytes += size
        if self._count >= _IN_FLIGHT or self._bytes >= _IN_FLIGHT_BYTES:
            self._room.clear()
        if isinstance(request, Put):
            self._put(request, size)
            return
        task = asyncio.create_task(self._operate(request, size))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _put(self, request: Put, size: int) -> None:
        try:
            record = decode(request.record)
        except RecordError as error:
            self._answer(Failed(request.id, "inbox_unavailable", str(error), 0), size)
            return

        def placed(future: asyncio.Future[Placed]) -> None:
            error = future.exception()
            if isinstance(error, InboxUnavailableError):
                self._answer(_failed(request.id, error), size)
            elif error is None:
                self._answer(Stored(request.id, future.result().state), size)
            else:
                raise error

        self._store.put(record).add_done_callback(placed)

    async def _operate(self, request: List | Unpark | Discard, size: int) -> None:
        try:
            if isinstance(request, List):
                await self._list(request)
                answer: Answer = End(request.id)
            elif isinstance(request, Discard):
                answer = Count(request.id, await self._store.discard(request.ids))
            else:
                rerouted = {one: decode(record) for one, record in request.rerouted.items()}
                done = await self._store.unpark(request.ids, rerouted=rerouted)
                answer = Count(request.id, done)
        except InboxUnavailableError as error:
            answer = _failed(request.id, error)
        except RecordError as error:
            answer = Failed(request.id, "inbox_unavailable", str(error), 0)
        self._answer(answer, size)

    async def _list(self, request: List) -> None:
        wanted = None if request.ids is None else set(request.ids)
        async for held in self._store.held():
            if wanted is None or held.id in wanted:
                self.send(item_of(request.id, held))
                with suppress(OSError):
                    await self._writer.drain()
                if self._writer.is_closing():
                    return

    def _answer(self, answer: Answer, size: int) -> None:
        self._count -= 1
        self._bytes -= size
        if self._count < _IN_FLIGHT and self._bytes < _IN_FLIGHT_BYTES:
            self._room.set()
        self.send(answer)

    def tell(self, state: State) -> None:
        """Say how the store is, unless the other end has enough to read."""
        if self._writer.transport.get_write_buffer_size() < _UNREAD:
            self.send(state)

    def send(self, answer: Answer) -> None:
        """Say something, together with all else of this round of the event loop."""
        if not self._greeted or self._writer.is_closing():
            return
        self._outgoing.send(frame(answer))

    def end(self) -> None:
        """Send what was said, and close. What the store was asked for it still does."""
        self._outgoing.flush()
        self._writer.close()


def _bound(path: Path) -> socket.socket:
    """Bind a socket that only our user can reach, in the place of one that a dead owner left."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError(None, "something that is no socket stands there")
        path.unlink()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listening.bind(str(path))
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    finally:
        os.umask(before)
    return listening


def _failed(number: int, error: InboxUnavailableError) -> Failed:
    most = error.max_bytes if isinstance(error, InboxFullError) else 0
    return Failed(number, error.reason, error.detail, most)


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
