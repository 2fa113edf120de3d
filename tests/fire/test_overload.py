"""A broker that is slow or frozen: what is too much gets 503 at once, and others notice nothing."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from tests.e2e.client import Answer, Client, event, until
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.test_abuse import memory
from tests.e2e.wire import connected, request
from tests.fire.conftest import Tally
from tests.fire.field import DEADLINE, Field, judge
from tests.fire.load import SENDERS, Load, Sent
from tests.servers.process import ServerProcess

pytestmark = pytest.mark.timeout(240)

PATIENT = 30.0
"""Seconds until the deadline where a test wants what waits to be delivered in the end."""
AT_ONCE = 2.5
"""Seconds: far below `PATIENT`, and below what a client takes to know that a broker is frozen."""
LARGE = 450 * 1024
CAP = 4 * 1024 * 1024
FREEZE = 8.0
ROOM = 20 * 1024 * 1024
"""Bytes by which a process may grow beside its caps, with all that an allocator keeps: less than
half of what the senders have open."""
TYPES = {"events": "session.created", "bus": "role.updated"}
OTHER = {"events": "bus", "bus": "events"}


@pytest.fixture
def delivery() -> dict[str, Any]:
    """Give the mode in which a broker's state reaches the sender."""
    return {"mode": "direct"}


def capped(ground: Field, **caps: Any) -> dict[str, Any]:
    """Give what `Field.gateway` takes to limit both brokers."""
    brokers = ground.config()["brokers"]
    return {"brokers": {name: {**broker, **caps} for name, broker in brokers.items()}}


def server_of(ground: Field, broker: str) -> ServerProcess:
    return ground.kafka if broker == "events" else ground.nats


@asynccontextmanager
async def serving(gateway: GatewayProcess) -> AsyncIterator[Client]:
    await asyncio.to_thread(gateway.start)
    async with Client(gateway) as client:
        await client.until_ready()
        yield client


@pytest.mark.parametrize(
    ("cap", "size", "room"),
    [({"max_in_flight": 8}, 0, 8), ({"max_in_flight_bytes": "1MiB"}, 300_000, 3)],
    ids=["count", "bytes"],
)
@pytest.mark.parametrize("broker", ["events", "bus"])
async def test_what_is_over_a_cap_is_answered_at_once(
    ground: Field, broker: str, cap: dict[str, Any], size: int, room: int
) -> None:
    gateway = ground.gateway(server={"deadline": f"{PATIENT}s"}, **capped(ground, **cap))
    server, count = server_of(ground, broker), 40
    async with serving(gateway) as client:
        # What a client learns once, such as a topic's limits, is not to be learned in the freeze.
        assert (await client.post(event(TYPES[broker]))).word == (200, "delivered")
        server.pause()
        outcomes = [("clerk", "failed", "overloaded")] * (count - room)
        async with client.counting(*outcomes, *[("clerk", "delivered", "")] * room):
            body = event(TYPES[broker], size)
            posts = [asyncio.create_task(client.post(body)) for _ in range(count)]
            refused = await _answers(posts, count - room)
            assert {answer.word for answer in refused} == {(503, "failed")}
            assert {answer.body["reason"] for answer in refused} == {"overloaded"}
            assert {answer.headers["retry-after"] for answer in refused} == {"5"}
            assert max(answer.seconds for answer in refused) < AT_ONCE
            await _until_in_flight(client, broker, room)
            server.resume()
            answers = await asyncio.gather(*posts)
    assert sorted(answer.status for answer in answers) == [200] * room + [503] * (count - room)


async def test_a_slow_broker_leaves_connections_to_the_others(ground: Field) -> None:
    most, room = 40, 20
    server = {"deadline": f"{PATIENT}s", "max_connections": most}
    gateway = ground.gateway(server=server, **capped(ground, max_in_flight=room))
    async with serving(gateway) as client, AsyncExitStack() as crowd:
        ground.nats.pause()
        wires = [await crowd.enter_async_context(connected(gateway.port)) for _ in range(most)]
        for wire in wires:
            await wire.send(request(event(TYPES["bus"])))
        await _until_in_flight(client, "bus", room)
        # Those beyond the cap were answered, and give way.
        for _ in range(most):
            async with connected(gateway.port) as late:
                await late.send(request(event(TYPES["events"])))
                assert (await late.reply()).word == (200, "delivered")
        ground.nats.resume()


