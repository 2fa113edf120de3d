"""`gateway test`: what it prints, and how it ends."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.commands.command import Done, gateway, in_process, write_config
from tests.testing.settings import CONFIG

PASSES = """\
tests:
  - name: a new user goes to Kafka and to NATS
    event: user.created
    expect:
      - {broker: events, topic: clerk.users}
      - {broker: bus, subject: clerk.user.created}
  - name: sessions go nowhere
    event: session.created
    expect: none
"""
FAILS = """\
tests:
  - name: sessions go to Kafka
    event: session.created
    expect: [{broker: events, topic: clerk.users}]
"""
ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Write a config, and tests beside it that pass."""
    routes = {"brokers": CONFIG["brokers"], "routes": CONFIG["routes"][:1]}
    (tmp_path / "config.tests.yaml").write_text(PASSES)
    return write_config(tmp_path, routes)


def run(config: Path, *arguments: object) -> Done:
    """Run in this process; the time that tests took is left out."""
    done = in_process("test", "--config", config, *arguments)
    out = re.sub(r" in \d+\.\d\d s", " in 0.00 s", done.out)
    return Done(done.code, out.replace(f"{config.parent}/", ""), done.err)


def test_the_file_beside_the_config_is_found(config: Path) -> None:
    done = run(config)
    assert (done.code, done.err) == (0, "")
    assert done.out == (
        "config.tests.yaml:2  ok    a new user goes to Kafka and to NATS\n"
        "config.tests.yaml:7  ok    sessions go nowhere\n"
        "\n"
        "2 passed in 0.00 s\n"
    )


