"""Several workers on one port: started, watched, restarted, drained.

The supervisor serves no webhook. It holds the listening socket, which the workers share, the
admin port, and one channel to each worker: a private pair of sockets. On it the worker gets its
orders and then each changed config, so that all serve by the same one and none reads a file by
itself; on it the worker reports its health. Both as JSON lines. Where the ledger is in memory the
supervisor keeps the book that the workers share; see `ledger_channel`.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import msgspec
import structlog
from prometheus_client import multiprocess
from pydantic import SecretStr

from gateway import GatewayError
from gateway.app import Blueprint
from gateway.delivery.inbox.member import Member
from gateway.ledgers import retention
from gateway.observability.health import ProcessHealth
from gateway.observability.metrics import render_shared
from gateway.server.contents import Contents, contents_of
from gateway.server.ledger_channel import BookKeeper

__all__ = ["MAX_LINE", "Changed", "Orders", "Supervisor", "WorkerError"]

_GRACE = 5.0
"""Seconds beyond `server.shutdown` before a worker is killed."""
_RESTART_DELAYS = (0.1, 1.0, 5.0, 15.0)
_STEADY = 60.0
"""Seconds that a worker must have run for its next restart to be prompt again."""
MAX_LINE = 64 * 1024 * 1024
"""Bytes of one line on a channel: two configs of 1 MiB and 4 MiB of files, all of it escaped."""
_CANNOT_WORK = 2
"""A worker's exit code for options that cannot work, which it has told on standard error."""


class WorkerError(GatewayError):
    """The workers cannot start, however often it is tried."""

    def __init__(self, worker: int) -> None:
        self.worker = worker
        super().__init__(f"worker {worker} cannot start: correct what it says above")


class _Private(msgspec.Struct, frozen=True):
    """What may hold secrets: only `encode` writes them out."""

    def encode(self) -> bytes:
        """Give the line for the worker's channel: a socket pair that nobody else holds."""
        return msgspec.json.encode(self, enc_hook=_bare) + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Self:
        """Read what `encode` gave."""
        return msgspec.json.decode(line, type=cls, dec_hook=_typed)


class Changed(_Private, frozen=True):
    """What the config is read from, from now on; it was checked."""

    contents: Contents
    generation: int


class Orders(_Private, frozen=True):
    """What a worker is told when it starts."""

    config_name: str
    started_with: Contents
    """What the config was read from when the supervisor started."""
    changed: Changed | None
    """What it is read from now, where that is something else."""
    listen_fd: int
    member: Member


def _bare(value: Any) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    raise NotImplementedError  # msgspec's word for a type that cannot be encoded


def _typed(kind: type[Any], value: Any) -> Any:
    return kind(value)


