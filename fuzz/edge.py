"""Forged in -> 401, nothing published, no other exception.

The coverage-guided fuzz target of the edge. `make fuzz` runs it; without atheris it replays:

    python -m fuzz.edge --replay FILE...

The real edge runs in this process, on a loop with a time of its own (`virtual.loop`). An input's
first byte says what the rest is taken for (`fuzz.modes`): the raw bytes of a connection, a request
that is forged, or one that is signed as Svix signs; what must hold then stands in `fuzz.judge`,
`fuzz.modes` and `fuzz.genuine`.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fuzz.service import Service

__all__ = ["Target", "main", "target"]

_AUDIT = 256
"""Inputs between comparisons of the real counter with what was seen."""
_TELL = 1.0
"""Seconds between writings of the tally."""


class Target:
    """Takes inputs; raises `fuzz.judge.ViolationError` for one that breaks the invariant."""

    def __init__(self, service: Service, mode: str = "", tally: Path | None = None) -> None:
        """Take inputs for one mode only, or for all; keep the tally in a file, if one is named."""
        from fuzz.modes import MODES  # noqa: PLC0415 - after atheris has instrumented the gateway

        self._service = service
        self._modes = {mode: MODES[mode]} if mode else dict(MODES)
        self._names = tuple(self._modes)
        self._tally = tally
        self._next = 0.0
        self.counts: Counter[str] = Counter()
        """Inputs by mode, and answers by `mode status`."""

    def __call__(self, data: bytes) -> None:
        """Run one input."""
        from fuzz.choices import Choices  # noqa: PLC0415 - as above
        from fuzz.judge import ViolationError  # noqa: PLC0415 - as above

        choices = Choices(data)
        name = choices.pick(self._names)
        answers = self._modes[name](self._service, choices)
        self.counts[name] += 1
        for answer in answers:
            self.counts[f"{name} {answer.status}"] += 1
        recorder = self._service.recorder
        if recorder.total % _AUDIT == 0 and recorder.counted() != recorder.total:
            raise ViolationError(f"{recorder.total} requests, counted: {recorder.counted()}")
        if self._tally is not None and time.perf_counter() >= self._next:
            self.tell()

    def tell(self) -> None:
        """Write the tally."""
        if self._tally is not None:
            self._tally.write_text(json.dumps(self.counts))
            self._next = time.perf_counter() + _TELL


@contextmanager
def target(mode: str = "", tally: Path | None = None) -> Iterator[Target]:
    """Wire the edge and give the target; meanwhile it has the process's clocks and log."""
    from fuzz.service import Service, Sink, logging_to  # noqa: PLC0415 - after instrumentation
    from virtual.loop import Loop, virtual_time  # noqa: PLC0415 - as above

    loop, sink = Loop(), Sink()
    with logging_to(sink), virtual_time(loop):
        try:
            yield Target(Service(loop, sink), mode, tally)
        finally:
            loop.end()


def main(arguments: Sequence[str]) -> int:
    """Replay files, or fuzz with what is left of the arguments as libFuzzer's."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.edge", description=__doc__)
    parser.add_argument("--mode", choices=["raw", "forged", "genuine"], default="")
    parser.add_argument("--tally", type=Path)
    parser.add_argument("--replay", nargs="+", type=Path, metavar="FILE")
    options, others = parser.parse_known_args(arguments)
    if options.replay:
        with target(options.mode) as run:
            for file in options.replay:
                run(file.read_bytes())
        print(f"{len(options.replay)} inputs replayed, and each held: {dict(run.counts)}")
        return 0
    return _fuzz(others, options.mode, options.tally)


def _fuzz(arguments: Sequence[str], mode: str, tally: Path | None) -> int:
    try:
        import atheris  # noqa: PLC0415 - Linux only, and needed for nothing else
    except ImportError:
        print("atheris, which fuzzes, is for Linux only: here inputs can be replayed (--replay).")
        return 2
    with atheris.instrument_imports(include=["gateway"]):
        import fuzz.modes  # noqa: F401, PLC0415 - brings in all of the gateway that is driven
    # Ctrl-C is libFuzzer's, which then says how far it came; Python would call it a crash.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with target(mode, tally) as run:
        atheris.Setup([sys.argv[0], *arguments], run)
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