def test_no_test_is_timed_for_what_the_process_imports(config: Path) -> None:
    script = (
        "import sys, gateway.commands.test as command\n"
        "before = set()\n"
        "def watched(*given, run=command.run):\n"
        "    before.update(sys.modules)\n"
        "    result = run(*given)\n"
        "    print([m for m in set(sys.modules) - before if m.startswith('gateway.')])\n"
        "    return result\n"
        "command.run = watched\n"
        f"command.test_command(['--config', {str(config)!r}])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done
    assert done.stdout.count("[]\n") == 2, done


def test_a_file_that_ends_in_yml_has_its_tests_in_one_that_does(config: Path) -> None:
    short = config.with_suffix(".yml")
    config.rename(short)
    assert run(short).code == 2
    config.with_name("config.tests.yaml").rename(config.with_name("config.tests.yml"))
    assert run(short).code == 0


def test_a_failure_is_exit_code_1_and_is_explained(config: Path) -> None:
    (config.parent / "more.yaml").write_text(FAILS)
    done = run(config, config.with_name("config.tests.yaml"), config.with_name("more.yaml"))
    assert (done.code, done.err) == (1, "")
    assert done.out == (
        "config.tests.yaml:2  ok    a new user goes to Kafka and to NATS\n"
        "config.tests.yaml:7  ok    sessions go nowhere\n"
        "more.yaml:2          FAIL  sessions go to Kafka\n"
        "\n"
        "FAIL more.yaml:2: sessions go to Kafka\n"
        "  not published: events topic clerk.users, line 4\n"
        '    route users does not take "session.created": no entry of its events does\n'
        "\n"
        "2 passed, 1 failed in 0.00 s\n"
    )


def test_a_file_named_twice_is_run_once(config: Path) -> None:
    tests = config.with_name("config.tests.yaml")
    assert "2 passed in" in run(config, tests, tests).out


def test_no_tests_are_never_a_success(config: Path) -> None:
    tests = config.with_name("config.tests.yaml")
    none = run(config, "-k", "organization")
    assert (none.code, none.out) == (2, "")
    assert "there is no test with 'organization' in its name" in none.err
    tests.write_text("tests: []\n")
    assert run(config).err.endswith("config.tests.yaml:1:8: tests: none; add at least one\n")
    assert run(config).code == 2
    tests.unlink()
    missing = run(config)
    assert missing.code == 2
    assert "config.tests.yaml does not exist; write it, or name the files with the tests" in (
        missing.err
    )
    assert run(config, config.parent / "nope.yaml").code == 2


def test_faulty_files_are_told_all_at_once_and_nothing_runs(config: Path) -> None:
    one, other = config.with_name("one.yaml"), config.with_name("other.yaml")
    one.write_text("tests: [{name: a}]\n")
    other.write_text("tests: [{name: a, event: user.created, expect: yes}]\n")
    done = run(config, one, other, config.with_name("config.tests.yaml"))
    assert (done.code, done.out) == (2, "")
    assert [line.partition(": ")[0] for line in done.err.splitlines()] == [
        f"{one}:1:9",
        f"{one}:1:9",
        f"{other}:1:48",
    ]


def test_a_faulty_config_is_exit_code_2(config: Path) -> None:
    config.write_text("routes: 1\n")
    assert run(config).code == 2


def test_a_warning_is_told_and_is_no_failure(config: Path) -> None:
    config.with_name("config.tests.yaml").write_text(
        "tests: [{name: a, event: sesion.created, expect: none}]\n"
    )
    done = run(config)
    assert done.code == 0
    assert 'warning: event: Clerk is not known to send "sesion.created"' in done.err


@pytest.mark.parametrize("keyword", ["session", "SESSIONS GO"])
def test_only_tests_with_a_name_like_this(keyword: str, config: Path) -> None:
    done = run(config, "-k", keyword)
    assert done.code == 0
    assert done.out == "config.tests.yaml:7  ok    sessions go nowhere\n\n1 passed in 0.00 s\n"


def test_coverage_below_all_is_exit_code_1(config: Path) -> None:
    full = run(config, "--coverage")
    assert full.code == 0
    assert full.out.splitlines()[-2] == "coverage: routes 1/1, targets 2/2, conditions 0/0: 100 %"
    part = run(config, "--coverage", "-k", "session")
    assert part.code == 1
    lines = [re.sub(r":\d+:\d+", "", line) for line in part.out.splitlines()[2:]]
    assert lines == [
        "config.yaml: no test reaches route users",
        "config.yaml: no test reaches target events/clerk.users of route users",
        "config.yaml: no test reaches target bus/clerk.{type} of route users",
        "coverage: routes 0/1, targets 0/2, conditions 0/0: 0 %",
        "1 passed in 0.00 s",
    ]


def test_a_share_that_is_enough_can_be_given(config: Path) -> None:
    tests = config.with_name("config.tests.yaml")
    tests.write_text(
        "tests: [{name: a, event: user.created, exhaustive: false,"
        " expect: [{topic: clerk.users}]}]\n"
    )
    assert run(config, "--coverage").code == 1
    assert run(config, "--fail-under", "66.7").code == 1
    enough = run(config, "--fail-under", "66")
    assert enough.code == 0
    assert "coverage: routes 1/1, targets 1/2, conditions 0/0: 66 %\n" in enough.out
    assert run(config, "--fail-under", "101").code == 2


def test_the_report_is_written_whether_tests_pass_or_fail(config: Path) -> None:
    report = config.with_name("report.xml")
    (config.parent / "more.yaml").write_text(FAILS)
    for arguments, failures in (((), "0"), ((config.with_name("more.yaml"),), "1")):
        done = run(config, "--junit", report, *arguments)
        assert done.code == int(failures)
        root = ET.fromstring(report.read_bytes())  # noqa: S314 - our own, from just now
        assert root.get("failures") == failures
    nowhere = run(config, "--junit", config.parent / "none" / "report.xml")
    assert nowhere.code == 2
    assert "report.xml: No such file or directory" in nowhere.err


def test_no_color_reaches_what_is_no_terminal(config: Path) -> None:
    assert "\x1b" not in run(config).out


def test_the_shipped_example_is_tested_to_the_full(tmp_path: Path) -> None:
    env = {"CLERK_WEBHOOK_SIGNING_SECRET": "whsec_c3RhbmQtaW4gc3RhbmQtaW4="}
    example = ROOT / "config.example.yaml"
    done = gateway("test", "--config", example, "--coverage", cwd=tmp_path, env=env)
    assert done.code == 0, done.out + done.err
    assert "coverage: routes 2/2, targets 3/3, conditions 1/1: 100 %" in done.out
    assert done.err == ""
