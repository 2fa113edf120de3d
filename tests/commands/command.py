"""Runs `gateway` as a shell would: a process of its own, its output and its exit code."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import time
import unittest.mock
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner

from gateway.cli import main
from tests.canaries import SECRET
from tests.e2e.gateway_process import assert_clean
from tests.outputs import OUTPUTS, OwnProcess

GATEWAY = (sys.executable, "-m", "gateway")
_PATIENCE = 60.0


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    def messages(self, path: Path) -> list[tuple[int, int, str]]:
        """Give line, column and text of each message about a file."""
        found = []
        for line in self.err.splitlines():
            assert line.startswith(f"{path}:"), line
            number, column, text = line.removeprefix(f"{path}:").split(":", 2)
            found.append((int(number), int(column), text.strip()))
        return found


def gateway(
    *arguments: object, cwd: Path, env: Mapping[str, str] | None = None, piped: str = ""
) -> Done:
    """Run `gateway` with these arguments to its end, and assert that it kept its secrets.

    `piped` is its whole standard input, which is no terminal.
    """
    done = subprocess.run(
        [*GATEWAY, *map(str, arguments)],
        cwd=cwd,
        env=env,
        input=piped,
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    gathered(done)
    assert_clean(done.stderr)
    return Done(done.returncode, done.stdout, done.stderr)


def in_process(*arguments: object, typed: str | None = None) -> Done:
    """Run `gateway` in this process, which spares seconds of imports; else as `gateway` does.

    With `typed` its standard input is a terminal, on which that is typed.
    """
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    argv = ["gateway", *map(str, arguments)]

    def run() -> None:
        with unittest.mock.patch.object(sys.stdin, "isatty", return_value=typed is not None):
            main()

    try:
        with unittest.mock.patch.object(sys, "argv", argv):
            done = CliRunner().invoke(click.Command("gateway", callback=run), [], input=typed)
    finally:
        root.handlers[:], root.level = before
    if not isinstance(done.exception, SystemExit | None):
        raise done.exception
    assert_clean(done.stderr)
    return Done(done.exit_code, done.stdout, done.stderr)


def gathered(done: subprocess.CompletedProcess[str]) -> None:
    """Have the canaries looked for in what a command has written."""
    OUTPUTS.processes += 1
    OUTPUTS.gather("the standard output of a command", done.stdout)
    OUTPUTS.gather("the standard error of a command", done.stderr)


def write_config(directory: Path, config: Mapping[str, Any]) -> Path:
    """Write a config file with the tests' secret, which is in a file of its own."""
    secret = directory / "secret"
    secret.write_text(SECRET)
    sources = {"clerk": {"secrets": [f"${{file:{secret}}}"]}}
    path = directory / "config.yaml"
    path.write_text(json.dumps({"sources": sources, **config}, indent=1))
    return path


class Running(OwnProcess):
    """A command that runs until it is told to end; both its outputs are in `log`."""

    ready_seconds = _PATIENCE

    def __init__(self, directory: Path, ready: str, *arguments: object) -> None:
        """Prepare a command in a directory; it is ready once it has written `ready`."""
        super().__init__(directory)
        self._arguments = tuple(map(str, arguments))
        self._ready = ready

    @property
    def written(self) -> str:
        """What it has written so far, in whole lines."""
        text = self.log.read_text() if self.log.exists() else ""
        return text[: text.rfind("\n") + 1]

    def until_written(self, text: str, times: int = 1) -> str:
        """Wait until the output holds a text so many times, and give the output."""
        deadline = time.monotonic() + _PATIENCE
        while (written := self.written).count(text) < times:
            assert self.running, f"it ended:\n{written}"
            assert time.monotonic() < deadline, f"no {text!r} in:\n{written}"
            time.sleep(0.02)
        return written

    def send(self, number: signal.Signals) -> None:
        """Send a signal and return at once."""
        self._signal(number)

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal, wait for the end, and give the exit code."""
        self._signal(number)
        return self.exit_code()

    def exit_code(self) -> int:
        """Wait until it ends, and give the exit code; negative is a signal's number."""
        assert self._process is not None
        return self._process.wait(_PATIENCE)

    def _command(self) -> Sequence[str]:
        return [*GATEWAY, *self._arguments]

    def _is_ready(self) -> bool:
        return self._ready in self.written
