"""Reads the pages: their fenced blocks, tables and commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for path in sorted((ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("deploy/*.md")))
}

PART = "…"

_FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_COMMANDS = "dev|serve|check|explain|test|send|tail|inbox|schema|init"
_MARK = re.compile(r"<!-- config: (\w+) -->\s*\Z")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    line: int
    language: str
    text: str
    mark: str = ""
    """What a comment right before it says of a config: `faulty`."""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    """Give the blocks of all pages in these languages, in order."""
    return [block for page in PAGES for block in _blocks(page) if block.language in languages]


def _blocks(page: str) -> Iterator[Block]:
    text = PAGES[page]
    for found in _FENCE.finditer(text):
        before = text[: found.start()]
        mark = _MARK.search(before)
        line = before.count("\n") + 1
        yield Block(page, line, found[2], dedent(found[3]), mark[1] if mark else "")


def section(page: str, title: str) -> str:
    """Give what stands below a heading, up to the next one of its level or above."""
    level = len(re.findall(rf"^(#+) {re.escape(title)}$", PAGES[page], re.MULTILINE)[0])
    _, _, after = PAGES[page].partition(f"\n{'#' * level} {title}\n")
    return re.split(rf"^#{{1,{level}}} ", after, maxsplit=1, flags=re.MULTILINE)[0]


def table(text: str) -> list[list[str]]:
    """Give the rows of the first table, without its head; cells as they are written."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    first = text.index("\n".join(lines[:1]))
    rows = []
    for line in text[first:].splitlines()[2:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return rows


def code(cell: str) -> list[str]:
    """Give what stands between backticks in a cell."""
    return re.findall(r"`([^`]+)`", cell)


def commands() -> list[tuple[str, list[str]]]:
    """Give every `gateway …` command of the pages: where it stands, and its words.

    One inside a sentence ends in `PART`: it may leave out what is required.
    """
    found = []
    for block in blocks("sh", "console", "text"):
        for line in block.text.splitlines():
            text = line.removeprefix("$ ")
            for part in re.split(r" && | \| | > \S+", text):
                match = re.match(r"(?:\S*/bin/)?gateway (\w.*)", part)
                if match and (block.language == "sh" or line.startswith("$ ")):
                    found.append((f"{block}: {part}", shlex.split(match[1], comments=True)))
    for page, text in PAGES.items():
        inlines = re.findall(rf"`gateway ((?:{_COMMANDS})\b[^`]*)`", text)
        found += [(f"{page}: {inline}", [*shlex.split(inline), PART]) for inline in inlines]
    return found
