"""Gathers every output of a test run, and looks for canaries in it.

A pytest plugin. What tests and the processes they start write, what clients are answered and what
commands print is kept in a file, with the test it came from; at the end `tests.canaries` are
looked for in all of it. The logs of brokers are not outputs of ours.
"""

from __future__ import annotations

import hashlib
import tempfile
from abc import ABC
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import IO, Any

import click.testing
import msgspec
import pytest
from _pytest.capture import CaptureFixture

from tests.canaries import Canary, canaries
from tests.servers.process import ServerProcess

SHOWS_PAYLOAD = "shows_payload"
"""The marker, with its reason, of a test whose command shows payloads by contract."""
WHOLE = ("tests/ground/test_canaries.py", "test_no_output_of_the_suite_holds_a_secret")
_CHUNK = 1024 * 1024
_LEAST_BYTES = 200_000
_LEAST_PROCESSES = 50
_KINDS = {
    "a ConfigError",
    "the answer to GET /metrics",
    "the answer to a POST",
    "the captured log call",
    "the output of a GatewayProcess",
    "the standard error of a command",
    "the standard output of a command",
}
"""Of a run of the whole suite; with less the gathering itself is broken."""


class Record(msgspec.Struct, frozen=True):
    """What one output is; its bytes follow."""

    what: str
    test: str
    may_show_payload: bool
    size: int


class Leak(msgspec.Struct, frozen=True, order=True):
    """A canary in an output. Its own value is nowhere in it."""

    canary: str
    what: str
    test: str

    def __str__(self) -> str:
        return f"{self.canary} is in {self.what} of {self.test}"


class Outputs:
    """What a run has written so far."""

    def __init__(self) -> None:
        # Deleted by itself; on disk, because a run writes many megabytes.
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - open until the run ends
        self._seen: set[bytes] = set()
        self._unread: dict[int, OwnProcess] = {}
        self.item: pytest.Item | None = None
        """The test that runs now."""
        self.kinds: set[str] = set()
        self.size = 0
        self.tests = 0
        self.processes = 0

    def gather(self, what: str, content: bytes | str) -> None:
        """Keep an output of the test that runs now. The same bytes twice are kept once."""
        raw = content.encode(errors="replace") if isinstance(content, str) else content
        item = self.item
        marked = item is not None and item.get_closest_marker(SHOWS_PAYLOAD) is not None
        digest = hashlib.blake2b(raw, digest_size=16, key=b"shown" if marked else b"").digest()
        if not raw or digest in self._seen:
            return
        self._seen.add(digest)
        test = "no test" if item is None else item.nodeid
        head = msgspec.json.encode(Record(what, test, marked, len(raw)))
        self._file.seek(0, 2)
        self._file.write(head + b"\n" + raw)
        self.kinds.add(what)
        self.size += len(raw)

    def started(self, process: OwnProcess) -> None:
        """Count a process whose log is to be gathered when it has ended."""
        self.processes += 1
        self._unread[id(process)] = process

    def ended(self, process: OwnProcess) -> None:
        """Gather the log of a process, once for each start."""
        if self._unread.pop(id(process), None) is not None and process.log.exists():
            name = type(process).__name__
            self.gather(f"the output of a {name}", process.log.read_bytes())

    def close(self) -> None:
        """Delete what was gathered."""
        self._file.close()

    def finish(self) -> None:
        """Gather what still runs."""
        for process in list(self._unread.values()):
            self.ended(process)

    def leaks(self, sought: Sequence[Canary]) -> list[Leak]:
        """Look for every form of every canary in all that was gathered."""
        forms = [(canary, form) for canary in sought for form in canary.forms()]
        longest = max(len(form) for _, form in forms)
        found: set[Leak] = set()
        for record, chunk in self._chunks(longest):
            for canary, form in forms:
                if form in chunk and not (canary.is_payload and record.may_show_payload):
                    found.add(Leak(canary.name, record.what, _masked(record.test, forms)))
        return sorted(found)

    def _chunks(self, overlap: int) -> Iterator[tuple[Record, bytes]]:
        """Give what was gathered in pieces of bounded size, each with the end of the one before."""
        self._file.seek(0)
        while head := self._file.readline():
            record = msgspec.json.decode(head, type=Record)
            left, before = record.size, b""
            while left:
                piece = self._file.read(min(left, _CHUNK))
                left -= len(piece)
                yield record, before + piece
                before = piece[-overlap:]


