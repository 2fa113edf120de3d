"""Each row breaks something under 64 senders. After it, what was answered 2xx is in the brokers."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest

from tests.e2e.client import until
from tests.e2e.gateway_process import children
from tests.e2e.test_workers import until_workers
from tests.fire.conftest import MODES, ProxiedKafka, Reckon
from tests.fire.field import GATEWAY, SHUTDOWN, Field
from tests.fire.fight import Fight, fight
from tests.fire.load import CUT, NO_ANSWER, SENDERS
from tests.servers.process import LOOPBACK
from tests.servers.proxy import BOTH, Proxy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

FREEZE = 10.0
"""Seconds: longer than any answer waits, and shorter than a broker's `request_timeout`."""
DIRECT = pytest.mark.parametrize("delivery", ["direct"], indirect=True)
"""Of what an inbox changes nothing about."""
SLACK = 5.0
"""Seconds that a busy machine may add to the end of a process."""


def assert_nobody_noticed(row: Fight) -> None:
    """Assert that an outage of a broker made no difference to any sender, with an inbox."""
    if not row.ground.is_direct:
        assert set(row.load.words) == {"200 stored"}


async def test_kafka_is_killed(ground: Field, reckon: Reckon) -> None:
    async with fight(ground) as row:
        row.kill(ground.kafka)
        await row.until_felt()
        await row.start(ground.kafka)
    reckon(row)
    assert_nobody_noticed(row)


async def test_nats_is_killed(ground: Field, reckon: Reckon) -> None:
    async with fight(ground) as row:
        for _ in range(2):
            row.kill(ground.nats)
            await row.until_felt()
            await row.start(ground.nats)
            await row.load.until_taken()
    reckon(row)
    assert_nobody_noticed(row)


async def test_kafka_freezes(ground: Field, reckon: Reckon) -> None:
    """Every ack comes in the end, so nothing may be there twice, though every sender retries."""
    async with fight(ground) as row, row.frozen(ground.kafka, seconds=FREEZE):
        await row.until_felt()
    reckon(row)
    assert_nobody_noticed(row)
    assert row.came_to.duplicates == 0


@DIRECT
async def test_nats_freezes(ground: Field, reckon: Reckon) -> None:
    async with fight(ground) as row, row.frozen(ground.nats, seconds=FREEZE):
        await row.until_felt()
    reckon(row)
    assert_nobody_noticed(row)
    assert row.came_to.duplicates == 0


async def test_the_gateway_is_killed(ground: Field, reckon: Reckon, chance: random.Random) -> None:
    async with fight(ground) as row:
        for _ in range(3):
            # Not a wait for anything: the instant is to be a random one.
            await asyncio.sleep(chance.uniform(0, 0.5))
            row.kill(row.gateway)
            await row.start(row.gateway)
            await row.load.until_taken(SENDERS)
    reckon(row)


async def test_a_worker_is_killed(ground: Field, reckon: Reckon, chance: random.Random) -> None:
    """Each in its turn: one of them owns the inbox, and the other stores through that one."""
    async with fight(ground, workers=2) as row:
        for victim in sorted(children(row.gateway.pid)):
            await asyncio.sleep(chance.uniform(0, 0.5))
            row.kill_worker(victim)
            await until_workers(row.gateway, 2, without=victim)
            await row.load.until_taken(SENDERS)
    reckon(row)
    assert row.load.words[NO_ANSWER] > 0


@asynccontextmanager
async def terminated(row: Fight) -> AsyncIterator[None]:
    """SIGTERM to the gateway, and the block; then it has ended well, and cut no answer.

    It is started again in the end.
    """
    row.gateway.terminate()
    began = time.monotonic()
    yield
    assert await asyncio.to_thread(row.gateway.exit_code) == 0
    assert time.monotonic() - began < SHUTDOWN + SLACK
    row.broke(GATEWAY)
    # Whatever it had begun with was answered. What it had not read may be repeated.
    begun = {one for records in (await row.ground.stored()).values() for one, _ in records}
    unanswered = [one for one in begun if not any(a.word for a in row.load.events[one].attempts)]
    assert unanswered == []
    assert row.load.words[CUT] == 0
    await row.start(row.gateway)


