"""NATS permissions: a subject that the login may not publish to is refused for good, and told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.canaries import NATS_GATEWAY_PASSWORD as PASSWORD
from tests.commands.command import Done, gateway, write_config
from tests.e2e.client import Answer, Client, event, signed, until
from tests.e2e.conftest import Start
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.locks import READER, findings
from tests.e2e.readback import Stored, create_stream, stream_messages
from tests.servers.nats import NatsServer

NewNats = Callable[..., NatsServer]

DENIED = "the login may not publish to it; allow it on the server (used by route shut)"
DETAIL = "the login may not publish to this subject; allow it on the server"
INBOX = "the login may not subscribe to _INBOX.>, where answers come; allow it"
ASK = ["$JS.API.>", "$SYS.REQ.USER.INFO"]
UNSEEN = "the login may not publish to $JS.API.INFO; allow it on the server, so that streams are"
OPEN = {
    "publish": {"allow": ["open.>", "letters.>", *ASK]},
    # A right to answer those who ask; it is none to publish.
    "allow_responses": {"max": 1, "expires": "1s"},
}
GRANTED = {"publish": {"allow": ["open.>", "shut.>", "letters.>", *ASK]}}
LETTERLESS = {"publish": {"allow": ["open.>", *ASK]}}


def users(permissions: dict[str, Any]) -> dict[str, Any]:
    """Give the settings of a server where the gateway's login has these permissions."""
    ours = {"user": "gateway", "password": PASSWORD, "permissions": permissions}
    return {"authorization": {"users": [ours, READER]}}


async def serve(new_nats: NewNats, permissions: dict[str, Any]) -> NatsServer:
    """Start a server with a stream for everything."""
    server: NatsServer = await asyncio.to_thread(new_nats, options=users(permissions))
    await create_stream(server.url, "ALL", "open.>", "shut.>", "letters.>", login=READER)
    return server


def config(
    server: NatsServer, place: Path, *, letters: bool = True, **settings: Any
) -> dict[str, Any]:
    """Give the config of a gateway with a route that is open, and one that may not be."""
    secret = place / "bus-password"
    secret.write_text(PASSWORD)
    bus = {
        "kind": "nats",
        "servers": [server.url],
        "username": "gateway",
        "password": f"${{file:{secret}}}",
        **settings,
    }
    routes = {"open": "user.*", "shut": "session.*"}
    letter = {"dead_letter": {"broker": "bus", "subject": "letters.all"}}
    return {
        "brokers": {"bus": bus},
        "routes": [
            {
                "name": name,
                "events": [events],
                "targets": [{"broker": "bus", "subject": f"{name}.events"}],
            }
            for name, events in routes.items()
        ],
        **({"delivery": letter} if letters else {}),
    }


async def check(place: Path, settings: dict[str, Any]) -> tuple[Done, list[tuple[str, str, str]]]:
    """Run `gateway check --connect`; give what it printed, and what it said of the broker."""
    path = write_config(place, settings)
    done = await asyncio.to_thread(gateway, "check", "--config", path, "--connect", cwd=place)
    assert PASSWORD not in done.out + done.err
    return done, list(findings(done.out)["bus"])


async def stored(server: NatsServer, subject: str) -> list[Stored]:
    """Read what the stream has of a subject, with a login of our own."""
    messages = await stream_messages(server.url, "ALL", **READER)
    return [message for message in messages if message.subject == subject]


async def until_status(client: Client, status: str) -> Answer:
    """Post new events to the route that may be shut until one is answered so."""
    answers: list[Answer] = []

    async def is_so() -> bool:
        answers.append(await client.post(event("session.created")))
        return bool(answers[-1].body["status"] == status)

    await until(is_so, f"an event is {status}")
    return answers[-1]


def assert_never_lost(serving: GatewayProcess) -> None:
    """Assert that the gateway kept its connection, and its secret."""
    assert [line["event"] for line in serving.lines() if "not connected" in line["event"]] == []
    assert [line for line in serving.lines() if line.get("state") == "down"] == []
    assert PASSWORD not in serving.log.read_text()


