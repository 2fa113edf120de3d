"""Every row of "what happens when" has the tests that show it, and they exist."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import PAGES, ROOT, code, section, table
from tests.docs.test_threat_model import names_of

PAGE = "docs/failures.md"
CHAPTERS = re.findall(r"^## (.+)$", PAGES[PAGE], re.MULTILINE)
ROWS = [(chapter, row) for chapter in CHAPTERS for row in table(section(PAGE, chapter))]
SHOWN = [(row[0], test) for _, row in ROWS for test in code(row[-1])]


def test_every_row_is_whole_and_has_its_tests() -> None:
    assert len(CHAPTERS) >= 5
    assert len(ROWS) > 45
    for _, row in ROWS:
        assert len(row) == 5, row
        assert all(row), row
        assert code(row[-1]), row


def test_no_failure_is_told_twice() -> None:
    told = [row[0] for _, row in ROWS]
    assert len(told) == len(set(told))


@pytest.mark.parametrize(("failure", "test"), SHOWN, ids=[test for _, test in SHOWN])
def test_the_test_exists(failure: str, test: str) -> None:
    file, _, name = test.partition("::")
    assert file.startswith("tests/"), failure
    assert name in names_of(ROOT / file), failure


def test_every_fire_is_on_the_page() -> None:
    files = [ROOT / "tests/fire" / f"test_{name}.py" for name in ("fire", "inbox", "overload")]
    rows = frozenset[str]().union(*map(names_of, files))
    named = {test.partition("::")[2] for _, test in SHOWN}
    assert rows <= named


def test_the_page_is_linked_from_where_people_look() -> None:
    for page in ("README.md", "docs/operations.md", "docs/http.md"):
        assert "failures.md" in PAGES[page]
