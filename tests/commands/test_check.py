"""`gateway check`: every fault at its place, and what real brokers say with `--connect`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.canaries import SECRET
from tests.commands.command import Done, gateway, write_config
from tests.e2e.readback import create_stream
from tests.servers.kafka import KafkaAt
from tests.servers.nats import NatsServer
from tests.servers.process import LOOPBACK, free_port

MAX_BODY = 512 * 1024
RECORD = MAX_BODY + 8 * 1024

THREE_FAULTS = """\
server: {port: 8080, max_boddy: 1MiB}
sources:
  clerk:
    secrets: [SECRET]
brokers:
  bus:
    kind: nats
    servers: ["nats://localhost:4222"]
routes:
  - name: users
    events: ["user.*"]
    when: "data.public_metadata.tier == = 'pro'"
    targets:
      - {broker: buss, subject: "clerk.{type}"}
"""


def check(path: Path, *options: str) -> Done:
    return gateway("check", "--config", path, *options, cwd=path.parent)


def test_three_faults_are_told_at_their_places(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(THREE_FAULTS.replace("SECRET", SECRET))
    done = check(path)
    assert done.code == 2
    assert done.out == ""
    messages = done.messages(path)
    lines = THREE_FAULTS.splitlines()
    places = [(1, "max_boddy", 0), (12, "== =", 3), (14, "buss", 0)]
    assert [(line, column) for line, column, _ in messages] == [
        (line, lines[line - 1].index(text) + 1 + offset) for line, text, offset in places
    ]
    unknown, expression, broker = (text for _, _, text in messages)
    assert "max_body" in unknown
    assert "JMESPath" in expression
    assert "bus" in broker


def test_a_fine_config(tmp_path: Path) -> None:
    done = check(write_config(tmp_path, config({"kind": "nats", "servers": ["nats://x:1"]})))
    assert (done.code, done.err) == (0, "")
    path = tmp_path / "config.yaml"
    assert done.out == (
        f"{path}: ledger: the workers of one gateway share it, replicas do not; they would by"
        " nats-kv\n"
        f"{path}: fine: 1 source, 1 broker, 1 route\n"
    )


def test_a_warning_does_not_fail(tmp_path: Path) -> None:
    broker = {"kind": "nats", "servers": ["nats://x:1"]}
    done = check(write_config(tmp_path, {**config(broker), "server": {"deadline": "20s"}}))
    assert done.code == 0
    assert "warning" in done.err
    assert "1 warning" in done.out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(None, "No such file", id="missing"),
        pytest.param(b"\xff\xfe\x00", "UTF-8", id="binary"),
        pytest.param(b"routes: [", "", id="torn"),
        pytest.param(b"", "", id="empty"),
        pytest.param(b"- 1\n- 2\n", "", id="list"),
        pytest.param(b"sources: {a: {secrets: ['${NOT_SET_ANYWHERE}']}}", "NOT_SET", id="unset"),
        pytest.param(b"a: &a [*a]", "", id="endless"),
    ],
)
def test_a_bad_file_is_told_and_not_traced(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_bytes(content)
    done = check(path)
    assert done.code == 2
    assert str(path) in done.err
    assert words in done.err


@pytest.mark.parametrize("command", ["serve", "dev", "tail"])
def test_the_other_commands_tell_the_same(tmp_path: Path, command: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(THREE_FAULTS.replace("SECRET", SECRET))
    done = gateway(command, "--config", path, cwd=tmp_path)
    assert done.code == 2
    assert done.messages(path) == check(path).messages(path)


@pytest.mark.parametrize(
    "arguments", [["check"], ["check", "--conf"], ["nonsense"], ["serve", "--workers", "0"]]
)
def test_bad_usage(tmp_path: Path, arguments: list[str]) -> None:
    done = gateway(*arguments, cwd=tmp_path)
    assert done.code == 2
    assert "Error" in done.err


@pytest.mark.parametrize("command", [[], ["check"], ["dev"], ["serve"], ["send"], ["tail"]])
def test_help(tmp_path: Path, command: list[str]) -> None:
    done = gateway(*command, "--help", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("Usage: ")


def test_version(tmp_path: Path) -> None:
    assert gateway("--version", cwd=tmp_path).out.startswith("gateway, version ")


# --- with --connect


def config(broker: dict[str, Any], *destinations: str) -> dict[str, Any]:
    """Give a config with one broker, and a route to each destination."""
    place = "topic" if broker["kind"] == "kafka" else "subject"
    names = destinations or ("clerk.{type}",)
    targets = [{"broker": "one", place: name} for name in names]
    route = {"name": "all", "events": ["*"], "targets": targets}
    return {"brokers": {"one": broker}, "routes": [route]}


def connect(tmp_path: Path, broker: dict[str, Any], *destinations: str) -> Done:
    return check(write_config(tmp_path, config(broker, *destinations)), "--connect")


def findings(done: Done, about: str) -> list[tuple[str, str]]:
    """Give severity and words of what was found about one place."""
    found = []
    for line in done.out.splitlines():
        severity, _, rest = line.strip().partition("  one: ")
        name, _, message = rest.partition(": ")
        if name == about:
            found.append((severity, message))
    return found


async def test_kafka_topic_with_thin_replication_is_a_warning(
    tmp_path: Path, kafka_server: KafkaAt, unique: Callable[[str], str]
) -> None:
    topic = await kafka_server.create_topic(unique("fine"))
    done = connect(tmp_path, {"kind": "kafka", "servers": [kafka_server.bootstrap]}, topic)
    assert done.code == 0, done.out
    severities = {severity for severity, _ in findings(done, topic)}
    assert severities == {"warning"}
    assert "replication factor 1" in done.out
    assert "min.insync.replicas" in done.out
    assert "fine: 1 source" in done.out


async def test_kafka_missing_topic_and_small_limit_are_errors(
    tmp_path: Path, kafka_server: KafkaAt, unique: Callable[[str], str]
) -> None:
    small = await kafka_server.create_topic(unique("small"), 1, {"max.message.bytes": "1000"})
    missing = unique("missing")
    broker = {"kind": "kafka", "servers": [kafka_server.bootstrap]}
    done = connect(tmp_path, broker, small, missing)
    assert done.code == 1
    assert "fine" not in done.out
    (absent,) = findings(done, missing)
    assert absent[0] == "error"
    assert "topics.create" in absent[1]
    errors = [message for severity, message in findings(done, small) if severity == "error"]
    assert len(errors) == 1
    assert f"max.message.bytes is 1000, and a record may have {RECORD}" in errors[0]


async def test_nats_stream(
    tmp_path: Path, nats_server: NatsServer, unique: Callable[[str], str]
) -> None:
    name = unique("stream")
    await create_stream(nats_server.url, name, f"{name}.>")
    broker = {"kind": "nats", "servers": [nats_server.url]}
    done = connect(tmp_path, broker, f"{name}.users")
    assert done.code == 0, done.out
    assert ("ok", f"stream {name} takes it") in findings(done, f"{name}.users")
    assert "one replica" in done.out


async def test_nats_missing_stream_and_small_payload_are_errors(
    tmp_path: Path, new_nats: Callable[..., NatsServer]
) -> None:
    server = new_nats(options={"max_payload": 4096})
    done = connect(tmp_path, {"kind": "nats", "servers": [server.url]}, "nowhere.users")
    assert done.code == 1
    messages = [message for severity, message in findings(done, "nowhere.users")]
    assert any("no stream takes this subject" in message for message in messages)
    assert any(
        f"max_payload of the server is 4096, and a record may have {RECORD}" in message
        for message in messages
    )


async def test_the_dead_letter_is_checked_too(
    tmp_path: Path, nats_server: NatsServer, unique: Callable[[str], str]
) -> None:
    name = unique("stream")
    await create_stream(nats_server.url, name, f"{name}.>")
    broker = {"kind": "nats", "servers": [nats_server.url]}
    letter = {"dead_letter": {"broker": "one", "subject": "letters.nowhere"}}
    path = write_config(tmp_path, {**config(broker, f"{name}.users"), "delivery": letter})
    done = check(path, "--connect")
    assert done.code == 1
    ((severity, message),) = findings(done, "letters.nowhere")
    assert severity == "error"
    assert "the dead letter" in message


@pytest.mark.parametrize("kind", ["kafka", "nats"])
def test_unreachable(tmp_path: Path, kind: str) -> None:
    address = f"{LOOPBACK}:{free_port()}"
    server = address if kind == "kafka" else f"nats://{address}"
    done = connect(tmp_path, {"kind": kind, "servers": [server]}, "clerk.users")
    assert done.code == 3
    ((severity, message),) = findings(done, "one")
    assert severity == "unreachable"
    assert address in message


async def test_unreachable_outranks_an_error(
    tmp_path: Path, nats_server: NatsServer, unique: Callable[[str], str]
) -> None:
    away = {"kind": "kafka", "servers": [f"{LOOPBACK}:{free_port()}"]}
    brokers = {"one": {"kind": "nats", "servers": [nats_server.url]}, "away": away}
    targets = [{"broker": "one", "subject": f"{unique('no')}.x"}, {"broker": "away", "topic": "x"}]
    routes = [{"name": "all", "events": ["*"], "targets": targets}]
    path = write_config(tmp_path, {"brokers": brokers, "routes": routes})
    done = check(path, "--connect")
    assert done.code == 3
    assert "error" in done.out
    assert "unreachable" in done.out


def test_a_certificate_that_is_not_there_is_an_error_of_its_setting(tmp_path: Path) -> None:
    tls = {"ca_file": "missing.pem"}
    broker = {"kind": "nats", "servers": ["tls://127.0.0.1:1"], "tls": tls}
    done = connect(tmp_path, broker, "clerk.users")
    assert done.code == 1
    assert "tls.ca_file" in done.out


def test_the_date_of_svixs_list_is_told_where_it_is_used(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    source = {"secrets": [f"${{file:{secret}}}"], "allow_from": ["192.0.2.1", "svix:eu"]}
    bus = {"kind": "nats", "servers": ["nats://localhost:4222"]}
    target = {"broker": "bus", "subject": "clerk.{type}"}
    routes = [{"name": "all", "events": ["*"], "targets": [target]}]
    config = {"sources": {"clerk": source}, "brokers": {"bus": bus}, "routes": routes}
    path = write_config(tmp_path, config)
    line = "svix is the list of https://docs.svix.com/receiving/source-ips as of 2026-11-25"
    assert check(path).out.splitlines()[0] == f"{path}: allow_from: {line}"
    del source["allow_from"]
    assert line not in check(write_config(tmp_path, config)).out


def test_the_directory_of_the_inbox_is_looked_for(tmp_path: Path, nats_server: NatsServer) -> None:
    def told(place: Path) -> Done:
        inbox = {"mode": "inbox", "inbox": {"path": str(place / "inbox.db")}}
        broker = {"kind": "nats", "servers": [nats_server.url], "jetstream": False}
        path = write_config(tmp_path, {**config(broker), "delivery": inbox})
        return check(path, "--connect")

    missing = told(tmp_path / "missing")
    words = "does not exist here, and the gateway makes none; create it"
    assert f"warning  inbox: delivery.inbox.path: {tmp_path}/missing {words}" in missing.out
    assert missing.code == 0
    assert "inbox: " not in told(tmp_path).out
    assert list(tmp_path.glob("*inbox*")) == []


# --- what is odd about a table that loads

ODD = {"name": "odd", "events": ["user.created"], "when": "data.emial"}


def odd(**more: Any) -> dict[str, Any]:
    whole = config({"kind": "nats", "servers": ["nats://x:1"]})
    route = {**ODD, "targets": [{"broker": "one", "subject": "clerk.{type}"}]}
    return {**whole, "routes": [route], **more}


def test_what_is_odd_is_told_in_file_order_and_does_not_fail(tmp_path: Path) -> None:
    path = write_config(tmp_path, odd(server={"deadline": "20s"}))
    done = check(path)
    assert done.code == 0
    places = [(line, column) for line, column, _ in done.messages(path)]
    assert places == sorted(places)
    kinds = [text.partition(":")[0] for _, _, text in done.messages(path)]
    assert sorted(kinds) == ["note", "warning", "warning"]
    assert "did you mean data.email_addresses? [unknown-field]" in done.err
    assert done.out.splitlines()[-1].endswith("1 route; 2 warnings")


def test_strict_allows_no_warning_but_notes(tmp_path: Path) -> None:
    path = write_config(tmp_path, odd())
    done = check(path, "--strict")
    assert done.code == 1
    assert f"{path}: 1 warning, and --strict allows none" in done.err.splitlines()[-1]
    assert "fine" not in done.out
    noted = odd()
    noted["routes"][0]["when"] = "data.username"
    done = check(write_config(tmp_path, noted), "--strict")
    assert done.code == 0
    assert "note: no route takes 44 of Clerk's 45 event types" in done.err
    assert "fine" in done.out


def test_other_commands_do_not_lint(tmp_path: Path) -> None:
    done = gateway(
        "tail", "--config", write_config(tmp_path, odd()), "--route", "none", cwd=tmp_path
    )
    assert "unknown-field" not in done.err
