"""Whatever stands in a tests file, it is refused at a place, or it runs and can be told."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config import ConfigError
from gateway.testing.coverage import cover
from gateway.testing.junit import junit_xml
from gateway.testing.load import Suite, load_tests
from gateway.testing.report import details
from gateway.testing.rules import Setting
from gateway.testing.run import run_suite
from tests.config.hostile import FILES
from tests.config.test_properties import yaml_like
from tests.testing.settings import setting, suite
from tests.testing.test_junit import assert_valid

SECONDS = 8.0
"""Of CPU, for a busy machine."""
KEYS = [
    *("tests", "name", "event", "file", "body", "set", "unset", "source", "id", "expect"),
    *("exhaustive", "broker", "topic", "subject", "routes", "key", "headers", "value", "refused"),
    *("data.id", "data.x.0", "type", "data", "on", "<<", "x"),
]
WORDS = [
    *("user.created", "none", "events", "bus", "users", "clerk", "clerk.users", "expression"),
    *(
        "clerk.user.created",
        "config.tests.yaml",
        "..",
        "/dev/zero",
        "/dev/stdin",
        "",
        "\x00",
        "${V}",
    ),
]
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text()
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=12,
)
expectations = st.lists(
    st.fixed_dictionaries(
        {"topic": st.sampled_from(["clerk.users", "x"])},
        optional={
            "key": st.text(min_size=1),
            "headers": st.dictionaries(st.text(), st.none() | st.text(), max_size=2),
            "value": st.dictionaries(st.sampled_from(["data.id", "data", "a.0.b"]), values),
        },
    ),
    max_size=2,
)
bodies = st.dictionaries(st.sampled_from(["type", "data", "x"]), values, max_size=3)
cases = st.fixed_dictionaries(
    {"name": st.text(min_size=1), "body": bodies, "expect": expectations},
    optional={"set": st.dictionaries(st.sampled_from(["data.id", "type", "x.y"]), values)},
)


@pytest.fixture(scope="module")
def made() -> Setting:
    """Give what the config says; its file is not needed afterwards."""
    with tempfile.TemporaryDirectory() as directory:
        return setting(Path(directory))


def read(path: str, made: Setting) -> Suite | None:
    """Load, or look at every problem as a user would."""
    try:
        return load_tests(path, made)
    except ConfigError as error:
        problems = error.problems
    assert all(one.render("f").encode() for one in problems)
    return None


def judged(text: str, made: Setting) -> bool:
    """Load, and where it loads also run and tell; give whether it did."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "f.tests.yaml"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        loaded = read(str(path), made)
        if loaded is None:
            return False
        results = list(run_suite(loaded, made, time.perf_counter))
        for result in results:
            lines = list(details(result, made))
            assert bool(lines) is not result.passed
            assert all(line.isprintable() for line in lines)
        assert_valid(junit_xml({str(path): results}, made))
        assert cover(made.table, results).percent <= 100
        return True


@given(st.text() | yaml_like)
@settings(max_examples=100)
def test_any_text_is_read_or_refused(made: Setting, text: str) -> None:
    judged(text, made)


@given(values | st.fixed_dictionaries({"tests": st.lists(values, max_size=3)}))
@settings(max_examples=150)
def test_any_values_are_read_or_refused(made: Setting, value: Any) -> None:
    judged(json.dumps(value), made)


@given(st.lists(cases, min_size=1, max_size=2))
@settings(max_examples=150)
def test_any_event_and_any_expectation_can_be_told(made: Setting, tests: list[Any]) -> None:
    judged(json.dumps({"tests": tests}), made)


def test_what_is_generated_also_runs(made: Setting) -> None:
    case = {"name": "\x1b\u2028", "body": {"type": "user.created", "data": {}}, "expect": []}
    assert judged(json.dumps({"tests": [case]}), made)


@pytest.mark.parametrize(
    "name", ["alias-bomb-lists", "alias-bomb-maps", "nul-bytes", "nested-flow-maps", "unknown-keys"]
)
def test_a_file_made_to_hurt_is_refused_quickly(name: str, made: Setting, tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(FILES[name])
    started = time.process_time()
    with pytest.raises(ConfigError):
        load_tests(str(path), made)
    assert time.process_time() - started < SECONDS


def test_large_events_are_bounded_together(tmp_path: Path) -> None:
    (tmp_path / "large.json").write_text(
        json.dumps({"type": "a.b", "data": {"x": "x" * 1_000_000}})
    )
    case = "{{name: n{}, file: large.json, set: {{data.id: a}}, expect: none}}"
    text = "tests:\n" + "".join(f"  - {case.format(at)}\n" for at in range(80))
    with pytest.raises(ConfigError, match="the events of all tests are larger than 64 MiB"):
        suite(tmp_path, text)
    # As it is, a file is held once.
    plain = text.replace("set: {data.id: a}, ", "")
    assert len({id(test.body) for test in suite(tmp_path, plain).tests}) == 1


def test_many_tests_are_read_quickly(tmp_path: Path) -> None:
    case = "- {{name: n{}, body: {{}}, expect: [{{topic: x}}]}}\n"
    text = "tests:\n" + "".join(case.format(at) for at in range(9_000))
    started = time.process_time()
    assert len(suite(tmp_path, text).tests) == 9_000
    assert time.process_time() - started < 4 * SECONDS
