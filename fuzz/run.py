"""Fuzz the edge: `make fuzz`, until Ctrl-C or for `FUZZ_SECONDS`.

Everything it keeps is in `.cache/fuzz/`: the corpus, from which the next run goes on, crashes, and
libFuzzer's own log. Arguments are libFuzzer's (https://llvm.org/docs/LibFuzzer.html#options).
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

__all__ = ["Seen", "main", "summary"]

ROOT = Path(__file__).parent.parent
HOME = Path(".cache/fuzz")
CRASHES = HOME / "crashes"
MODES = ("raw", "forged", "genuine")
_PROGRESS = re.compile(r"#(\d+)\s.*?cov: (\d+) ft: (\d+)")
_EXECUTED = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
# What libFuzzer says of every new input goes to the log only.
_NEWS = re.compile(r"#\d+\s+(NEW|REDUCE|RELOAD)|^\s*NEW_FUNC")


class Seen(msgspec.Struct):
    """What a run has shown so far."""

    executions: int = 0
    edges: int = 0
    features: int = 0
    is_interrupted: bool = False

    def take(self, line: str) -> None:
        """Read a line of libFuzzer's."""
        if progress := _PROGRESS.match(line):
            self.executions, self.edges, self.features = map(int, progress.groups())
        elif executed := _EXECUTED.match(line):
            self.executions = int(executed[1])


def main(arguments: Sequence[str]) -> int:
    """Fuzz, and give 0 if nothing was found, 1 if something was, 2 where it cannot run."""
    if importlib.util.find_spec("atheris") is None:
        print("atheris, which fuzzes, is for Linux only; `python -m fuzz.edge --replay` runs here.")
        return 2
    from fuzz.seeds import write_seeds  # noqa: PLC0415 - needs all that the target needs

    for directory in (HOME / "corpus", CRASHES):
        (ROOT / directory).mkdir(parents=True, exist_ok=True)
    print(f"{write_seeds(ROOT / HOME / 'seeds')} seeds, corpus in {HOME}/corpus; Ctrl-C ends")
    before, started, seen = _crashes(), time.monotonic(), Seen()
    code = _fuzz(arguments, seen)
    found = sorted(_crashes() - before)
    for crash in found:
        print(f"found: .venv/bin/python -m fuzz.edge --replay {CRASHES / crash}")
    tally = json.loads((ROOT / HOME / "tally.json").read_text())
    print(summary(seen, tally, time.monotonic() - started, len(found)))
    failed = code != 0 and not seen.is_interrupted
    if failed and not found:
        print(f"the fuzzer ended with {code}: see {HOME}/log.txt")
    return 1 if failed or found else 0


def summary(seen: Seen, tally: dict[str, int], seconds: float, crashes: int) -> str:
    """Say in one line what a run came to."""
    modes = []
    for mode in MODES:
        statuses = {key.split()[1]: n for key, n in tally.items() if key.startswith(f"{mode} ")}
        answers = " ".join(f"{status}:{n}" for status, n in sorted(statuses.items()))
        modes.append(f"{mode} {tally.get(mode, 0)} ({answers})")
    return (
        f"fuzz: {seen.executions} executions, {seen.executions / seconds:.0f}/s, {seconds:.0f} s, "
        f"coverage {seen.edges} edges {seen.features} features, crashes {crashes}; "
        + ", ".join(modes)
    )


def _crashes() -> set[str]:
    return {path.name for path in (ROOT / CRASHES).iterdir()}


def _fuzz(arguments: Sequence[str], seen: Seen) -> int:
    """Run the target under libFuzzer, show what matters of its output, and give its exit code."""
    command = [sys.executable, "-m", "fuzz.edge", "--tally", str(HOME / "tally.json")]
    command += [str(HOME / "corpus"), str(HOME / "seeds"), f"-artifact_prefix={CRASHES}/"]
    command += ["-dict=fuzz/edge.dict", "-max_len=8192", "-timeout=20", "-print_final_stats=1"]
    (ROOT / HOME / "tally.json").write_text("{}")
    with (ROOT / HOME / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="backslashreplace",
        )
        assert process.stdout is not None
        while True:
            try:
                for line in process.stdout:
                    log.write(line)
                    seen.take(line)
                    if not _NEWS.match(line):
                        print(line, end="", flush=True)
                return process.wait()
            except KeyboardInterrupt:
                # The terminal has interrupted libFuzzer too, which now says how far it came.
                seen.is_interrupted = True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