@pytest.mark.parametrize("jetstream", [True, False], ids=["jetstream", "core"])
async def test_a_denied_subject_is_dead_lettered_and_harms_no_other(
    new_nats: NewNats, gateways: Start, tmp_path: Path, jetstream: bool
) -> None:
    server = await serve(new_nats, OPEN)
    settings = config(server, tmp_path, jetstream=jetstream)
    done, found = await check(tmp_path, settings)
    assert done.code == 1
    assert [one for one in found if one[0] == "error"] == [("error", "shut.events", DENIED)]

    serving = await asyncio.to_thread(gateways, settings)
    shut, opened = event("session.created"), event("user.created")
    outcomes = [("clerk", "dead_lettered", "not_authorized")] * 5
    outcomes += [("clerk", "delivered", "")] * 20
    async with Client(serving) as client:
        await client.until_ready()
        async with client.counting(*outcomes):
            refused, taken = await asyncio.gather(
                asyncio.gather(*(client.post(shut) for _ in range(5))),
                asyncio.gather(*(client.post(opened) for _ in range(20))),
            )
        assert (await client.ready())[1]["status"] == "ready"
    assert {answer.word for answer in taken} == {(200, "delivered")}
    assert {answer.word for answer in refused} == {(200, "dead_lettered")}
    assert {answer.body["targets"][0]["reason"] for answer in refused} == {"not_authorized"}

    letters = await stored(server, "letters.all")
    assert [letter.data for letter in letters] == [shut] * 5
    assert {letter.headers["gateway-dead-letter-reason"] for letter in letters} == {
        "not_authorized"
    }
    assert {letter.headers["gateway-dead-letter-detail"] for letter in letters} == {DETAIL}
    assert len(await stored(server, "open.events")) == 20
    assert await stored(server, "shut.events") == []
    assert_never_lost(serving)


@pytest.mark.parametrize("jetstream", [True, False], ids=["jetstream", "core"])
async def test_a_permission_that_comes_and_goes_with_a_reload_of_the_server(
    new_nats: NewNats, gateways: Start, tmp_path: Path, jetstream: bool
) -> None:
    """nats-server gives new permissions to the connections that there are: none is made anew."""
    server = await serve(new_nats, OPEN)
    settings = config(server, tmp_path, letters=False, jetstream=jetstream)
    serving = await asyncio.to_thread(gateways, settings)
    body = event("session.created")
    async with Client(serving) as client:
        await client.until_ready()
        async with client.counting(("clerk", "failed", "not_authorized")):
            answer = await client.post(body, signed(body, "msg_denied"))
        assert answer.word == (503, "failed")
        assert (answer.body["reason"], "retry-after" in answer.headers) == ("not_authorized", True)

        server.reload(users(GRANTED))

        async def is_delivered() -> bool:
            return (await client.post(body, signed(body, "msg_denied"))).status == 200

        await until(is_delivered, "the retry is delivered")
        done, found = await check(tmp_path, settings)
        assert (done.code, [one for one in found if one[0] == "error"]) == (0, [])

        server.reload(users(OPEN))
        answer = await until_status(client, "failed")
        assert answer.body["reason"] == "not_authorized"
        assert (await client.post(event("user.created"))).word == (200, "delivered")
    assert (await stored(server, "shut.events"))[0].data == body
    assert_never_lost(serving)


async def test_a_dead_letter_that_is_denied_itself(
    new_nats: NewNats, gateways: Start, tmp_path: Path
) -> None:
    server = await serve(new_nats, LETTERLESS)
    settings = config(server, tmp_path)
    done, found = await check(tmp_path, settings)
    assert done.code == 1
    assert {about for severity, about, _ in found if severity == "error"} == {
        "shut.events",
        "letters.all",
    }
    serving = await asyncio.to_thread(gateways, settings)
    async with Client(serving) as client:
        await client.until_ready()
        async with client.counting(("clerk", "failed", "dead_letter_refused")):
            answer = await client.post(event("session.created"))
    assert answer.word == (503, "failed")
    assert answer.body["reason"] == "dead_letter_refused"
    assert_never_lost(serving)


async def test_a_login_that_may_only_publish_delivers_and_creates_no_stream(
    new_nats: NewNats, gateways: Start, tmp_path: Path
) -> None:
    server = await serve(new_nats, {"publish": ["open.>", "shut.>", "letters.>"]})
    done, found = await check(tmp_path, config(server, tmp_path))
    assert done.code == 0
    warnings = [words for severity, _, words in found if severity == "warning"]
    assert f"{UNSEEN} checked" in warnings
    assert any("may not publish to $SYS.REQ.USER.INFO" in words for words in warnings)

    settings = config(server, tmp_path, streams=[{"name": "ALL", "subjects": ["open.>"]}])
    done, found = await check(tmp_path, settings)
    assert done.code == 1
    assert ("error", "bus", f"{UNSEEN} created or checked") in found
    serving = await asyncio.to_thread(gateways, settings)
    async with Client(serving) as client:
        await client.until_ready()
        assert (await client.post(event("user.created"))).word == (200, "delivered")
    assert len(await stored(server, "open.events")) == 1
    told = [line["event"] for line in serving.lines() if "could not create" in line["event"]]
    assert told == [
        "nats broker bus: could not create stream ALL: the login may not publish to"
        " $JS.API.STREAM.INFO.ALL; allow it on the server"
    ]
    assert_never_lost(serving)