@pytest.mark.parametrize(
    ("delivery", "workers"),
    [("direct", 1), ("direct", 2), ("inbox", 1), ("inbox", 2)],
    indirect=["delivery"],
)
async def test_sigterm_under_load(ground: Field, reckon: Reckon, workers: int) -> None:
    async with fight(ground, workers) as row:
        async with terminated(row):
            pass
        await row.load.until_taken(SENDERS)
    reckon(row)
    assert row.came_to.duplicates == 0, "what it had begun with was delivered and answered"


@DIRECT
async def test_sigterm_while_kafka_is_frozen(ground: Field, reckon: Reckon) -> None:
    async with fight(ground) as row:
        ground.kafka.pause()
        await row.until_felt()
        async with terminated(row):
            assert await asyncio.to_thread(row.gateway.exit_code) == 0
            ground.kafka.resume()
    reckon(row)


@pytest.fixture
async def networks(fire_kafka: ProxiedKafka, ground: Field) -> AsyncIterator[tuple[Proxy, Proxy]]:
    """Give the networks between the gateway and its brokers."""
    async with AsyncExitStack() as stack:
        to_kafka = Proxy(fire_kafka.behind, fire_kafka.proxy_port)
        to_nats = Proxy(ground.nats.port)
        for proxy in (to_kafka, to_nats):
            await stack.enter_async_context(proxy)
        yield to_kafka, to_nats


async def until_used(proxy: Proxy) -> None:
    """Wait until the gateway has a connection there: after a fault it takes its time."""

    async def is_so() -> bool:
        return proxy.open > 0

    await until(is_so, "the gateway is connected")


async def resets(row: Fight, networks: tuple[Proxy, Proxy], chance: random.Random) -> None:
    for _ in range(4):
        await asyncio.sleep(chance.uniform(0, 0.5))
        for proxy in networks:
            await until_used(proxy)
            proxy.reset()
        await row.load.until_taken(SENDERS)


async def cuts(row: Fight, networks: tuple[Proxy, Proxy], chance: random.Random) -> None:
    """Cut in the middle of a request, or of an answer."""
    for _ in range(3):
        for direction in BOTH:
            before = [len(proxy.resets) for proxy in networks]
            for proxy in networks:
                proxy.cut_after(
                    chance.randrange(1, 20_000 if direction == "up" else 500), direction
                )

            async def all_cut(before: list[int] = before) -> bool:
                return all(
                    len(now.resets) > seen for now, seen in zip(networks, before, strict=True)
                )

            await until(all_cut, "both connections are cut")
            await row.load.until_taken(SENDERS)


async def delays(row: Fight, networks: tuple[Proxy, Proxy], chance: random.Random) -> None:
    for _ in range(3):
        for proxy in networks:
            proxy.delay(chance.uniform(0.05, 0.5))
        await row.load.until_taken(SENDERS)


async def holes(row: Fight, networks: tuple[Proxy, Proxy], chance: random.Random) -> None:
    """Swallow what goes there, what comes back, or both; for longer than an answer waits."""
    for directions in (("up",), ("down",), BOTH):
        for proxy in networks:
            proxy.black_hole(*directions)
        await row.until_felt()
        await asyncio.sleep(chance.uniform(0, 1))
        for proxy in networks:
            proxy.pass_on()
        await row.load.until_taken(SENDERS)


@pytest.mark.parametrize(
    ("delivery", "fault"),
    [
        pytest.param(mode, fault, id=f"{mode}-{fault.__name__}")
        for fault, modes in (
            (resets, MODES[:1]),
            (cuts, MODES),
            (delays, MODES[:1]),
            (holes, MODES),
        )
        for mode in modes
    ],
    indirect=["delivery"],
)
async def test_the_network_fails(
    ground: Field,
    networks: tuple[Proxy, Proxy],
    reckon: Reckon,
    chance: random.Random,
    fault: Callable[..., object],
) -> None:
    to_kafka, to_nats = networks
    through = replace(
        ground,
        kafka_address=f"{LOOPBACK}:{to_kafka.port}",
        nats_url=f"nats://{LOOPBACK}:{to_nats.port}",
    )
    async with fight(through) as row:
        await fault(row, networks, chance)  # type: ignore[misc]  # each is a coroutine function
        for proxy in networks:
            proxy.pass_on()
        row.broke("events", *to_kafka.resets)
        row.broke("bus", *to_nats.resets)
    reckon(row)
    assert_nobody_noticed(row)