class _Worker:
    """One worker process, over its restarts."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: asyncio.subprocess.Process | None = None
        self.health: ProcessHealth | None = None
        self.has_reported = False
        self.restarts = 0


class Supervisor:
    """Keeps `count` workers running on one socket."""

    def __init__(self, blueprint: Blueprint, bound: socket.socket, count: int) -> None:
        self._orders = Orders(
            config_name=str(blueprint.loaded.path),
            started_with=contents_of(blueprint.loaded),
            changed=None,
            listen_fd=bound.fileno(),
            member=Member(0, secrets.token_hex(8)),
        )
        self._has_owner = blueprint.config.delivery.has_owner
        self._book = BookKeeper(retention(blueprint.config))
        self._keeps_book = blueprint.config.delivery.keeps_book
        self._config_changed = asyncio.Event()
        self._shutdown = blueprint.config.server.shutdown
        self._socket = bound
        self._workers = [_Worker(number) for number in range(count)]
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._reported = asyncio.Event()
        self._failed: WorkerError | None = None
        self._metrics_dir = Path(tempfile.mkdtemp(prefix="gateway-metrics-"))
        self._log = structlog.get_logger()

    def healths(self) -> list[ProcessHealth]:
        """Give what the living workers last reported.

        The tree is loading until each has reported once; later the others serve while one of them
        is replaced.
        """
        found = [worker.health for worker in self._workers if worker.health is not None]
        if self._stopping.is_set():
            return [msgspec.structs.replace(health, phase="draining") for health in found]
        if all(worker.has_reported for worker in self._workers):
            return found
        return [msgspec.structs.replace(health, phase="loading") for health in found]

    def metrics(self, brokers: Collection[str]) -> bytes:
        """Give the metrics of all workers, dead ones' counts included, added up; see `render`."""
        self._book.show()
        return render_shared(self._metrics_dir, self._book.metrics.registry, brokers)

    async def start(self) -> None:
        """Start the workers and wait until the first one serves. Raises `WorkerError`."""
        self._book.start()
        # The one that owns the inbox comes first: if it cannot, there is nothing for the others.
        first = self._workers[: 1 if self._has_owner else None]
        self._tasks = [asyncio.create_task(self._keep(worker)) for worker in first]
        await self._reported.wait()
        others = self._workers[len(first) :] if self._failed is None else []
        self._tasks += [asyncio.create_task(self._keep(worker)) for worker in others]
        if self._failed is not None:
            raise self._failed

    async def apply(self, blueprint: Blueprint) -> None:
        """Make every worker serve by another config: those that run, and those that will."""
        changed = Changed(contents_of(blueprint.loaded), blueprint.generation)
        self._orders = msgspec.structs.replace(self._orders, changed=changed)
        self._book.retain(retention(blueprint.config))
        waiting, self._config_changed = self._config_changed, asyncio.Event()
        waiting.set()

    async def stop(self) -> None:
        """Drain all workers; kill what is left after the grace period."""
        self._stopping.set()
        for worker in self._workers:
            _signal(worker, signal.SIGTERM)
        _, late = await asyncio.wait(self._tasks, timeout=self._shutdown + _GRACE)
        if late:
            for worker in self._workers:
                _signal(worker, signal.SIGKILL)
            await asyncio.wait(late)
        self._book.stop()
        self._socket.close()
        shutil.rmtree(self._metrics_dir, ignore_errors=True)

    async def _keep(self, worker: _Worker) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            began = loop.time()
            code = await self._run(worker)
            if self._stopping.is_set():
                return
            if code == _CANNOT_WORK and not self._reported.is_set():
                self._failed = WorkerError(worker.number)
                self._reported.set()
                return
            worker.restarts = 0 if loop.time() - began > _STEADY else worker.restarts + 1
            delay = _RESTART_DELAYS[min(worker.restarts, len(_RESTART_DELAYS)) - 1]
            self._log.error("worker ended", worker=worker.number, exit_code=code, restart_in=delay)
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stopping.wait()

    async def _run(self, worker: _Worker) -> int:
        """Run the worker once, to its end, and give its exit code."""
        ours, theirs = socket.socketpair()
        book, ledger = socket.socketpair() if self._keeps_book else (None, None)
        passed = [theirs.fileno(), *([ledger.fileno()] if ledger is not None else [])]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway.server.worker", *map(str, passed)),
            pass_fds=(*passed, self._orders.listen_fd),
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(self._metrics_dir)},
            stdin=asyncio.subprocess.DEVNULL,
        )
        theirs.close()
        if book is not None and ledger is not None:
            ledger.close()
            await self._book.serve(book, worker.number)
        worker.process = process
        if self._stopping.is_set():
            _signal(worker, signal.SIGTERM)
        try:
            await self._listen(worker, ours)
        finally:
            worker.health = None
            code = await process.wait()
            worker.process = None
            multiprocess.mark_process_dead(process.pid, str(self._metrics_dir))  # type: ignore[no-untyped-call]  # untyped library
        return code

    async def _listen(self, worker: _Worker, channel: socket.socket) -> None:
        """Give the worker its orders and each changed config, and read its reports, to its end."""
        reader, writer = await asyncio.open_unix_connection(sock=channel, limit=MAX_LINE)
        telling = asyncio.create_task(self._tell(worker, writer))
        try:
            while line := await reader.readline():
                worker.health = msgspec.json.decode(line, type=ProcessHealth)
                worker.has_reported = True
                self._reported.set()
        except (OSError, ValueError, msgspec.DecodeError) as error:
            self._log.error("worker channel", worker=worker.number, error=type(error).__name__)
        finally:
            telling.cancel()
            await asyncio.wait((telling,))
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _tell(self, worker: _Worker, writer: asyncio.StreamWriter) -> None:
        """Write the orders, then each change: the latest only, to a worker that does not read."""
        member = msgspec.structs.replace(self._orders.member, worker=worker.number)
        message: Orders | Changed = msgspec.structs.replace(self._orders, member=member)
        # That the worker is gone is told by its other end.
        with suppress(OSError):
            while True:
                changed = self._config_changed
                writer.write(message.encode())
                await writer.drain()
                await changed.wait()
                message = self._orders.changed or message


def _signal(worker: _Worker, number: signal.Signals) -> None:
    if worker.process is not None:
        with suppress(ProcessLookupError):
            worker.process.send_signal(number)