async def test_a_login_without_an_inbox_is_told_and_core_needs_none(
    new_nats: NewNats, gateways: Start, tmp_path: Path
) -> None:
    server = await serve(new_nats, {"subscribe": {"deny": ["_INBOX.>"]}})
    settings = config(server, tmp_path)
    done, found = await check(tmp_path, settings)
    assert (done.code, found) == (1, [("error", "bus", INBOX)])
    core = config(server, tmp_path, jetstream=False)
    done, found = await check(tmp_path, core)
    assert done.code == 0
    assert "error" not in {severity for severity, _, _ in found}

    settings["brokers"]["core"] = core["brokers"]["bus"]
    settings["routes"][1]["targets"][0]["broker"] = "core"
    serving = await asyncio.to_thread(gateways, settings)

    async def is_told() -> bool:
        return any(INBOX in line["event"] for line in serving.lines())

    await until(is_told, "the inbox is told")
    async with Client(serving) as client:
        await client.until_ready("degraded")
        answer = await client.post(event("user.created"))
        assert answer.word == (503, "failed")
        assert answer.body["targets"][0]["reason"] == "broker_down"
        assert (await client.post(event("session.created"))).word == (200, "delivered")
        warned = f"nats broker bus: not connected: {INBOX}"
        assert [line["event"] for line in serving.lines()].count(warned) == 1

        server.reload(users({}))
        await client.until_ready()
        assert (await client.post(event("user.created"))).word == (200, "delivered")


KV = [
    "$KV.GATEWAY_LEDGER.>",
    "$JS.API.STREAM.INFO.KV_GATEWAY_LEDGER",
    "$JS.API.STREAM.MSG.GET.KV_GATEWAY_LEDGER",
]
MAKE_KV = "$JS.API.STREAM.CREATE.KV_GATEWAY_LEDGER"


def over_kv(server: NatsServer, place: Path) -> dict[str, Any]:
    """Give a gateway's config whose ledger is in a bucket."""
    settings = config(server, place, letters=False)
    return {**settings, "delivery": {"ledger": {"store": "nats-kv", "broker": "bus"}}}


async def test_the_rights_that_the_page_names_are_enough_for_the_ledger(
    new_nats: NewNats, gateways: Start, tmp_path: Path
) -> None:
    rights = ["open.>", "$SYS.REQ.USER.INFO", "$JS.API.INFO", *KV, MAKE_KV]
    server = await serve(new_nats, {"publish": {"allow": rights}, "subscribe": ["_INBOX.>"]})
    serving = gateways(over_kv(server, tmp_path))
    async with Client(serving) as client:
        await client.until_ready()
        body = event("user.created")
        copy = signed(body)

        async def is_shared() -> bool:
            before = await client.samples("gateway_ledger_unshared_total")
            assert (await client.post(body, signed(body))).word == (200, "delivered")
            return before == await client.samples("gateway_ledger_unshared_total")

        await until(is_shared, "the bucket is made")
        assert (await client.post(body, copy)).word == (200, "delivered")
        assert (await client.post(body, copy)).word == (200, "duplicate")
    _, found = await check(tmp_path, over_kv(server, tmp_path))
    assert ("ok", "bucket GATEWAY_LEDGER", "is there") in found


@pytest.mark.parametrize("missing", [*KV, MAKE_KV])
async def test_a_right_that_the_ledger_lacks_is_told_and_refuses_no_event(
    new_nats: NewNats, gateways: Start, tmp_path: Path, missing: str
) -> None:
    rights = [one for one in ["open.>", *ASK[1:], "$JS.API.INFO", *KV, MAKE_KV] if one != missing]
    server = await serve(new_nats, {"publish": {"allow": rights}})
    settings = over_kv(server, tmp_path)
    done, found = await check(tmp_path, settings)
    assert done.code == 1
    what = missing.removesuffix(">")
    told = [text for severity, about, text in found if about == "bucket GATEWAY_LEDGER"]
    assert any(f"the login may not publish to {what}" in text for text in told), told
    serving = gateways(settings)
    async with Client(serving) as client:
        await client.until_ready()
        body = event("user.created")
        copy = signed(body)
        for word in ("delivered", "duplicate"):
            assert (await client.post(body, copy)).word == (200, word)
