"""The HTTP contract row by row, on a running gateway with a real broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.canaries import OTHER_SECRET
from tests.e2e.client import Client, event, new_id, signed
from tests.e2e.conftest import Start
from tests.e2e.gateway_process import PATH, GatewayProcess
from tests.e2e.readback import stream_messages
from tests.e2e.rows import MAX_BODY, STREAM, Bus, config


@pytest.fixture(scope="module")
def plain(module_gateways: Start, bus: Bus) -> GatewayProcess:
    """Give a gateway without a dead letter, `unmatched: accept`."""
    return module_gateways(config(bus))


@pytest.fixture(scope="module")
def rejecting(module_gateways: Start, bus: Bus) -> GatewayProcess:
    """Give a gateway behind a proxy, `unmatched: reject`."""
    server = {"trusted_proxies": ["127.0.0.0/8"]}
    return module_gateways(config(bus, unmatched="reject", server=server))


@pytest.fixture
async def client(plain: GatewayProcess, bus: Bus) -> AsyncIterator[Client]:
    async with Client(plain) as client:
        await client.until_ready("degraded")
        yield client


# --- taken


async def test_delivered(client: Client, bus: Bus) -> None:
    body, before = event(), await bus.count()
    headers = signed(body)
    async with client.counting(("clerk", "delivered", "")):
        answer = await client.post(body, headers)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.body == {
        "status": "delivered",
        "id": headers["svix-id"],
        "type": "user.created",
        "targets": [
            {
                "route": "user",
                "broker": "bus",
                "subject": "rows.user.created",
                "stream": STREAM,
                "seq": before + 1,
                "status": "delivered",
            }
        ],
    }
    assert (await stream_messages(bus.url, STREAM))[-1].data == body


async def test_a_copy_is_told_where_the_event_is(client: Client, bus: Bus) -> None:
    body, svix_id = event(), new_id()
    now = int(time.time())
    async with client.counting(("clerk", "delivered", ""), ("clerk", "duplicate", "")):
        first = await client.post(body, signed(body, svix_id, now - 60))
        before = await bus.count()
        second = await client.post(body, signed(body, svix_id, now))
    assert (first.word, second.word) == ((200, "delivered"), (200, "duplicate"))
    assert second.body == {**first.body, "status": "duplicate"}
    assert await bus.count() == before


async def test_no_route_and_accept(client: Client, bus: Bus) -> None:
    body, before = event("sms.created"), await bus.count()
    async with client.counting(("clerk", "unmatched", "")):
        answer = await client.post(body)
    assert answer.word == (200, "unmatched")
    assert answer.body["targets"] == []
    assert await bus.count() == before


async def test_what_makes_no_difference(client: Client) -> None:
    body = event()
    white = {name.replace("svix", "webhook"): value for name, value in signed(body).items()}
    title = {name.title(): value for name, value in signed(body).items()}
    async with client.counting(*[("clerk", "delivered", "")] * 4):
        answers = [
            await client.post(body, white),
            await client.post(body, title),
            await client.post(body, path=f"{PATH}?svix-id=x&a=b"),
            await client.post(body, path="/webhooks/cler%6B"),
        ]
    assert [answer.word for answer in answers] == [(200, "delivered")] * 4


async def test_an_allowed_address_behind_no_proxy_is_the_connections_own(client: Client) -> None:
    body = event()
    headers = signed(body) | {"x-forwarded-for": "203.0.113.7"}
    async with client.counting(("closed", "rejected", "address_not_allowed")):
        answer = await client.post(body, headers, path="/closed")
    assert answer.word == (401, "rejected")


async def test_an_address_that_a_trusted_proxy_tells(rejecting: GatewayProcess) -> None:
    body = event()
    async with Client(rejecting) as client:
        await client.until_ready("degraded")
        for forwarded, status in (
            ("203.0.113.7", 200),
            ("198.51.100.1, 203.0.113.7", 200),
            ("203.0.113.7, 198.51.100.1", 401),
            ("nonsense", 401),
        ):
            headers = signed(body) | {"x-forwarded-for": forwarded}
            assert (await client.post(body, headers, path="/closed")).status == status


# --- refused before it is known to be genuine


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"svix-signature": None}, "missing_header", id="missing"),
        pytest.param({"svix-timestamp": "1.7e9"}, "malformed_header", id="malformed"),
        pytest.param({"svix-signature": "v1,%%%"}, "malformed_header", id="junk"),
        pytest.param({"webhook-id": "msg_other"}, "conflicting_header", id="conflicting"),
        pytest.param({"svix-id": "msg_other"}, "no_matching_signature", id="other-id"),
    ],
)
async def test_not_proven(
    client: Client, bus: Bus, change: dict[str, str | None], reason: str
) -> None:
    body, before = event(), await bus.count()
    changed = signed(body) | change
    headers = {name: value for name, value in changed.items() if value is not None}
    async with client.counting(("clerk", "rejected", reason)):
        answer = await client.post(body, headers)
    assert answer.status == 401
    assert answer.body == {"status": "rejected", "error": reason.replace("_", " ")}
    assert await bus.count() == before


@pytest.mark.parametrize(
    ("age", "reason"), [(400, "timestamp_too_old"), (-400, "timestamp_too_new")]
)
async def test_expired(client: Client, bus: Bus, age: int, reason: str) -> None:
    body, before = event(), await bus.count()
    async with client.counting(("clerk", "rejected", reason)):
        answer = await client.post(body, signed(body, timestamp=int(time.time()) - age))
    assert answer.word == (401, "rejected")
    assert await bus.count() == before


async def test_another_secret_and_a_changed_body(client: Client, bus: Bus) -> None:
    body, before = event(), await bus.count()
    async with client.counting(*[("clerk", "rejected", "no_matching_signature")] * 2):
        answers = [
            await client.post(body, signed(body, secret=OTHER_SECRET)),
            await client.post(body.replace(b"user_1", b"user_2"), signed(body)),
        ]
    assert [answer.word for answer in answers] == [(401, "rejected")] * 2
    assert await bus.count() == before


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
async def test_not_post(client: Client, method: str) -> None:
    async with client.counting(("clerk", "rejected", "not_post")):
        answer = await client.post(method=method)
    assert answer.status == 405
    assert answer.headers["allow"] == "POST"
    if method == "HEAD":
        assert answer.raw == b""
    else:
        assert answer.word == (405, "rejected")


@pytest.mark.parametrize("path", ["/", PATH + "/", "/metrics", "/readyz", "/webhooks", "//x"])
async def test_unknown_path(client: Client, bus: Bus, path: str) -> None:
    before = await bus.count()
    async with client.counting(("", "rejected", "unknown_path")):
        answer = await client.post(path=path)
    assert answer.word == (404, "rejected")
    assert await bus.count() == before


async def test_over_max_body_by_length(client: Client, bus: Bus) -> None:
    body, before = event(size=MAX_BODY + 1), await bus.count()
    async with client.counting(("clerk", "rejected", "body_too_large")):
        answer = await client.post(body)
    assert answer.word == (413, "rejected")
    assert await bus.count() == before


async def test_over_max_body_in_chunks(client: Client, bus: Bus) -> None:
    body, before = event(size=MAX_BODY + 1), await bus.count()

    async def chunks() -> AsyncIterator[bytes]:
        yield body[:1000]
        yield body[1000:]

    async with client.counting(("clerk", "rejected", "body_too_large")):
        answer = await client.post(headers=signed(body), content=chunks())
    assert answer.word == (413, "rejected")
    assert await bus.count() == before


async def test_a_body_in_chunks_is_taken(client: Client, bus: Bus) -> None:
    body = event(size=50_000)

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 7_000):
            yield body[at : at + 7_000]

    async with client.counting(("clerk", "delivered", "")):
        answer = await client.post(headers=signed(body), content=chunks())
    assert answer.word == (200, "delivered")
    assert (await stream_messages(bus.url, STREAM))[-1].data == body


# --- genuine, and no event

NO_EVENTS = [
    pytest.param(b"", "not_json", id="empty"),
    pytest.param(b"{", "not_json", id="broken"),
    pytest.param(b"\xff\xfe", "not_json", id="bytes"),
    pytest.param(b"[" * 50_000, "not_json", id="deep"),
    pytest.param(b"[1]", "not_an_object", id="list"),
    pytest.param(b'{"data":{}}', "no_type", id="no-type"),
    pytest.param(b'{"type":7}', "no_type", id="number"),
]


@pytest.mark.parametrize(("body", "reason"), NO_EVENTS)
async def test_not_an_event(client: Client, bus: Bus, body: bytes, reason: str) -> None:
    headers, before = signed(body), await bus.count()
    async with client.counting(("clerk", "rejected", reason)):
        answer = await client.post(body, headers)
    assert answer.word == (400, "rejected")
    assert answer.body["id"] == headers["svix-id"]
    assert "webhook-delivery" not in answer.headers
    assert await bus.count() == before


async def test_other_kinds_need_no_type(client: Client) -> None:
    async with client.counting(("other", "unmatched", "")):
        answer = await client.post(b'{"data":{}}', path="/other")
    assert answer.word == (200, "unmatched")


async def test_abort_permanent_ends_the_retries_of_what_is_proven(client: Client) -> None:
    async with client.counting(
        ("aborting", "rejected", "not_json"), ("aborting", "rejected", "no_matching_signature")
    ):
        proven = await client.post(b"{", path="/aborting")
        forged = await client.post(b"{", signed(b"}"), path="/aborting")
    assert proven.word == (400, "rejected")
    assert proven.headers["webhook-delivery"] == "abort-message"
    assert forged.word == (401, "rejected")
    assert "webhook-delivery" not in forged.headers


# --- no route


async def test_no_route_and_reject(rejecting: GatewayProcess, bus: Bus) -> None:
    before = await bus.count()
    outcomes = (("clerk", "unmatched", ""), ("aborting", "unmatched", ""))
    async with Client(rejecting) as client, client.counting(*outcomes):
        refused = await client.post(event("sms.created"))
        aborted = await client.post(event("sms.created"), path="/aborting")
    assert (refused.word, aborted.word) == ((422, "unmatched"), (422, "unmatched"))
    assert "webhook-delivery" not in refused.headers
    assert aborted.headers["webhook-delivery"] == "abort-message"
    assert await bus.count() == before


async def test_the_log_has_one_line_per_outcome(plain: GatewayProcess, client: Client) -> None:
    body = event()
    headers = signed(body)
    await client.post(body, headers)

    def lines() -> list[dict[str, Any]]:
        return [line for line in plain.lines() if line.get("svix_id") == headers["svix-id"]]

    async with asyncio.timeout(5):
        while not lines():  # noqa: ASYNC110 - a file of another process tells nobody
            await asyncio.sleep(0.05)
    (line,) = lines()
    assert line["level"] == "info"
    assert (line["outcome"], line["status"], line["source"]) == ("delivered", 200, "clerk")
    assert line["type"] == "user.created"
    assert line["targets"][0].startswith("bus/rows.user.created#")
    assert line["ms"] > 0


def test_the_config_is_what_it_seems(plain: GatewayProcess) -> None:
    # The secret is in a file of its own, so that finding it in any output is a leak.
    assert Path(plain.config).read_text().count("whsec_") == 0
