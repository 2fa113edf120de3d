"""`gateway explain`, as a shell has it: what it takes, what it tells, how it ends."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.canaries import CANARY
from tests.commands.command import GATEWAY, Done, gateway, gathered, in_process, write_config

SHOWS = pytest.mark.shows_payload("`gateway explain` shows values of the event by contract")

BROKERS = {
    "events": {"kind": "kafka", "servers": ["localhost:9092"]},
    "bus": {"kind": "nats", "servers": ["nats://localhost:4222"]},
}
USERS: dict[str, Any] = {
    "name": "users",
    "events": ["user.*"],
    "exclude": ["user.deleted"],
    "targets": [
        {"broker": "events", "topic": "clerk.users", "key": "{data.tier}"},
        {"broker": "bus", "subject": "clerk.{type}"},
    ],
}
PRO: dict[str, Any] = {
    "name": "pro",
    "events": ["user.created"],
    "when": "data.tier == 'pro'",
    "targets": [
        {"broker": "bus", "subject": "clerk.{type}"},
        {"broker": "events", "topic": "clerk.pro.{data.region}"},
    ],
}


def config(directory: Path, *routes: dict[str, Any], **more: Any) -> Path:
    return write_config(
        directory, {"brokers": BROKERS, "routes": list(routes or (USERS, PRO)), **more}
    )


def told(path: Path, *arguments: object) -> dict[str, Any]:
    done = in_process("explain", "--config", path, "--format", "json", *arguments)
    assert done.out.count("\n") == 1, done
    content: dict[str, Any] = json.loads(done.out)
    return content


def piped(path: Path, body: bytes, *arguments: str) -> Done:
    """Run it as a process of its own, with a body on its standard input."""
    command = [*GATEWAY, "explain", "--config", str(path), "-", *arguments]
    done = subprocess.run(command, input=body, capture_output=True, timeout=60, check=False)
    out, err = done.stdout.decode(), done.stderr.decode()
    gathered(subprocess.CompletedProcess(command, done.returncode, out, err))
    return Done(done.returncode, out, err)


def test_text_tells_each_route_and_each_record(tmp_path: Path) -> None:
    done = in_process(
        "explain", "--config", config(tmp_path), "user.created", "--set", "data.tier=pro"
    )
    assert done.code == 1, done
    lines = done.out.splitlines()
    assert "takes it   users: events has user.*" in lines
    assert "takes it   pro: events has user.created, and when is true" in lines
    assert '  data.tier  "pro"' in lines
    assert "  -> events  topic clerk.users" in lines
    assert "     key      pro  (its template)" in lines
    assert "  -> bus  subject clerk.user.created" in lines
    assert "     same  as target 2 of users: published once" in lines
    assert "              gateway-route        users,pro" in lines
    assert "  -> events  REFUSED clerk.pro.{data.region}" in lines
    assert (
        "     reason  expression: the expression `data.region` gave nothing for a destination"
    ) in lines
    assert "     then    503, and the sender repeats it in vain: there is no dead letter" in lines
    assert any(line.startswith("answer: 503 failed (expression)") for line in lines)
    assert "\x1b" not in done.out


@pytest.mark.parametrize(
    ("event_type", "line"),
    [
        ("user.deleted", "leaves it  users: exclude has user.deleted"),
        ("session.created", "leaves it  users: events are user.*"),
        ("user.created", "leaves it  pro: events has user.created, and when is not true"),
    ],
)
def test_text_tells_why_a_route_leaves_an_event(event_type: str, line: str, tmp_path: Path) -> None:
    done = in_process("explain", "--config", config(tmp_path), event_type)
    assert done.code == 0, done
    assert line in done.out.splitlines()


def test_a_file_is_a_body_byte_for_byte(tmp_path: Path) -> None:
    body = b' {"type":"user.updated","data":{"id":"user_1","n":1.0}}\n'
    (tmp_path / "user.updated").write_bytes(body)
    content = told(config(tmp_path), tmp_path / "user.updated")
    assert content["body"] == {"origin": "file", "bytes": len(body)}
    assert [one["value"] for one in content["records"]] == [body.decode()] * 2
    assert [one["key"] for one in content["records"]] == ["user_1", "user_1"]
    assert [one["key_from"] for one in content["routes"][0]["targets"]] == ["data.id", "data.id"]


@SHOWS
def test_standard_input_is_a_body(tmp_path: Path) -> None:
    body = json.dumps({"type": "user.created", "data": {"tier": CANARY}}).encode()
    done = piped(config(tmp_path), body, "--format", "json", "--id", "msg_1")
    assert done.code == 0, done
    content = json.loads(done.out)
    assert content["body"]["origin"] == "stdin"
    assert content["event"]["id"] == "msg_1"
    assert content["event"]["key_from"] == "svix-id"
    pro = content["routes"][1]
    assert pro["verdict"] == "when"
    assert pro["when"]["result"] == "false"
    assert pro["when"]["saw"] == [{"path": "data.tier", "value": CANARY}]
    assert content["records"][0]["key"] == CANARY


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"[1]", 400, "not_an_object"),
        (b"{", 400, "not_json"),
        (b"", 400, "not_json"),
        (b"{}", 400, "no_type"),
        (b'{"type":"' + b"x" * 2000 + b'"}', 413, "body_too_large"),
    ],
)
def test_a_body_that_is_no_event(body: bytes, status: int, reason: str, tmp_path: Path) -> None:
    path = config(tmp_path, server={"max_body": "1KiB"})
    done = piped(path, body, "--format", "json")
    assert done.code == 1
    content = json.loads(done.out)
    assert content["answer"]["http_status"] == status
    assert content["answer"]["reason"] == reason
    assert content["body"]["bytes"] == min(len(body), 1025)
    assert (content["event"], content["routes"]) == (None, [])


LETTER = {"dead_letter": {"broker": "events", "topic": "clerk.letters"}}
INBOX = {"mode": "inbox", "inbox": {"path": "inbox.db"}}


@SHOWS
@pytest.mark.parametrize(
    ("more", "event_type", "code", "answer"),
    [
        ({}, "user.updated", 0, (200, "delivered", "")),
        ({}, "session.created", 0, (200, "unmatched", "")),
        ({"unmatched": "reject"}, "session.created", 1, (422, "unmatched", "")),
        ({}, "user.created", 1, (503, "failed", "expression")),
        ({"delivery": LETTER}, "user.created", 0, (200, "dead_lettered", "expression")),
        (
            {"delivery": LETTER, "unmatched": "dead_letter"},
            *("session.created", 0, (200, "dead_lettered", "unmatched")),
        ),
        ({"delivery": INBOX}, "user.updated", 0, (200, "stored", "")),
        ({"delivery": INBOX}, "user.created", 1, (200, "stored", "")),
        ({"delivery": {**INBOX, **LETTER}}, "user.created", 0, (200, "stored", "")),
    ],
)
def test_the_answer_and_the_exit_code(
    more: dict[str, Any],
    event_type: str,
    code: int,
    answer: tuple[int, str, str],
    tmp_path: Path,
) -> None:
    path = config(tmp_path, **more)
    done = in_process(
        *("explain", "--config", path, "--format", "json", event_type, "--set", "data.tier=pro")
    )
    content = json.loads(done.out)["answer"]
    assert (content["http_status"], content["status"], content["reason"]) == answer
    assert done.code == code
    text = in_process("explain", "--config", path, event_type, "--set", "data.tier=pro")
    assert f"answer: {answer[0]} {answer[1]}" in text.out
    assert text.code == code


@SHOWS
def test_a_letter_is_told_whole(tmp_path: Path) -> None:
    content = told(config(tmp_path, delivery=LETTER), "user.created", "--set", "data.tier=pro")
    (refusal,), (letter,) = content["refusals"], content["letters"]
    assert (refusal["then"], refusal["letter"]) == ("dead_letter", 0)
    assert (letter["broker"], letter["topic"]) == ("events", "clerk.letters")
    assert dict(letter["headers"])["gateway-dead-letter-target"] == "events/clerk.pro.{data.region}"
    target = content["routes"][1]["targets"][1]
    assert (target["record"], target["refusal"]) == (None, 0)


SOURCES = {"clerk": {}, "stripe": {"kind": "svix", "path": "/stripe", "type": "event_type"}}


def sources(directory: Path) -> Path:
    secret = {"secrets": [f"${{file:{directory / 'secret'}}}"]}
    only = {**USERS, "sources": ["clerk"]}
    everyone = {**PRO, "sources": ["clerk", "stripe"]}
    named = {name: {**secret, **source} for name, source in SOURCES.items()}
    return config(directory, only, everyone, sources=named)


def test_one_of_several_sources_must_be_named(tmp_path: Path) -> None:
    path = sources(tmp_path)
    done = in_process("explain", "--config", path, "user.created")
    assert done.code == 2
    assert "the config has 2 sources: say --source with one of clerk, stripe" in done.err
    done = in_process("explain", "--config", path, "user.created", "--source", "strip")
    assert done.code == 2
    assert "no source is called strip; did you mean stripe?" in done.err
    body = tmp_path / "body"
    body.write_text('{"event_type":"user.created","data":{}}')
    content = told(path, body, "--source", "stripe")
    assert [one["verdict"] for one in content["routes"]] == ["source", "when"]
    text = in_process("explain", "--config", path, body, "--source", "stripe")
    assert "leaves it  users: sources are clerk, not stripe" in text.out


def test_a_sample_has_no_type_for_a_source_that_reads_it_elsewhere(tmp_path: Path) -> None:
    done = in_process(
        "explain", "--config", sources(tmp_path), "user.created", "--source", "stripe"
    )
    assert "the source stripe reads the type by `event_type`" in done.err
    assert "leaves it  users: the event has no type" in done.out


def test_a_type_that_is_close_to_a_known_one(tmp_path: Path) -> None:
    done = in_process("explain", "--config", config(tmp_path), "user.creatd")
    assert "user.creatd is not in Clerk's catalogue" in done.err
    assert "Did you mean user.created?" in done.err
    assert done.code == 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["./nothing.json"], "there is no file ./nothing.json; give a file, an event type, or -"),
        (["user.json"], "there is no file user.json"),
        (["/"], "/ is a directory; give a file, or an event type"),
        ([""], "an event type, a file or - is missing"),
        (["-", "--set", "data.id=x"], "--set changes a sample: give an event type with it"),
        (["user.created", "--set", "nonsense"], "is not PATH=VALUE"),
        (["user.created", "--set", "nowhere.x=1"], "cannot set `nowhere.x`"),
        (["user.created", "--id", "a.b"], "a message id is visible ASCII without dots"),
    ],
)
def test_what_cannot_be_explained(arguments: list[str], problem: str, tmp_path: Path) -> None:
    done = in_process("explain", "--config", config(tmp_path), *arguments)
    assert (done.code, done.out) == (2, "")
    assert problem in done.err
    assert "Traceback" not in done.err


def test_a_secret_that_is_not_set_is_the_loaders_error(tmp_path: Path) -> None:
    path = config(tmp_path)
    path.write_text(path.read_text().replace("${file:", "${NO_SUCH_SECRET:?set it, from "))
    env = {name: value for name, value in os.environ.items() if name != "NO_SUCH_SECRET"}
    done = gateway("explain", "--config", path, "user.created", cwd=tmp_path, env=env)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"{path}:")


@SHOWS
def test_long_values_are_cut_in_text_and_whole_in_json(tmp_path: Path) -> None:
    path = config(tmp_path)
    long = "x" * 3000
    done = in_process("explain", "--config", path, "user.updated", "--set", f"data.tier={long}")
    assert long not in done.out
    assert f"{'x' * 100}... (3000 characters)" in done.out
    content = told(path, "user.updated", "--set", f"data.tier={long}")
    assert content["records"][0]["key"] == long


def test_a_long_destination_is_whole_in_text(tmp_path: Path) -> None:
    """It is what one looks for in the broker; the table bounds it."""
    topic = f"clerk.{'x' * 128}"
    target = {"broker": "events", "topic": "clerk.{data.id}"}
    brokers = {"events": {"kind": "kafka", "servers": ["localhost:9092"]}}
    routes = [{"name": "users", "events": ["user.*"], "targets": [target]}]
    path = write_config(tmp_path, {"brokers": brokers, "routes": routes})
    done = in_process("explain", "--config", path, "user.deleted", "--set", f"data.id={'x' * 128}")
    assert f"  -> events  topic {topic}\n" in done.out


def test_nothing_steers_the_terminal(tmp_path: Path) -> None:
    body = tmp_path / "body"
    evil = "\\u001b[31m\\u202e\\u009b\\u007f"
    body.write_text(f'{{"type":"user.created","data":{{"id":"{evil}","tier":"{evil}"}}}}')
    for style in ("text", "json"):
        done = in_process("explain", "--config", config(tmp_path), body, "--format", style)
        assert done.out.replace("\n", "").isprintable(), style


def test_what_is_nested_deeply_is_told_all_the_same(tmp_path: Path) -> None:
    deep = "[" * 900 + "]" * 900
    body = tmp_path / "body"
    body.write_text(f'{{"type":"user.created","data":{{"id":"u","tier":{deep}}}}}')
    done = in_process("explain", "--config", config(tmp_path), body, "--format", "json")
    assert "Traceback" not in done.err
    saw = json.loads(done.out)["routes"][1]["when"]["saw"]
    assert "more than 100 levels" in json.dumps(saw)
    assert in_process("explain", "--config", config(tmp_path), body).code == done.code
