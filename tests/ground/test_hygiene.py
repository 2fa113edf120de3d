"""What holds for every file of the repository."""

from __future__ import annotations

import ast
import hashlib
import io
import re
import subprocess
import tokenize
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
APACHE_2 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
"""SHA-256 of the licence as the Apache Software Foundation publishes it."""

MACHINE_PATH = re.compile(r"(?<![\w.:/~-])(?:/(?:home|root|Users|tmp)/|~/\.)\w")
REGISTRIES = ("pypi", "pythonhosted", "npmjs", "repo1?.maven", "deb.debian", "proxy.golang")
REGISTRY_HOST = re.compile(rf"\b(?:{'|'.join(REGISTRIES)})[\w.-]*\.(?:org|com|net|io)\b")
INDEX_OPTION = re.compile(r"--(?:extra-)?index-" + r"url[ =]|--trusted-" + r"host[ =]")
UNFINISHED = re.compile(r"\b(?:TO[D]O|FIX[M]E|X[X]X)\b")
EXCEPTION = re.compile(
    r"#\s*(?:type:\s*ignore(?:\[[\w, -]+\])?|noqa(?::\s*[\w, ]+\d)?|pragma: no \w+)"
)
A_REASON = re.compile(r"[A-Za-z]{2,}.*\s[A-Za-z]{2,}")
MARKDOWN_LINK = re.compile(
    r"(?<!!)!?\[[^\]]*\]\(<?([^)\s>]+)>?(?: [^)]*)?\)|^\[[^\]]+\]:\s+(\S+)", re.MULTILINE
)


@cache
def files() -> dict[str, str]:
    """Give the text of every file that is committed, or would be, by its path."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(read(sorted(filter(None, listed.stdout.split("\0")))))


def read(names: list[str]) -> list[tuple[str, str]]:
    """Read what is text; a picture has no words in it."""
    found = []
    for name in names:
        path = ROOT / name
        if path.is_file() and b"\0" not in (raw := path.read_bytes()):
            found.append((name, raw.decode()))
    return found


def places(pattern: re.Pattern[str]) -> list[str]:
    """Give `file:line: text` for every line in which the pattern is found."""
    return [
        f"{name}:{number}: {line.strip()}"
        for name, text in files().items()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def unreasoned(source: str) -> list[int]:
    """Give the lines whose exception to a check has no reason on it or right above it."""
    lines = source.splitlines()
    bare = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or not EXCEPTION.search(token.string):
            continue
        above = lines[token.start[0] - 2].strip() if token.start[0] > 1 else ""
        beside = EXCEPTION.sub("", token.string)
        if not A_REASON.search(beside) and not above.startswith("#"):
            bare.append(token.start[0])
    return bare


STATUS = re.compile(r"status(?:_code|es)?$|word$")
CLASS_OF_STATUS = re.compile(
    r"\.(?:is_(?:success|error|\w+_error|redirect|informational)|raise_for_status)\b"
)


def is_loose(asserted: ast.expr) -> bool:
    """Tell whether an assertion lets an HTTP answer have more than one status."""
    if CLASS_OF_STATUS.search(ast.unparse(asserted)):
        return True
    return any(
        isinstance(part, ast.Compare) and compares_loosely(part) for part in ast.walk(asserted)
    )


def compares_loosely(compared: ast.Compare) -> bool:
    """Tell whether a status is compared with several numbers: an order, a list, a division."""
    sides = [compared.left, *compared.comparators]
    numbers = {
        part.value
        for side in sides
        for part in ast.walk(side)
        if isinstance(part, ast.Constant) and type(part.value) is int
    }
    text = [ast.unparse(part) for side in sides for part in ast.walk(side)]
    if not numbers or not any(STATUS.search(part) for part in text):
        return False
    if any(isinstance(part, ast.FloorDiv) for side in sides for part in ast.walk(side)):
        return True
    orders = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.NotEq, ast.NotIn)
    if any(isinstance(operator, orders) for operator in compared.ops):
        return any(100 <= number <= 600 for number in numbers)
    is_in = any(isinstance(operator, ast.In) for operator in compared.ops)
    return is_in and sum(100 <= number < 600 for number in numbers) > 1


def loose_statuses(source: str) -> list[int]:
    """Give the lines that assert a class of statuses, or a choice of them, and not the one."""
    found = ast.walk(ast.parse(source))
    return sorted(
        node.lineno for node in found if isinstance(node, ast.Assert) and is_loose(node.test)
    )


def anchors(markdown: str) -> set[str]:
    """Give the anchors of a page's headings, made as the usual forges make them."""
    prose = re.sub(r"^```.*?^```", "", markdown, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+\s+(.*?)\s*$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


def broken_links(name: str, markdown: str) -> list[str]:
    """Give the links to files of the repository, or to their headings, that lead nowhere."""
    prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", markdown, flags=re.MULTILINE | re.DOTALL)
    broken = []
    for inline, reference in MARKDOWN_LINK.findall(prose):
        link = inline or reference
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        if not target.exists() or (
            anchor and target.suffix == ".md" and anchor not in anchors(target.read_text())
        ):
            broken.append(link)
    return broken


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    assert places(MACHINE_PATH) == []


def test_no_file_names_a_registry() -> None:
    assert places(REGISTRY_HOST) + places(INDEX_OPTION) == []


def test_nothing_is_left_unfinished() -> None:
    assert places(UNFINISHED) == []


def test_every_exception_to_a_check_has_its_reason() -> None:
    bare = {name: unreasoned(text) for name, text in files().items() if name.endswith(".py")}
    assert {name: lines for name, lines in bare.items() if lines} == {}


def test_no_test_asserts_a_class_of_statuses() -> None:
    tests = {name: text for name, text in files().items() if re.match(r"tests/.*\.py$", name)}
    assert tests
    loose = {name: loose_statuses(text) for name, text in tests.items()}
    assert {name: lines for name, lines in loose.items() if lines} == {}


def test_links_between_pages_lead_somewhere() -> None:
    pages = {name: text for name, text in files().items() if name.endswith(".md")}
    assert pages
    broken = {name: broken_links(name, text) for name, text in pages.items()}
    assert {name: links for name, links in broken.items() if links} == {}


def test_text_ends_in_one_newline_and_no_line_in_a_space() -> None:
    ours = {name: text for name, text in files().items() if name != "LICENSE" and text}
    badly_ended = {name for name, text in ours.items() if not re.search(r"[^\n]\n\Z", text)}
    trailing = {name for name, text in ours.items() if re.search(r"[ \t]$", text, re.MULTILINE)}
    assert badly_ended | trailing == set()


def test_licence_is_apache_2_unchanged() -> None:
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE_2
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == "Apache-2.0"


def test_every_pattern_of_the_coverage_gate_matches_a_file() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["coverage"]
    assert settings["run"]["branch"] is True
    assert settings["report"]["fail_under"] == 100
    patterns = settings["report"]["include"]
    assert [pattern for pattern in patterns if not list(ROOT.glob(pattern))] == []


def test_changelog_has_a_place_for_what_comes_next() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^## \[Unreleased\]$", changelog, re.MULTILINE)


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        (MACHINE_PATH, "see /ho|me/someone/x", True),
        (MACHINE_PATH, "open('/tm|p/x')", True),
        (MACHINE_PATH, "~/|.pyenv/x", True),
        (MACHINE_PATH, "https://example.com/home/x", False),
        (MACHINE_PATH, "/var/lib/gateway", False),
        (REGISTRY_HOST, "files.python|hosted.org", True),
        (REGISTRY_HOST, "example.org", False),
        (INDEX_OPTION, "pip install --index-|url=x", True),
        (UNFINISHED, "# TO|DO: later", True),
        (UNFINISHED, "todos", False),
    ],
)
def test_patterns_find_what_they_should(pattern: re.Pattern[str], text: str, found: bool) -> None:
    assert bool(pattern.search(text.replace("|", ""))) is found


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("x = 1  # noqa: S101\n", [1]),
        ("x = 1  # noqa: S101, E501 - the value is a constant\n", []),
        ("x = f()  # type: ignore[misc]\n", [1]),
        ("x = f()  # type: ignore[misc]  # the stub is wrong here\n", []),
        ("# The stub is wrong.\nx = f()  # type: ignore[misc]\n", []),
        ("x = '# noqa'\n", []),
        ("if x:  # pragma: no cover\n    pass\n", [1]),
    ],
)
def test_exceptions_without_a_reason_are_found(source: str, lines: list[int]) -> None:
    assert unreasoned(source) == lines


