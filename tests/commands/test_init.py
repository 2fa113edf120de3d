"""`gateway init`: whatever is chosen, the files are right, whole, and overwrite nothing."""

from __future__ import annotations

import json
import re
from itertools import product
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from gateway.app import draw, load
from gateway.commands.init_text import GROUPS, Answers, config_text, suite_text
from tests.canaries import SECRET
from tests.commands.command import Done, in_process
from tests.config.documents import as_written_in

VARIABLE = "CLERK_WEBHOOK_SIGNING_SECRET"
NAMES = ["config.yaml", "config.tests.yaml", "config.schema.json", "config.tests.schema.json"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, SECRET)


def assert_right(directory: Path, stem: str = "config") -> None:
    """Check the files with the commands that a user has for it, without one word of doubt."""
    config = directory / f"{stem}.yaml"
    checked = in_process("check", "--config", config)
    assert checked.code == 0
    assert all(" note: no route takes " in line for line in checked.err.splitlines())
    assert "fine: 1 source" in checked.out
    tested = in_process("test", "--config", config, "--coverage")
    assert tested.code == 0
    assert re.search(r"^coverage: .*: 100 %$", tested.out, re.MULTILINE)
    for kind in ("", ".tests"):
        text = (directory / f"{stem}{kind}.yaml").read_text()
        schema = directory / f"{stem}{kind}.schema.json"
        assert text.startswith(f"# yaml-language-server: $schema={schema.name}\n")
        Draft7Validator(json.loads(schema.read_text())).validate(as_written_in(text))


FLAGS: list[tuple[str, ...]] = list(
    product(
        ("kafka", "nats", "both"),
        ("entity", "single"),
        ("--create-topics", "--no-create-topics"),
        ("--create-stream", "--no-create-stream"),
        ("direct", "inbox"),
        ("--dead-letter", "--no-dead-letter"),
    )
)


@pytest.mark.parametrize(("brokers", "idle"), [("kafka", "nats"), ("nats", "kafka")])
def test_servers_of_a_broker_that_is_not_wanted_are_not_passed_over(
    brokers: str, idle: str, tmp_path: Path
) -> None:
    done = in_process("init", "--yes", "--brokers", brokers, f"--{idle}-servers", "host-1")
    assert done.code == 2
    assert f"--{idle}-servers: there is no such broker with --brokers {brokers}" in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flags", FLAGS, ids=" ".join)
def test_every_combination_of_flags_gives_files_that_are_right(
    flags: tuple[str, ...], tmp_path: Path
) -> None:
    brokers, layout, topics, stream, mode, letter = flags
    events = ("all", "users", "organizations", "messages,users")[FLAGS.index(flags) % 4]
    options = ["--brokers", brokers, "--layout", layout, "--mode", mode, "--events", events]
    done = in_process("init", *options, topics, stream, letter)
    assert (done.code, done.err) == (0, "")
    assert_right(tmp_path)
    written = load(tmp_path / "config.yaml", {VARIABLE: SECRET}).config
    assert {broker.kind for broker in written.brokers.values()} == (
        {"kafka", "nats"} if brokers == "both" else {brokers}
    )
    assert written.delivery.mode == mode
    assert (written.delivery.dead_letter is not None) is (letter == "--dead-letter")
    for broker in written.brokers.values():
        if broker.kind == "kafka":
            assert broker.topics.create is (topics == "--create-topics")
        else:
            assert bool(broker.streams) is (stream == "--create-stream")


