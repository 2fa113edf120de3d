"""A gateway as an operator runs it: a process of its own, with free ports and a config file.

Whatever a test does, what the process wrote is read at its end: it must hold no secret, no
token, nothing of a payload, and no traceback.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.canaries import CANARY, OTHER_SECRET, SECRET, TOKEN
from tests.outputs import OwnProcess

PATH = "/webhooks/clerk"
END_SECONDS = 40.0
_NEVER = (SECRET.removeprefix("whsec_"), OTHER_SECRET.removeprefix("whsec_"), TOKEN, CANARY)


class GatewayProcess(OwnProcess):
    """`python -m gateway serve`; ports are taken by the gateway and read from its log."""

    ready_seconds = 60.0
    ends_with = 0
    """The exit code after SIGTERM."""

    def __init__(
        self,
        directory: Path,
        config: Mapping[str, Any],
        workers: int = 1,
        options: Sequence[str] = (),
    ) -> None:
        """Prepare a gateway. `config` is the file's content; ports and the secret are added."""
        super().__init__(directory)
        (directory / "secret").write_text(SECRET + "\n")
        self.config = directory / "config.yaml"
        self.config.write_text(self.text(config))
        self.workers = workers
        self._options = options
        self._told: tuple[int, dict[str, Any]] | None = None

    def text(self, config: Mapping[str, Any]) -> str:
        """Give the text of a config file of this gateway: ports and the secret are added."""
        return json.dumps(_complete(config, self.directory), indent=1)

    def rewrite(self, config: Mapping[str, Any]) -> None:
        """Rename another config file over the one that is there."""
        beside = self.config.with_name("config.new")
        beside.write_text(self.text(config))
        beside.rename(self.config)

    @property
    def port(self) -> int:
        """The port of the webhooks."""
        return int(self._listening["port"])

    @property
    def url(self) -> str:
        """Where webhooks are posted."""
        return f"http://127.0.0.1:{self.port}{PATH}"

    @property
    def admin_url(self) -> str:
        """The admin port's root."""
        return f"http://127.0.0.1:{self._listening['admin_port']}"

    def lines(self) -> list[dict[str, Any]]:
        """What was logged so far, line by line."""
        return [json.loads(line) for line in self._written() if line.startswith("{")]

    def _written(self) -> list[str]:
        written = self.log.read_text().splitlines(keepends=True) if self.log.exists() else []
        return [line for line in written if line.endswith("\n")]

    def send(self, number: signal.Signals) -> None:
        """Send a signal and return at once."""
        self._signal(number)

    def terminate(self) -> None:
        """Send SIGTERM and return at once."""
        self.send(signal.SIGTERM)

    def exit_code(self) -> int:
        """Wait until it has ended; negative is a signal's number."""
        assert self._process is not None
        return self._process.wait(END_SECONDS)

    def end(self) -> None:
        """End it, and assert that it ended well and kept its secrets."""
        if self.running:
            self.resume()
            self.terminate()
            assert self.exit_code() == self.ends_with, self.log_tail()
        self.kill()
        written = self._written()
        assert_clean("".join(written))
        # Warnings of the config come before there is a log.
        assert [one for one in written if not one.startswith(("{", str(self.config)))] == []

    def _command(self) -> Sequence[str]:
        serve = (sys.executable, "-m", "gateway", "serve", "--config", str(self.config))
        return [*serve, "--workers", str(self.workers), *self._options]

    def _is_ready(self) -> bool:
        return bool(self._listening)

    @property
    def _listening(self) -> dict[str, Any]:
        """The line that tells the ports. Looked for once in each run: the log grows long."""
        if self._told is None or self._told[0] != self.pid:
            found = (line for line in self.lines() if line.get("event") == "listening")
            line = next(found, {})
            self._told = (self.pid, line) if line else None
            return line
        return self._told[1]


def assert_clean(written: str) -> None:
    """Assert that a process wrote no secret, no payload and no traceback."""
    for secret in _NEVER:
        assert secret not in written, f"{secret} was written"
    assert "Traceback" not in written, written
    assert '"event":"bug"' not in written, written


def children(pid: int) -> set[int]:
    """Give the processes that `pid` has started and that still run."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True
    )
    rows = [line.split() for line in listed.stdout.splitlines()]
    return {int(child) for child, parent, state in rows if int(parent) == pid and state[0] != "Z"}


def is_running(pid: int) -> bool:
    """Tell whether a process exists, other than as what its parent has yet to collect."""
    shown = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return bool(shown.stdout.strip()) and not shown.stdout.strip().startswith("Z")


def _complete(config: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """Add what every gateway of the tests has, where the config does not say otherwise."""
    secret = {"secrets": [f"${{file:{directory / 'secret'}}}"]}
    sources = config.get("sources", {"clerk": {}})
    return {
        **config,
        "server": {"host": "127.0.0.1", "port": 0, **config.get("server", {})},
        "admin": {"port": 0, "token": TOKEN, **config.get("admin", {})},
        "sources": {name: {**secret, **source} for name, source in sources.items()},
    }
