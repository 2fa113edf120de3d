"""`gateway inbox` over dead letters in real brokers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.canaries import CANARY
from tests.commands.letters import Site, headers_of, kafka_site, nats_site
from tests.e2e.client import event
from tests.e2e.readback import kafka_records, stream_messages
from tests.servers.kafka import KafkaAt
from tests.servers.nats import NatsServer
from tests.servers.process import free_port

Unique = Callable[[str], str]


@pytest.fixture(params=["kafka", "nats"])
def site(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    kafka_server: KafkaAt,
    nats_server: NatsServer,
    unique: Unique,
) -> Site:
    """Give a dead letter on each kind of broker."""
    if request.param == "kafka":
        return kafka_site(tmp_path, kafka_server, unique("inbox"))
    return nats_site(tmp_path, nats_server, unique("inbox"))


def test_list_shows_what_is_there_and_no_body(site: Site) -> None:
    site.put(site.letter("msg_1"), site.letter("msg_2", event("user.deleted"), reason="no_topic"))
    done = site.inbox("list")
    assert (done.code, done.err) == (0, "")
    head, *rows = done.out.splitlines()
    columns = ["ID", "STATE", "AGE", "TYPE", "ROUTES", "TARGET", "REASON", "SVIX-ID", "DETAIL"]
    assert head.split() == columns
    assert len(rows) == 2
    words = {row.split()[7]: row.split() for row in rows}
    for name, event_type, reason in (
        ("msg_1", "user.created", "too_large"),
        ("msg_2", "user.deleted", "no_topic"),
    ):
        target = f"one/{site.name}"
        assert words[name][3:7] == [event_type, "users", target[: len(words[name][5])], reason]
        assert words[name][1] == "dead-letter"
    assert CANARY not in done.out

    listed = {one["svix_id"]: one for one in site.listed()}
    assert set(listed) == {"msg_1", "msg_2"}
    one = listed["msg_1"]
    assert one["id"] == words["msg_1"][0]
    assert 0 <= one["age"] < 300
    assert {key: one[key] for key in ("state", "kept", "type", "source", "reason", "detail")} == {
        "state": "dead-letter",
        "kept": "",
        "type": "user.created",
        "source": "clerk",
        "reason": "too_large",
        "detail": "1 byte too many",
    }
    assert (one["routes"], one["targets"]) == (["users"], [f"one/{site.name}"])
    assert one["size"] == len(event())


def test_nothing_to_list(site: Site) -> None:
    done = site.inbox("list")
    assert (done.code, done.out) == (0, "")
    assert done.err == "nothing is here that the filters take\n"


def test_filters_and_limit(site: Site) -> None:
    site.put(
        site.letter("msg_1"),
        site.letter("msg_2", event("user.deleted")),
        site.letter("msg_3", event("session.created"), routes=("audit", "sessions")),
    )

    def ids(*arguments: object) -> set[str]:
        return {one["svix_id"] for one in site.listed(*arguments)}

    assert ids("--type", "user.*") == {"msg_1", "msg_2"}
    assert ids("--type", "user.deleted") == {"msg_2"}
    assert ids("--route", "audit") == {"msg_3"}
    assert ids("--source", "other") == set()
    assert ids("--since", "1h") == {"msg_1", "msg_2", "msg_3"}
    assert ids("--until", "1h") == set()
    assert ids("--until", "2999-01-01T00:00:00Z", "--state", "dead-letter") == {
        *("msg_1", "msg_2", "msg_3")
    }
    assert len(ids("--limit", "2")) == 2


def test_show_has_all_headers_and_the_body_only_on_demand(site: Site) -> None:
    site.put(site.letter("msg_1"))
    (one,) = site.listed()
    done = site.inbox("show", one["id"])
    assert done.code == 0, done.err
    assert CANARY not in done.out
    assert "the body holds personal data; --body shows it" in done.out
    shown = json.loads(site.inbox("show", one["id"], "--format", "json").out)
    headers = dict(shown["headers"][0]["headers"])
    assert headers["svix-signature"] == "v1,c2lnbmF0dXJl"
    assert headers["gateway-dead-letter-reason"] == "too_large"
    assert "body" not in shown
    for name, value in headers.items():
        assert any(line.split() == [name, *value.split()] for line in done.out.splitlines()), name


@pytest.mark.shows_payload("`gateway inbox show --body` shows the payload by contract")
def test_show_with_the_body(site: Site) -> None:
    site.put(site.letter("msg_1"))
    (one,) = site.listed()
    assert CANARY in site.inbox("show", one["id"], "--body").out
    shown = json.loads(site.inbox("show", one["id"], "--body", "--format", "json").out)
    assert shown["body"].encode() == event()


def test_an_id_that_is_nowhere(site: Site) -> None:
    for name in ("9-999", "999999", "no id", "\x1b[2J"):
        done = site.inbox("show", name)
        assert (done.code, done.out) == (1, "")
        assert "\x1b" not in done.err
        done = site.inbox("replay", name)
        assert done.code == 1
        assert "not replayed: not_found" in done.out
        assert "\x1b" not in done.out


def test_replay_delivers_once_whatever_is_repeated(site: Site) -> None:
    bodies = {f"msg_{number}": event(number=number) for number in range(5)}
    site.put(*(site.letter(name, body) for name, body in bodies.items()))
    done = site.inbox("replay", "--all", "--yes")
    assert done.code == 0, done.err + done.out
    assert done.out == "replayed 5 of 5\n"
    delivered = {headers["svix-id"]: (value, headers) for value, headers in site.delivered()}
    assert {name: value for name, (value, _) in delivered.items()} == bodies
    _, headers = delivered["msg_1"]
    expected = dict(site.letter("msg_1", bodies["msg_1"]).headers)
    assert headers_of(headers) == {
        name: value for name, value in expected.items() if not name.startswith("gateway-dead")
    }

    again = site.inbox("replay", "--all", "--yes")
    assert (again.code, again.out) == (0, "replayed 0 of 0\n")
    assert len(site.delivered()) == 5
    assert site.listed() == []


def test_replay_of_single_letters_by_their_ids(site: Site) -> None:
    site.put(*(site.letter(f"msg_{number}") for number in range(4)))
    wanted = [one["id"] for one in site.listed() if one["svix_id"] in {"msg_1", "msg_3"}]
    done = site.inbox("replay", *wanted)
    assert (done.code, done.out) == (0, "replayed 2 of 2\n"), done.err
    assert sorted(site.delivered_ids()) == ["msg_1", "msg_3"]
    assert {one["svix_id"] for one in site.listed()} == {"msg_0", "msg_2"}


def test_discard(site: Site) -> None:
    site.put(site.letter("msg_1"), site.letter("msg_2"))
    ids = {one["svix_id"]: one["id"] for one in site.listed()}
    asked = site.inbox("discard", ids["msg_1"])
    assert asked.code == 2
    assert "there is no terminal to ask on; give --yes" in asked.err
    assert len(site.listed()) == 2
    done = site.inbox("discard", ids["msg_1"], "--yes")
    assert (done.code, done.out) == (0, "discarded 1 of 1\n"), done.err
    assert [one["svix_id"] for one in site.listed()] == ["msg_2"]
    site.inbox("replay", "--all", "--yes")
    assert site.delivered_ids() == ["msg_2"]


def test_what_is_changed_is_asked_for_first(site: Site) -> None:
    site.put(site.letter("msg_1"), site.letter("msg_2"))
    for command in ("discard", "replay"):
        asked = site.inbox(command, "--all", typed="n\n")
        assert asked.code == 1
        assert f"{command} 2 of one/{site.letters}? [y/N]" in asked.out
    assert "nothing was replayed" in asked.err
    assert (len(site.listed()), site.delivered()) == (2, [])
    assert site.inbox("replay", "--all", "--limit", "1", typed="y\n").code == 0
    assert len(site.delivered()) == 1
    assert site.inbox("discard", "--all", typed="y\n").code == 0
    assert site.listed() == []


def test_dry_run_publishes_nothing(site: Site) -> None:
    site.put(site.letter("msg_1"), site.letter("msg_2", destination="elsewhere"))
    done = site.inbox("replay", "--all", "--dry-run")
    assert done.code == 1
    assert f"user.created msg_1 would go to one/{site.name}" in done.out
    assert "not replayed: no_target: the config does not lead it to one/elsewhere" in done.out
    assert site.delivered() == []
    assert len(site.listed()) == 2


def test_a_letter_goes_to_its_target_as_the_config_renders_it(site: Site) -> None:
    """The letter holds the whole body; a target that must not see a field is not sent it."""
    site.route = {
        "payload": "data",
        "redact": ["data.first_name"],
        "headers": {"x-of": "{data.id}"},
    }
    site.config()
    site.put(site.letter("msg_1", event(secret_note="s")))
    done = site.inbox("replay", "--all", "--yes")
    assert done.code == 0, done.err + done.out
    ((value, headers),) = site.delivered()
    assert json.loads(value) == {"id": "user_1", "pad": "", "secret_note": "s"}
    assert headers["x-of"] == "user_1"


def test_reroute_is_what_resolves_targets_anew(site: Site, kafka_server: KafkaAt) -> None:
    moved = f"{site.name}-moved"
    creates = {"create_topic": kafka_server.create_topic} if site.kind == "kafka" else {}
    asyncio.run(site.create(moved, **creates))
    target, other = site.place(moved), site.place(site.name)
    site.config(
        routes=[
            {"name": "users", "events": ["user.*"], "targets": [target]},
            {"name": "audit", "events": ["session.*"], "targets": [other]},
        ]
    )
    site.put(site.letter("msg_1"), site.letter("msg_2", destination="", reason="unmatched"))
    done = site.inbox("replay", "--all", "--yes")
    assert done.code == 1
    assert done.out.count("not replayed: no_target") == 2
    assert len(site.listed()) == 2
    done = site.inbox("replay", "--all", "--yes", "--reroute")
    assert done.code == 0, done.err + done.out
    assert site.delivered() == []
    assert {headers["svix-id"] for _, headers in site.delivered(moved)} == {"msg_1", "msg_2"}
    assert site.inbox("replay", "--all", "--yes", "--reroute").out == "replayed 0 of 0\n"
    assert len(site.delivered(moved)) == 2


def test_a_target_that_still_refuses_keeps_the_letter(site: Site, unique: Unique) -> None:
    missing = unique("missing")
    site.config(routes=[{"name": "users", "events": ["user.*"], "targets": [site.place(missing)]}])
    site.put(site.letter("msg_1", destination=missing))
    done = site.inbox("replay", "--all", "--yes")
    reason = "no_topic" if site.kind == "kafka" else "no_stream"
    assert done.code == 1, done.err
    assert f"not replayed: {reason}: " in done.out
    assert f"not replayed 1: {reason} 1" in done.out
    assert [one["svix_id"] for one in site.listed()] == ["msg_1"]


def test_headers_do_not_steer_the_terminal(site: Site) -> None:
    hostile = event("user.\u202e\x9b2J\x7f", id="\x1b]0;x\x07")
    letter = site.letter("msg_1", hostile, detail="\x1b[31mred")
    if site.kind == "kafka":
        # Whoever may write to the topic writes any bytes.
        raw = (("gateway-dead-letter-reason", "\x1b[2J"), ("\x1b[1m", "\x9b5n\r\n"))
        letter = type(letter)(
            letter.destination, letter.value, (*letter.headers, *raw), "", letter.key
        )
    site.put(letter)
    (one,) = site.listed()
    for command in (["list"], ["show", one["id"]]):
        for style in ("text", "json"):
            done = site.inbox(*command, "--format", style)
            assert done.code == 0
            assert [char for char in done.out if not char.isprintable() and char != "\n"] == []
            assert style != "json" or done.out.isascii()


def test_a_foreign_record_is_shown_and_not_replayed(site: Site) -> None:
    letter = site.letter("msg_1")
    site.put(type(letter)(letter.destination, b"\xff\x00", (("x", "y"),), "foreign", "k"))
    (one,) = site.listed()
    assert (one["svix_id"], one["type"], one["reason"]) == ("", "", "")
    done = site.inbox("replay", "--all", "--yes")
    assert done.code == 1
    assert "not replayed: not_a_letter" in done.out
    assert site.delivered() == []


def test_a_thousand_letters(site: Site) -> None:
    names = [f"msg_{number}" for number in range(1000)]
    site.put(*(site.letter(name, event(size=2000, id=f"user_{name}")) for name in names))
    assert len(site.listed()) == 1000
    done = site.inbox("replay", "--all", "--yes")
    assert done.code == 0, done.err + done.out
    assert done.out == "replayed 1,000 of 1,000\n"
    assert "replayed 500 of 1,000" in done.err
    assert sorted(site.delivered_ids()) == sorted(names)


def test_a_broker_that_cannot_be_reached(site: Site) -> None:
    address = f"127.0.0.1:{free_port()}"
    site.server = address
    site.config()
    for command in (["list"], ["show", "1"], ["replay", "--all", "--yes"], ["discard", "1"]):
        done = site.inbox(*command)
        assert (done.code, done.out) == (3, ""), command
        assert f"error: one: could not reach {site.letters}: broker_down (" in done.err
        assert "nothing listens there; check brokers.one.servers" in done.err


def test_a_target_whose_broker_cannot_be_reached(site: Site) -> None:
    away = {"kind": site.kind, "servers": [f"127.0.0.1:{free_port()}"]}
    place = {**site.place("far"), "broker": "away"}
    site.config(
        brokers={"one": site.broker, "away": away},
        routes=[{"name": "users", "events": ["user.*"], "targets": [place]}],
    )
    letters = [site.letter(f"msg_{number}", destination="far") for number in range(50)]
    letters = [
        type(one)(
            one.destination,
            one.value,
            tuple((n, v.replace("one/far", "away/far")) for n, v in one.headers),
            one.dedupe_id,
            one.key,
        )
        for one in letters
    ]
    site.put(*letters)
    done = site.inbox("replay", "--all", "--yes")
    assert done.code == 3, done.out + done.err
    assert "replayed 0 of 50\nleft 50: run the command again to go on\n" in done.out
    assert "away: could not publish to far: broker_down" in done.err
    assert len(site.listed()) == 50


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["replay"], "give the IDs, or --all"),
        (["replay", "1", "--all"], "give the IDs, or --all"),
        (["discard"], "give the IDs, or --all"),
        (["replay", "--all", "--again"], "--again needs the IDs"),
        (["replay", "--all"], "there is no terminal to ask on; give --yes"),
        (["list", "--since", "yesterday"], "neither a duration (2h) nor an RFC 3339 time"),
        (["list", "--type", "user*"], "neither a type, nor prefix.*, nor *"),
        (["list", "--state", "parked"], "delivery.mode is direct: no event is parked"),
    ],
)
def test_usage(
    tmp_path: Path, nats_server: NatsServer, unique: Unique, arguments: list[str], words: str
) -> None:
    site = nats_site(tmp_path, nats_server, unique("usage"))
    site.put(site.letter("msg_1"))
    done = site.inbox(*arguments)
    assert (done.code, done.out) == (2, "")
    assert words in done.err


def test_a_config_without_a_dead_letter(tmp_path: Path, nats_server: NatsServer) -> None:
    site = Site("nats", tmp_path, nats_server.url.removeprefix("nats://"), "none")
    site.config(delivery={})
    done = site.inbox("list")
    assert done.code == 2
    assert "the config has no delivery.dead_letter" in done.err


def test_a_core_subject_keeps_nothing(tmp_path: Path, nats_server: NatsServer) -> None:
    site = Site("nats", tmp_path, nats_server.url.removeprefix("nats://"), "core")
    site.config(brokers={"one": {**site.broker, "jetstream": False}})
    done = site.inbox("list")
    assert done.code == 2
    assert "a core NATS subject has no letters to list or to replay" in done.err


def test_kafka_keeps_letters_and_replays_them_again_on_demand(
    tmp_path: Path, kafka_server: KafkaAt, unique: Unique
) -> None:
    site = kafka_site(tmp_path, kafka_server, unique("again"))
    site.put(site.letter("msg_1"))
    (one,) = site.listed()
    assert site.inbox("replay", one["id"]).code == 0
    (kept,) = site.listed("--kept")
    assert kept["kept"] == "replayed"
    named = site.inbox("replay", one["id"])
    assert named.code == 1
    assert "not replayed: replayed: it was before" in named.out
    assert site.inbox("replay", one["id"], "--again").code == 0
    assert site.delivered_ids() == ["msg_1", "msg_1"]
    states = asyncio.run(kafka_records(kafka_server.bootstrap, f"{site.letters}.state"))
    kept_states = [json.loads(state.value) for state in states if state.value is not None]
    assert [state["progress"]["replays"] for state in kept_states] == [1, 2]
    assert {state.key.decode() for state in states} == {one["id"], "probe"}
    assert not any(CANARY.encode() in (state.value or b"") for state in states)


def test_jetstream_deletes_what_is_dealt_with_and_numbers_the_replay(
    tmp_path: Path, nats_server: NatsServer, unique: Unique
) -> None:
    site = nats_site(tmp_path, nats_server, unique("numbered"))
    site.put(site.letter("msg_1"))
    assert site.inbox("replay", "--all", "--yes").code == 0
    assert site.listed("--kept") == []
    (record,) = asyncio.run(stream_messages(nats_server.url, site.name))
    name = record.headers["Nats-Msg-Id"]
    assert name.startswith("msg_1.")
    assert name.endswith(".r1")
