"""The walk-through of docs/explain.md, typed as it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import get_args

import pytest

from gateway.commands import explain_model as model
from gateway.commands.explain_answer import Answer, Then
from gateway.routing.explain import Condition, Saw, Verdict
from tests.canaries import DOCS_SECRET
from tests.commands.command import in_process
from tests.docs.pages import Block, blocks, code, section, table

PAGE = "docs/explain.md"
_CHANGES = (
    # The time of the run, and what is made of it.
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z"), "2026-11-26T02:49:40.648Z"),
    (re.compile(r"(svix-timestamp +)\d+"), r"\g<1>1795661380"),
)
CONSOLES = [
    block
    for block in blocks("console")
    if block.page in {"README.md", PAGE} and " explain --config " in block.text
]
"""Those of the page, and the README's own; those of the recipes are typed by their own test."""


def same(text: str) -> str:
    """Leave out what differs between two runs."""
    for pattern, replacement in _CHANGES:
        text = pattern.sub(replacement, text)
    return text.rstrip()


def only(language: str, page: str = PAGE) -> str:
    (block,) = [one for one in blocks(language) if one.page == page]
    return block.text


@pytest.mark.parametrize("block", CONSOLES, ids=str)
def test_the_walk_through_is_what_happens(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLERK_WEBHOOK_SIGNING_SECRET", DOCS_SECRET)
    (config,) = [
        one.text for one in blocks("yaml") if one.page == block.page and "routes:" in one.text
    ]
    Path("config.yaml").write_text(config)
    Path("body.json").write_text(only("json"))
    command, _, shown = block.text.partition("\n")
    before, piped, command = command.removeprefix("$ ").rpartition(" | ")
    typed = before.removeprefix("echo ").strip("'") + "\n" if piped else None
    done = in_process(*shlex.split(command.partition("gateway ")[2]), typed=typed)
    assert same(done.out + done.err) == same(shown), f"{block}: {command}"


def test_there_is_a_walk_through() -> None:
    assert [block.page for block in CONSOLES] == ["README.md", *[PAGE] * 3]


def test_the_fields_are_those_of_the_json() -> None:
    text = section(PAGE, "JSON")
    rows = {field: row[1] for row in table(text) for field in code(row[0])}
    assert set(rows) == set(model.Explained.__struct_fields__)
    for field, shape in (
        ("body", model.Body),
        ("event", model.EventReport),
        ("answer", Answer),
        ("routes", model.RouteReport),
        ("refusals", model.RefusedTarget),
    ):
        assert set(shape.__struct_fields__) <= set(code(rows[field])), field
    told = set(code(text))
    for struct in (model.Condition, model.Record, model.TargetReport, Saw):
        assert set(struct.__struct_fields__) <= told, struct
    for words in (Verdict, Condition, Then, model.Origin):
        assert set(get_args(words)) <= told, words
