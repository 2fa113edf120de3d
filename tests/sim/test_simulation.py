"""Many small worlds hold, each replays exactly, and together they hold all that can go wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.delivery.fanout import FanOut
from sim.run import MODES, main
from sim.stage import Report, simulate
from sim.world import FATES, Mode, draw

ROOT = Path(__file__).parents[2]
SEEDS = range(300)


@pytest.fixture(scope="module", params=MODES)
def reports(request: pytest.FixtureRequest) -> list[Report]:
    return [simulate(seed, request.param) for seed in SEEDS]


def test_every_world_holds(reports: list[Report]) -> None:
    wrong = {report.world.seed: report.violations[0] for report in reports if report.violations}
    assert wrong == {}
    assert sum(report.tally.lost for report in reports) == 0


def test_the_worlds_hold_what_can_go_wrong(reports: list[Report]) -> None:
    lines = "\n".join(line for report in reports for _, line in report.trace)
    for words in ("is killed", "SIGTERM", "is orphaned", "is unknown no_ack"):
        assert words in lines
    whys = {why for report in reports for why in report.tally.duplicates}
    assert {"the process ended", "the ack was lost", "the broker stored it twice"} <= whys
    assert sum(report.tally.kills for report in reports) > len(reports) / 2
    frozen = [o for report in reports for o in report.world.outages if o.kind == "frozen"]
    assert len(frozen) > len(reports) / 10


def test_every_fate_of_a_record_has_its_worlds() -> None:
    weights = [draw(seed, "direct").weights for seed in SEEDS]
    for at, fate in enumerate(FATES):
        assert sum(weight[at] > 0 for weight in weights) > len(weights) / 20, fate


@pytest.mark.parametrize("mode", MODES)
def test_a_seed_replays_to_the_last_line_in_another_process(mode: Mode) -> None:
    command = [sys.executable, "-m", "sim.run", "--mode", mode, "--replay"]
    for seed in (7, 8, 9):
        shown = {
            subprocess.run(
                [*command, str(seed)],
                cwd=ROOT,
                env={**os.environ, "PYTHONHASHSEED": hash_seed},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for hash_seed in ("1", "2")
        }
        assert len(shown) == 1
        report = simulate(seed, mode)
        (text,) = shown
        assert all(line in text for _, line in report.trace)


def test_what_fails_is_told_with_the_command_that_replays_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(FanOut, "_sweep", lambda *_: None)
    seed = next(seed for seed in SEEDS if simulate(seed, "direct").violations)
    assert main(["--mode", "direct", "--replay", str(seed)]) == 1
    assert "WRONG: " in capsys.readouterr().out


def test_a_run_tells_what_its_worlds_came_to(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "60", "--jobs", "1"]) == 0
    for mode, line in zip(MODES, capsys.readouterr().out.splitlines(), strict=True):
        assert line.startswith(f"{mode}: seeds 60 (")
        for words in ("kills ", "events ", "answered 2xx ", "lost 0", "unexplained 0"):
            assert words in line
