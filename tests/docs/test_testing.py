"""The walk-through of docs/testing.md, typed as it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from textwrap import indent

import pytest
import yaml

from tests.canaries import DOCS_SECRET
from tests.commands.command import in_process
from tests.docs.pages import PAGES, Block, blocks
from tests.testing.settings import suite

PAGE = "docs/testing.md"
CHANGE = 'Now somebody writes `events: ["user.created"]` for the route `users`:'


def of_page(language: str) -> list[Block]:
    return [block for block in blocks(language) if block.page == PAGE]


def beginning(text: str) -> list[str]:
    return [block.text for block in of_page("yaml") if block.text.startswith(text)]


def typed(block: Block) -> None:
    """Type the command of a block, and hold what it prints to what is shown."""
    command, _, shown = block.text.partition("\n")
    done = in_process(*shlex.split(command.partition("gateway ")[2]))
    printed = re.sub(r" in \d+\.\d\d s", " in 0.00 s", done.out)
    assert printed + done.err == shown, f"{block}: {command}"


def test_the_walk_through_is_what_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLERK_WEBHOOK_SIGNING_SECRET", DOCS_SECRET)
    config, tests = Path("config.yaml"), Path("config.tests.yaml")
    (text,) = beginning("sources:")
    tests.write_text(beginning("tests:")[0])
    config.write_text(text)
    first, failing, coverage, full, by_name = of_page("console")
    typed(first)
    assert CHANGE in PAGES[PAGE]
    config.write_text(text.replace('["user.*"]', '["user.created"]'))
    typed(failing)
    config.write_text(text)
    typed(coverage)
    (missing,) = beginning("- name:")
    tests.write_text(tests.read_text() + indent(missing, "  "))
    typed(full)
    typed(by_name)


def test_the_tests_that_init_writes_in_the_readme_reach_all_of_its_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLERK_WEBHOOK_SIGNING_SECRET", DOCS_SECRET)
    of_readme = [block for block in blocks("console") if block.page == "README.md"]
    (begun,) = [block for block in of_readme if "gateway init" in block.text]
    in_process(*shlex.split(begun.text.partition("\n")[0].partition("gateway ")[2]))
    typed(next(block for block in of_readme if "gateway test" in block.text))


def test_what_ci_runs_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLERK_WEBHOOK_SIGNING_SECRET", DOCS_SECRET)
    Path("config.yaml").write_text(beginning("sources:")[0])
    (missing,) = beginning("- name:")
    Path("config.tests.yaml").write_text(beginning("tests:")[0] + indent(missing, "  "))
    (workflow,) = [yaml.safe_load(text) for text in beginning("name: routing")]
    steps = workflow["jobs"]["routing"]["steps"]
    (script,) = [step["run"] for step in steps if "run" in step]
    commands = [line for line in script.splitlines() if line.startswith("gateway ")]
    assert len(commands) == 2
    for command in commands:
        assert in_process(*shlex.split(command)[1:]).code == 0
    (report,) = [step["with"]["path"] for step in steps if "with" in step]
    assert Path(report).exists()


def test_the_other_tests_are_right_as_far_as_they_go(tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "invoice.json").write_text('{"type":"invoice.paid","data":{}}')
    (text,) = beginning("tests:")[1:]
    secrets = [DOCS_SECRET]
    sources = {
        "clerk": {"secrets": secrets},
        "billing": {"kind": "svix", "path": "/billing", "secrets": secrets},
    }
    assert len(suite(tmp_path, text, sources=sources).tests) == 3
