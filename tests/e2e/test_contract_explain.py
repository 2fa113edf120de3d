"""What the contract says of a routing table's rules, by `gateway explain` in a process of its own.

One event meets all the rules, so that one run of the command shows many sentences. That the running
gateway does the same with it is shown in `test_contract_table_live.py`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.contract_files import AWAY, BODY, LONG, run, table, write


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a directory with the table, and with the body of the event that meets all its rules."""
    directory = tmp_path_factory.mktemp("contract")
    write(directory, table(*AWAY, "clerk"))
    (directory / "body.json").write_text(json.dumps(BODY))
    return directory


# Explain: one event that meets every rule of the table.


@pytest.fixture(scope="module")
def told(place: Path) -> dict[str, Any]:
    return explained(place, "body.json")


def explained(place: Path, *arguments: object, code: int = 0, piped: str = "") -> dict[str, Any]:
    given = ("explain", "--config", "config.yaml", "--format", "json", "--source", "clerk")
    done = run(place, *given, *arguments, piped=piped)
    assert done.code == code, done.err
    content: dict[str, Any] = json.loads(done.out)
    return content


def records(told: dict[str, Any], route: str) -> list[dict[str, Any]]:
    return [one for one in told["records"] if route in one["routes"]]


@pytest.mark.parametrize(
    ("route", "verdict", "pattern"),
    [
        ("first", "matches", "*"),
        ("second", "matches", "user.*"),
        ("third", "matches", "user.created"),
        ("true", "matches", "user.*"),
        ("false", "when", "user.*"),
        ("excluded", "exclude", "user.created"),
        ("sessions", "events", None),
        ("others", "source", None),
    ],
)
def test_each_route_says_why_it_takes_an_event_or_leaves_it(
    told: dict[str, Any], route: str, verdict: str, pattern: str | None
) -> None:
    (found,) = [one for one in told["routes"] if one["name"] == route]
    assert (found["verdict"], found["pattern"]) == (verdict, pattern)
    assert bool(records(told, route)) == (verdict == "matches"), "every matching route delivers"


def test_a_condition_shows_the_value_that_it_saw(told: dict[str, Any]) -> None:
    by_name = {one["name"]: one["when"] for one in told["routes"]}
    saw = [{"path": "data.number", "value": 7}]
    assert by_name["true"] == {"expression": "data.number > `1`", "result": "true", "saw": saw}
    assert by_name["false"] == {"expression": "data.number > `9`", "result": "false", "saw": saw}
    assert by_name["raises"]["result"] == "failed"
    assert by_name["raises"]["saw"] == saw


def test_routes_to_the_same_record_publish_once_and_are_named_in_file_order(
    told: dict[str, Any],
) -> None:
    (record,) = [one for one in told["records"] if one["subject"] == "clerk.shared"]
    assert record["routes"] == ["first", "second", "third"]
    assert dict(record["headers"])["gateway-route"] == "first,second,third"


def test_where_templates_collide_each_rendering_is_published(told: dict[str, Any]) -> None:
    found = [one for one in told["records"] if one["subject"] == "clerk.run.same"]
    assert [(one["routes"], dict(one["headers"])["x-of"]) for one in found] == [
        (["one"], "one"),
        (["two"], "two"),
    ]
    assert len({one["dedupe_id"] for one in found}) == 2, "JetStream would drop the second"


@pytest.mark.parametrize(
    ("route", "reason"),
    [
        ("raises", "expression"),
        ("null", "expression"),
        ("empty", "expression"),
        ("list", "expression"),
        ("object", "expression"),
        ("literal", "destination"),
        ("letter", "destination"),
    ],
)
def test_a_route_that_cannot_be_rendered_refuses_and_is_never_no_match(
    told: dict[str, Any], route: str, reason: str
) -> None:
    (found,) = [one for one in told["routes"] if one["name"] == route]
    (refusal,) = [one for one in told["refusals"] if one["routes"] == [route]]
    assert (found["verdict"], records(told, route)) == ("matches", [])
    assert (refusal["reason"], refusal["then"]) == (reason, "dead_letter")
    letter = dict(told["letters"][refusal["letter"]]["headers"])
    assert letter["gateway-dead-letter-reason"] == reason
    assert letter["gateway-dead-letter-target"] == f"bus/{refusal['subject']}"
    assert letter["gateway-dead-letter-detail"] == refusal["detail"]


