"""docs/recipes.md: its configs are those of `examples/`, and its commands print what it shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.commands.command import in_process
from tests.docs.pages import PAGES, ROOT, Block, blocks
from tests.examples import EXAMPLES, SECRETS, Example

PAGE = "docs/recipes.md"
_CHANGES = (
    # How long the tests took, and when the sample was made.
    (re.compile(r"(?m)( in )[0-9.]+ s$"), r"\1… s"),
    (re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]+Z"), "…"),
    (re.compile(r"(svix-timestamp +)\d+"), r"\1…"),
)
_LINK = re.compile(r"\]\(\.\./(examples/[^)]+)\)")

CONSOLES = [block for block in blocks("console") if block.page == PAGE]


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Type the commands where the page does: in a clone, with the secrets set."""
    monkeypatch.chdir(ROOT)
    for name in ("KAFKA", "NATS", "REPLICAS", "INBOX"):
        monkeypatch.delenv(name, raising=False)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def test_the_configs_on_the_page_are_the_files() -> None:
    shown = [block.text for block in blocks("yaml") if block.page == PAGE and not block.mark]
    files = {
        path.relative_to(ROOT).as_posix(): path.read_text()
        for example in EXAMPLES
        for path in (example.config, example.tests)
    }
    changed = [text for text in shown if text not in files.values()]
    assert changed == [], "run: python tools/recipes_page.py"
    configs = {example.name for example in EXAMPLES}
    assert {name for name, text in files.items() if text in shown} >= configs
    # Which file it is stands before each of them.
    linked = _LINK.findall(PAGES[PAGE])
    assert configs <= set(linked)
    assert [name for name in linked if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_every_recipe_is_fine_and_each_warning_is_on_the_page(example: Example) -> None:
    done = in_process("check", "--config", example.name)
    assert done.code == 0, done.err
    assert f"{example.name}: fine: " in done.out
    shown = PAGES[PAGE].splitlines()
    assert [line for line in done.err.splitlines() if line not in shown] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_every_recipe_passes_its_tests_and_they_reach_all(example: Example) -> None:
    done = in_process("test", "--config", example.name, "--coverage")
    assert (done.code, done.err) == (0, ""), done.out
    assert ": 100 %\n" in done.out


def test_a_tenant_that_end_users_choose_is_warned_of(tmp_path: Path) -> None:
    (warned,) = [b for b in blocks("yaml") if b.page == PAGE and b.mark == "warned"]
    shown = next(b.text for b in blocks("text") if b.page == PAGE and b.line > warned.line)
    path = tmp_path / "config.yaml"
    path.write_text(warned.text)
    done = in_process("check", "--config", path)
    assert done.code == 0
    assert shown.strip() in done.err.replace(f"{tmp_path}/", "")


@pytest.mark.shows_payload("`gateway explain` shows the key and the headers of a sample")
@pytest.mark.parametrize("block", CONSOLES, ids=str)
def test_what_is_typed_prints_what_is_shown(block: Block) -> None:
    typed = re.split(r"(?m)^\$ ", block.text)[1:]
    assert typed
    for text in typed:
        command, _, shown = text.partition("\n")
        words = shlex.split(command)
        assert words[0] == "gateway", command
        done = in_process(*words[1:])
        told = f"{block}: {command}; run: python tools/recipes_page.py"
        assert same(done.err + done.out) == same(shown), told


def same(text: str) -> str:
    """Leave out what differs between two runs."""
    for pattern, replacement in _CHANGES:
        text = pattern.sub(replacement, text)
    return text.strip()


def test_every_recipe_is_typed_with_all_three_commands() -> None:
    typed = "".join(block.text for block in CONSOLES)
    directories = {example.config.parent.name for example in EXAMPLES}
    for command in ("check", "test", "explain"):
        found = set(re.findall(rf"(?m)^\$ gateway {command} .*--config examples/([^/]+)/", typed))
        assert found == directories, command
