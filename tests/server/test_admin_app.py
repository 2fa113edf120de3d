"""The guard before the admin port's routes, with routes that are not there yet."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from litestar import Request, get, post
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from structlog.testing import capture_logs

from gateway.app import draw
from gateway.config import load_config_text
from gateway.observability.admin import AdminRecorder
from gateway.server.admin import AdminSource, UnguardedError, admin_app, assert_guarded
from gateway.server.run import serve

TOKEN = "0123456789abcdef-admin"
RIGHT = {"authorization": f"Bearer {TOKEN}"}
SAFE = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


CONFIG = """
server: {host: 127.0.0.1, port: 0}
admin: {host: localhost, port: 0}
sources: {clerk: {secrets: [whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw]}}
brokers: {bus: {kind: nats, servers: ["nats://127.0.0.1:1"]}}
routes: [{name: all, events: ["*"], targets: [{broker: bus, subject: x}]}]
"""


class Probe:
    """An action and two pages as a later version might add them."""

    def __init__(self) -> None:
        self.done = 0

    def routes(self) -> list[Any]:
        @post("/probe", sync_to_thread=False, status_code=200)
        def act(request: Request[Any, Any, Any]) -> dict[str, int]:
            self.done += 1
            return {"done": self.done}

        @get("/console", sync_to_thread=False)
        def console() -> dict[str, str]:
            return {"page": "console"}

        @get("/broken", sync_to_thread=False)
        def broken() -> None:
            raise RuntimeError("a message that quotes a secret")

        return [act, console, broken]


@asynccontextmanager
async def opened(
    probe: Probe, token: str = TOKEN, recorder: AdminRecorder | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    source = AdminSource(
        lambda: (200, {"status": "ready"}), lambda: b"", lambda: SecretStr(token), False
    )
    app: Any = admin_app(source, recorder or AdminRecorder(), probe.routes())
    transport = httpx.ASGITransport(app, client=("192.0.2.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:9090") as client:
        yield client


FOREIGN = [
    {"origin": "http://evil.example"},
    {"origin": "null"},
    {"origin": "http://localhost:3000"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
]


@pytest.mark.parametrize("headers", FOREIGN)
@pytest.mark.parametrize("path", ["/probe", "/livez", "/nowhere"])
async def test_no_action_for_the_page_of_another_site(headers: dict[str, str], path: str) -> None:
    probe = Probe()
    async with opened(probe) as client:
        answer = await client.post(path, headers=headers | RIGHT)
    assert answer.status_code == 403
    assert answer.json() == {"error": "this request comes from the page of another site"}
    assert probe.done == 0


async def test_an_action_needs_the_token_in_its_header() -> None:
    probe = Probe()
    async with opened(probe) as client:
        client.cookies.set("authorization", f"Bearer {TOKEN}")
        refused = [
            await client.post("/probe"),
            await client.post(f"/probe?token={TOKEN}&authorization=Bearer%20{TOKEN}"),
            await client.post("/probe", headers={"authorization": "Bearer wrong"}),
        ]
        assert [answer.status_code for answer in refused] == [401, 401, 401]
        assert [answer.headers["www-authenticate"] for answer in refused] == ["Bearer"] * 3
        assert probe.done == 0
        own = {"origin": "http://localhost:9090", "sec-fetch-site": "same-origin"}
        assert (await client.post("/probe", headers=RIGHT | own)).json() == {"done": 1}
        assert (await client.post("/probe", headers=RIGHT)).json() == {"done": 2}


async def test_no_action_where_no_token_is_set() -> None:
    probe = Probe()
    async with opened(probe, token="") as client:
        answer = await client.post("/probe")
        assert (answer.status_code, answer.json()) == (
            403,
            {"error": "actions need admin.token in the config"},
        )
        assert (await client.get("/console")).status_code == 200
        assert (await client.get("/console", headers={"host": "evil.example"})).status_code == 403
    assert probe.done == 0


async def test_a_page_that_is_added_is_locked() -> None:
    async with opened(Probe()) as client:
        assert (await client.get("/console")).status_code == 401
        assert (await client.get("/console", headers=RIGHT)).status_code == 200
        assert (await client.get("/livez")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/livez", {}, 200),
        ("HEAD", "/livez", {}, 200),
        ("GET", "/metrics", {}, 401),
        ("GET", "/metrics", {"authorization": "Bearer wrong"}, 401),
        ("POST", "/probe", {"origin": "http://evil.example"}, 403),
        ("GET", "/nowhere", RIGHT, 404),
        ("DELETE", "/livez", RIGHT, 405),
        ("GET", "/livez", {"content-length": "5"}, 413),
        ("GET", "/broken", RIGHT, 500),
        ("OPTIONS", "/livez", RIGHT, 204),
    ],
)
async def test_every_answer_has_the_safe_headers(
    method: str, path: str, headers: dict[str, str], status: int
) -> None:
    async with opened(Probe()) as client:
        answer = await client.request(method, path, headers=headers)
    assert answer.status_code == status
    assert {name: answer.headers.get_list(name) for name in SAFE} == {
        name: [value] for name, value in SAFE.items()
    }


async def test_a_throttled_answer_is_safe_too() -> None:
    async with opened(Probe()) as client:
        wrong = {"authorization": "Bearer wrong"}
        for _ in range(10):
            assert (await client.get("/metrics", headers=wrong)).status_code == 401
        answer = await client.get("/metrics", headers=RIGHT)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) in range(1, 31)
    assert SAFE.items() <= dict(answer.headers).items()


async def test_a_405_names_what_is_allowed() -> None:
    async with opened(Probe()) as client:
        assert (await client.delete("/livez", headers=RIGHT)).headers["allow"] == (
            "GET, HEAD, OPTIONS"
        )
        assert (await client.get("/probe", headers=RIGHT)).headers["allow"] == "OPTIONS, POST"


async def test_a_page_that_fails_tells_neither_the_client_nor_the_log_why() -> None:
    with capture_logs() as lines:
        async with opened(Probe()) as client:
            answer = await client.get("/broken", headers=RIGHT)
    assert (answer.status_code, answer.json()) == (500, {"error": "internal"})
    (line,) = lines
    assert (line["event"], line["where"], line["error"]) == ("bug", "admin", "RuntimeError")
    assert line["at"].rpartition(":")[0] == __file__
    assert "quotes" not in str(lines)


async def test_refusals_are_counted_and_told_without_what_was_sent() -> None:
    recorder = AdminRecorder()
    guess = "guess-9c1f"
    with capture_logs() as lines:
        async with opened(Probe(), recorder=recorder) as client:
            for _ in range(12):
                await client.get("/metrics", headers={"authorization": f"Bearer {guess}"})
            await client.get(f"/{guess}?{guess}")
            await client.post("/probe", headers={"origin": f"http://{guess}.example"})
    samples = {
        sample.labels["reason"]: sample.value
        for family in text_string_to_metric_families(recorder.metrics().decode())
        for sample in family.samples
    }
    assert samples == {
        "wrong_token": 10,
        "too_many_wrong_tokens": 2,
        "no_token": 1,
        "cross_site": 1,
    }
    # Five of each reason in ten seconds; the counter has them all.
    assert [line["reason"] for line in lines] == [
        *["wrong_token"] * 5,
        *["too_many_wrong_tokens"] * 2,
        "no_token",
        "cross_site",
    ]
    assert {(line["event"], line["log_level"], line["client"]) for line in lines} == {
        ("admin refused", "warning", "192.0.2.1")
    }
    assert guess not in str(lines)


def test_what_was_held_back_is_told_with_the_next_line() -> None:
    recorder = AdminRecorder()
    with capture_logs() as lines:
        for now in (*[0.0] * 8, 20.0):
            recorder.refused("wrong_token", "", now)
    assert [line.get("held_back") for line in lines] == [None] * 5 + [3]
    assert all("client" not in line for line in lines)


def test_the_source_does_not_print_the_token() -> None:
    source = AdminSource(lambda: (200, {}), lambda: b"", lambda: SecretStr(TOKEN), False)
    assert TOKEN not in repr(source)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1"])
def test_loopback_needs_no_token(address: str) -> None:
    assert_guarded("localhost", address, SecretStr(""))


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1", "fe80::1%eth0", ""])
def test_a_name_that_leads_elsewhere_needs_a_token(address: str) -> None:
    assert_guarded("localhost", address, SecretStr(TOKEN))
    with pytest.raises(UnguardedError, match=r"admin\.host: localhost.* set admin\.token") as told:
        assert_guarded("localhost", address, SecretStr(""))
    assert (told.value.host, told.value.address) == ("localhost", address)


async def test_the_gateway_does_not_start_on_an_address_that_the_rules_did_not_foresee() -> None:
    """As if `localhost` were an address of the network: the rules see the name alone."""
    loaded = load_config_text(CONFIG, "config.yaml", {})
    admin = loaded.config.admin.model_copy(update={"host": "0.0.0.0"})
    config = loaded.config.model_copy(update={"admin": admin})
    with pytest.raises(UnguardedError, match=r"would listen on 0\.0\.0\.0"):
        await serve(draw(dataclasses.replace(loaded, config=config)))
