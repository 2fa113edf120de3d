"""The linter on the pages: what it says of every config there, and the table of its findings."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.app import draw, load
from gateway.commands.check import check_command
from gateway.commands.loading import deep_check
from gateway.config.problems import Problem
from gateway.lint.finding import RULES
from tests.canaries import DOCS_SECRET as SECRET
from tests.commands.command import in_process
from tests.docs.pages import PAGES, ROOT, Block, blocks, code, section, table
from tests.docs.test_docs import _FILE, CONFIGS, ENV, WHOLE


def checked(text: str, directory: Path) -> tuple[Problem, ...]:
    secret = directory / "secret"
    secret.write_text(SECRET)
    path = directory / "config.yaml"
    path.write_text(_FILE.sub(f"${{file:{secret}}}", text))
    return deep_check(draw(load(path, ENV)))


def warnings(problems: tuple[Problem, ...]) -> list[str]:
    return [one.message for one in problems if one.severity == "warning"]


@pytest.mark.parametrize("block", WHOLE, ids=str)
def test_no_false_alarm_on_a_config_of_the_pages(block: Block, tmp_path: Path) -> None:
    assert warnings(checked(block.text, tmp_path)) == []


def test_what_the_page_says_of_its_own_config_is_noted(tmp_path: Path) -> None:
    (by_plan,) = [b for b in WHOLE if b.page == "docs/routing.md" and "by-plan" in b.text]
    notes = [one.message for one in checked(by_plan.text, tmp_path)]
    assert any(one.endswith("[empty-destination]") for one in notes)
    assert "`gateway check` has a note on this topic" in PAGES["docs/routing.md"]


@pytest.mark.parametrize(
    "name", ["config.example.yaml", "deploy/compose.config.yaml", "deploy/systemd.config.yaml"]
)
def test_no_alarm_on_what_is_shipped(name: str, tmp_path: Path) -> None:
    problems = checked((ROOT / name).read_text("utf-8"), tmp_path)
    assert warnings(problems) == []
    assert all("unrouted-events" in one.message for one in problems)


def test_the_odd_things_on_the_page_are_those_that_are_found(tmp_path: Path) -> None:
    (odd,) = [block for block in CONFIGS if block.mark == "odd"]
    shown = next(b.text for b in blocks("text") if b.page == odd.page and b.line > odd.line)
    found = [one.render("config.yaml") for one in checked(odd.text, tmp_path)]
    assert shown.strip().splitlines() == found


def test_the_table_has_every_finding_and_how_serious_it_is() -> None:
    rows = table(section("docs/configuration.md", "What is odd"))
    shown = {
        rule: "note" if "(note)" in row[0] else "warning" for row in rows for rule in code(row[0])
    }
    assert shown == RULES


def test_what_the_readme_shows_is_what_check_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLERK_WEBHOOK_SIGNING_SECRET", SECRET)
    init = next(b.text for b in blocks("console") if "gateway init" in b.text)
    in_process(*shlex.split(init.partition("\n")[0].partition("gateway ")[2]))
    done = CliRunner().invoke(check_command, ["--config", "config.yaml"])
    shown = next(b.text for b in blocks("console") if "gateway check" in b.text)
    first = re.split(r"^\$ .*\n", shown, flags=re.MULTILINE)[1]
    assert done.exit_code == 0
    assert done.output == first