@pytest.mark.parametrize(
    ("at", "becomes"),
    [
        (0, re.escape("user_29w83")),
        (1, re.escape("pro_plus-14c92d65")),
        (2, re.escape("pro_plus")),
        (3, re.escape("_-684888c0")),
        (4, "7"),
        (5, r"l{1,119}-[0-9a-f]{8}"),
    ],
)
def test_a_value_in_a_destination_is_sanitised(told: dict[str, Any], at: int, becomes: str) -> None:
    (record,) = records(told, f"value-{at}")
    assert re.fullmatch(f"clerk[.]value-{at}[.]{becomes}", record["subject"])


def test_two_long_values_never_become_one(told: dict[str, Any]) -> None:
    ends = [records(told, f"value-{at}")[0]["subject"].split(".")[-1] for at in (5, 6)]
    assert ends[0] != ends[1]
    assert all(len(end) <= 128 < len(LONG) for end in ends)


@pytest.mark.parametrize(
    ("event_type", "subject"),
    [
        ("user.created", "clerk.user.created"),
        ("user.a.b-c_9", "clerk.user.a.b-c_9"),
        ("user.created!", r"clerk.user.created_-[0-9a-f]{8}"),
        ("user.*", r"clerk.user._-[0-9a-f]{8}"),
    ],
)
def test_the_type_keeps_its_dots_and_nothing_else(
    place: Path, event_type: str, subject: str
) -> None:
    told = explained(place, "-", piped=json.dumps({**BODY, "type": event_type}))
    (record,) = records(told, "type")
    assert re.fullmatch(subject.replace(".", "[.]"), record["subject"])
    assert told["event"]["type"] == event_type


def test_keys_are_verbatim_and_headers_lose_control_characters_only(told: dict[str, Any]) -> None:
    (record,) = records(told, "odd")
    assert record["key"] == BODY["data"]["odd"]
    headers = dict(record["headers"])
    assert headers["x-line"] == "abc"
    assert headers["x-type"] == "user.created"


def test_names_of_the_gateway_shadow_those_of_the_body(told: dict[str, Any]) -> None:
    (record,) = records(told, "odd")
    assert dict(record["headers"])["x-names"] == f"clerk/odd/{told['event']['id']}"


@pytest.mark.parametrize(
    ("header", "value"),
    [("x-set", "set"), ("x-default", "else"), ("x-demanded", "set"), ("x-dollar", "$5")],
)
def test_a_value_is_interpolated_after_the_file_is_parsed(
    told: dict[str, Any], header: str, value: str
) -> None:
    (record,) = records(told, "odd")
    assert dict(record["headers"])[header] == value


def test_an_empty_key_falls_back_to_the_default_then_to_the_svix_id(
    place: Path, told: dict[str, Any]
) -> None:
    assert records(told, "empty-key")[0]["key"] == "user_1"
    bare = {**BODY, "data": {**BODY["data"], "id": ""}}
    told = explained(place, "-", "--id", "msg_7", piped=json.dumps(bare))
    assert records(told, "empty-key")[0]["key"] == "msg_7"


def test_a_payload_is_what_the_target_asks_for(told: dict[str, Any]) -> None:
    (original,) = records(told, "type")
    assert original["value"] == json.dumps(BODY)
    assert original["bytes"] == len(json.dumps(BODY).encode())
    data = dict(BODY["data"], list=[{"open": 2}])
    del data["line"]
    assert json.loads(records(told, "data")[0]["value"]) == data
    (structured,) = records(told, "structured")
    envelope = json.loads(structured["value"])
    assert (envelope["specversion"], envelope["type"]) == ("1.0", "user.created")
    assert "line" not in envelope["data"]["data"]
    headers = dict(structured["headers"])
    assert headers["content-type"] == "application/cloudevents+json"
    assert not [name for name in headers if name.startswith("ce-")]


