"""What a sender can do to the whole process: crowds, floods and stalls, beside valid traffic.

Each test leaves the gateway as it was: no connection kept, memory flat, a genuine event delivered.
What one connection may hold, and that it leaves nothing, is in `tests/server/test_memory.py`.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.client import Client, event, signed, until
from tests.e2e.conftest import Start
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.readback import create_stream, stream_count
from tests.e2e.wire import Wire, connected, head, request
from tests.servers.nats import NatsServer

STREAM = "abuse"
CROWD = 2000
FEW = 40
"""`max_connections` of the small gateway."""
ARRIVING = 1024 * 1024
PIPELINED = 32
"""`max_pipelined`, by default."""
FLOOR = 3
"""Rounds of which the least size counts: more is what was on its way, or not yet collected."""
LEAK = 4 * 1024
"""Bytes per abuse, by which a process that goes on growing is told from one that has grown."""
Abuse = Callable[[GatewayProcess], Awaitable[None]]


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        asyncio.run(create_stream(server.url, STREAM, "abuse.>"))
        yield server


def config(bus: NatsServer, **server: Any) -> dict[str, Any]:
    target = {"broker": "bus", "subject": "abuse.{type}"}
    return {
        "server": server,
        "brokers": {"bus": {"kind": "nats", "servers": [bus.url]}},
        "routes": [{"name": "all", "events": ["*"], "targets": [target]}],
    }


@pytest.fixture(scope="module")
def gateway(module_gateways: Start, bus: NatsServer) -> GatewayProcess:
    return module_gateways(config(bus, header_timeout="2s", body_timeout="2s"))


@pytest.fixture(scope="module")
def small(module_gateways: Start, bus: NatsServer) -> GatewayProcess:
    """Give a gateway with tight bounds."""
    bounds = {"max_connections": FEW, "max_arriving": ARRIVING, "idle_timeout": "1.5s"}
    return module_gateways(config(bus, **bounds))


@pytest.fixture
async def client(gateway: GatewayProcess) -> AsyncIterator[Client]:
    async with Client(gateway) as client:
        await client.until_ready()
        yield client


@pytest.fixture
async def small_client(small: GatewayProcess) -> AsyncIterator[Client]:
    async with Client(small) as client:
        await client.until_ready()
        yield client


def memory(gateway: GatewayProcess) -> int:
    """Give the process's resident bytes."""
    command = ["ps", "-o", "rss=", "-p", str(gateway.pid)]
    return int(subprocess.run(command, capture_output=True, check=True).stdout) * 1024


async def connections(client: Client) -> float:
    (open_now,) = (await client.samples("gateway_connections")).values()
    return open_now


async def until_left(client: Client) -> None:
    """Wait until only the client's own connection is open, if any."""

    async def nobody_else() -> bool:
        return await connections(client) <= 1

    await until(nobody_else, "the abusers' connections are closed")


async def many(count: int, one: Callable[[], Awaitable[None]], at_once: int = 50) -> None:
    """Do one thing `count` times, `at_once` at a time."""
    gate = asyncio.Semaphore(at_once)

    async def bounded() -> None:
        async with gate:
            await one()

    await asyncio.gather(*(bounded() for _ in range(count)))


# --- crowds


async def test_two_thousand_idle_connections_beside_valid_traffic(
    gateway: GatewayProcess, client: Client, bus: NatsServer
) -> None:
    before = await stream_count(bus.url, STREAM)
    async with AsyncExitStack() as crowd:

        async def idle() -> None:
            wire = await crowd.enter_async_context(connected(gateway.port))
            body = event()
            # A request that is refused and keeps its connection: else the silence is cut short.
            forged = signed(body) | {"Content-Length": str(len(body)), "svix-id": "msg_other"}
            await wire.send(head(forged) + body)
            assert (await wire.reply()).word == (401, "rejected")

        await many(CROWD, idle)
        assert await connections(client) >= CROWD
        for _ in range(50):
            assert (await client.post()).word == (200, "delivered")
        grown = memory(gateway)
    await until_left(client)
    assert await stream_count(bus.url, STREAM) == before + 50
    assert grown < 400 * 1024 * 1024


async def test_idle_connections_keep_nobody_out(
    small: GatewayProcess, small_client: Client
) -> None:
    async with AsyncExitStack() as crowd:
        wires = [await crowd.enter_async_context(connected(small.port)) for _ in range(FEW * 2)]
        async with connected(small.port) as wire:
            await wire.send(request(event()))
            assert (await wire.reply()).word == (200, "delivered")
        assert await wires[0].closed()
        assert await connections(small_client) <= FEW + 1
    await until_left(small_client)


