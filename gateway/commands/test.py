"""`gateway test`: unit tests of the routing table, written in YAML beside the config."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from gateway.app import Blueprint, draw, load, sent_headers
from gateway.brokers.base import Message
from gateway.commands.loading import print_warnings
from gateway.config import ConfigError
from gateway.config.problems import render
from gateway.testing.coverage import Coverage, cover
from gateway.testing.junit import junit_xml
from gateway.testing.load import RoutingTest, Suite, load_tests
from gateway.testing.report import details, summary
from gateway.testing.rules import Setting
from gateway.testing.run import Result, run
from gateway.testing.words import printable

__all__ = ["test_command"]

_NO_RECORD = Message(destination="none", value=b"", headers=(), dedupe_id="")


@click.command("test")
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(path_type=Path),
    required=True,
    help="The YAML file whose routes are tested.",
)
@click.option("-k", "keyword", metavar="NAME", help="Only tests whose name has this in it.")
@click.option("--coverage", is_flag=True, help="Name what no test reaches, and fail for it.")
@click.option(
    "--fail-under",
    type=click.FloatRange(0, 100),
    metavar="PERCENT",
    help="How much of all must be reached; implies --coverage.  [default: 100]",
)
@click.option(
    "--junit", type=click.Path(path_type=Path, dir_okay=False), help="Write JUnit XML there."
)
@click.argument("tests", nargs=-1, type=click.Path(path_type=Path))
@click.pass_context
def test_command(
    context: click.Context,
    *,
    config: Path,
    keyword: str | None,
    coverage: bool,
    fail_under: float | None,
    junit: Path | None,
    tests: tuple[Path, ...],
) -> None:
    """Run unit tests of the routing table. Nothing connects.

    TESTS are YAML files; without them it is the one beside the config: config.tests.yaml for
    config.yaml. What a test that fails prints holds keys, headers and fields of its event.

    Exit code 0: all passed. 1: a test failed, or the coverage is too low. 2: a file is wrong, or
    there is no test to run.
    """
    loaded = load(config, os.environ)
    blueprint = draw(loaded)
    print_warnings(loaded)
    setting = _setting(blueprint)
    suites = _load(context, tests or (_beside(config),), setting)
    results = _run(suites, setting, keyword)
    everything = [result for of_file in results.values() for result in of_file]
    failed = sum(not result.passed for result in everything)
    _print_failures(results, setting)
    if junit is not None:
        _write(junit, junit_xml(results, setting))
    enough = True
    if coverage or fail_under is not None:
        covered = cover(blueprint.table, everything)
        _print_coverage(covered, blueprint)
        enough = covered.percent >= (100 if fail_under is None else fail_under)
    seconds = sum(result.seconds for result in everything)
    _echo(summary(len(everything) - failed, failed, seconds))
    context.exit(1 if failed or not enough else 0)


def _setting(blueprint: Blueprint) -> Setting:
    config = blueprint.config
    for kind in {broker.kind for broker in config.brokers.values()}:
        # The first call imports, which is no part of the time that a test takes.
        sent_headers(kind, _NO_RECORD)
    return Setting(
        table=blueprint.table,
        senders={one.sender.name: one.sender for one in blueprint.endpoints.values()},
        brokers={name: broker.kind for name, broker in config.brokers.items()},
        clerk=frozenset(name for name, source in config.sources.items() if source.kind == "clerk"),
        sent=sent_headers,
        positions=blueprint.loaded.positions,
    )


def _beside(config: Path) -> Path:
    """Give the tests file that belongs to a config. Raises `click.UsageError` for none."""
    path = config.with_name(f"{config.stem}.tests{config.suffix}")
    if not path.exists():
        raise click.UsageError(f"{path} does not exist; write it, or name the files with the tests")
    return path


def _load(context: click.Context, paths: Sequence[Path], setting: Setting) -> list[Suite]:
    """Load all files and tell of every fault in any of them; end with exit code 2 for one."""
    suites: list[Suite] = []
    faulty = False
    for path in dict.fromkeys(paths):
        try:
            suite = load_tests(str(path), setting)
        except ConfigError as error:
            faulty = True
            click.echo(str(error), err=True)
            continue
        suites.append(suite)
        for line in render(suite.path, suite.warnings):
            click.echo(line, err=True)
    if faulty:
        context.exit(2)
    return suites


def _run(suites: Sequence[Suite], setting: Setting, keyword: str | None) -> dict[str, list[Result]]:
    """Run the tests whose names fit, a line for each. Raises `click.UsageError` for none."""
    chosen = [
        (suite.path, test) for suite in suites for test in suite.tests if _fits(test, keyword)
    ]
    if not chosen:
        raise click.UsageError(f"there is no test with {keyword!r} in its name")
    width = max(len(_place(file, test)) for file, test in chosen)
    results: dict[str, list[Result]] = {}
    for file, test in chosen:
        result = run(test, setting, time.perf_counter)
        results.setdefault(file, []).append(result)
        word = _styled("ok  ", "green") if result.passed else _styled("FAIL", "red")
        _echo(f"{_place(file, test):<{width}}  {word}  {printable(test.name)}")
    return results


def _fits(test: RoutingTest, keyword: str | None) -> bool:
    return keyword is None or keyword.casefold() in test.name.casefold()


def _place(file: str, test: RoutingTest) -> str:
    return f"{file}:{test.line}"


def _print_failures(results: Mapping[str, Sequence[Result]], setting: Setting) -> None:
    for file, of_file in results.items():
        for result in of_file:
            if not result.passed:
                _echo("")
                word = _styled("FAIL", "red")
                _echo(f"{word} {_place(file, result.test)}: {printable(result.test.name)}")
                for line in details(result, setting):
                    _echo(line)
    _echo("")


def _print_coverage(covered: Coverage, blueprint: Blueprint) -> None:
    loaded = blueprint.loaded
    for gap in covered.gaps:
        _echo(loaded.locate(gap.path, gap.message).render(loaded.path))
    tallies = f"routes {covered.routes}, targets {covered.targets}, conditions {covered.conditions}"
    _echo(f"coverage: {tallies}: {math.floor(covered.percent)} %")


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise click.UsageError(f"cannot write {path}: {error.strerror}") from None


def _styled(word: str, color: str) -> str:
    return click.style(word, fg=color, bold=True)


def _echo(line: str) -> None:
    # https://no-color.org; click itself leaves colors out where no terminal is.
    click.echo(line, color=False if os.environ.get("NO_COLOR") else None)
