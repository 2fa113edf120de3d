"""What `check` says of real nats-servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.js.api import RetentionPolicy, StorageType

from gateway.brokers.base import Finding, Need
from gateway.brokers.nats import NatsBroker
from gateway.brokers.nats.subjects import distinct, filter_of, matches, may_match
from gateway.config.models import NatsConfig
from tests.brokers.nats.support import create_stream, need, said
from tests.canaries import NATS_USER_PASSWORD
from tests.servers.nats import NatsServer
from tests.servers.process import free_port

NewNats = Callable[..., NatsServer]
Unique = Callable[[str], str]


async def check(url: str, *needs: Need, **settings: Any) -> list[Finding]:
    """Check without a start."""
    config = NatsConfig.model_validate({"kind": "nats", "servers": (url,), **settings})
    async with asyncio.timeout(15):
        return await NatsBroker("bus", config, lambda *_: None).check(needs)


async def test_subjects_with_and_without_streams(nats_server: NatsServer, unique: Unique) -> None:
    name = unique("clerk")
    await create_stream(nats_server.url, name, f"{name}.user.*", f"{name}.one")

    findings = await check(
        nats_server.url,
        need(f"{name}.one"),
        need(f"{name}.user.{{}}"),
        need(f"{name}.us{{}}"),
        need(f"{name}.two"),
        need(f"{name}.session.{{}}"),
    )

    assert f"{name}.one: stream {name} takes it" in said(findings, "ok")
    assert f"{name}.user.*: stream {name} takes it" in said(findings, "ok")
    assert f"{name}.us*: stream {name} takes it" in said(findings, "ok")
    assert said(findings, "error") == [
        f"{about}: no stream takes this subject; create one (nats stream add NAME"
        f" --subjects='{subject}'), or name it in brokers.bus.streams (used by route users)"
        for about, subject in (
            (f"{name}.two", f"{name}.two"),
            (f"{name}.session.*", f"{name}.session.>"),
        )
    ]


async def test_thin_durability_is_told_once(nats_server: NatsServer, unique: Unique) -> None:
    name = unique("thin")
    await create_stream(
        nats_server.url,
        name,
        f"{name}.>",
        storage=StorageType.MEMORY,
        retention=RetentionPolicy.INTEREST,
    )

    findings = await check(nats_server.url, need(f"{name}.a"), need(f"{name}.b"))

    warnings = said(findings, "warning")
    assert len(warnings) == 4
    for at, word in enumerate(["one replica", "memory storage", "interest retention"]):
        assert warnings[at].startswith(f"stream {name}: {word}")
    assert "before it syncs to disk" in warnings[3]


async def test_streams_that_cannot_work(nats_server: NatsServer, unique: Unique) -> None:
    small, mute = unique("small"), unique("mute")
    await create_stream(nats_server.url, small, small, max_msg_size=999)
    await create_stream(nats_server.url, mute, mute, no_ack=True)

    errors = said(await check(nats_server.url, need(small), need(mute)), "error")

    assert errors[0].startswith(f"{small}: max_msg_size of stream {small} is 999")
    assert errors[1].startswith(f"stream {mute}: no_ack is set")


async def test_a_stream_that_the_gateway_will_create(nats_server: NatsServer) -> None:
    streams = [{"name": "SOON", "subjects": ["soon.>"]}]

    findings = await check(
        nats_server.url, need("soon.a"), need("soon.b.{}"), need("other"), streams=streams
    )

    assert len([line for line in said(findings, "warning") if "SOON does not exist" in line]) == 2
    assert [line.split(":")[0] for line in said(findings, "error")] == ["other"]


async def test_max_payload_is_compared_on_core_too(new_nats: NewNats) -> None:
    server = await asyncio.to_thread(new_nats, jetstream=False, options={"max_payload": 2000})

    findings = await check(
        server.url, need("a", record_bytes=2001), need("b", record_bytes=2000), jetstream=False
    )

    (error,) = said(findings, "error")
    assert error.startswith("a: max_payload of the server is 2000")


async def test_no_jetstream(new_nats: NewNats) -> None:
    server = await asyncio.to_thread(new_nats, jetstream=False)

    (error,) = said(await check(server.url, need("a")), "error")

    assert error.startswith("bus: JetStream is not enabled on the server")
    assert not said(await check(server.url, need("a"), jetstream=False), "error")


async def test_permissions_are_looked_at_without_publishing(new_nats: NewNats) -> None:
    permissions = {"publish": {"allow": ["open.>", "$SYS.REQ.USER.INFO"], "deny": ["open.not"]}}
    users = [{"user": "u", "password": NATS_USER_PASSWORD, "permissions": permissions}]
    server = await asyncio.to_thread(
        new_nats, jetstream=False, options={"authorization": {"users": users}}
    )

    findings = await check(
        server.url,
        *(need(subject) for subject in ("open.yes", "open.not", "shut", "open.{}", "shut.{}")),
        jetstream=False,
        username="u",
        password=NATS_USER_PASSWORD,
    )

    refused = [line.split(": the login may not publish")[0] for line in said(findings, "error")]
    assert refused == ["open.not", "shut", "shut.*"]


ASK = "the login may not publish to $JS.API.INFO; allow it on the server, so that streams are"
INBOX = "the login may not subscribe to _INBOX.>, where answers come; allow it"
RIGHTS = (
    "the login may not publish to $SYS.REQ.USER.INFO; allow it on the server, so that permissions"
    " are checked"
)
CLEAR = "without tls the password is sent in the clear; set tls"


@pytest.mark.parametrize(
    ("permissions", "settings", "errors", "warnings"),
    [
        pytest.param(
            {"publish": ["clerk.>"]}, {}, [], [CLEAR, f"{ASK} checked", RIGHTS], id="no-api"
        ),
        pytest.param(
            {"publish": {"deny": ["$JS.API.>"]}},
            {"streams": [{"name": "S", "subjects": ["clerk.>"]}]},
            [f"{ASK} created or checked"],
            [CLEAR],
            id="no-api-for-streams",
        ),
        pytest.param(
            {"publish": ["clerk.>"]}, {"jetstream": False}, [], [CLEAR, RIGHTS], id="core"
        ),
        pytest.param({"subscribe": {"deny": ["_INBOX.>"]}}, {}, [INBOX], [], id="no-inbox"),
    ],
)
async def test_a_login_that_may_not_ask_is_told_and_is_not_unreachable(
    new_nats: NewNats,
    permissions: dict[str, Any],
    settings: dict[str, Any],
    errors: list[str],
    warnings: list[str],
) -> None:
    users = [{"user": "u", "password": NATS_USER_PASSWORD, "permissions": permissions}]
    server = await asyncio.to_thread(new_nats, options={"authorization": {"users": users}})

    login = {"username": "u", "password": NATS_USER_PASSWORD}
    findings = await check(server.url, need("clerk.a"), **login, **settings)

    assert said(findings, "error") == [f"bus: {words}" for words in errors]
    assert said(findings, "warning") == [f"bus: {words}" for words in warnings]
    assert not said(findings, "unreachable")


async def test_unreachable_and_frozen(own_nats: NatsServer) -> None:
    (nobody,) = await check(f"127.0.0.1:{free_port()}", need("a"))
    own_nats.pause()
    (frozen,) = await check(own_nats.url, need("a"))

    assert nobody.severity == frozen.severity == "unreachable"
    assert "nothing listens there" in nobody.message
    assert "no answer in time" in frozen.message


async def test_options_that_cannot_work_are_a_finding(tmp_path: Path) -> None:
    (finding,) = await check("localhost", nkey_seed_file=str(tmp_path / "none"))

    assert finding.severity == "error"
    assert "brokers.bus.nkey_seed_file" in finding.message


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        ("a.b", "a.b", True),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.>", "a", False),
        ("a.>", "a.b.c", True),
        (">", "a", True),
        ("a.b.c", "a.b", False),
    ],
)
def test_matches(pattern: str, subject: str, expected: bool) -> None:
    assert matches(pattern, subject) is expected


TOKENS = st.lists(st.sampled_from(["a", "ab", "b"]), min_size=1, max_size=4)


@given(TOKENS, TOKENS, st.data())
def test_may_match_is_true_where_a_subject_with_the_prefix_matches(
    tokens: list[str], more: list[str], data: st.DataObject
) -> None:
    subject = ".".join(tokens + more)
    pattern = ".".join(data.draw(st.sampled_from([token, "*"])) for token in tokens + more)
    prefix = subject[: data.draw(st.integers(1, len(subject)))]

    assert matches(pattern, subject)
    assert may_match(pattern, prefix)
    assert matches(filter_of(Need(prefix, True, 0, "")), subject)


@pytest.mark.parametrize(
    ("pattern", "prefix"), [("a.b", "a.c."), ("a", "a."), ("a.b", "b"), ("a.*", "a.b.c")]
)
def test_may_not_match(pattern: str, prefix: str) -> None:
    assert not may_match(pattern, prefix)


def test_distinct_drops_what_another_pattern_holds() -> None:
    assert distinct(["a.b", "a.>", "c", "a.b.>", "c", "c.>"]) == ["a.>", "c", "c.>"]