async def test_a_slow_body_gives_way_with_an_answer(
    small: GatewayProcess, small_client: Client
) -> None:
    async with (
        small_client.counting(("clerk", "failed", "overloaded"), ("clerk", "delivered", "")),
        AsyncExitStack() as crowd,
    ):
        slow = await crowd.enter_async_context(connected(small.port))
        await slow.send(head(signed(b"x") | {"Content-Length": "100"}) + b"{")
        for _ in range(FEW):
            await crowd.enter_async_context(connected(small.port))
        reply = await slow.reply()
        assert (reply.word, reply.headers["retry-after"]) == ((503, "failed"), "5")
        assert await slow.closed()
        assert (await small_client.post()).word == (200, "delivered")
    await until_left(small_client)


async def test_where_all_are_at_work_a_new_connection_gets_503(
    gateways: Start, new_nats: Callable[..., NatsServer]
) -> None:
    nats = await asyncio.to_thread(new_nats)
    await create_stream(nats.url, STREAM, "abuse.>")
    bounds = {"max_connections": 3, "deadline": "20s"}
    full = await asyncio.to_thread(gateways, config(nats, **bounds))
    async with Client(full) as client, AsyncExitStack() as crowd:
        await client.until_ready()
        nats.pause()
        wires = [await crowd.enter_async_context(connected(full.port)) for _ in range(3)]
        for wire in wires:
            await wire.send(request(event()))

        async def all_at_work() -> bool:
            return await client.samples("gateway_broker_in_flight_records") == {("bus",): 3}

        await until(all_at_work, "three events wait for the broker")
        async with (
            client.counting(("", "failed", "overloaded"), *[("clerk", "delivered", "")] * 3),
            connected(full.port) as late,
        ):
            reply = await late.reply()
            assert (reply.word, reply.headers["retry-after"]) == ((503, "failed"), "5")
            assert await late.closed()
            nats.resume()
            assert [(await wire.reply()).word for wire in wires] == [(200, "delivered")] * 3


# --- too much at a time


async def test_bodies_on_their_way_are_bounded_together(
    small: GatewayProcess, small_client: Client
) -> None:
    each = ARRIVING // 4
    announced = head(signed(b"") | {"Content-Length": str(each + 1)})
    async with small_client.counting(
        ("clerk", "failed", "overloaded"),
        *[("clerk", "rejected", "client_disconnected")] * 4,
        ("clerk", "delivered", ""),
    ):
        async with AsyncExitStack() as crowd:
            wires = [await crowd.enter_async_context(connected(small.port)) for _ in range(5)]
            for wire in wires:
                await wire.send(announced + b"x" * each)
            reply = await _first(wires)
            assert (reply.word, reply.headers["retry-after"]) == ((503, "failed"), "5")
        await until_left(small_client)
        assert (await small_client.post(event(size=each))).word == (200, "delivered")


async def _first(wires: list[Wire]) -> Any:
    """Give the first answer that comes on any of the connections."""
    waiting = [asyncio.ensure_future(wire.reply()) for wire in wires]
    done, others = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    (first,) = done
    return first.result()


@pytest.mark.parametrize("count", [101, 8000])
async def test_too_many_headers(client: Client, gateway: GatewayProcess, count: int) -> None:
    async with client.counting(("", "rejected", "head_too_large")), connected(gateway.port) as wire:
        await wire.send(head({f"x{number}": "" for number in range(count)}))
        assert (await wire.reply()).word == (431, "rejected")
        assert await wire.closed()


async def test_a_hundred_headers_are_not_too_many(client: Client, gateway: GatewayProcess) -> None:
    body = event()
    needed = {**signed(body), "Content-Length": str(len(body))}
    more = {f"x-{number}": "y" for number in range(100 - len(needed) - 1)}
    async with client.counting(("clerk", "delivered", "")), connected(gateway.port) as wire:
        await wire.send(head({**more, **needed}) + body)
        assert (await wire.reply()).word == (200, "delivered")


async def test_a_thousand_requests_pipelined_are_all_answered(
    client: Client, gateway: GatewayProcess
) -> None:
    async with (
        client.counting(*[("clerk", "delivered", "")] * 1000),
        connected(gateway.port) as wire,
    ):
        for _ in range(50):
            await wire.send(b"".join(request(event()) for _ in range(20)))
            words = [(await wire.reply()).word for _ in range(20)]
            assert words == [(200, "delivered")] * 20


