"""Reading back from a real nats-server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.brokers.base import Unavailable
from tests.brokers.nats.conftest import Starter
from tests.brokers.nats.support import client, create_stream, first_arrivals, need, wait_for
from tests.servers.nats import NatsServer
from tests.servers.process import free_port

Unique = Callable[[str], str]


async def test_a_stream_is_shown_from_now_on_with_its_sequences(
    nats_server: NatsServer, unique: Unique, start: Starter
) -> None:
    name = unique("tail")
    await create_stream(nats_server.url, name, f"{name}.>")
    under_test = await start(nats_server.url)
    await under_test.publish(f"{name}.user.old")

    arrivals = await first_arrivals(
        await under_test.broker.tail([need(f"{name}.user.{{}}"), need(f"{name}.user.new")]),
        3,
        lambda: under_test.publish(f"{name}.user.new", b"body", headers=(("ce-id", "ö"),)),
    )

    assert {arrival.destination for arrival in arrivals} == {f"{name}.user.new"}
    first, second, third = arrivals
    assert (first.broker, first.stream, first.value) == ("bus", name, b"body")
    assert ("ce-id", "ö") in first.headers
    assert first.seq is not None
    assert first.seq > 1
    assert [second.seq, third.seq] == [first.seq + 1, first.seq + 2]


@pytest.mark.parametrize("jetstream", [True, False])
async def test_what_no_stream_takes_is_shown_too(
    nats_server: NatsServer, unique: Unique, start: Starter, jetstream: bool
) -> None:
    name = unique("core")
    watching = await start(nats_server.url, jetstream=jetstream)
    publishing = await start(nats_server.url, jetstream=False)

    async def provoke() -> None:
        await publishing.publish(f"{name}-else", b"no")
        await publishing.publish(f"{name}.a", b"yes")

    arrivals = await first_arrivals(await watching.broker.tail([need(f"{name}.{{}}")]), 2, provoke)

    assert [(arrival.value, arrival.seq) for arrival in arrivals] == [(b"yes", None)] * 2


async def test_a_prefix_within_a_token_shows_nothing_else(
    nats_server: NatsServer, unique: Unique, start: Starter
) -> None:
    name = unique("prefix")
    await create_stream(nats_server.url, name, f"{name}.*")
    under_test = await start(nats_server.url)

    async def provoke() -> None:
        await under_test.publish(f"{name}.session-1", b"no")
        await under_test.publish(f"{name}.user-1", b"yes")

    arrivals = await first_arrivals(
        await under_test.broker.tail([need(f"{name}.user-{{}}")]), 2, provoke
    )

    assert {arrival.value for arrival in arrivals} == {b"yes"}


async def test_a_consumer_that_the_server_lost_is_made_anew_where_it_ended(
    nats_server: NatsServer,
    unique: Unique,
    start: Starter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.brokers.nats.ordered.HEARTBEAT", 0.3)
    monkeypatch.setattr("gateway.brokers.nats.ordered.MISSED_AFTER", 0.9)
    name = unique("lost")
    await create_stream(nats_server.url, name, name)
    under_test = await start(nats_server.url)
    seqs: list[int | None] = []

    async def provoke() -> None:
        await under_test.publish(name)
        if len(seqs) == 3:
            await delete_consumers(nats_server.url, name)
        seqs.append(None)

    arrivals = await first_arrivals(await under_test.broker.tail([need(name)]), 12, provoke)

    first = arrivals[0].seq
    assert first is not None
    assert [arrival.seq for arrival in arrivals] == list(range(first, first + 12))


async def delete_consumers(url: str, stream: str) -> None:
    """Take every consumer away, as a server that dies takes its ephemeral ones."""
    async with client(url) as connected:
        jetstream = connected.jetstream()
        for consumer in await jetstream.consumers_info(stream):
            await jetstream.delete_consumer(stream, consumer.name)


async def test_more_than_is_kept_waiting_arrives_whole(
    nats_server: NatsServer, unique: Unique, start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.brokers.nats.tail._MOST_WAITING", 10)
    name = unique("flood")
    await create_stream(nats_server.url, name, name)
    under_test = await start(nats_server.url)

    async def provoke() -> None:
        await asyncio.gather(*(under_test.publish(name, b"x" * 2000) for _ in range(500)))

    arrivals = await first_arrivals(await under_test.broker.tail([need(name)]), 3000, provoke)

    first = arrivals[0].seq
    assert first is not None
    assert [arrival.seq for arrival in arrivals] == list(range(first, first + 3000))


@pytest.mark.parametrize("settings", [{}, {"jetstream": False}])
async def test_a_server_that_is_away_or_goes_away_ends_it(
    own_nats: NatsServer, start: Starter, settings: dict[str, Any]
) -> None:
    under_test = await start(own_nats.url, **settings)
    away = await start(f"127.0.0.1:{free_port()}", until=None, **settings)

    with pytest.raises(Unavailable, match="nothing listens there"):
        await away.broker.tail([need("a")])
    arrivals = await under_test.broker.tail([need("a")])
    own_nats.kill()
    with pytest.raises(Unavailable, match="the server closed it"):
        await anext(arrivals)


async def test_closing_it_before_a_record_disconnects(own_nats: NatsServer, start: Starter) -> None:
    under_test = await start(own_nats.url)
    arrivals = await under_test.broker.tail([need("a")])
    ends = "Client connection closed"
    before = own_nats.log_tail().count(ends)

    await arrivals.aclose()

    await wait_for(lambda: own_nats.log_tail().count(ends) == before + 1)
