"""A server process that tests start, stop, freeze and kill, and that never outlives the run."""

from __future__ import annotations

import atexit
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn, Self

LOOPBACK = "127.0.0.1"

_STOP_SECONDS = 20.0
_LOG_TAIL_BYTES = 6_000
# Below Linux's and macOS' ranges for outgoing connections: a client that keeps connecting to a
# dead server's port from within that range sooner or later connects to itself and keeps the port.
_PORTS = range(20_000, 32_000)

# Runs before the server and becomes it, so that the process id is the server's. Linux then kills
# the server when its parent ends, however it ends; elsewhere only `atexit` does.
_LAUNCHER = """
import os, sys
if sys.platform == "linux":
    import ctypes, signal
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the test run has ended")
os.execv(sys.argv[2], sys.argv[2:])
"""


class ServerError(Exception):
    """A server that tests need could not be had; the message says what to install or read."""


def free_port() -> int:
    """Give a TCP port on loopback that nothing listens on."""
    for _ in range(200):
        port = secrets.choice(_PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise ServerError(f"no free port among {_PORTS.start}-{_PORTS.stop - 1} on {LOOPBACK}")


class ServerProcess(ABC):
    """One server: same ports and same data through every start.

    Its methods block, for at most a bounded time: in a test on the event loop call `start` and
    `restart` by `asyncio.to_thread`, so that the client under test lives on meanwhile.
    """

    ready_seconds = 60.0
    """How long `start` waits for the server to serve; two busy cores make a JVM slow."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        """Holds configuration, data and log; made when it is missing."""
        directory.mkdir(parents=True, exist_ok=True)
        self.log = directory / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """Prepare the directory and give the command line, its program as an absolute path."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Tell whether the server serves; asked again and again until it does."""

    @property
    def running(self) -> bool:
        """Whether the process exists; a paused one does."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The server's process id, 0 before the first start."""
        return 0 if self._process is None else self._process.pid

    def start(self) -> None:
        """Start and wait until the server serves. Raises `ServerError` with the log's end."""
        if self.running:
            return
        command = self._command()
        self._process = _spawner.submit(_spawn, command, self.log).result()
        _running.add(self)
        deadline = time.monotonic() + self.ready_seconds
        while not self._is_ready():
            if not self.running:
                self._fail("ended at once")
            if time.monotonic() > deadline:
                self._fail("did not come up in time")
            time.sleep(0.02)

    def __enter__(self) -> Self:
        """Start; the end of the block kills."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def stop(self) -> None:
        """End it in the orderly way (SIGTERM), or after 20 s by force. Idempotent."""
        if self._process is None or not self.running:
            return
        self.resume()
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        _running.discard(self)

    def kill(self) -> None:
        """End it at once (SIGKILL), also when it is paused. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_STOP_SECONDS)
        _running.discard(self)

    def pause(self) -> None:
        """Freeze it (SIGSTOP) and wait until it is: its sockets stay open and nothing answers."""
        self._signal(signal.SIGSTOP)
        if sys.platform == "linux" and self._process is not None and self.running:
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let it run on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def hang_up(self) -> None:
        """Tell it to read its configuration again (SIGHUP)."""
        self._signal(signal.SIGHUP)

    def restart(self) -> None:
        """Stop and start on the same ports and data."""
        self.stop()
        self.start()

    def log_tail(self) -> str:
        """Give the end of what the server wrote."""
        written = self.log.read_bytes() if self.log.exists() else b""
        return written[-_LOG_TAIL_BYTES:].decode(errors="replace")

    def _fail(self, what: str) -> NoReturn:
        self.kill()
        raise ServerError(f"{type(self).__name__} {what}; its log ends:\n{self.log_tail()}")

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self.running:
            self._process.send_signal(number)


# Linux kills a child when the *thread* that made it ends, and threads of `asyncio.to_thread` end
# with their test's loop. This one lives as long as the run.
_spawner = ThreadPoolExecutor(1, "server-spawner")
_running: set[ServerProcess] = set()


def _spawn(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    launcher = (sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()))
    with log.open("wb") as output:
        return subprocess.Popen(
            [*launcher, *command],
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # A Ctrl-C is for the tests, which then end their servers themselves.
            start_new_session=True,
        )


@atexit.register
def _kill_all() -> None:
    for server in list(_running):
        server.kill()
