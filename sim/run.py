"""Simulate worlds: `make simulate`, until Ctrl-C, or `SEEDS=10000`, or `SECONDS=60`.

A world that goes wrong is told with its seed, what was wrong, and the command that replays it.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from sim.judge import Tally
from sim.stage import Report, simulate
from sim.world import Mode

__all__ = ["main", "run_seeds", "summary"]

MODES: tuple[Mode, ...] = ("direct", "inbox")
_CHUNK = 50
_TOLD = 5
"""Failures that are told at the most; then the run ends."""
_FIRST = 1


class Chunk(msgspec.Struct, frozen=True):
    """Some seeds in a row, of one mode."""

    mode: Mode
    first: int
    count: int


class Outcome(msgspec.Struct, frozen=True):
    """What a chunk came to."""

    mode: Mode
    tally: Tally
    failures: tuple[tuple[int, str], ...]
    """Seed, and the first thing that was wrong."""


def run_seeds(chunk: Chunk) -> Outcome:
    """Run the worlds of some seeds."""
    tally, failures = Tally(), []
    for seed in range(chunk.first, chunk.first + chunk.count):
        report = simulate(seed, chunk.mode)
        tally.add(report.tally)
        if report.violations:
            failures.append((seed, report.violations[0]))
    return Outcome(chunk.mode, tally, tuple(failures))


def summary(mode: str, tally: Tally, seconds: float) -> str:
    """Say in one line what a mode's worlds came to."""
    explained = {why: n for why, n in tally.duplicates.items() if why != "unexplained"}
    whys = ", ".join(f"{why}: {n}" for why, n in sorted(explained.items()))
    return (
        f"{mode}: seeds {tally.seeds} ({tally.seeds / seconds:.0f}/s), kills {tally.kills}, "
        f"shutdowns {tally.shutdowns}, events {tally.events}, requests {tally.requests}, "
        f"answered 2xx {tally.answered}, records {tally.records}, lost {tally.lost}, "
        f"duplicates explained {sum(explained.values())} ({whys}), "
        f"unexplained {tally.duplicates.get('unexplained', 0)}"
    )


def main(arguments: Sequence[str]) -> int:
    """Simulate; give 0 if all held, 1 if something did not."""
    options = _parse(arguments)
    modes: tuple[Mode, ...] = (options.mode,) if options.mode else MODES
    if options.replay is not None:
        reports = [simulate(options.replay, mode) for mode in modes]
        for report in reports:
            _show(report)
        return int(any(report.violations for report in reports))
    return _run_many(options, modes)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sim.run", description=__doc__)
    parser.add_argument("--mode", choices=MODES, help="one of them instead of all")
    parser.add_argument("--seeds", type=int, help="how many worlds in each mode")
    parser.add_argument("--seconds", type=float, help="how long")
    parser.add_argument("--first", type=int, default=_FIRST, help="the first seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--replay", type=int, metavar="SEED", help="run one world, and show it")
    return parser.parse_args(arguments)


def _chunks(options: argparse.Namespace, modes: Sequence[Mode], until: float) -> Iterator[Chunk]:
    for first in itertools.count(options.first, _CHUNK):
        left = options.first + options.seeds - first if options.seeds is not None else _CHUNK
        if left <= 0 or time.monotonic() >= until:
            return
        for mode in modes:
            yield Chunk(mode, first, min(left, _CHUNK))


def _run_many(options: argparse.Namespace, modes: Sequence[Mode]) -> int:
    started = time.monotonic()
    until = started + options.seconds if options.seconds is not None else float("inf")
    tallies = {mode: Tally() for mode in modes}
    told = 0
    context = multiprocessing.get_context("spawn")
    with context.Pool(options.jobs, _prepare) as pool:
        try:
            # One call at a time for each process, so that the end comes soon after `until`.
            for outcome in _imap(pool, _chunks(options, modes, until), options.jobs):
                tallies[outcome.mode].add(outcome.tally)
                told += _tell(outcome)
                if told >= _TOLD:
                    break
        except KeyboardInterrupt:
            pool.terminate()
    for mode, tally in tallies.items():
        print(summary(mode, tally, time.monotonic() - started), flush=True)
    return int(told > 0)


def _imap(pool: multiprocessing.pool.Pool, chunks: Iterator[Chunk], jobs: int) -> Iterator[Outcome]:
    """Give outcomes as they come, in order; no more chunks wait than there are processes."""
    open_ = [pool.apply_async(run_seeds, (chunk,)) for chunk in itertools.islice(chunks, 2 * jobs)]
    while open_:
        yield open_.pop(0).get()
        open_ += [pool.apply_async(run_seeds, (chunk,)) for chunk in itertools.islice(chunks, 1)]


def _prepare() -> None:
    """Make a process ready: what is loaded now never becomes garbage."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()


def _tell(outcome: Outcome) -> int:
    for seed, wrong in outcome.failures[:_TOLD]:
        command = f"{_python()} -m sim.run --mode {outcome.mode} --replay {seed}"
        print(f"{outcome.mode} seed {seed}: {wrong}\n  replay: {command}", flush=True)
    return len(outcome.failures)


def _python() -> str:
    here = Path.cwd()
    path = Path(sys.executable)
    return str(path.relative_to(here)) if path.is_relative_to(here) else "python"


def _show(report: Report) -> None:
    """Print a world, what happened in it, and what was wrong."""
    for name in report.world.__struct_fields__:
        print(f"{name}: {getattr(report.world, name)}")
    for at, what in report.trace:
        print(f"{at:14.4f}  {what}")
    for wrong in report.violations:
        print(f"WRONG: {wrong}")
    print(summary(report.world.mode, report.tally, 1.0))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
