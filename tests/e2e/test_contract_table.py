"""What the contract says of a config file and of the commands that judge one, by the commands.

Every command is a process of its own, but for bad usage. One file holds all faults, so that one run
shows many sentences. What needs brokers is in `test_contract_table_live.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml
from jsonschema import Draft7Validator

from tests.canaries import SECRET
from tests.commands.command import Done, gateway, in_process
from tests.e2e.contract_files import (
    AWAY,
    FAULTS,
    FAULTY,
    ODD,
    WARNINGS,
    Places,
    run,
    table,
    unmarked,
    write,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a directory with a config that is fine."""
    directory = tmp_path_factory.mktemp("contract")
    write(directory, table(*AWAY, "clerk"))
    return directory


# The file: every error at once, each at its place.


@pytest.fixture(scope="module")
def faults(place: Path) -> tuple[Done, Places]:
    text, places = unmarked(FAULTY)
    (place / "faulty.yaml").write_text(text)
    return run(place, "check", "--config", "faulty.yaml"), places


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_names_its_place_what_is_wrong_and_what_would_be_right(
    faults: tuple[Done, Places], fault: str
) -> None:
    done, places = faults
    (message,) = [text for *at, text in messages(done, "faulty.yaml") if tuple(at) == places[fault]]
    for part in FAULTS[fault]:
        assert part in message
    assert not message.startswith(("warning", "note"))


def test_every_fault_is_told_at_once_and_is_bad_usage(faults: tuple[Done, Places]) -> None:
    done, places = faults
    assert (done.code, done.out) == (2, "")
    assert sorted((line, column) for line, column, _ in messages(done, "faulty.yaml")) == sorted(
        places.values()
    )


@pytest.mark.parametrize(
    "command",
    [("serve",), ("explain", "user.created"), ("test",), ("check", "--connect"), ("tail",)],
    ids=lambda command: command[0],
)
def test_every_command_ends_with_2_and_the_same_words_on_a_bad_file(
    place: Path, faults: tuple[Done, Places], command: tuple[str, ...]
) -> None:
    name, *more = command
    done = run(place, name, "--config", "faulty.yaml", *more)
    assert (done.code, done.out, done.err) == (2, "", faults[0].err)


# What is odd: a warning, never an error.


@pytest.fixture(scope="module")
def odd(place: Path) -> tuple[Done, Places]:
    text, places = unmarked(ODD)
    (place / "odd.yaml").write_text(text)
    return run(place, "check", "--config", "odd.yaml"), places


@pytest.mark.parametrize("oddity", WARNINGS)
def test_an_oddity_is_a_warning_that_says_what_would_be_right(
    odd: tuple[Done, Places], oddity: str
) -> None:
    done, places = odd
    found = [text for *at, text in messages(done, "odd.yaml") if tuple(at) == places[oddity]]
    (warning,) = [text for text in found if all(part in text for part in WARNINGS[oddity])]
    assert warning.startswith("warning: ")


def test_events_of_the_catalogue_that_go_nowhere_are_noted(odd: tuple[Done, Places]) -> None:
    done, places = odd
    (note,) = [text for *at, text in messages(done, "odd.yaml") if tuple(at) == places["unrouted"]]
    assert note.startswith("note: no route takes 31 of Clerk's 45 event types: email.created, ")
    assert "go nowhere (unmatched: accept); add a route" in note


def test_what_is_odd_fails_nothing_unless_it_is_asked_to(
    place: Path, odd: tuple[Done, Places]
) -> None:
    done, _ = odd
    assert done.code == 0
    assert "replicas do not" in done.out, "the ledger in memory is not shared by replicas"
    strict = run(place, "check", "--config", "odd.yaml", "--strict")
    assert strict.code == 1
    assert strict.err.startswith(done.err)


def test_a_type_that_nobody_knows_is_no_warning(odd: tuple[Done, Places]) -> None:
    assert "nobody.knows" not in odd[0].err


