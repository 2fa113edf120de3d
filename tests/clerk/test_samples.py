"""The sample events: complete, well-formed, consistent, and open to overrides."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from gateway.clerk.catalogue import ALSO_SEEN, CATALOGUE, entity_key, entity_key_path
from gateway.clerk.samples import SampleError, sample

NOW_MS = 1_800_000_000_123
USER = "user_2Sample00000000000000000001"
ORGANIZATION = "org_2Sample00000000000000000001"

KEYS = {
    "email": USER,
    "organization": ORGANIZATION,
    "organizationDomain": ORGANIZATION,
    "organizationInvitation": ORGANIZATION,
    "organizationMembership": ORGANIZATION,
    "paymentAttempt": ORGANIZATION,
    "permission": "perm_2Sample00000000000000000001",
    "role": "role_2Sample00000000000000000001",
    "session": USER,
    "sms": USER,
    "subscription": ORGANIZATION,
    "subscriptionItem": USER,
    "user": USER,
    "waitlistEntry": "wle_2Sample00000000000000000001",
}


def event(event_type: str, now_ms: int = NOW_MS, **overrides: str) -> dict[str, Any]:
    body = sample(event_type, now_ms, {path.replace("__", "."): v for path, v in overrides.items()})
    decoded = json.loads(body)
    assert isinstance(decoded, dict)
    return decoded


def file_of(event_type: str) -> dict[str, Any]:
    text = (files("gateway.clerk") / "sample_events" / f"{event_type}.json").read_text("utf-8")
    decoded = json.loads(text)
    assert isinstance(decoded, dict)
    return decoded


def strings(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from strings(inner, f"{path}.{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner, path)
    elif isinstance(value, str):
        yield path, value


def test_there_is_one_file_for_each_type_and_no_other_file() -> None:
    names = {path.name for path in (files("gateway.clerk") / "sample_events").iterdir()}
    assert names == {f"{name}.json" for name in CATALOGUE} | {"README.md"}


def test_the_licence_of_the_shapes_stands_beside_them() -> None:
    readme = (files("gateway.clerk") / "sample_events" / "README.md").read_text("utf-8")
    assert "Copyright (c) 2025 Clerk" in readme
    assert "Permission is hereby granted, free of charge" in readme


@pytest.mark.parametrize("event_type", CATALOGUE)
def test_the_envelope_is_complete(event_type: str) -> None:
    envelope = file_of(event_type)
    assert set(envelope) == {
        "data",
        "event_attributes",
        "instance_id",
        "object",
        "timestamp",
        "type",
    }
    assert envelope["type"] == event_type
    assert envelope["object"] == "event"
    assert envelope["instance_id"] == "ins_2Sample00000000000000000001"
    assert isinstance(envelope["data"], dict)
    assert set(envelope["event_attributes"]["http_request"]) == {"client_ip", "user_agent"}
    assert envelope["timestamp"] > 10**12, "seconds where milliseconds are sent"


@pytest.mark.parametrize("event_type", CATALOGUE)
def test_events_of_one_entity_have_one_key(event_type: str) -> None:
    deleted_domain = event_type == "organizationDomain.deleted"
    expected = "orgdmn_2Sample00000000000000000001" if deleted_domain else None
    key = entity_key(event_type, file_of(event_type)["data"])
    assert key == (expected or KEYS[CATALOGUE[event_type].entity])


@pytest.mark.parametrize(
    ("event_type", "path"),
    [
        ("organizationMembership.created", "data.organization.id"),
        ("subscription.created", "data.payer.organization_id"),
        ("subscriptionItem.active", "data.payer.user_id"),
        ("organizationDomain.deleted", "data.id"),
    ],
)
def test_the_samples_show_the_ways_to_a_key(event_type: str, path: str) -> None:
    assert entity_key_path(event_type, file_of(event_type)["data"]) == path


@pytest.mark.parametrize("event_type", CATALOGUE)
def test_nothing_in_a_sample_belongs_to_anybody(event_type: str) -> None:
    documentation = [
        ip_network(net) for net in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")
    ]
    for path, value in strings(file_of(event_type)):
        if path.endswith(("_ip", "ip_address")):
            assert any(ip_address(value) in net for net in documentation), path
        if path.endswith(("email", "email_address")):
            assert value.endswith("@example.com"), path
        if "://" in value:
            assert value.split("/")[2] in {"example.com", "accounts.example.com"}, path
        if path.endswith("phone_number"):
            assert value.startswith("+120255501"), path
        if path.endswith("otp_code"):
            assert value == "000000"


@pytest.mark.parametrize("event_type", CATALOGUE)
def test_a_sample_is_compact_and_of_now(event_type: str) -> None:
    body = sample(event_type, NOW_MS)
    original = file_of(event_type)
    decoded = json.loads(body)
    assert body == json.dumps(decoded, separators=(",", ":"), ensure_ascii=False).encode()
    assert decoded["timestamp"] == NOW_MS
    for name in ("updated_at", "created_at", "created_at_ms"):
        is_now = name == "updated_at" or event_type.endswith(".created")
        if name in original["data"]:
            expected = NOW_MS if is_now else original["data"][name]
            assert decoded["data"].pop(name) == expected
            del original["data"][name]
    assert {**decoded, "timestamp": 0} == {**original, "timestamp": 0}


def test_a_sample_is_a_value_of_its_own() -> None:
    first = sample("user.created", NOW_MS)
    sample("user.created", NOW_MS, {"data.id": "other"})
    assert sample("user.created", NOW_MS) == first


@pytest.mark.parametrize(
    "event_type", [*ALSO_SEEN, "some.newType", "no-dot", "../../../etc/passwd"]
)
def test_a_type_without_a_sample_gets_a_plain_envelope(event_type: str) -> None:
    entity = event_type.partition(".")[0] or "event"
    assert event(event_type) == {
        "data": {"id": f"{entity}_2Sample00000000000000000001", "object": entity},
        "object": "event",
        "timestamp": NOW_MS,
        "type": event_type,
    }


def test_overrides_reach_objects_lists_and_what_is_not_there_yet() -> None:
    decoded = json.loads(
        sample(
            "user.updated",
            NOW_MS,
            {
                "data.id": "user_other",
                "data.public_metadata.team.name": "Zoë",
                "data.email_addresses.0.email_address": "other@example.com",
                "data.primary_web3_wallet_id.nested": "null becomes an object",
                "timestamp": "17",
            },
        )
    )
    assert decoded["data"]["id"] == "user_other"
    assert decoded["data"]["public_metadata"] == {"tier": "enterprise", "team": {"name": "Zoë"}}
    assert decoded["data"]["email_addresses"][0]["email_address"] == "other@example.com"
    assert decoded["data"]["primary_web3_wallet_id"] == {"nested": "null becomes an object"}
    assert decoded["timestamp"] == 17


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("true", True),
        ("null", None),
        ('"7"', "7"),
        ('{"a":[1]}', {"a": [1]}),
        ("plain", "plain"),
        ("", ""),
        ("{", "{"),
        ("NaN", "NaN"),
        ("1e999", "1e999"),
        ("007", "007"),
    ],
)
def test_a_value_is_json_where_it_is_json(text: str, value: object) -> None:
    assert event("user.created", data__external_id=text)["data"]["external_id"] == value


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "data.",
        "data..id",
        "dta.id",
        "data.id.deeper",
        "timestamp.x",
        "data.email_addresses.1",
        "data.email_addresses.-1",
        "data.email_addresses.x",
        "data.email_addresses.\N{ARABIC-INDIC DIGIT ZERO}",
        "data.email_addresses." + "9" * 5000,
        "data" + ".a" * 32,
        "data.\udc80",
    ],
)
def test_a_path_that_leads_nowhere_is_an_error_with_its_path(path: str) -> None:
    with pytest.raises(SampleError) as raised:
        sample("user.created", NOW_MS, {path: "x"})
    assert raised.value.path == path
    assert raised.value.problem in str(raised.value)


@pytest.mark.parametrize("value", ["[" * 100_000, '"\udc80"'])
def test_a_value_that_json_cannot_hold_is_an_error_without_the_value(value: str) -> None:
    with pytest.raises(SampleError) as raised:
        sample("user.created", NOW_MS, {"data.id": value})
    assert len(str(raised.value)) < 200


def test_a_type_that_json_cannot_hold_is_an_error() -> None:
    with pytest.raises(SampleError) as raised:
        sample("user.\udc80", NOW_MS)
    assert raised.value.path == "type"