async def test_no_more_requests_are_pipelined_than_may_be(
    client: Client, gateway: GatewayProcess, bus: NatsServer
) -> None:
    before = await stream_count(bus.url, STREAM)
    taken = [("clerk", "delivered", "")] * (PIPELINED + 1)
    async with (
        client.counting(*taken, ("", "failed", "overloaded")),
        connected(gateway.port) as wire,
    ):
        await wire.send(b"".join(request(event()) for _ in range(200)))
        words = [(await wire.reply()).word for _ in range(PIPELINED + 2)]
        assert words == [*[(200, "delivered")] * (PIPELINED + 1), (503, "failed")]
        assert await wire.closed()
    assert await stream_count(bus.url, STREAM) == before + PIPELINED + 1


async def test_a_request_that_waits_for_another_is_not_late(
    gateways: Start, new_nats: Callable[..., NatsServer]
) -> None:
    """Its body cannot come while nobody reads; `body_timeout` counts from its turn."""
    nats = await asyncio.to_thread(new_nats)
    await create_stream(nats.url, STREAM, "abuse.>")
    timeout = 1.0
    slow = await asyncio.to_thread(gateways, config(nats, body_timeout=f"{timeout}s"))
    second = request(event())
    async with Client(slow) as client, connected(slow.port) as wire:
        await client.until_ready()
        nats.pause()
        await wire.send(request(event()) + second[:-10])

        async def at_work() -> bool:
            return await client.samples("gateway_broker_in_flight_records") == {("bus",): 1}

        await until(at_work, "the first event waits for the broker")
        await asyncio.sleep(timeout * 1.5)
        nats.resume()
        assert (await wire.reply()).word == (200, "delivered")
        await wire.send(second[-10:])
        assert (await wire.reply()).word == (200, "delivered")


def large_answers(bus: NatsServer, **server: Any) -> dict[str, Any]:
    """Give a config with so many targets that a few answers fill every buffer on the way."""
    settings = config(bus, **server)
    settings["brokers"]["bus"]["jetstream"] = False
    (route,) = settings["routes"]
    settings["routes"] = [
        {**route, "name": f"route-{n}", "targets": [{"broker": "bus", "subject": f"large.{n}"}]}
        for n in range(40)
    ]
    return settings


async def until_stuck(client: Client, wire: Wire) -> None:
    """Send requests and take no answer, until no further one is answered."""
    wire.stop_reading()
    while True:
        before = (await client.counted()).total()
        await wire.send(b"".join(request(event()) for _ in range(PIPELINED)))

        async def all_answered(before: float = before) -> bool:
            return (await client.counted()).total() == before + PIPELINED

        try:
            async with asyncio.timeout(3):
                await until(all_answered, "they are answered")
        except TimeoutError:
            return


async def test_who_takes_no_answers_is_cut_off(gateways: Start, bus: NatsServer) -> None:
    gateway = await asyncio.to_thread(gateways, large_answers(bus, idle_timeout="5s"))
    async with (
        Client(gateway) as client,
        connected(gateway.port, receive_buffer=1024) as wire,
    ):
        await client.until_ready()
        await until_stuck(client, wire)

        async def is_gone() -> bool:
            return await connections(client) == 0

        await until(is_gone, "the connection is cut off")


async def test_who_takes_no_answers_keeps_nobody_out(gateways: Start, bus: NatsServer) -> None:
    """He is at work for ever, as it seems; but the next move is his."""
    bounds = {"max_connections": 1, "idle_timeout": "60s"}
    gateway = await asyncio.to_thread(gateways, large_answers(bus, **bounds))
    async with (
        Client(gateway) as client,
        connected(gateway.port, receive_buffer=1024) as wire,
    ):
        await client.until_ready()
        await until_stuck(client, wire)
        async with connected(gateway.port) as late:
            await late.send(request(event()))
            assert (await late.reply()).word == (200, "delivered")


# --- again and again


async def reset_in_mid_body(gateway: GatewayProcess) -> None:
    async with connected(gateway.port) as wire:
        await wire.send(head(signed(b"x") | {"Content-Length": "300000"}) + b"x" * 100_000)
        wire.reset()


async def endless_chunks(gateway: GatewayProcess) -> None:
    chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    async with connected(gateway.port) as wire:
        await wire.send(head(signed(b"") | {"Transfer-Encoding": "chunked"}))
        with suppress(ConnectionError):
            await wire.send(*[chunk] * 40)
        assert (await wire.reply()).word == (413, "rejected")


async def oversize_by_length(gateway: GatewayProcess) -> None:
    async with connected(gateway.port) as wire:
        await wire.send(head(signed(b"") | {"Content-Length": "1000000000000"}) + b"x" * 200_000)
        assert (await wire.reply()).word == (413, "rejected")