ANSWERS = st.builds(
    Answers,
    brokers=st.sampled_from(["kafka", "nats", "both"]),
    kafka_servers=st.lists(st.sampled_from(["a:9092", "b", "[::1]:1"]), min_size=1).map(tuple),
    nats_servers=st.lists(st.sampled_from(["nats://a:4222", "tls://b"]), min_size=1).map(tuple),
    events=st.lists(st.sampled_from(list(GROUPS)), unique=True).map(
        lambda chosen: tuple(group for group in GROUPS if group in chosen)
    ),
    layout=st.sampled_from(["entity", "single"]),
    create_topics=st.booleans(),
    create_stream=st.booleans(),
    mode=st.sampled_from(["direct", "inbox"]),
    dead_letter=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(chosen=ANSWERS)
def test_whatever_is_answered_loads_without_a_warning_and_its_tests_are_whole(
    chosen: Answers, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("init")
    path = directory / "config.yaml"
    path.write_text(config_text(chosen, None))
    (directory / "config.tests.yaml").write_text(suite_text(chosen, None))
    loaded = load(path, {VARIABLE: SECRET})
    assert [problem for problem in loaded.warnings if problem.severity != "note"] == []
    assert [route.name for route in draw(loaded).config.routes] == list(chosen.routes)
    tested = in_process("test", "--config", path, "--coverage")
    assert tested.code == 0


def test_without_a_terminal_nothing_is_asked(tmp_path: Path) -> None:
    done = in_process("init")
    assert (done.code, done.err) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(NAMES)
    assert_right(tmp_path)


def test_on_a_terminal_what_no_flag_says_is_asked(tmp_path: Path) -> None:
    typed = "nats\nnats://one:4222,nats://two:4222\nn\nsomebody\nusers, billing\nsingle\ninbox\ny\n"
    done = in_process("init", typed=typed)
    assert done.code == 0
    assert "write all, or some of users" in done.out, "the wrong answer is asked for again"
    document = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert document["brokers"] == {
        "bus": {"kind": "nats", "servers": ["nats://one:4222", "nats://two:4222"]}
    }
    assert document["routes"][0]["events"][0] == "user.*"
    assert "subscription.*" in document["routes"][0]["events"]
    assert document["delivery"]["mode"] == "inbox"
    assert_right(tmp_path)


def test_on_a_terminal_servers_that_cannot_be_are_asked_for_again(tmp_path: Path) -> None:
    done = in_process("init", typed="Both\n,\none:9092\ny\nhttp://two\ntwo:4222\n" + "\n" * 5)
    assert done.code == 0
    assert "servers: none" in done.out
    assert "NATS takes nats://host:port" in done.out
    brokers = yaml.safe_load((tmp_path / "config.yaml").read_text())["brokers"]
    assert brokers["events"]["servers"] == ["one:9092"]
    assert brokers["bus"]["servers"] == ["two:4222"]
    assert_right(tmp_path)


def test_on_a_terminal_yes_asks_nothing(tmp_path: Path) -> None:
    done = in_process("init", "--yes", typed="")
    assert done.code == 0
    assert_right(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_there_is_kept_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    done = in_process("init")
    assert done.code == 2
    assert name in done.err
    assert "--force" in done.err
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_a_link_that_leads_nowhere_is_kept_too(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").symlink_to(tmp_path / "elsewhere")
    assert in_process("init").code == 2
    assert not (tmp_path / "elsewhere").exists()


def test_force_overwrites(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("mine")
    done = in_process("init", "--force")
    assert (done.code, done.err) == (0, "")
    assert_right(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(NAMES), "nothing is left over"


def test_the_schemas_can_be_left_out(tmp_path: Path) -> None:
    assert in_process("init", "--no-schema").code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == NAMES[1::-1]
    for path in tmp_path.iterdir():
        assert "yaml-language-server" not in path.read_text()


def test_another_name_and_place(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    done = in_process("init", "--config", "conf/routing.yaml")
    assert done.code == 0
    assert_right(tmp_path / "conf", "routing")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--kafka-servers", "kafka://one:9092"], "'--kafka-servers': servers[0]: Kafka takes"),
        (["--nats-servers", "nats://user:pass@one"], "'--nats-servers': servers[0]: a login in"),
        (["--kafka-servers", ","], "'--kafka-servers': servers: none"),
        (["--events", "usrs"], "some of users"),
        (["--config", "nowhere/config.yaml"], "cannot be written"),
    ],
)
def test_what_would_be_wrong_is_told_and_not_written(
    options: list[str], words: str, tmp_path: Path
) -> None:
    done = in_process("init", *options)
    assert done.code == 2
    assert words in done.err
    assert list(tmp_path.iterdir()) == []


def test_the_next_steps_are_commands_that_there_are() -> None:
    done: Done = in_process("init")
    steps = re.findall(r"^  \S.*? (check|test|explain|serve|schema) ", done.out, re.MULTILINE)
    assert steps == ["check", "test", "explain", "check", "serve", "schema", "schema"]
    assert f"export {VARIABLE}=whsec_..." in done.out
