"""Clerk and Svix, as far as a rotation goes: several endpoints on one URL, and retries."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Self

from tests.e2e.client import Answer, Client, event, new_id, signed
from tests.e2e.gateway_process import GatewayProcess

_PACE = 0.05
"""Seconds between two events of one sender: a load, and not a contest."""
_RETRY = 0.1
_RETRY_MOST = 2.0


@dataclass(frozen=True)
class Attempt:
    """One post of one event to one endpoint."""

    sender: int
    secret: str
    svix_id: str
    answer: Answer


@dataclass
class Clerk:
    """Sends every event to each endpoint it has, at the same moment, until each takes it.

    Each sender has a connection of its own for each endpoint, and so one worker behind it.
    """

    gateway: GatewayProcess
    endpoints: list[str]
    """The signing secret of each endpoint: change it as somebody would in the dashboard."""
    attempts: list[Attempt] = field(default_factory=list)
    sent: set[str] = field(default_factory=set)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _over: bool = False

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._send(number)) for number in range(4)]
        return self

    async def __aexit__(self, failed: object, *_: object) -> None:
        """Let every event that was begun be taken, unless the test has failed."""
        self._over = True
        if failed is not None:
            for task in self._tasks:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=failed is not None)

    async def _send(self, sender: int) -> None:
        clients: dict[str, Client] = {}
        try:
            async with asyncio.TaskGroup() as retries:
                while not self._over:
                    svix_id, body = new_id(), event()
                    self.sent.add(svix_id)
                    endpoints = tuple(self.endpoints)
                    for secret in endpoints:
                        clients.setdefault(secret, Client(self.gateway, connections=1))
                    attempts = [
                        partial(self._attempt, sender, clients[secret], secret, svix_id, body)
                        for secret in endpoints
                    ]
                    taken = await asyncio.gather(*(attempt() for attempt in attempts))
                    for secret, attempt, done in zip(endpoints, attempts, taken, strict=True):
                        if not done:
                            retries.create_task(self._retry(secret, attempt))
                    await asyncio.sleep(_PACE)
        finally:
            for client in clients.values():
                await client.__aexit__()

    async def _retry(self, secret: str, attempt: Callable[[], Awaitable[bool]]) -> None:
        pause = _RETRY
        while secret in self.endpoints:
            await asyncio.sleep(pause)
            if await attempt():
                return
            pause = min(pause * 2, _RETRY_MOST)

    async def _attempt(
        self, sender: int, client: Client, secret: str, svix_id: str, body: bytes
    ) -> bool:
        answer = await client.post(body, signed(body, svix_id, secret=secret))
        self.attempts.append(Attempt(sender, secret, svix_id, answer))
        return answer.status == 200


class MountedSecret:
    """A directory as Kubernetes mounts a Secret: `..data` is swapped, the files lead through it."""

    def __init__(self, directory: Path, **files: str) -> None:
        self._directory = directory
        self._versions = 0
        directory.mkdir()
        self.write(**files)
        for name in files:
            (directory / name).symlink_to(Path("..data") / name)

    def path(self, name: str) -> Path:
        """Where the gateway reads one of the files."""
        return self._directory / name

    def write(self, **files: str) -> None:
        """Replace all files at once."""
        self._versions += 1
        version = self._directory / f"..version-{self._versions}-{time.monotonic_ns()}"
        version.mkdir()
        for name, text in files.items():
            (version / name).write_text(text)
        swap = self._directory / "..data_tmp"
        swap.symlink_to(version.name)
        swap.rename(self._directory / "..data")