def test_explain_tells_the_same_of_a_file_and_of_standard_input(
    place: Path, told: dict[str, Any]
) -> None:
    piped = explained(place, "-", piped=json.dumps(BODY))
    assert (told["body"]["origin"], piped["body"]["origin"]) == ("file", "stdin")
    differs = {name for name, _ in told["stand_ins"]}
    assert differs == {"svix-id", "svix-timestamp", "svix-signature", "gateway-received-at"}
    assert [steady(one, differs) for one in piped["records"]] == [
        steady(one, differs) for one in told["records"]
    ]
    assert [piped[name] for name in ("routes", "refusals", "answer", "event")] == [
        told[name] for name in ("routes", "refusals", "answer", "event")
    ]


def steady(record: dict[str, Any], differs: set[str]) -> dict[str, Any]:
    headers = [(name, value) for name, value in record["headers"] if name not in differs]
    return {**record, "headers": headers}


def test_explain_as_text_says_the_same_to_people(place: Path, told: dict[str, Any]) -> None:
    text = run(place, "explain", "--config", "config.yaml", "--source", "clerk", "body.json").out
    for route in told["routes"]:
        verb = "takes it" if route["verdict"] == "matches" else "leaves it"
        assert re.search(rf"^{verb} +{route['name']}: ", text, re.MULTILINE), route["name"]
    for record in told["records"]:
        assert f" {record['topic'] or record['subject']}\n" in text
        assert f"{record['payload']}, {record['bytes']} bytes" in text
    for refusal in told["refusals"]:
        assert (
            f"REFUSED {refusal['topic'] or refusal['subject']}\n     reason  {refusal['reason']}"
            in text
        )
    assert "answer: 200 dead_lettered (expression)" in text


def test_explain_of_a_type_is_the_sample_with_what_is_set(place: Path) -> None:
    told = explained(place, "role.created", "--set", "data.id=role_7")
    assert told["body"]["origin"] == "sample"
    (record,) = told["records"]
    assert (record["routes"], record["key"]) == (["first"], "role_7")
    assert json.loads(record["value"])["data"]["id"] == "role_7"


# What no route takes, and how explain ends.


@pytest.mark.parametrize(
    ("policy", "answer", "code"),
    [
        ("accept", (200, "unmatched"), 0),
        ("dead_letter", (200, "dead_lettered"), 0),
        ("reject", (422, "unmatched"), 1),
    ],
)
def test_what_no_route_takes_follows_the_policy(
    tmp_path: Path, policy: str, answer: tuple[int, str], code: int
) -> None:
    config = {**table(*AWAY, "clerk"), "unmatched": policy}
    config["routes"] = config["routes"][1:2]
    write(tmp_path, config)
    told = explained(tmp_path, "role.created", code=code)
    assert (told["answer"]["http_status"], told["answer"]["status"]) == answer
    assert len(told["letters"]) == (policy == "dead_letter")


def test_a_source_of_another_kind_names_its_type_or_follows_the_policy(place: Path) -> None:
    given = ("explain", "--config", "config.yaml", "--format", "json", "--source", "other", "-")
    named = json.loads(run(place, *given, piped='{"what": "user.created", "type": "x"}').out)
    assert named["event"]["type"] == "user.created"
    assert [one["routes"] for one in named["records"]] == [["others"]]
    without = run(place, *given, piped='{"type": "user.created"}')
    told = json.loads(without.out)
    assert (without.code, told["answer"]["status"]) == (0, "unmatched")
    verdicts = {one["name"]: one["verdict"] for one in told["routes"]}
    assert verdicts["others"] == "no_type"
    assert "matches" not in verdicts.values()


@pytest.mark.parametrize(
    ("body", "reason"),
    [("no json", "not_json"), ("[1]", "not_an_object"), ('{"data":{}}', "no_type")],
)
def test_what_is_no_event_is_answered_400_and_ends_with_1(
    place: Path, body: str, reason: str
) -> None:
    answer = explained(place, "-", code=1, piped=body)["answer"]
    assert (answer["http_status"], answer["status"], answer["reason"]) == (400, "rejected", reason)
