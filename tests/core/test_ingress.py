"""The HTTP contract, row by row: status, body, what is published and what is counted."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from structlog.testing import capture_logs

from gateway.ingress import CONNECTION, Fault
from gateway.observability import logs
from gateway.observability.logs import LogWriter
from gateway.routing.table import Table
from gateway.serving import Limits
from gateway.signature import Verifier
from tests.canaries import OTHER_SECRET, SECRET
from tests.core.builders import BODY, SVIX_ID, route, signed, target
from tests.core.service import AMPLE, LETTERS, PATH, Service

FINE = ("delivered", "")
CHUNKED = (b"transfer-encoding", b"chunked")


def now() -> int:
    return int(time.time())


def genuine(body: bytes = BODY, **more: Any) -> list[tuple[bytes, bytes]]:
    return signed(body, **({"timestamp": now()} | more))


async def turns() -> None:
    """Let the loop do what it is about to do."""
    for _ in range(100):
        await asyncio.sleep(0)


# --- delivered


async def test_every_target_durable() -> None:
    async with Service() as service:
        answer = await service.post()
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json"
        common = {"route": "users", "stream": "FAKE", "seq": 1, "status": "delivered"}
        assert answer.body == {
            "status": "delivered",
            "id": SVIX_ID,
            "type": "user.created",
            "targets": [
                {"broker": "events", "topic": "clerk.users", **common},
                {"broker": "bus", "subject": "clerk.user.created", **common},
            ],
        }
        assert [record.message.value for record in service.stored] == [BODY, BODY]
        assert service.outcome == ("clerk", "delivered", "")
        assert service.counted("settlements") == {
            ("users", "events", "delivered", ""): 1,
            ("users", "bus", "delivered", ""): 1,
        }


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"chunks": [BODY[:10], b"", BODY[10:]]}, id="in-chunks"),
        pytest.param({"query_string": b"secret=x"}, id="query-string"),
        pytest.param({"client": None}, id="no-client"),
        pytest.param({"extensions": {"other": {}}}, id="extensions"),
        pytest.param({"headers": lambda: genuine(family="webhook")}, id="webhook-family"),
        pytest.param({"headers": lambda: [(n.title(), v) for n, v in genuine()]}, id="title-case"),
        pytest.param(
            {"headers": lambda: [*genuine(), (b"content-length", b"%d" % len(BODY))]},
            id="with-length",
        ),
        pytest.param({"headers": lambda: [*genuine(), CHUNKED]}, id="chunked"),
        pytest.param({"headers": lambda: [*genuine(), (CHUNKED[0], b"CHUNKED")]}, id="upper-case"),
        pytest.param({"hosts": [b"[2001:db8::1]:8080"]}, id="ipv6-host"),
        pytest.param({"hosts": [b""]}, id="empty-host"),
        pytest.param({"hosts": [], "http_version": "1.0"}, id="http-1.0-without-host"),
        pytest.param({"raw_path": b"/webhooks/cler%6B"}, id="encoded-letter"),
    ],
)
async def test_what_makes_no_difference(more: dict[str, Any]) -> None:
    # Signed now and not when the module is loaded, which may be long ago in a whole run.
    more = {name: value() if callable(value) else value for name, value in more.items()}
    async with Service() as service:
        assert (await service.post(**more)).word == (200, "delivered")


async def test_a_record_that_the_broker_already_has() -> None:
    async with Service() as service:
        await service.post()
        service.forget()
        answer = await service.post()
        assert answer.word == (200, "delivered")
        assert answer.targets == [("duplicate", "")] * 2


async def test_a_copy_is_a_duplicate_and_nothing_is_published() -> None:
    async with Service() as service:
        first = await service.post()
        copy = await service.post(headers=genuine(timestamp=int(time.time()) - 5))
        assert copy.word == (200, "duplicate")
        assert copy.body == {**first.body, "status": "duplicate"}
        assert len(service.stored) == 2
        assert service.counted("events") == {
            ("clerk", "delivered", ""): 1,
            ("clerk", "duplicate", ""): 1,
        }
        # What was settled before is not counted again, and not timed.
        assert sum(service.counted("settlements").values()) == 2
        assert service.timed == 1


async def test_a_copy_of_another_source_or_id_is_no_copy() -> None:
    async with Service() as service:
        await service.post()
        other = signed(svix_id="msg_other", timestamp=int(time.time()))
        assert (await service.post(headers=other)).word == (200, "delivered")


@pytest.mark.parametrize(
    ("headers", "word"),
    [
        pytest.param(lambda: genuine(svix_id="msg_2c")[:2] + genuine()[2:], 401, id="forged"),
        pytest.param(lambda: genuine(timestamp=1), 401, id="expired"),
    ],
)
async def test_what_is_not_proven_never_reaches_the_ledger(
    headers: Callable[[], list[tuple[bytes, bytes]]], word: int
) -> None:
    async with Service() as service:
        assert (await service.post(headers=headers())).word == (word, "rejected")
        assert (service.ledger.complete, service.ledger.incomplete) == (0, 0)
        await service.post()
        assert (await service.post(headers=headers())).word == (word, "rejected")


@pytest.mark.parametrize("unmatched", ["accept", "reject"])
async def test_an_event_without_targets_needs_no_memory(
    unmatched: Literal["accept", "reject"],
) -> None:
    async with Service(route(events=["session.*"]), unmatched=unmatched) as service:
        words = {(await service.post()).word for _ in range(2)}
        assert words == {({"accept": 200, "reject": 422}[unmatched], "unmatched")}
        assert (service.ledger.complete, service.ledger.incomplete) == (0, 0)


async def test_the_letter_of_an_unmatched_event_is_sent_once() -> None:
    routes = route(events=["session.*"])
    async with Service(routes, unmatched="dead_letter", dead_letter=True) as service:
        assert (await service.post()).word == (200, "dead_lettered")
        copy = await service.post()
        assert copy.word == (200, "duplicate")
        assert copy.targets == [("dead_lettered", "unmatched")]
        assert len(service.stored) == 1


async def test_a_retry_shows_what_was_settled_before() -> None:
    async with Service() as service:
        service.bus.fail("no_leader", times=1)
        failed = await service.post()
        assert failed.word == (503, "failed")
        retry = await service.post()
        assert retry.word == (200, "delivered")
        assert retry.targets == [FINE, FINE]
        assert retry.body["targets"][0] == failed.body["targets"][0]
        assert service.counted("settlements") == {
            ("users", "events", "delivered", ""): 1,
            ("users", "bus", "failed", "no_leader"): 1,
            ("users", "bus", "delivered", ""): 1,
        }


async def test_a_hundred_targets_are_told_in_under_4_kilobytes() -> None:
    routes = [route(target(destination=f"clerk.{n}"), name=f"route-{n}") for n in range(100)]
    async with Service(*routes) as service:
        answer = await service.post()
        assert answer.word == (200, "delivered")
        assert len(answer.targets) + answer.body["targets_left_out"] == 100
        assert len(service.stored) == 100


class OwnServer:
    """What our own server puts into the scope: see `gateway.ingress.Connection`."""

    def __init__(self, first_byte: float | None = None, *, takes_it: bool = False) -> None:
        self.first_byte = time.monotonic() if first_byte is None else first_byte
        self.fault: Fault | None = None
        self.taken: list[tuple[int, bytes]] = []
        self._takes_it = takes_it

    def answer(
        self, scope: Any, status: int, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> bool:
        assert scope["extensions"] == {CONNECTION: self}
        assert dict(headers)[b"content-length"] == b"%d" % len(body)
        self.taken.append((status, body))
        return self._takes_it


@pytest.mark.parametrize("takes_it", [True, False])
async def test_our_own_server_may_take_an_answer_at_once(takes_it: bool) -> None:
    server = OwnServer(takes_it=takes_it)
    async with Service() as service:
        answer = await service.post(extensions={CONNECTION: server})
        assert server.taken[0][0] == 200
        assert (answer.status, answer.raw) == ((0, b"") if takes_it else server.taken[0])


# --- unmatched

NONE = route(events=["session.*"])


async def test_unmatched_is_accepted() -> None:
    async with Service(NONE) as service:
        answer = await service.post()
        assert answer.word == (200, "unmatched")
        assert answer.targets == []
        assert service.stored == []
        assert service.outcome == ("clerk", "unmatched", "")


async def test_unmatched_is_dead_lettered() -> None:
    async with Service(NONE, unmatched="dead_letter", dead_letter=True) as service:
        answer = await service.post()
        assert answer.word == (200, "dead_lettered")
        assert answer.targets == [("dead_lettered", "unmatched")]
        (letter,) = service.events.stored(LETTERS)
        assert letter.message.value == BODY
        assert dict(letter.message.headers)["gateway-dead-letter-reason"] == "unmatched"
        assert service.outcome == ("clerk", "dead_lettered", "unmatched")


@pytest.mark.parametrize("abort", [True, False])
async def test_unmatched_is_refused(abort: bool) -> None:
    async with Service(NONE, unmatched="reject", abort_permanent=abort) as service:
        answer = await service.post()
        assert answer.word == (422, "unmatched")
        assert ("webhook-delivery" in answer.headers) is abort
        assert service.outcome == ("clerk", "unmatched", "")


async def test_an_event_of_another_kind_without_a_type_is_unmatched() -> None:
    async with Service(type_required=False) as service:
        answer = await service.post(b'{"data":{}}')
        assert answer.word == (200, "unmatched")
        assert answer.body["type"] is None


# --- refused before anything is published


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        pytest.param(list, "missing header", id="none"),
        pytest.param(lambda: genuine()[:2], "missing header", id="no-signature"),
        pytest.param(lambda: genuine(timestamp=now() - 100_000), "timestamp too old", id="expired"),
        pytest.param(lambda: genuine(timestamp=now() + 100_000), "timestamp too new", id="future"),
        pytest.param(lambda: genuine(timestamp="1e9"), "malformed header", id="malformed"),
        pytest.param(
            lambda: genuine(secret=OTHER_SECRET), "no matching signature", id="wrong-secret"
        ),
        pytest.param(lambda: genuine(b"{}"), "no matching signature", id="another-body"),
        pytest.param(
            lambda: [*genuine(), (b"webhook-id", b"msg_x")], "conflicting header", id="conflicting"
        ),
    ],
)
async def test_what_is_not_genuine(
    headers: Callable[[], list[tuple[bytes, bytes]]], error: str
) -> None:
    async with Service(abort_permanent=True) as service:
        answer = await service.post(headers=headers())
        assert answer.status == 401
        assert answer.body == {"status": "rejected", "error": error}
        assert "webhook-delivery" not in answer.headers
        assert service.stored == []
        assert service.outcome == ("clerk", "rejected", error.replace(" ", "_"))


def coded(*codings: bytes) -> list[tuple[bytes, bytes]]:
    return [*genuine(), *((b"transfer-encoding", coding) for coding in codings)]


# Genuine, in a form that RFC 9112 forbids because another reader may see another request in it.
AMBIGUOUS = [
    pytest.param(more, 400, "malformed_http", id=name)
    for name, more in {
        "no-host": {"hosts": []},
        "two-hosts": {"hosts": [b"a.example", b"b.example"]},
        "two-equal-hosts": {"hosts": [b"a.example"] * 2},
        "two-hosts-of-1.0": {"hosts": [b"a.example"] * 2, "http_version": "1.0"},
        "host-list": {"hosts": [b"a.example, b.example"]},
        "host-with-path": {"hosts": [b"a.example/x"]},
        "host-with-user": {"hosts": [b"x@a.example"]},
        "host-with-space": {"hosts": [b"a example"]},
        "host-not-ascii": {"hosts": [b"\xe9.example"]},
        "unknown-coding": {"headers": lambda: coded(b"xchunked")},
        "gzip-coding": {"headers": lambda: coded(b"gzip, chunked")},
        "empty-coding": {"headers": lambda: coded(b"")},
        "coding-in-a-list": {"headers": lambda: coded(b",chunked")},
        "coding-and-a-tab": {"headers": lambda: coded(b"chunked\t")},
        "two-codings": {"headers": lambda: coded(b"chunked", b"chunked")},
        "two-different-codings": {"headers": lambda: coded(b"identity", b"chunked")},
        "chunks-in-1.0": {"headers": lambda: coded(b"chunked"), "http_version": "1.0"},
    }.items()
]


@pytest.mark.parametrize(
    ("more", "status", "reason"),
    [
        pytest.param({"method": "GET"}, 405, "not_post", id="get"),
        pytest.param({"method": "HEAD"}, 405, "not_post", id="head"),
        pytest.param({"method": "PUT"}, 405, "not_post", id="put"),
        pytest.param({"method": "post"}, 405, "not_post", id="lower-case"),
        pytest.param({"path": "/"}, 404, "unknown_path", id="root"),
        pytest.param({"path": PATH + "/"}, 404, "unknown_path", id="trailing-slash"),
        pytest.param({"path": "/metrics"}, 404, "unknown_path", id="metrics"),
        pytest.param({"path": "", "method": "GET"}, 404, "unknown_path", id="empty"),
        pytest.param({"body": b"x" * 4097}, 413, "body_too_large", id="large"),
        pytest.param({"chunks": [b"x" * 4096, b"x"]}, 413, "body_too_large", id="in-chunks"),
        pytest.param(
            {"chunks": [b"x" * 5000], "ends": "silence"}, 413, "body_too_large", id="endless"
        ),
        pytest.param(
            {"headers": [(b"content-length", b"4097")], "chunks": [], "ends": "silence"},
            413,
            "body_too_large",
            id="by-length",
        ),
        pytest.param(
            {"headers": [(b"content-length", b"9" * 5000)]}, 413, "body_too_large", id="by-digits"
        ),
        pytest.param(
            {"headers": [(b"content-length", b"-1")]}, 400, "malformed_length", id="negative"
        ),
        pytest.param(
            {"headers": [(b"content-length", b"")]}, 400, "malformed_length", id="empty-length"
        ),
        pytest.param({"raw_path": b"/webhooks%2Fclerk"}, 404, "unknown_path", id="encoded-slash"),
        pytest.param({"raw_path": b"/webhooks%2fclerk"}, 404, "unknown_path", id="lower-slash"),
        *AMBIGUOUS,
    ],
)
async def test_what_is_turned_away(more: dict[str, Any], status: int, reason: str) -> None:
    more = {name: value() if callable(value) else value for name, value in more.items()}
    async with Service(abort_permanent=True) as service:
        answer = await service.post(**more)
        assert answer.word == (status, "rejected")
        assert answer.body["error"] == reason.replace("_", " ")
        assert set(answer.body) == {"status", "error"}
        assert "webhook-delivery" not in answer.headers
        assert answer.headers["connection"] == "close"  # what may follow is not read
        assert (answer.headers.get("allow") == "POST") is (status == 405)
        assert service.stored == []
        source = "" if status == 404 else "clerk"
        assert service.outcome == (source, "rejected", reason)


async def test_a_body_of_exactly_the_limit_is_taken() -> None:
    body = BODY + b" " * (4096 - len(BODY))
    async with Service() as service:
        assert (await service.post(body)).word == (200, "delivered")


SLOW = [
    pytest.param(Limits(4096, AMPLE, 0.05), id="body-timeout"),
    pytest.param(Limits(4096, 0.05, AMPLE), id="deadline"),
]


@pytest.mark.parametrize("limits", SLOW)
@pytest.mark.parametrize("chunks", [[], [BODY[:5]]], ids=["nothing", "a-part"])
async def test_a_body_that_does_not_come(limits: Limits, chunks: list[bytes]) -> None:
    async with Service(limits=limits) as service:
        answer = await service.post(chunks=chunks, ends="silence")
        assert answer.word == (408, "rejected")
        assert answer.headers["connection"] == "close"
        assert service.outcome == ("clerk", "rejected", "body_too_slow")


FAULTS = [
    (Fault(400, "malformed_http"), (400, "rejected"), {"connection": "close"}),
    (Fault(503, "overloaded"), (503, "failed"), {"connection": "close", "retry-after": "5"}),
]


@pytest.mark.parametrize(("fault", "word", "headers"), FAULTS)
async def test_a_body_whose_rest_will_not_come_ends_with_what_was_wrong(
    fault: Fault, word: tuple[int, str], headers: dict[str, str]
) -> None:
    async with Service() as service:
        server = OwnServer()
        server.fault = fault
        broken = {CONNECTION: server}
        answer = await service.post(chunks=[BODY[:5], b""], ends="silence", extensions=broken)
        assert answer.word == word
        assert answer.body["error"] == fault.reason.replace("_", " ")
        assert headers.items() <= answer.headers.items()
        assert service.outcome == ("clerk", word[1], fault.reason)


async def test_a_fault_behind_a_whole_body_is_not_its_own() -> None:
    async with Service() as service:
        server = OwnServer()
        server.fault = Fault(400, "malformed_http")
        answer = await service.post(extensions={CONNECTION: server})
        assert answer.word == (200, "delivered")


async def test_a_read_that_is_woken_late_ends() -> None:
    """Our own server keeps no timer for a body: it wakes the read with nothing."""
    async with Service(limits=Limits(4096, AMPLE, 5.0)) as service:
        late = {CONNECTION: OwnServer(time.monotonic() - 6)}
        answer = await service.post(chunks=[BODY[:5], b""], ends="silence", extensions=late)
        assert answer.word == (408, "rejected")
        answer = await service.post(chunks=[BODY], extensions=late)
        assert answer.word == (200, "delivered")


async def test_a_client_that_leaves_before_its_body_is_whole_gets_no_answer() -> None:
    async with Service() as service:
        for chunks in ([], [BODY[:5]], [BODY]):
            assert (await service.post(chunks=chunks, ends="disconnect")).status == 0
        assert service.counted("events") == {("clerk", "rejected", "client_disconnected"): 3}
        assert service.stored == []


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not_json"),
        (b"\xff", "not_json"),
        (b"[]", "not_an_object"),
        (b"{}", "no_type"),
        (b'{"type":7}', "no_type"),
        (b'{"type":"%b"}' % (b"x" * 300), "type_too_long"),
        (b"[" * 4000, "not_json"),
    ],
    ids=lambda value: str(value)[:20],
)
@pytest.mark.parametrize("abort", [True, False])
async def test_what_is_genuine_and_no_event(body: bytes, reason: str, abort: bool) -> None:
    async with Service(abort_permanent=abort) as service:
        answer = await service.post(body)
        error = reason.replace("_", " ")
        assert answer.status == 400
        assert answer.body == {"status": "rejected", "id": SVIX_ID, "error": error}
        assert (answer.headers.get("webhook-delivery") == "abort-message") is abort
        assert service.stored == []
        assert service.outcome == ("clerk", "rejected", reason)


# --- addresses


@pytest.mark.parametrize(
    ("client", "forwarded", "allowed"),
    [
        pytest.param(("203.0.113.5", 1), None, True, id="direct"),
        pytest.param(("192.0.2.1", 1), None, False, id="another"),
        pytest.param(("192.0.2.1", 1), b"203.0.113.5", False, id="forged-header"),
        pytest.param(("10.0.0.1", 1), b"203.0.113.5", True, id="through-the-proxy"),
        pytest.param(("10.0.0.1", 1), b"203.0.113.5, 192.0.2.1", False, id="forged-hop"),
        pytest.param(("10.0.0.1", 1), None, False, id="the-proxy-itself"),
        pytest.param(None, b"203.0.113.5", False, id="no-client"),
    ],
)
async def test_allowed_addresses(client: Any, forwarded: bytes | None, allowed: bool) -> None:
    extra = [] if forwarded is None else [(b"x-forwarded-for", forwarded)]
    async with Service(allow_from=["203.0.113.0/24"], trusted_proxies=["10.0.0.0/8"]) as service:
        answer = await service.post(headers=[*genuine(), *extra], client=client)
        if allowed:
            assert answer.word == (200, "delivered")
            return
        assert answer.status == 401
        assert answer.body == {"status": "rejected", "error": "address not allowed"}
        assert service.stored == []
        assert service.outcome == ("clerk", "rejected", "address_not_allowed")


# --- targets that fail

Spoil = Callable[[Service], object]


@pytest.mark.parametrize(
    ("spoil", "targets", "reason"),
    [
        pytest.param(
            lambda s: s.events.go_down(),
            [("failed", "broker_down"), FINE],
            "broker_down",
            id="down",
        ),
        pytest.param(
            lambda s: s.bus.fail("overloaded"),
            [FINE, ("failed", "overloaded")],
            "overloaded",
            id="overloaded",
        ),
        pytest.param(
            lambda s: (s.events.refuse("too_large"), s.bus.fail("no_leader")),
            [("failed", "too_large"), ("failed", "no_leader")],
            "too_large",
            id="refused-and-unavailable",
        ),
    ],
)
async def test_a_target_that_is_not_durable(
    spoil: Spoil, targets: list[tuple[str, str]], reason: str
) -> None:
    async with Service() as service:
        spoil(service)
        answer = await service.post()
        assert answer.word == (503, "failed")
        assert answer.targets == targets
        assert answer.body["reason"] == reason
        assert int(answer.headers["retry-after"]) > 0
        assert service.outcome == ("clerk", "failed", reason)
        assert sum(service.counted("settlements").values()) == 2


async def test_a_target_that_does_not_answer_by_the_deadline() -> None:
    async with Service(limits=Limits(4096, 0.05, AMPLE)) as service:
        service.events.stall()
        answer = await service.post()
        assert answer.word == (503, "failed")
        assert answer.targets == [("failed", "deadline"), FINE]
        assert answer.headers["retry-after"]
        service.events.resume()
        await turns()
        assert service.counted("late_acks") == {("events",): 1}
        assert len(service.events.stored()) == 1


async def test_the_deadline_counts_from_the_first_byte() -> None:
    async with Service(limits=Limits(4096, 5.0, AMPLE)) as service:
        service.events.stall()
        first_byte = asyncio.get_running_loop().time() - 4.95
        async with asyncio.timeout(2):
            answer = await service.post(extensions={CONNECTION: OwnServer(first_byte)})
        assert answer.body["reason"] == "deadline"


@pytest.mark.parametrize(
    ("dead_letter", "spoil", "word", "target_status"),
    [
        pytest.param(
            False, None, (503, "failed"), ("failed", "not_authorized"), id="no-dead-letter"
        ),
        pytest.param(
            True,
            None,
            (200, "dead_lettered"),
            ("dead_lettered", "not_authorized"),
            id="dead-letter",
        ),
        pytest.param(
            True,
            lambda s: s.events.refuse("too_large", LETTERS),
            (503, "failed"),
            ("failed", "dead_letter_refused"),
            id="dead-letter-refused",
        ),
        pytest.param(
            True,
            lambda s: s.events.fail("no_leader", LETTERS),
            (503, "failed"),
            ("failed", "no_leader"),
            id="dead-letter-unavailable",
        ),
    ],
)
async def test_a_target_that_refuses_for_good(
    dead_letter: bool, spoil: Spoil | None, word: tuple[int, str], target_status: tuple[str, str]
) -> None:
    async with Service(dead_letter=dead_letter) as service:
        service.events.refuse("not_authorized", "clerk.users")
        if spoil is not None:
            spoil(service)
        answer = await service.post()
        assert answer.word == word
        assert answer.targets == [target_status, FINE]
        assert answer.body["reason"] == target_status[1]
        assert service.outcome == ("clerk", word[1], target_status[1])
        assert ("retry-after" in answer.headers) is (word[0] == 503)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"when": "abs(data.id)"}, "expression"),
        ({"targets": [target(destination="clerk.{data.missing}")]}, "expression"),
        (
            {"targets": [target(key="{join('', [" + ", ".join(["data.big"] * 9) + "])}")]},
            "too_large",
        ),
    ],
    ids=["when", "destination", "headroom"],
)
async def test_a_route_that_cannot_be_resolved(more: dict[str, Any], reason: str) -> None:
    body = b'{"type":"user.created","data":{"id":"user_1","big":"%b"}}' % (b"x" * 1000)
    routes = [route(**more), route(target("bus", "clerk.{type}"), name="fine")]
    async with Service(*routes) as service:
        answer = await service.post(body)
        assert answer.word == (503, "failed")
        assert sorted(answer.targets) == [FINE, ("failed", reason)]
    async with Service(*routes, dead_letter=True) as service:
        answer = await service.post(body)
        assert answer.word == (200, "dead_lettered")
        assert sorted(answer.targets) == [("dead_lettered", reason), FINE]


# --- what must never happen


class Log:
    """Reads the lines of requests back."""

    def __init__(self) -> None:
        self._stream = io.BytesIO()
        self.writer = LogWriter(self._stream)

    @property
    def text(self) -> str:
        self.writer.flush()
        return self._stream.getvalue().decode()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture(autouse=True)
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    made = Log()
    monkeypatch.setattr(logs, "_configured", (made.writer, "info", "json"))
    return made


async def test_a_bug_inside_is_a_503_that_tells_nothing(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plan(*_: object) -> None:
        raise RuntimeError("the body was " + BODY.decode())

    monkeypatch.setattr(Table, "plan", plan)
    structlog.reset_defaults()
    with capture_logs() as others:
        async with Service() as service:
            answer = await service.post()
        assert answer.status == 503
        assert answer.body == {"status": "failed", "error": "internal"}
        assert answer.headers["retry-after"]
        assert service.outcome == ("clerk", "failed", "internal")
    (bug,) = others
    assert (bug["event"], bug["error"], bug["where"]) == ("bug", "RuntimeError", "ingress")
    assert "user_1" not in str(bug) + log.text


async def test_a_cancelled_request_is_counted_once_and_stays_cancelled() -> None:
    async with Service() as service:
        service.events.stall()
        posting = asyncio.create_task(service.post())
        await turns()
        posting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await posting
        assert service.outcome[1:] == ("failed", "cancelled")
        assert len(service.bus.stored()) == 1


async def test_a_client_that_leaves_after_verification_cancels_nothing() -> None:
    async with Service() as service:
        service.events.stall()
        posting = asyncio.create_task(service.post())
        await turns()
        service.events.resume()
        assert (await posting).word == (200, "delivered")


async def test_a_request_ends_with_the_config_it_began_with() -> None:
    """Also one whose body is not there yet when the config changes."""
    async with Service() as service:
        old, new = service.serving, Service().serving
        other = Verifier((SecretStr(OTHER_SECRET),), 300.0)
        endpoint = msgspec.structs.replace(new.edge.endpoints[PATH], verifier=other)
        edge = msgspec.structs.replace(new.edge, endpoints={PATH: endpoint})
        headers = [(b"host", b"gateway"), *signed(BODY, timestamp=int(time.time()))]
        swapped = asyncio.Event()

        async def receive() -> Any:
            service.ingress.serve(msgspec.structs.replace(new, edge=edge))
            swapped.set()
            return {"type": "http.request", "body": BODY, "more_body": False}

        answers: list[Any] = []

        async def send(message: Any) -> None:
            answers.append(message)

        scope: Any = {"type": "http", "http_version": "1.1", "method": "POST", "path": PATH}
        await service.ingress(scope | {"client": None, "headers": headers}, receive, send)
        assert swapped.is_set()
        assert answers[0]["status"] == 200
        assert len(service.stored) == 2, "the brokers that it began with"
        service.requests += 1
        assert (await service.post()).word == (401, "rejected")
        service.ingress.serve(old)
        service.forget()
        assert (await service.post()).word == (200, "delivered")


async def test_no_payload_or_secret_is_logged(log: Log) -> None:
    body = b'{"type":"sms.created","data":{"id":"sms_1","message":"your code is 123456"}}'
    async with Service(dead_letter=True) as service:
        await service.post(body)
        await service.post(body + b" ")
        await service.post(body, genuine(body, secret=OTHER_SECRET))
        await service.post(body[:-1])
        service.events.refuse("too_large")
        await service.post(body)
        service.bus.go_down()
        await service.post(body)
    shown = log.text
    assert len(log.lines) == 6
    for hidden in ("123456", "sms_1", SECRET.removeprefix("whsec_"), genuine(body)[2][1].decode()):
        assert hidden not in shown


async def test_each_outcome_has_its_line(log: Log) -> None:
    async with Service(NONE) as service:
        await service.post()
        await service.post(b"{}")
        await service.post(headers=[])
    levels = [(line["level"], line["outcome"], line.get("svix_id", "")) for line in log.lines]
    assert levels == [
        ("warning", "unmatched", SVIX_ID),
        ("warning", "rejected", SVIX_ID),
        ("warning", "rejected", ""),
    ]
    assert all(line["ms"] >= 0 for line in log.lines)


names = st.sampled_from([b"svix-id", b"webhook-id", b"svix-timestamp", b"svix-signature"])
names |= st.sampled_from([b"content-length", b"x-forwarded-for"]) | st.binary(max_size=10)
junk = st.lists(st.tuples(names, st.binary(max_size=30)), max_size=5)
UNPROVEN = {
    "unknown_path": 404,
    "not_post": 405,
    "address_not_allowed": 401,
    "malformed_length": 400,
    "body_too_large": 413,
    "missing_header": 401,
    "conflicting_header": 401,
    "malformed_header": 401,
    "no_matching_signature": 401,
}


@settings(max_examples=60)
@given(
    st.lists(st.binary(max_size=3000), min_size=1, max_size=3),
    junk,
    st.sampled_from(["POST", "POST", "GET", "\x00"]),
    st.sampled_from([PATH, PATH, PATH, "/", "\x00", PATH + "\udcff"]),
    st.booleans(),
    st.sampled_from([(), ("192.0.2.1",)]),
)
def test_nothing_unproven_is_published_and_nothing_is_a_500(
    chunks: list[bytes],
    extra: list[tuple[bytes, bytes]],
    method: str,
    path: str,
    signature: bool,
    proxies: tuple[str, ...],
) -> None:
    async def run() -> None:
        headers = [*(genuine() if signature else []), *extra]
        async with Service(allow_from=proxies, trusted_proxies=proxies) as service:
            answer = await service.post(chunks=chunks, headers=headers, method=method, path=path)
            reason = service.outcome[2]
            assert answer.word == (UNPROVEN[reason], "rejected")
            assert answer.body["error"] == reason.replace("_", " ")
            assert (reason == "unknown_path") is (path != PATH)
            assert (reason == "not_post") is (path == PATH and method != "POST")
            assert service.stored == []

    asyncio.run(run())
