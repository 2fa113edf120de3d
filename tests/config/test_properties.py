"""Whatever stands in the file, the answer is a config or a `ConfigError` that can be printed."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config import ConfigError, Problem, load_config_text
from tests.config.conftest import SECTIONS, complete

SECTION_KEYS = ["server", "admin", "log", "headers", "sources", "brokers", "routes", "delivery"]
KEYS = [
    *SECTION_KEYS,
    *("kind", "name", "events", "targets", "broker", "topic", "subject", "secrets", "path"),
    *("servers", "port", "deadline", "dead_letter", "payload", "redact", "tls", "sasl", "streams"),
    *("when", "exclude", "max_body", "unmatched", "mode", "on", "<<", "clerk"),
]
WORDS = [
    *("kafka", "nats", "events", "bus", "*", "user.*", "clerk.{type}", "{", "10s", "64KiB", "/x"),
    *("${V}", "${", "${NO}", "$$", "!a.b", "yes", "original", "data", "dead_letter", "inbox", ""),
]

yaml_like = st.text(alphabet="abk01 :-[]{}#&*!|>'\"%@`,?\n\t$.~<=\\\r\ufeff\x85\u2028", max_size=80)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text()
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=20,
)


def load(text: str) -> None:
    """Load, and look at every problem as a user would."""
    problems, failed = outcome(text)
    lines = text.count("\n") + text.count("\r") + 1
    assert any(problem.severity == "error" for problem in problems) is failed
    assert all(1 <= problem.line <= lines and problem.col >= 1 for problem in problems)
    assert all(problem.render("f.yaml").encode() for problem in problems)


def outcome(text: str) -> tuple[tuple[Problem, ...], bool]:
    """Give the problems, and whether they were raised."""
    try:
        return load_config_text(text, "f.yaml", {"V": "10s"}).warnings, False
    except ConfigError as error:
        return error.problems, True


@settings(deadline=None)
@given(st.text())
def test_any_text_is_a_config_or_a_config_error(text: str) -> None:
    load(text)


@settings(max_examples=300, deadline=None)
@given(yaml_like)
def test_text_like_yaml_is_a_config_or_a_config_error(text: str) -> None:
    load(text)
    load(complete(text))


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(SECTION_KEYS), values))
def test_any_shape_is_a_config_or_a_config_error(document: dict[str, Any]) -> None:
    load(yaml.safe_dump(document, allow_unicode=True))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_right_config_with_one_value_replaced_is_one_or_the_other(data: st.DataObject) -> None:
    document: Any = yaml.safe_load("".join(SECTIONS.values()))
    spot = document
    while True:
        key = data.draw(
            st.sampled_from(sorted(spot) if isinstance(spot, dict) else range(len(spot)))
        )
        if not isinstance(spot[key], dict | list) or not spot[key] or data.draw(st.booleans()):
            break
        spot = spot[key]
    spot[key] = data.draw(values)
    # JSON is YAML, and keeps text such as "on" in quotes.
    load(json.dumps(document))


@pytest.mark.parametrize(
    "text", ["&a [*a]", "a: &a {b: *a}", "? \n", "\x00", "%TAG ! x\n---\na", "--- |\n"]
)
def test_known_troublemakers(text: str) -> None:
    load(text)
