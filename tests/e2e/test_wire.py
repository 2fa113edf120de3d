"""What a sender can do to a socket: slow, torn, oversized, pipelined, gone, or no HTTP at all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.e2e.client import Client, event, new_id, signed, until
from tests.e2e.conftest import Start
from tests.e2e.gateway_process import PATH, GatewayProcess
from tests.e2e.readback import create_stream, stream_count, stream_messages
from tests.e2e.wire import Wire, connected, head, request
from tests.servers.nats import NatsServer

STREAM = "wire"
MAX_BODY = 64 * 1024
HEADER_TIMEOUT = 1.0
BODY_TIMEOUT = 1.5
DELIVERED = ("clerk", "delivered", "")


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        asyncio.run(create_stream(server.url, STREAM, "wire.>"))
        yield server


@pytest.fixture(scope="module")
def gateway(module_gateways: Start, bus: NatsServer) -> GatewayProcess:
    return module_gateways(
        {
            "server": {
                "max_body": MAX_BODY,
                "header_timeout": f"{HEADER_TIMEOUT}s",
                "body_timeout": f"{BODY_TIMEOUT}s",
            },
            "brokers": {"bus": {"kind": "nats", "servers": [bus.url]}},
            "routes": [
                {
                    "name": "all",
                    "events": ["*"],
                    "targets": [{"broker": "bus", "subject": "wire.{type}"}],
                }
            ],
        }
    )


@pytest.fixture
async def client(gateway: GatewayProcess) -> AsyncIterator[Client]:
    async with Client(gateway) as client:
        await client.until_ready()
        yield client


@pytest.fixture
async def wire(gateway: GatewayProcess, client: Client) -> AsyncIterator[Wire]:
    async with connected(gateway.port) as wire:
        yield wire


@pytest.fixture(autouse=True)
async def nothing_refused_is_stored(bus: NatsServer, client: Client) -> AsyncIterator[None]:
    """Assert that the broker has one message more for each event counted as delivered."""
    stored, counted = await stream_count(bus.url, STREAM), await client.counted()
    yield
    delivered = (await client.counted() - counted)[DELIVERED]
    assert await stream_count(bus.url, STREAM) - stored == delivered


# --- too slow


async def test_a_head_that_drips(client: Client, wire: Wire) -> None:
    began = time.monotonic()
    async with client.counting(("", "rejected", "head_too_slow")):
        await wire.send(head(signed(b""))[:40])
        reply = await wire.reply()
    assert reply.word == (408, "rejected")
    assert reply.headers["connection"] == "close"
    assert HEADER_TIMEOUT - 0.1 <= time.monotonic() - began < HEADER_TIMEOUT + 2
    assert await wire.closed()


async def test_a_head_that_drips_byte_by_byte_is_not_given_more_time(
    client: Client, wire: Wire
) -> None:
    async def drip() -> None:
        for byte in head({"x-long": "y" * 200}):
            await wire.send(bytes([byte]))
            await asyncio.sleep(0.05)

    async with client.counting(("", "rejected", "head_too_slow")):
        dripping = asyncio.create_task(drip())
        assert (await wire.reply()).word == (408, "rejected")
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)


async def test_a_connection_that_says_nothing_is_closed_and_is_no_request(
    client: Client, wire: Wire
) -> None:
    async with client.counting():
        assert await wire.closed()


async def test_a_body_that_stalls(client: Client, wire: Wire) -> None:
    began = time.monotonic()
    async with client.counting(("clerk", "rejected", "body_too_slow")):
        await wire.send(head(signed(b"x") | {"Content-Length": "100"}) + b"{")
        reply = await wire.reply()
    assert reply.word == (408, "rejected")
    assert reply.headers["connection"] == "close"
    assert BODY_TIMEOUT - 0.1 <= time.monotonic() - began < BODY_TIMEOUT + 2
    assert await wire.closed()


async def test_a_body_that_drips_is_not_given_more_time(client: Client, wire: Wire) -> None:
    async def drip() -> None:
        await wire.send(head(signed(b"x") | {"Content-Length": "1000"}))
        for _ in range(1000):
            await wire.send(b"x")
            await asyncio.sleep(0.05)

    async with client.counting(("clerk", "rejected", "body_too_slow")):
        dripping = asyncio.create_task(drip())
        assert (await wire.reply()).word == (408, "rejected")
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)


async def test_a_slow_request_in_many_pieces_is_taken(client: Client, wire: Wire) -> None:
    whole = request(event())
    async with client.counting(DELIVERED):
        for at in range(0, len(whole), 60):
            await wire.send(whole[at : at + 60])
            await asyncio.sleep(0.01)
        assert (await wire.reply()).word == (200, "delivered")


# --- too large


async def test_a_length_over_the_limit_is_refused_before_the_body(
    client: Client, wire: Wire
) -> None:
    async with client.counting(("clerk", "rejected", "body_too_large")):
        await wire.send(head(signed(b"") | {"Content-Length": str(MAX_BODY + 1)}))
        reply = await wire.reply()
    assert reply.word == (413, "rejected")
    assert await wire.closed()


async def test_endless_chunks_are_cut_off(client: Client, wire: Wire) -> None:
    chunk = b"1000\r\n" + b"x" * 4096 + b"\r\n"
    async with client.counting(("clerk", "rejected", "body_too_large")):
        await wire.send(head(signed(b"") | {"Transfer-Encoding": "chunked"}))
        for _ in range(MAX_BODY // 4096 + 1):
            await wire.send(chunk)
        assert (await wire.reply()).word == (413, "rejected")
        assert await wire.closed()


async def test_exactly_the_limit_is_taken(client: Client, wire: Wire) -> None:
    async with client.counting(DELIVERED):
        await wire.send(request(event(size=MAX_BODY)))
        assert (await wire.reply()).word == (200, "delivered")


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"POST / HTTP/1.1\r\n" + b"X-Long: y\r\n" * 8000, id="headers"),
        pytest.param(b"POST /" + b"y" * 80_000, id="request-line"),
        pytest.param(b"POST / HTTP/1.1\r\nX: " + b"y" * 80_000, id="one-header"),
    ],
)
async def test_a_huge_head(client: Client, wire: Wire, sent: bytes) -> None:
    async with client.counting(("", "rejected", "head_too_large")):
        await wire.send(sent)
        assert (await wire.reply()).word == (431, "rejected")
        assert await wire.closed()


async def test_a_huge_head_behind_a_request(client: Client, wire: Wire) -> None:
    huge = head({"x-long": "y" * 40_000})
    async with client.counting(DELIVERED, ("", "rejected", "head_too_large")):
        await wire.send(request(event()) + huge)
        assert (await wire.reply()).word == (200, "delivered")
        assert (await wire.reply()).word == (431, "rejected")
        assert await wire.closed()


async def test_a_head_that_begins_behind_large_bodies_is_not_too_large(
    client: Client, wire: Wire
) -> None:
    large, small = [request(event(size=50_000)) for _ in range(3)], request(event())
    async with client.counting(*[DELIVERED] * 4):
        await wire.send(b"".join(large) + small[:100])
        replies = [await wire.reply() for _ in range(3)]
        await wire.send(small[100:])
        replies.append(await wire.reply())
        assert [reply.word for reply in replies] == [(200, "delivered")] * 4


# --- no HTTP

GARBAGE = [
    pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="tls-hello"),
    pytest.param(b"hello\r\n\r\n", id="words"),
    pytest.param(b"\x00" * 64, id="zeros"),
    pytest.param(b"POST / HTTP/9.9\r\n\r\n", id="version"),
    pytest.param(b"POST / HTTP/1.1\r\nNo Colon\r\n\r\n", id="no-colon"),
    pytest.param(
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", id="two-lengths"
    ),
    pytest.param(
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        id="length-and-chunks",
    ),
    pytest.param(b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", id="negative-length"),
    pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="http2"),
]


@pytest.mark.parametrize("sent", GARBAGE)
async def test_garbage(client: Client, wire: Wire, sent: bytes) -> None:
    async with client.counting(("", "rejected", "malformed_http")):
        await wire.send(sent)
        reply = await wire.reply()
        assert reply.word == (400, "rejected")
        assert await wire.closed()


async def test_garbage_after_a_request_does_not_spoil_its_answer(
    client: Client, wire: Wire
) -> None:
    async with client.counting(DELIVERED, ("", "rejected", "malformed_http")):
        await wire.send(request(event()))
        assert (await wire.reply()).word == (200, "delivered")
        await wire.send(b"\x00\x00\x00\r\n\r\n")
        assert (await wire.reply()).word == (400, "rejected")
        assert await wire.closed()


@pytest.mark.parametrize("pieces", [1, 2], ids=["at-once", "later"])
async def test_a_chunk_that_is_none_ends_the_request(
    client: Client, wire: Wire, pieces: int
) -> None:
    chunked = head(signed(b"x") | {"Transfer-Encoding": "chunked"})
    async with client.counting(("clerk", "rejected", "malformed_http")):
        if pieces == 1:
            await wire.send(chunked + b"1\r\nx\r\nzz\r\n")
        else:
            await wire.send(chunked + b"1\r\nx\r\n")
            await asyncio.sleep(0.1)
            await wire.send(b"zz\r\n")
        reply = await wire.reply()
        assert reply.word == (400, "rejected")
        assert reply.headers["connection"] == "close"
        assert await wire.closed()


async def test_who_sends_on_behind_a_broken_chunk_is_not_reset_at_once(
    client: Client, wire: Wire
) -> None:
    """A reset could overtake the answer."""
    async with client.counting(("clerk", "rejected", "malformed_http")):
        await wire.send(head(signed(b"x") | {"Transfer-Encoding": "chunked"}) + b"1\r\nx\r\nzz\r\n")
        assert (await wire.reply()).word == (400, "rejected")
        for _ in range(5):
            await wire.send(b"y")
            await asyncio.sleep(0.02)  # for a reset to arrive
        assert await wire.closed()


async def test_upgrades_are_not_for_sale(client: Client, wire: Wire) -> None:
    more = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    async with client.counting(("clerk", "rejected", "not_post")):
        await wire.send(head(more, "GET"))
        assert (await wire.reply()).word == (405, "rejected")


@pytest.mark.parametrize("wish", ["h2c", "websocket", "TLS/1.0, irc/6.9"])
@pytest.mark.parametrize("pieces", [1, 2], ids=["at-once", "later"])
async def test_the_wish_for_another_protocol_is_passed_over(
    client: Client, wire: Wire, wish: str, pieces: int
) -> None:
    body, forged = event(), ("clerk", "rejected", "no_matching_signature")
    more = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": wish, "HTTP2-Settings": "AAMAAABk"}
    async with client.counting(DELIVERED, forged, DELIVERED):
        for sent in (body, body.replace(b"user_1", b"user_2")):
            whole = head({**signed(body), "Content-Length": str(len(sent)), **more})
            if pieces == 1:
                await wire.send(whole + sent)
            else:
                await wire.send(whole)
                await asyncio.sleep(0.1)
                await wire.send(sent)
            expected = (200, "delivered") if sent == body else (401, "rejected")
            assert (await wire.reply()).word == expected
        await wire.send(request(event(), Connection="close, upgrade", Upgrade="h2c"))
        assert (await wire.reply()).word == (200, "delivered")
        assert await wire.closed()


async def test_connect_is_not_post(client: Client, wire: Wire) -> None:
    async with client.counting(("", "rejected", "malformed_http")):
        await wire.send(head({}, "CONNECT", "localhost:80"))
        assert (await wire.reply()).word == (400, "rejected")


async def test_trailers_count_for_nothing(client: Client, wire: Wire) -> None:
    """What comes behind a body cannot be what proves it (RFC 9110, section 6.5.1)."""
    body, chunked = event(), {"Transfer-Encoding": "chunked"}
    chunks = b"%x\r\n%b\r\n0\r\n" % (len(body), body)
    proof = b"".join(f"{name}: {value}\r\n".encode() for name, value in signed(body).items())
    async with client.counting(("clerk", "rejected", "missing_header"), DELIVERED):
        await wire.send(head({**chunked, "Trailer": "svix-id"}) + chunks + proof + b"\r\n")
        assert (await wire.reply()).word == (401, "rejected")
        other = b"svix-id: msg_other\r\nx: y\r\n\r\n"
        await wire.send(head({**signed(body), **chunked}) + chunks + other)
        assert (await wire.reply()).word == (200, "delivered")


@pytest.mark.parametrize(
    "endless", [b"a: " + b"b" * 60 + b"\r\n", b"b" * 1000], ids=["trailers", "one-trailer"]
)
async def test_trailers_without_end(client: Client, wire: Wire, endless: bytes) -> None:
    async with client.counting(("clerk", "rejected", "head_too_large")):
        await wire.send(head(signed(b"") | {"Transfer-Encoding": "chunked"}) + b"0\r\na: ")
        for _ in range(40_000 // len(endless)):
            await wire.send(endless)
        assert (await wire.reply()).word == (431, "rejected")
        assert await wire.closed()


async def test_nothing_is_begun_behind_the_last_answer(client: Client, wire: Wire) -> None:
    async with client.counting(("", "rejected", "unknown_path")):
        await wire.send(head({"Content-Length": "2"}, target="/x") + b"{")
        assert (await wire.reply()).word == (404, "rejected")
        await wire.send(b"}" + head({}, "GET", "/y"))
        assert await wire.closed()


# --- one connection, several requests


async def test_keep_alive_serves_one_after_the_other(client: Client, wire: Wire) -> None:
    forged = ("clerk", "rejected", "no_matching_signature")
    async with client.counting(DELIVERED, forged, DELIVERED):
        await wire.send(request(event()))
        assert (await wire.reply()).word == (200, "delivered")
        await wire.send(request(event()).replace(b"user_1", b"user_2"))
        assert (await wire.reply()).word == (401, "rejected")
        await wire.send(request(event()))
        assert (await wire.reply()).word == (200, "delivered")


@pytest.mark.parametrize("target", ["/nowhere", PATH])
async def test_a_body_that_nobody_wants_ends_the_connection(
    client: Client, wire: Wire, target: str
) -> None:
    """The answer must arrive, although the sender is still writing."""
    status, outcome = (404, ("", "rejected", "unknown_path"))
    method = "POST"
    if target == PATH:
        status, outcome, method = 405, ("clerk", "rejected", "not_post"), "PUT"
    async with client.counting(outcome):
        await wire.send(head({"Content-Length": "1000000"}, method, target), b"x" * 100_000)
        reply = await wire.reply()
        assert reply.word == (status, "rejected")
        assert reply.headers["connection"] == "close"
        assert await wire.closed()


async def test_two_requests_pipelined_are_answered_in_order(client: Client, wire: Wire) -> None:
    first, second = new_id(), new_id()
    async with client.counting(DELIVERED, DELIVERED):
        await wire.send(request(event(), first) + request(event(), second))
        replies = [await wire.reply(), await wire.reply()]
    assert [reply.word for reply in replies] == [(200, "delivered")] * 2
    assert [reply.body["id"] for reply in replies] == [first, second]


@pytest.mark.parametrize("behind", [b"\x00garbage\r\n\r\n", b"X: y\r\n" * 8000], ids=len)
async def test_a_fault_behind_a_request_does_not_cost_it_its_answer(
    client: Client, wire: Wire, behind: bytes
) -> None:
    async with client.counting(DELIVERED, DELIVERED, ("", "rejected", "malformed_http")):
        await wire.send(request(event()) + request(event()) + behind)
        replies = [await wire.reply() for _ in range(3)]
        assert [reply.word[0] for reply in replies] == [200, 200, 400]
        assert await wire.closed()


async def test_head_gets_headers_only(client: Client, wire: Wire) -> None:
    async with client.counting(("clerk", "rejected", "not_post")):
        await wire.send(head({}, "HEAD"))
        reply = await wire.reply(method="HEAD")
        assert (reply.status, reply.headers["allow"]) == (405, "POST")
        assert await wire.closed()


async def test_connection_close_and_http_1_0(gateway: GatewayProcess, client: Client) -> None:
    body = event()
    old = {**signed(body), "Content-Length": str(len(body))}
    async with client.counting(DELIVERED, DELIVERED):
        for sent in (request(event(), Connection="close"), head(old, version="1.0") + body):
            async with connected(gateway.port) as wire:
                await wire.send(sent)
                reply = await wire.reply()
                assert reply.word == (200, "delivered")
                assert reply.headers["connection"] == "close"
                assert await wire.closed()


async def test_expect_100_continue(client: Client, wire: Wire) -> None:
    body = event()
    async with client.counting(DELIVERED):
        sized = {**signed(body), "Content-Length": str(len(body))}
        await wire.send(head({**sized, "Expect": "100-continue"}))
        assert (await wire.reply()).status == 100
        await wire.send(body)
        assert (await wire.reply()).word == (200, "delivered")


async def test_expect_100_continue_of_too_much_is_refused_at_once(
    client: Client, wire: Wire
) -> None:
    too_much = {"Content-Length": str(MAX_BODY + 1), "Expect": "100-continue"}
    async with client.counting(("clerk", "rejected", "body_too_large")):
        await wire.send(head({**signed(b""), **too_much}))
        assert (await wire.reply()).word == (413, "rejected")


async def test_the_absolute_form_and_a_query(client: Client, wire: Wire) -> None:
    body = event()
    async with client.counting(DELIVERED, DELIVERED):
        for target in (f"http://example.com{PATH}", f"{PATH}?a=%00&b"):
            headers = {**signed(body), "Content-Length": str(len(body))}
            await wire.send(head(headers, target=target) + body)
            assert (await wire.reply()).word == (200, "delivered")


# --- a client that leaves


async def test_a_client_that_leaves_after_its_request_cancels_nothing(
    gateway: GatewayProcess, client: Client, bus: NatsServer
) -> None:
    svix_id = new_id()
    async with client.counting(DELIVERED), connected(gateway.port) as wire:
        await wire.send(request(event(), svix_id))
        await wire.close()
    assert svix_id in {m.headers["svix-id"] for m in await stream_messages(bus.url, STREAM)}


async def test_a_client_that_leaves_within_its_body(
    gateway: GatewayProcess, client: Client
) -> None:
    body = event()
    sized = {**signed(body), "Content-Length": str(len(body))}
    outcome = ("clerk", "rejected", "client_disconnected")
    async with client.counting(outcome), connected(gateway.port) as wire:
        await wire.send(head(sized) + body[:-1])


async def test_a_client_that_leaves_within_its_head(
    gateway: GatewayProcess, client: Client
) -> None:
    async with client.counting(), connected(gateway.port) as wire:
        await wire.send(head(signed(b""))[:50])


async def test_a_hundred_at_once(gateway: GatewayProcess, client: Client) -> None:
    async def one() -> tuple[int, str]:
        async with connected(gateway.port) as wire:
            await wire.send(request(event()))
            return (await wire.reply()).word

    async with client.counting(*[DELIVERED] * 100):
        assert set(await asyncio.gather(*(one() for _ in range(100)))) == {(200, "delivered")}


async def test_no_connection_is_left_behind(gateway: GatewayProcess, client: Client) -> None:
    async def is_idle() -> bool:
        return await client.samples("gateway_broker_in_flight_records") == {("bus",): 0}

    await until(is_idle, "nothing is in flight")