@pytest.mark.parametrize(
    "arguments",
    [
        ("explain", "user.created"),
        ("explain", "--config", "config.yaml", "user.created"),
        ("explain", "--config", "config.yaml", "--source", "clerk", "./none.json"),
        ("explain", "--config", "none.yaml", "user.created"),
        ("check", "--config", "none.yaml"),
        ("check", "--config", "config.yaml", "--conect"),
        ("test", "--config", "config.yaml"),
        ("schema", "nothing"),
        ("serve", "--config", "none.yaml"),
    ],
    ids=" ".join,
)
def test_bad_usage_ends_with_2_and_says_what_is_missing(
    place: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("CONTRACT_SECRET", SECRET)
    monkeypatch.setenv("CONTRACT_SET", "set")
    done = in_process(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err


# The tests of a table.

CONFIG = {
    "brokers": {"events": {"kind": "kafka", "servers": ["localhost:9092"]}},
    "routes": [
        {
            "name": "users",
            "events": ["user.*"],
            "sources": ["clerk"],
            "targets": [
                {"broker": "events", "topic": "clerk.users", "headers": {"x-plan": "{data.plan}"}}
            ],
        },
        {
            "name": "plans",
            "events": ["user.*"],
            "sources": ["clerk"],
            "when": "data.plan != 'none'",
            "targets": [{"broker": "events", "topic": "clerk.plans.{data.plan}"}],
        },
    ],
}
NONE = """\
tests:
  - name: without a plan to users alone
    event: user.created
    source: clerk
    set: {data.id: user_1, data.plan: none}
    expect: [{broker: events, topic: clerk.users, key: user_1, headers: {x-plan: none}}]
  - name: roles go nowhere
    event: role.created
    source: clerk
    expect: none
  - name: a plan that is null is refused
    event: user.created
    source: clerk
    expect:
      - {broker: events, topic: clerk.users}
      - {broker: events, topic: "clerk.plans.{data.plan}", refused: expression}
"""
WHOLE = """\
  - name: a plan has a topic
    file: plan.json
    source: clerk
    expect:
      - {broker: events, topic: clerk.users, value: {data.plan: pro}}
      - {broker: events, topic: clerk.plans.pro}
"""
FAILING = """\
tests:
  - name: it passes
    event: role.created
    source: clerk
    expect: none
  - name: another key
    event: user.created
    source: clerk
    set: {data.id: user_1, data.plan: none}
    expect: [{broker: events, topic: clerk.users, key: user_2}]
  - name: nobody expected it
    event: user.created
    source: clerk
    set: {data.plan: none}
    expect: none
  - name: it never came
    event: role.created
    source: clerk
    expect: [{broker: events, topic: clerk.users}]
"""
BAD_TESTS = """\
tests:
  - name: first
    event: user.created
    «unknown»expct: none
    source: clerk
    expect: none
  - name: «same»first
    event: «yes»yes
    source: clerk
    expect: [{broker: «broker»evnts, topic: x}]
  - name: second
    event: user.created
    «duplicate»event: user.created
    source: clerk
    expect: none
"""


@pytest.fixture
def tested(tmp_path: Path) -> Path:
    write(tmp_path, CONFIG)
    plan = {"type": "user.created", "data": {"id": "user_1", "plan": "pro"}}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    return tmp_path


def test_tests_beside_the_config_pass_and_cover_all_of_it(tested: Path) -> None:
    (tested / "config.tests.yaml").write_text(NONE + WHOLE)
    done = run(tested, "test", "--config", "config.yaml", "--coverage")
    assert (done.code, done.err) == (0, "")
    assert "coverage: routes 2/2, targets 2/2, conditions 1/1: 100 %\n4 passed" in done.out
    assert "no test reaches" not in done.out


def test_coverage_names_the_routes_and_targets_that_no_test_reaches(tested: Path) -> None:
    (tested / "some.yaml").write_text(NONE)
    done = run(tested, "test", "--config", "config.yaml", "some.yaml")
    assert done.code == 0
    done = run(tested, "test", "--config", "config.yaml", "some.yaml", "--coverage")
    assert done.code == 1
    assert "no test reaches route plans\n" in done.out
    assert "no test sees the condition of route plans true\n" in done.out
    target = "no test reaches target events/clerk.plans.{data.plan} of route plans\n"
    assert target in done.out
    for line in done.out.splitlines():
        assert "no test" not in line or re.match(r"config[.]yaml:\d+:\d+: no test ", line)


def test_a_test_that_fails_ends_with_1_and_is_in_the_report(tested: Path) -> None:
    (tested / "failing.yaml").write_text(FAILING)
    given = ("test", "--config", "config.yaml", "failing.yaml", "--junit", "report.xml")
    done = run(tested, *given)
    assert done.code == 1
    assert "1 passed, 3 failed" in done.out
    assert 'expected "user_2"\n         got      "user_1"' in done.out
    suites = ET.parse(tested / "report.xml").getroot()  # noqa: S314  # it is our own
    assert (suites.get("tests"), suites.get("failures"), suites.get("errors")) == ("4", "3", "0")
    cases = {case.get("name"): case.find("failure") for case in suites.iter("testcase")}
    assert [name for name, failure in cases.items() if failure is None] == ["it passes"]
    failures = {name: one.get("message") or "" for name, one in cases.items() if one is not None}
    assert "differs in key" in failures["another key"]
    assert "not expected" in failures["nobody expected it"]
    assert "not published" in failures["it never came"]


def test_a_tests_file_is_read_as_strictly_as_a_config(tested: Path) -> None:
    text, places = unmarked(BAD_TESTS)
    (tested / "bad.yaml").write_text(text)
    done = run(tested, "test", "--config", "config.yaml", "bad.yaml")
    assert (done.code, done.out) == (2, "")
    found = {(line, column): words for line, column, words in messages(done, "bad.yaml")}
    assert set(found) == set(places.values())
    assert found[places["unknown"]] == 'unknown key "expct", did you mean "expect"?'
    assert "is here twice" in found[places["duplicate"]]
    assert "give each its own" in found[places["same"]]
    assert 'write true, or "yes" for text' in found[places["yes"]]
    assert "did you mean events?" in found[places["broker"]]


def test_the_shipped_example_passes_check_and_its_tests_at_full_coverage(tmp_path: Path) -> None:
    environment = {"CLERK_WEBHOOK_SIGNING_SECRET": SECRET, "PATH": ""}
    example = ROOT / "config.example.yaml"
    done = gateway("check", "--config", example, "--strict", cwd=tmp_path, env=environment)
    assert done.code == 0, done.err
    done = gateway("test", "--config", example, "--coverage", cwd=tmp_path, env=environment)
    assert done.code == 0, done.out
    assert ": 100 %\n" in done.out


# The schema for editors.


@pytest.fixture(scope="module")
def schema(place: Path) -> dict[str, Any]:
    done = run(place, "schema", "config")
    assert (done.code, done.err) == (0, "")
    assert done.out == (ROOT / "schemas" / "config.schema.json").read_text(), "as it is published"
    content: dict[str, Any] = json.loads(done.out)
    return content


def test_the_schema_is_draft_07_and_the_example_names_it(schema: dict[str, Any]) -> None:
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    Draft7Validator.check_schema(schema)
    first = (ROOT / "config.example.yaml").read_text().partition("\n")[0]
    assert first == "# yaml-language-server: $schema=schemas/config.schema.json"


def test_every_field_has_a_description_and_an_example(schema: dict[str, Any]) -> None:
    found = list(fields(schema))
    assert len(found) > 80
    assert [path for path, field in found if not field.get("description")] == []
    assert [path for path, field in found if not field.get("examples")] == []
    assert {path.rpartition("/")[2] for path, _ in found} >= {
        "secrets",
        "topic",
        "when",
        "max_body",
    }


def fields(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Give every key that a file may have. What stands below `if` tests one and describes none."""
    if isinstance(node, list):
        for at, one in enumerate(node):
            yield from fields(one, f"{path}/{at}")
    elif isinstance(node, dict):
        for name, field in node.get("properties", {}).items():
            yield f"{path}/{name}", field
        for name, one in node.items():
            if name not in {"if", "examples", "default"}:
                yield from fields(one, f"{path}/{name}")


def test_the_schema_takes_the_example_and_variables_where_numbers_are_wanted(
    schema: dict[str, Any],
) -> None:
    example = yaml.safe_load((ROOT / "config.example.yaml").read_text())
    takes = Draft7Validator(schema)
    takes.validate(example)
    example["server"]["port"] = "${PORT:-8080}"
    example["server"]["deadline"] = "${DEADLINE}"
    example["sources"]["clerk"]["secrets"] = "${CLERK_SECRETS}"
    takes.validate(example)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("server", "prot", 1),
        ("server", "port", "many"),
        ("server", "deadline", 10),
        ("delivery", "mode", "both"),
        ("admin", "metrics_public", "yes"),
    ],
)
def test_the_schema_underlines_what_the_loader_refuses(
    schema: dict[str, Any], section: str, key: str, value: object
) -> None:
    example = yaml.safe_load((ROOT / "config.example.yaml").read_text())
    example[section][key] = value
    (fault,) = Draft7Validator(schema).iter_errors(example)
    assert list(fault.absolute_path)[:1] == [section]


def messages(done: Done, name: str) -> list[tuple[int, int, str]]:
    """Give line, column and text of each message; a config is named as the command named it."""
    return done.messages(Path(name))