async def _until_in_flight(client: Client, broker: str, count: int) -> None:
    """Wait until the metric, which is a sample of the moment, says so."""

    async def is_so() -> bool:
        return (await client.samples("gateway_broker_in_flight_records"))[(broker,)] == count

    await until(is_so, f"{count} records wait")


async def _answers(posts: list[asyncio.Task[Answer]], count: int) -> list[Answer]:
    """Wait for the first `count` answers."""
    answers = []
    for done in asyncio.as_completed(posts):
        answers.append(await done)
        if len(answers) == count:
            break
    return answers


@pytest.mark.slow
@pytest.mark.parametrize("broker", ["events", "bus"])
async def test_memory_is_bounded_while_a_broker_is_frozen(
    ground: Field, tally: Tally, broker: str
) -> None:
    """All senders have large bodies, and retry what is owed as well as what was refused."""
    gateway = ground.gateway(**capped(ground, max_in_flight_bytes=CAP))
    async with serving(gateway):
        load = Load(lambda: gateway.port, routed=(TYPES[broker],), size=LARGE)
        async with load:
            await load.until_taken(SENDERS)
            calm, sizes = memory(gateway), list[int]()
            server_of(ground, broker).pause()
            thaw = asyncio.get_running_loop().time() + FREEZE
            while asyncio.get_running_loop().time() < thaw:
                sizes.append(await asyncio.to_thread(memory, gateway))
                await asyncio.sleep(0.2)
            server_of(ground, broker).resume()
    result = judge(load, await ground.stored(), {})
    tally.add(f"frozen, large bodies, {broker}", result, 0)
    grown = max(sizes) - calm
    print(f"{calm / 2**20:.0f} MiB, in the freeze at most {grown / 2**20:.0f} more", load.words)
    assert load.words["503 overloaded"] > 0
    assert result.lost == result.unexplained == []
    assert grown < CAP + ROOM


@pytest.mark.slow
@pytest.mark.parametrize("broker", ["events", "bus"])
async def test_a_frozen_broker_starves_no_route_that_does_not_use_it(
    ground: Field, tally: Tally, broker: str
) -> None:
    gateway = ground.gateway()
    server = server_of(ground, broker)
    async with serving(gateway):
        crowd = Load(lambda: gateway.port, routed=(TYPES[broker],))
        others = Load(lambda: gateway.port, routed=(TYPES[OTHER[broker]],), senders=4)
        async with crowd, others:
            await others.until_taken(100)
            calm = len(others.events)
            server.pause()
            # Until its client knows, all wait for the deadline; then all are refused, and retry.
            await crowd.until_failed(SENDERS)
            await others.until_taken(100)
            frozen = len(others.events)
            server.resume()
        stored = await ground.stored()
    for load in (crowd, others):
        result = judge(load, {**stored, **_only(stored, load)}, {})
        assert result.lost == result.unexplained == []
    tally.add(f"frozen, {broker}, and those beside it", judge(others, _only(stored, others), {}), 0)
    before, meanwhile = _latencies(others, 0, calm), _latencies(others, calm, frozen)
    print(f"median calm {before * 1000:.1f} ms, beside the frozen one {meanwhile * 1000:.1f} ms")
    assert set(others.words) == {"200 delivered"}, "none of them has failed"
    assert crowd.words["503 deadline"] > 0
    assert meanwhile < max(3 * before, DEADLINE / 10)


def _only(stored: dict[str, list[tuple[str, str]]], load: Load) -> dict[str, list[tuple[str, str]]]:
    """Give the records of one load's events."""
    return {
        broker: [one for one in records if one[0] in load.events]
        for broker, records in stored.items()
    }


def _latencies(load: Load, first: int, last: int) -> float:
    """Give the median seconds of the answers to some of the events."""
    events: list[Sent] = list(load.events.values())[first:last]
    return statistics.median(a.ended - a.at for sent in events for a in sent.attempts)
