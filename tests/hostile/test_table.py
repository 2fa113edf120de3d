"""The table itself: large enough, unambiguous, and in the words of the contract."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.docs.pages import ROOT
from tests.hostile.table import CLASSES


@pytest.mark.parametrize("kind", CLASSES)
def test_a_class_has_enough_rows_and_each_has_a_name_and_an_idea_of_its_own(kind: str) -> None:
    rows = CLASSES[kind]
    assert sum(not row.is_control for row in rows) >= 30
    assert any(row.is_control for row in rows)
    for texts in ([row.name for row in rows], [row.what for row in rows]):
        assert [text for text, count in Counter(texts).items() if count > 1 or not text] == []


def test_the_table_has_enough_rows() -> None:
    hostile = [row for rows in CLASSES.values() for row in rows if not row.is_control]
    assert len(hostile) >= 300
    assert {row.status for row in hostile} == {400, 401, 404, 405, 408, 413, 431}


def test_every_reason_and_its_status_are_the_contracts() -> None:
    page = (ROOT / "docs" / "http.md").read_text()
    documented = set(re.findall(r"^\| `(\w+)` \| (\d+) \|", page, re.MULTILINE))
    found = {
        (reason, str(status))
        for rows in CLASSES.values()
        for row in rows
        for status, reason in ((row.status, row.reason), *row.then)
        if not row.is_control
    }
    assert found - documented == set()