@pytest.mark.parametrize(
    ("asserted", "is_found"),
    [
        ("answer.status >= 400", True),
        ("400 <= answer.status_code < 500", True),
        ("reply.status in {404, 405}", True),
        ("(await wire.reply()).status in (400, 404)", True),
        ("answer.status_code // 100 == 4", True),
        ("str(status)[0] == 4 and status > 399", True),
        ("answer.status != 200", True),
        ("answer.status not in {200, 202}", True),
        ("answer.is_success", True),
        ("not answer.is_server_error", True),
        ("reply.word in [(401, 'rejected'), (400, 'rejected')]", True),
        ("all(one.status < 500 for one in answers)", True),
        ("answer.status == 404", False),
        ("(answer.status, answer.body) == (405, {})", False),
        ("statuses == {401}", False),
        ("set(statuses) == {200, 503}", False),
        ("len(answer.raw) < 4000", False),
        ("exit_status != 0", False),
        ("answer.status == expected", False),
    ],
)
def test_loose_statuses_are_found(asserted: str, is_found: bool) -> None:
    assert bool(loose_statuses(f"assert {asserted}\n")) is is_found


def test_broken_links_are_found() -> None:
    page = (
        "# A b!\n[a](LICENSE) [b](nothing.md) [c](https://example.com) `[d](e)`\n\n[f]: gone.md\n"
    )
    assert broken_links("page.md", page) == ["nothing.md", "gone.md"]
    assert anchors(page) == {"a-b"}
    assert broken_links("CONTRIBUTING.md", "[a](#set-up) [b](#nowhere)") == ["#nowhere"]