def _masked(test: str, forms: Sequence[tuple[Canary, bytes]]) -> str:
    """Give a test's name without the canaries that its parameters hold."""
    for canary, form in forms:
        test = test.replace(form.decode("latin-1"), f"<{canary.name}>")
    return test


OUTPUTS = Outputs()


class OwnProcess(ServerProcess, ABC):
    """A process of ours: what it writes is gathered at its end, and before it starts anew."""

    def start(self) -> None:
        """Start and wait until it serves."""
        if not self.running:
            OUTPUTS.ended(self)
            OUTPUTS.started(self)
        super().start()

    def kill(self) -> None:
        """End it at once, and gather what it has written."""
        super().kill()
        OUTPUTS.ended(self)


class Plugin:
    """The hooks of one run."""

    def __init__(self) -> None:
        self._leaks: list[Leak] | None = None
        self._sought = 0
        self._is_whole = False

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Put the test that judges all outputs last."""
        items.sort(key=lambda item: item.nodeid.split("::") == list(WHOLE))
        option = config.option
        self._is_whole = (
            config.args_source is pytest.Config.ArgsSource.TESTPATHS
            and not option.keyword
            and not option.markexpr
            and not getattr(option, "lf", False)
        )

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Note which test runs."""
        OUTPUTS.item = item
        OUTPUTS.tests += 1
        try:
            return (yield)
        finally:
            OUTPUTS.item = None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what was captured; the last report of a test has all its sections."""
        if report.when == "teardown":
            for name, content in report.sections:
                OUTPUTS.gather(f"the {name[:1].lower()}{name[1:]}", content)

    def judge(self) -> list[Leak]:
        """Look for the canaries, in what is there now."""
        OUTPUTS.finish()
        sought = canaries()
        self._sought = len(sought)
        self._leaks = OUTPUTS.leaks(sought)
        return self._leaks

    def shortage(self) -> str | None:
        """Say what is missing where the whole suite has run, or None."""
        if self._is_whole and not OUTPUTS.kinds >= _KINDS:
            return f"nothing was gathered of {', '.join(sorted(_KINDS - OUTPUTS.kinds))}"
        if self._is_whole and OUTPUTS.size < _LEAST_BYTES:
            return f"only {OUTPUTS.size} bytes of output were gathered"
        if self._is_whole and OUTPUTS.processes < _LEAST_PROCESSES:
            return f"the output of only {OUTPUTS.processes} processes was gathered"
        return None

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Judge a part of the suite too, and what came after the last test."""
        if self.judge() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_unconfigure(self) -> None:
        """Delete what was gathered, after all that could still add to it."""
        OUTPUTS.close()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Tell the count, and each leak by the canary's name and the test's."""
        if self._leaks is None:
            return
        for leak in self._leaks:
            terminalreporter.write_line(f"canaries: {leak}", red=True)
        size = f"{OUTPUTS.size / 1e6:.1f} MB" if OUTPUTS.size >= 1e5 else f"{OUTPUTS.size} bytes"
        terminalreporter.write_line(
            f"canaries: {self._sought} values looked for in {size} of output"
            f" of {OUTPUTS.tests:,} tests and {OUTPUTS.processes} processes:"
            f" {len(self._leaks)} found"
        )


def register(config: pytest.Config) -> None:
    """Begin to gather; call it in `pytest_configure`."""
    config.addinivalue_line("markers", f"{SHOWS_PAYLOAD}(reason): its command shows payloads")
    config.pluginmanager.register(Plugin(), "canaries")
    _listen()


def _listen() -> None:
    """Hear also what a test takes out of pytest's capture, and what click's runner takes."""
    read = CaptureFixture.readouterr
    invoke = click.testing.CliRunner.invoke

    def readouterr(self: CaptureFixture[Any]) -> Any:
        taken = read(self)
        for name, content in (("stdout", taken.out), ("stderr", taken.err)):
            OUTPUTS.gather(f"the captured {name}", content)
        return taken

    def invoked(self: click.testing.CliRunner, *args: Any, **options: Any) -> click.testing.Result:
        result = invoke(self, *args, **options)
        OUTPUTS.gather("the output of a command", result.output_bytes)
        with suppress(ValueError):  # it had no standard error of its own
            OUTPUTS.gather("the standard error of a command", result.stderr_bytes or b"")
        return result

    CaptureFixture.readouterr = readouterr  # type: ignore[method-assign]  # so that every test is heard
    click.testing.CliRunner.invoke = invoked  # type: ignore[method-assign]  # so that every test is heard
