"""Every claim of the threat model has a command that shows it, of things that exist."""

from __future__ import annotations

import ast
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, code, section, table

PAGE = "docs/threat-model.md"
CHAPTERS = re.findall(r"^### (.+)$", section(PAGE, "Claims"), re.MULTILINE)
CLAIMS = [row for chapter in CHAPTERS for row in table(section(PAGE, chapter))]
SHOWN = [(row[0], code(row[2])[0]) for row in CLAIMS if code(row[2])]


@cache
def names_of(path: Path) -> frozenset[str]:
    """Give the names of the tests in a file, or in all of a folder."""
    files = [path] if path.is_file() else sorted(path.rglob("test_*.py"))
    return frozenset(
        node.name
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name[:5] == "test_"
    )


def arguments(command: str) -> list[str]:
    """Give what a `make test` command hands on to pytest."""
    given = [word for word in shlex.split(command) if word.startswith("ARGS=")]
    return shlex.split(given[0].removeprefix("ARGS=")) if given else []


def test_every_claim_has_its_command() -> None:
    assert len(CHAPTERS) == 6
    assert len(CLAIMS) > 25
    assert len(SHOWN) == len(CLAIMS)


@pytest.mark.parametrize(("claim", "command"), SHOWN, ids=[command for _, command in SHOWN])
def test_the_command_names_what_is_there(claim: str, command: str) -> None:
    words = shlex.split(command)
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert words[0] == "make", claim
    assert words[1] in targets, claim
    given = arguments(command)
    picked = given[given.index("-k") + 1] if "-k" in given else ""
    places = [word for word in given if word.startswith("tests/")]
    for place in places:
        file, _, name = place.partition("::")
        assert (ROOT / file).exists(), claim
        found = names_of(ROOT / file)
        assert found, claim
        assert not name or name in found, claim
        # A class of the hostile corpus is no function: it is a parameter.
        if picked and file != "tests/hostile":
            assert any(picked in test for test in found), claim


def test_what_ci_runs_is_what_the_page_names() -> None:
    steps = re.findall(r"^step \S+ (make \w+)", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    named = {" ".join(shlex.split(command)[:2]) for _, command in SHOWN}
    assert named <= set(steps)


def test_the_page_is_linked_from_where_people_look() -> None:
    assert "threat-model.md" in PAGES["README.md"]
    assert "threat-model.md" in PAGES["docs/security.md"]
    assert "docs/threat-model.md" in (ROOT / "SECURITY.md").read_text()
