"""From a tests file to tests that can be run; everything that is wrong with it at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from gateway.config import ConfigError
from gateway.config.document import read_document
from gateway.config.examine import examine
from gateway.config.findings import Finding, View
from gateway.config.load import read_text, without_frames
from gateway.config.problems import Problem
from gateway.testing.events import Bodies
from gateway.testing.models import STAND_INS, Expectation, TestsFile
from gateway.testing.rules import Setting, check

__all__ = ["RoutingTest", "Suite", "load_tests"]


class RoutingTest(msgspec.Struct, frozen=True):
    """One test that can be run."""

    name: str
    line: int
    """Where it stands in its file."""
    source: str
    svix_id: str
    body: bytes
    expect: tuple[Expectation, ...]
    expect_lines: tuple[int, ...]
    """Where each expectation stands."""
    exhaustive: bool


class Suite(msgspec.Struct, frozen=True):
    """The tests of one file."""

    path: str
    """The file's name, as it was given."""
    tests: tuple[RoutingTest, ...]
    """In file order."""
    warnings: tuple[Problem, ...]


def load_tests(path: str, setting: Setting) -> Suite:
    """Read and check a tests file of at most 1 MiB, and make its events.

    Nothing is interpolated: `$` is a character like any other. Raises `ConfigError` with every
    problem, also for a file that cannot be read.
    """
    try:
        return _load(path, setting)
    except ConfigError as error:
        told = error
    raise without_frames(told)


def _load(path: str, setting: Setting) -> Suite:
    text = read_text(path, "tests").get_secret_value()
    document = read_document(text, path)
    view = View(document.positions)
    bodies = Bodies(Path(path).parent)

    def rules(file: TestsFile, view: View) -> Iterator[Finding]:
        return check(file, view, setting, bodies.make)

    file, problems = examine(TestsFile, document, view, rules, stand_ins=STAND_INS)
    if file is None or any(problem.severity == "error" for problem in problems):
        raise ConfigError(path, problems)
    tests = tuple(
        RoutingTest(
            name=case.name,
            line=view.positions.value(("tests", at)).line,
            source=setting.source_of(case) or "",
            svix_id=case.id,
            body=bodies.at(("tests", at)),
            expect=case.expect,
            expect_lines=tuple(
                view.positions.value(("tests", at, "expect", number)).line
                for number in range(len(case.expect))
            ),
            exhaustive=case.exhaustive,
        )
        for at, case in enumerate(file.tests)
    )
    return Suite(path, tests, tuple(problems))
