"""The walk-through of docs/dead-letters.md, typed as it stands there on a real Kafka."""

from __future__ import annotations

import asyncio
import re
import shlex
from pathlib import Path

import yaml

from tests.commands.command import in_process, write_config
from tests.commands.letters import Site
from tests.docs.pages import PAGES, blocks, code, section, table
from tests.e2e.client import event
from tests.servers.kafka import KafkaAt

PAGE = "docs/dead-letters.md"
NAME = "docs.users"
_CHANGES = (
    # Ages, times and offsets are those of the run.
    (re.compile(r'"since":"[^"]+","age":\d+'), '"since":"…","age":0'),
    (re.compile(r"(?m)^(since|gateway-received-at|age)( +)\S+"), r"\1\2…"),
    (re.compile(r"(?m)(dead-letter  )\d+[smh]( *)"), r"\g<1>0s  "),
)


def same(text: str) -> str:
    """Leave out what differs between two runs."""
    for pattern, replacement in _CHANGES:
        text = pattern.sub(replacement, text)
    return re.sub(r" +", " ", text).strip()


def prepare(kafka_server: KafkaAt, directory: Path) -> Site:
    """Make what the page begins with: its config, and three letters."""
    site = Site("kafka", directory, kafka_server.bootstrap, NAME, broker_name="events")
    site.letters = "docs.dead-letter"
    for name in (site.name, site.letters):
        asyncio.run(kafka_server.create_topic(name))
    (config,) = [block for block in blocks("yaml") if block.page == PAGE]
    content = yaml.safe_load(config.text)
    content["brokers"]["events"]["servers"] = [kafka_server.bootstrap]
    del content["sources"]
    write_config(directory, content)
    large = "1640 bytes; the topic's max.message.bytes is 1000"
    denied = "TOPIC_AUTHORIZATION_FAILED: the login may not write to the topic"
    people = {"destination": "docs.people", "reason": "not_authorized", "detail": denied}
    site.put(
        site.letter("msg_2Yx1", event(id="user_1", size=1000), detail=large),
        site.letter("msg_2Yx2", event("user.updated", id="user_2", size=1000), detail=large),
        site.letter("msg_2Yx3", event("user.deleted", id="user_1"), **people),
        site.letter("msg_2Yx4", event("user.deleted", id="user_3"), **people),
    )
    return site


def test_the_walk_through_is_what_happens(tmp_path: Path, kafka_server: KafkaAt) -> None:
    site = prepare(kafka_server, tmp_path)
    consoles = [block for block in blocks("console") if block.page == PAGE]
    assert len(consoles) >= 8
    for block in consoles:
        command, _, shown = block.text.partition("\n")
        words = shlex.split(command.removeprefix("$ gateway "))
        words[words.index("config.yaml")] = str(tmp_path / "config.yaml")
        done = in_process(*words)
        assert same(done.out + done.err) == same(shown), f"{block}: {command}"
    ids = [headers["svix-id"] for _, headers in site.delivered()]
    assert sorted(ids) == ["msg_2Yx1", "msg_2Yx2", "msg_2Yx3"]


def test_the_words_are_those_that_the_code_gives() -> None:
    rows = table(section(PAGE, "Words"))
    shown = {word for row in rows for word in code(row[0])}
    root = Path(__file__).parents[2] / "gateway" / "commands"
    sources = "".join(path.read_text() for path in root.glob("inbox*.py"))
    given = set(re.findall(r"""Not(?:Done|Replayed)\(\s*"(\w+)",""", sources))
    assert given - shown == set()
    # These two are what a letter's progress says.
    assert shown - given == {"replayed", "discarded"}


def test_the_filters_are_those_of_the_commands() -> None:
    rows = table(section(PAGE, "See what is there"))
    shown = {option for row in rows for option in code(row[0])}
    helped = in_process("inbox", "list", "--help").out
    offered = set(re.findall(r"(?m)^  (?:-\w, )?(--[a-z]+)", helped))
    assert offered - shown == {"--config", "--format", "--kept", "--help"}
    assert shown <= offered
    assert "--kept" in PAGES[PAGE]