async def flood_of_headers(gateway: GatewayProcess) -> None:
    async with connected(gateway.port) as wire:
        await wire.send(b"POST / HTTP/1.1\r\n" + b"a: b\r\n" * 30_000)
        assert (await wire.reply()).word == (431, "rejected")


async def broken_lengths(gateway: GatewayProcess) -> None:
    for length in (b"-1", b"1, 2", b"0x10", b"99999999999999999999999", b"1\r\nContent-Length: 2"):
        async with connected(gateway.port) as wire:
            await wire.send(b"POST / HTTP/1.1\r\nContent-Length: %b\r\n\r\n" % length)
            assert (await wire.reply()).word == (400, "rejected")


async def slow_heads(gateway: GatewayProcess) -> None:
    async with connected(gateway.port) as wire:
        await wire.send(head(signed(b""))[:60])
        assert (await wire.reply()).word == (408, "rejected")


async def slow_bodies(gateway: GatewayProcess) -> None:
    async with connected(gateway.port) as wire:
        await wire.send(head(signed(b"x") | {"Content-Length": "400000"}) + b"x" * 8_000)
        assert (await wire.reply()).word == (408, "rejected")


async def large_forgeries(gateway: GatewayProcess) -> None:
    async with connected(gateway.port) as wire:
        await wire.send(request(event(size=500_000)).replace(b"user_1", b"user_2"))
        assert (await wire.reply()).word == (401, "rejected")


@dataclass(frozen=True)
class Again:
    """An abuse that is repeated until a leak would show above the noise of an allocator."""

    abuse: Abuse
    rounds: int
    times: int
    """In each round."""
    at_once: int = 10
    """A process keeps what its busiest moment took, and few at once have not much to take."""

    def growth(self, sizes: list[int]) -> float:
        """Give the bytes that each abuse has added to a process of so many bytes after each round.

        A leak is growth that goes on: the first quarter does not count.
        """
        warm = sizes[self.rounds // 4 :]
        grown = min(warm[-FLOOR:]) - min(warm[:FLOOR])
        return grown / (self.times * (len(warm) - FLOOR))


AGAIN = [
    Again(reset_in_mid_body, 20, 200),
    Again(endless_chunks, 20, 150),
    Again(oversize_by_length, 20, 150),
    Again(flood_of_headers, 20, 200),
    Again(broken_lengths, 20, 50),
    # A round of these takes the two seconds after which they are cut off.
    Again(slow_heads, 12, 150, at_once=150),
    Again(slow_bodies, 12, 150, at_once=150),
    Again(large_forgeries, 20, 80),
]


async def sizes_of_rounds(gateway: GatewayProcess, client: Client, again: Again) -> list[int]:
    """Give the resident bytes after each round; meanwhile genuine events are delivered."""
    sizes = []
    for _ in range(again.rounds):
        abusing = many(again.times, lambda: again.abuse(gateway), again.at_once)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(abusing)
            for _ in range(5):
                assert (await client.post()).word == (200, "delivered")
        await until_left(client)
        sizes.append(memory(gateway))
    return sizes


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("again", AGAIN, ids=[one.abuse.__name__ for one in AGAIN])
async def test_memory_stays_flat_and_valid_events_are_delivered(
    gateway: GatewayProcess, client: Client, bus: NatsServer, again: Again
) -> None:
    before = await stream_count(bus.url, STREAM)
    sizes = await sizes_of_rounds(gateway, client, again)
    assert await stream_count(bus.url, STREAM) == before + 5 * again.rounds
    assert again.growth(sizes) < LEAK, sizes


LEAKING = f"""
from gateway.server import protocol
from gateway.cli import main
kept = []
connection_lost = protocol._BoundedProtocol.connection_lost
def leaking(self, exc):
    kept.append(b"x" * {2 * LEAK})
    connection_lost(self, exc)
protocol._BoundedProtocol.connection_lost = leaking
main()
"""


class LeakingGateway(GatewayProcess):
    """Keeps some bytes of every connection."""

    def _command(self) -> Sequence[str]:
        return [sys.executable, "-c", LEAKING, "serve", "--config", str(self.config)]


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_leak_that_is_planted_shows(tmp_path: Path, bus: NatsServer) -> None:
    (again,) = (one for one in AGAIN if one.abuse is flood_of_headers)
    with LeakingGateway(tmp_path / "gateway", config(bus)) as gateway:
        async with Client(gateway) as client:
            await client.until_ready()
            sizes = await sizes_of_rounds(gateway, client, again)
    assert again.growth(sizes) > LEAK, sizes
