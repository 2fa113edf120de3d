"""What is told of a config whose faulty places are marked."""

from __future__ import annotations

import re
from collections.abc import Mapping

from gateway.app import draw
from gateway.commands.loading import deep_check
from gateway.config import Problem, load_config_text
from gateway.routing.compile import find_faults
from tests.canaries import SECRET
from tests.outputs import OUTPUTS

MARK = "‸"

SECTIONS = {
    "sources": f"sources: {{clerk: {{secrets: [{SECRET}]}}}}\n",
    "brokers": (
        "brokers:\n"
        "  events: {kind: kafka, servers: [localhost:9092]}\n"
        "  bus: {kind: nats, servers: [nats://localhost:4222]}\n"
    ),
    "unmatched": "unmatched: accept\n",
}
TWO_SOURCES = (
    f"sources:\n  clerk: {{secrets: [{SECRET}]}}\n"
    f"  shop: {{kind: svix, path: /shop, secrets: [{SECRET}]}}\n"
)


def complete(text: str) -> str:
    """Add the sections that `text` does not have, below it."""
    present = set(re.findall(r"^(\w+):", text.replace(MARK, ""), re.MULTILINE))
    rest = "".join(body for name, body in SECTIONS.items() if name not in present)
    return f"{text.rstrip()}\n{rest}"


def told(
    text: str, env: Mapping[str, str] | None = None, *, notes: bool = False
) -> list[tuple[tuple[int, int], str, str]]:
    """Give place, rule and words of each warning of the linter; with `notes` those too."""
    content = complete(text).replace(MARK, "")
    loaded = load_config_text(content, "config.yaml", env or {}, checks=(find_faults,))
    found = [parted(problem) for problem in deep_check(draw(loaded)) if wanted(problem, notes)]
    OUTPUTS.gather("gateway check", "\n".join(words for _, _, words in found))
    return found


def wanted(problem: Problem, notes: bool) -> bool:
    """Tell the linter's problems, which end in their rule, from those of the loader."""
    return problem.message.endswith("]") and (notes or problem.severity == "warning")


def parted(problem: Problem) -> tuple[tuple[int, int], str, str]:
    words, _, rule = problem.message.removesuffix("]").rpartition(" [")
    return (problem.line, problem.col), rule, words


def marked(text: str) -> list[tuple[int, int]]:
    """Give line and column of every mark."""
    places = []
    for number, line in enumerate(text.splitlines(), 1):
        column = -1
        while (column := line.find(MARK, column + 1)) >= 0:
            places.append((number, column + 1 - line[:column].count(MARK)))
    return places
