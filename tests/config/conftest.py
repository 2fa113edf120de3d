"""A config that is right, of which a test replaces the sections it is about."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import pytest

from gateway.config import ConfigError, LoadedConfig, Problem, load_config_text
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
    "routes": (
        'routes: [{name: all, events: ["*"], targets: [{broker: events, topic: clerk.all}]}]\n'
    ),
}

Load = Callable[..., LoadedConfig]
Problems = Callable[..., tuple[Problem, ...]]


def complete(text: str) -> str:
    """Add the sections that `text` does not have, below it."""
    present = set(re.findall(r"^(\w+):", text.replace(MARK, ""), re.MULTILINE))
    rest = "".join(body for name, body in SECTIONS.items() if name not in present)
    return f"{text.rstrip()}\n{rest}"


@pytest.fixture
def load() -> Load:
    """Load a text that is completed by right sections."""

    def run(text: str, env: Mapping[str, str] | None = None, **options: object) -> LoadedConfig:
        return load_config_text(complete(text), "config.yaml", env or {}, **options)  # type: ignore[arg-type]  # options of the loader

    return run


@pytest.fixture
def problems(load: Load) -> Problems:
    """Give the problems of a text, errors and warnings."""

    def run(
        text: str, env: Mapping[str, str] | None = None, **options: object
    ) -> tuple[Problem, ...]:
        try:
            return load(text, env, **options).warnings
        except ConfigError as error:
            OUTPUTS.gather("a ConfigError", str(error))
            return error.problems

    return run


def marked(text: str) -> tuple[str, int, int]:
    """Take the mark out of a text, and give its line and column, from 1."""
    before, _, after = text.partition(MARK)
    assert MARK not in after
    return before + after, before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


@pytest.fixture
def assert_told(problems: Problems) -> Callable[..., None]:
    """Assert that a marked text has exactly one problem, at the mark, with these first words."""

    def run(
        text: str, begins: str, severity: str = "error", env: Mapping[str, str] | None = None
    ) -> None:
        plain, line, col = marked(text)
        found = problems(plain, env)
        assert [(p.severity, p.line, p.col) for p in found] == [(severity, line, col)], found
        assert found[0].message.startswith(begins), found[0].message

    return run
