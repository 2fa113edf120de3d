"""The JetStream store alone: its streams, its shares, its connection, its operator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
from nats.js.errors import NotFoundError

from gateway.brokers.nats.errors import ConnectionLost
from gateway.delivery.inbox.jetstream import JetStreamStore, pages
from gateway.delivery.inbox.jetstream.holding import Holding
from gateway.delivery.inbox.jetstream.parked import decode_parked, encode_parked
from gateway.delivery.inbox.record import targets
from gateway.delivery.inbox.store import Bounds, InboxUnavailableError, InboxUnusableError, Parked
from tests.brokers.nats.support import jetstream
from tests.inbox.harness import MIB, NOW, FeedLog, all_held, outcome, outcomes, record, takes, until
from tests.inbox.jetstream_place import STREAM, jetstream_store
from tests.servers.nats import NatsServer

SIX = tuple(f"clerk.topic{at}" for at in range(6))

Starter = Callable[..., Awaitable[tuple[JetStreamStore, FeedLog]]]


@pytest.fixture
async def start(own_nats: NatsServer) -> AsyncIterator[Starter]:
    """Start stores on the test's server: `await start(dispatches=False)`."""
    stores: list[JetStreamStore] = []

    async def start_one(**arguments: Any) -> tuple[JetStreamStore, FeedLog]:
        store, feed = jetstream_store(own_nats.url, **arguments), FeedLog()
        stores.append(store)
        await store.start(feed)
        return store, feed

    yield start_one
    await asyncio.gather(*(store.close(2) for store in stores))


async def settings(server: NatsServer, stream: str) -> dict[str, Any]:
    """What the server has as a stream's configuration."""
    async with jetstream(server) as there:
        return (await there.stream_info(stream)).config.as_dict()


# The streams.


async def test_an_inbox_of_nothing_is_created(own_nats: NatsServer, start: Starter) -> None:
    await start(bounds=Bounds(MIB, 2 * MIB, 60.0))
    found = await settings(own_nats, STREAM)
    assert found["subjects"] == [f"{STREAM}.waiting.>"]
    assert (found["storage"], found["discard"], found["retention"]) == ("file", "new", "limits")
    assert (found["max_age"], found["max_msgs_per_subject"]) == (0, 1)
    assert found["discard_new_per_subject"]
    assert (found["max_bytes"], found["duplicate_window"]) == (MIB, 60 * 10**9)
    assert (await settings(own_nats, f"{STREAM}_PARKED"))["max_bytes"] == 2 * MIB


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"subjects": ["orders.>"]}, "it is not an inbox"),
        (
            {"subjects": ["orders.>"], "metadata": {"clerk-event-gateway.inbox": "2"}},
            "it has form 2, and this version of the gateway reads form 1",
        ),
        (
            {"subjects": ["orders.>"], "metadata": {"clerk-event-gateway.inbox": "1"}},
            "its subjects was changed to orders.>",
        ),
        (
            {
                "subjects": [f"{STREAM}.waiting.>"],
                "metadata": {"clerk-event-gateway.inbox": "1"},
                "max_age": 60,
                "discard": "new",
                "discard_new_per_subject": True,
                "max_msgs_per_subject": 1,
            },
            "its max_age was changed to 60000000000",
        ),
    ],
)
async def test_a_foreign_stream_is_refused_and_left_as_it_is(
    own_nats: NatsServer, start: Starter, config: dict[str, Any], problem: str
) -> None:
    async with jetstream(own_nats) as there:
        await there.add_stream(name=STREAM, **config)
    before = await settings(own_nats, STREAM)
    with pytest.raises(InboxUnusableError, match=problem):
        await start()
    assert await settings(own_nats, STREAM) == before
    with pytest.raises(NotFoundError):
        await settings(own_nats, f"{STREAM}_STATE")


async def test_a_stream_that_takes_its_subjects_is_told(
    own_nats: NatsServer, start: Starter
) -> None:
    async with jetstream(own_nats) as there:
        await there.add_stream(name="ALL", subjects=[f"{STREAM}.>"])
    with pytest.raises(InboxUnusableError, match="another stream takes"):
        await start()


async def test_an_account_with_room_for_one_replica_is_enough(
    new_nats: Callable[..., NatsServer],
) -> None:
    """The server refuses three for want of room, before it would for want of a cluster."""
    account = {"jetstream": {"max_file": 4 * MIB}, "users": [{"user": "u", "password": "p"}]}
    server = new_nats(options={"accounts": {"A": account}, "no_auth_user": "u"})
    store = jetstream_store(server.url, bounds=Bounds(2 * MIB, MIB, 60.0))
    await store.start(FeedLog())
    assert await outcome(store.put(record(1))) == "stored"
    await store.close(2)


async def test_an_operator_creates_nothing(own_nats: NatsServer, start: Starter) -> None:
    with pytest.raises(InboxUnusableError, match="there is no such stream"):
        await start(dispatches=False)
    with pytest.raises(NotFoundError):
        await settings(own_nats, STREAM)


async def test_other_bounds_are_applied_and_an_operators_own_settings_stay(
    own_nats: NatsServer, start: Starter
) -> None:
    store, _ = await start()
    await store.close(2)
    async with jetstream(own_nats) as there:
        config = (await there.stream_info(STREAM)).config
        config.description = "ours"
        await there.update_stream(config)
    await start(bounds=Bounds(3 * MIB, MIB, 30.0))
    found = await settings(own_nats, STREAM)
    assert (found["max_bytes"], found["duplicate_window"]) == (3 * MIB, 30 * 10**9)
    assert found["description"] == "ours"


async def test_the_partitions_of_a_stream_are_those_it_was_made_with(start: Starter) -> None:
    first, _ = await start(partitions=5)
    await first.close(2)
    second, _ = await start(partitions=16)
    assert second.partitions == set(range(5))


# Shares.


async def test_each_partition_gets_its_share_and_the_last_one_finishes(start: Starter) -> None:
    store, feed = await start()
    given = record(1, topics=SIX)
    assert await outcome(store.put(given)) == "stored"
    wanted = targets(given)
    places = {one.lane % 16 for one in wanted}
    await until(lambda: len(feed.entries) == len(places))
    assert len(places) > 1
    for entry in feed.entries.values():
        share = {at for at in range(6) if entry.owed >> at & 1}
        assert share == {at for at, one in enumerate(wanted) if one.lane % 16 == entry.partition}
        assert entry.targets == wanted
    first, *others = feed.order
    assert await outcome(store.settle(first, 0)) == "done"
    assert await outcome(store.put(given)) == "pending"
    assert len(feed.order) == len(places)
    assert [await outcome(store.settle(ref, 0)) for ref in others] == ["done"] * len(others)
    assert await outcome(store.put(given)) == "finished"
    assert store.usage.events == 0


async def test_a_put_that_stored_some_shares_only_is_made_whole_by_the_next(
    own_nats: NatsServer, start: Starter
) -> None:
    store, feed = await start()
    given = record(1, topics=SIX)
    assert await outcome(store.put(given)) == "stored"
    await until(lambda: len(feed.entries) > 1)
    shares = len(feed.entries)
    await store.close(2)
    # As if all shares but the first had not come through.
    async with jetstream(own_nats) as there:
        await there.purge_stream(STREAM, keep=1)
    store, again = await start(bounds=Bounds(MIB, MIB, 0.0))
    assert len(again.entries) == 1
    assert await outcome(store.put(given)) == "stored"
    await until(lambda: len(again.entries) == shares)


async def test_a_lane_is_in_one_partition_in_order(start: Starter) -> None:
    store, feed = await start()
    await outcomes([store.put(record(number)) for number in range(200)])
    await until(lambda: len(feed.entries) == 200)
    assert len({one.partition for one in feed.entries.values()}) == 1
    assert feed.order == sorted(feed.order)
    assert [one.stored_at for one in feed.entries.values()] == sorted(
        one.stored_at for one in feed.entries.values()
    )


async def test_a_copy_of_what_waits_is_pending_beyond_the_window(start: Starter) -> None:
    store, _ = await start(bounds=Bounds(MIB, MIB, 0.0))
    assert await outcome(store.put(record(1))) == "stored"
    assert await outcome(store.put(record(1))) == "pending"
    assert store.usage.events == 1


async def test_puts_wait_for_their_acks_together(own_nats: NatsServer, start: Starter) -> None:
    store, _ = await start()
    own_nats.pause()
    futures = [store.put(record(number)) for number in range(64)]
    await asyncio.sleep(0)
    # All of them are on the wire before the first answer.
    assert store._wire is not None
    assert store._wire.pending >= 64
    own_nats.resume()
    assert await outcomes(futures) == ["stored"] * 64


async def test_what_the_server_would_not_take_does_not_cost_the_connection(
    new_nats: Callable[..., NatsServer],
) -> None:
    server = new_nats(options={"max_payload": 4096})
    store = jetstream_store(server.url)
    await store.start(FeedLog())
    try:
        failed = store.put(record(1, size=8000))
        assert await outcome(failed) == "inbox_unavailable"
        assert "max_payload of the server is 4096 bytes" in str(failed.exception())
        assert await outcome(store.put(record(2))) == "stored"
        assert takes(store) == "yes"
    finally:
        await store.close(2)


# What another process has done.


async def test_what_was_settled_by_another_is_forgotten_when_it_is_loaded(
    own_nats: NatsServer, start: Starter
) -> None:
    store, feed = await start()
    await outcome(store.put(record(1)))
    (ref,) = feed.order
    async with jetstream(own_nats) as there:
        await there.delete_msg(STREAM, ref)
    with pytest.raises(InboxUnavailableError, match="it is gone"):
        await store.load(ref)
    await until(lambda: feed.withdrawals == [ref])


async def test_a_target_that_was_parked_is_not_owed_after_a_crash(
    own_nats: NatsServer, start: Starter
) -> None:
    """The process died after it parked the target, before it wrote the progress."""
    store, feed = await start(partitions=1)
    given = record(1, topics=("a", "b"))
    await outcome(store.put(given))
    (ref,) = feed.order
    parked = Parked(given, 1, "no_stream", "no stream takes it", 1.0)
    assert await outcome(store.park(ref, 0b01, parked)) == "done"
    await store.close(2)
    async with jetstream(own_nats) as there:
        await there.purge_stream(f"{STREAM}_STATE", subject=f"{STREAM}.progress.>")
    _, again = await start()
    assert again.entries[ref].owed == 0b01


async def test_what_was_settled_to_the_last_target_before_a_crash_is_finished(
    own_nats: NatsServer, start: Starter
) -> None:
    store, feed = await start(partitions=1)
    await outcome(store.put(record(1, topics=("a", "b"))))
    (ref,) = feed.order
    assert await outcome(store.settle(ref, 0b10)) == "done"
    await store.close(2)
    async with jetstream(own_nats) as there:
        await there.publish(f"{STREAM}.progress.0.{ref}.1", b"")
    store, again = await start()
    await until(lambda: store.usage.events == 0)
    assert again.entries == {}


async def test_what_cannot_be_finished_at_first_is_tried_again(
    own_nats: NatsServer, start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, feed = await start(partitions=1)
    await outcome(store.put(record(1, topics=("a", "b"))))
    (ref,) = feed.order
    await store.close(2)
    async with jetstream(own_nats) as there:
        for target in range(2):
            await there.publish(f"{STREAM}.progress.0.{ref}.{target}", b"")
    finish, failures = Holding._finish, [ConnectionLost("no answer in time")]

    async def fail_once(holding: Holding, ref: int) -> bool:
        if failures:
            raise failures.pop()
        return await finish(holding, ref)

    monkeypatch.setattr(Holding, "_finish", fail_once)
    store, _ = await start()
    await until(lambda: store.usage.events == 0)


async def test_progress_of_what_is_gone_is_swept_up(own_nats: NatsServer, start: Starter) -> None:
    store, _ = await start(partitions=1)
    await store.close(2)
    progress = f"{STREAM}.progress.>"
    async with jetstream(own_nats) as there, asyncio.timeout(20):
        await there.publish(f"{STREAM}.progress.0.77.1", b"")
        await start()
        state = f"{STREAM}_STATE"
        while (await there.stream_info(state, subjects_filter=progress)).state.subjects:  # noqa: ASYNC110 - a server tells nobody
            await asyncio.sleep(0.05)


async def test_an_operator_works_beside_the_gateway(start: Starter) -> None:
    store, feed = await start()
    given = [record(number) for number in range(4)]
    for one in given:
        await outcome(store.put(one))
    await outcome(store.park(feed.order[0], 0, Parked(given[0], 0, "no_stream", "", 1.0)))
    feed.publishing.add(feed.order[1])
    operator, fed = await start(dispatches=False)
    held = {one.record.stored_at: one.id for one in await all_held(operator)}
    assert len(held) == 4
    # Its holder is asked: what is being published is not dropped.
    assert await operator.discard([held[one.stored_at] for one in given[1:3]]) == 1
    assert feed.withdrawals == [feed.order[2]]
    assert await operator.unpark([held[given[0].stored_at]], rerouted={}) == 1
    await until(lambda: len(feed.order) == 5)
    again = await store.load(feed.order[4])
    assert (again.replay, again.plan.metadata.id) == (1, given[0].plan.metadata.id)
    assert fed.order == []
    assert operator.partitions == set()


async def test_an_operator_drops_what_nobody_holds(start: Starter) -> None:
    store, _ = await start()
    await outcomes([store.put(record(number)) for number in range(3)])
    await store.close(2)
    operator, _ = await start(dispatches=False)
    ids = [one.id for one in await all_held(operator)]
    assert await operator.discard(ids[:2]) == 2
    _, feed = await start()
    assert len(feed.order) == 1


# A stream goes, and is made anew.


async def test_a_stream_that_is_made_anew_gives_no_number_again(
    own_nats: NatsServer, start: Starter
) -> None:
    """What is parked or settled is kept by number, and in the streams beside it."""
    store, feed = await start(partitions=1)
    given = [record(number, topics=("a", "b")) for number in range(3)]
    assert await outcomes([store.put(one) for one in given[:2]]) == ["stored"] * 2
    first, second = feed.order
    parked = Parked(given[0], 0, "no_stream", "no stream takes it", 1.0)
    assert await outcome(store.park(first, 0b10, parked)) == "done"
    assert await outcome(store.settle(second, 0b01)) == "done"
    await store.close(2)
    async with jetstream(own_nats) as there:
        await there.delete_stream(STREAM)
    store, feed = await start()
    assert await outcomes([store.put(one) for one in given]) == ["stored"] * 3
    await until(lambda: len(feed.order) == 3)
    assert [feed.entries[ref].owed for ref in feed.order] == [0b11] * 3
    assert min(feed.order) > second
    assert store.usage.events == 3


@pytest.mark.parametrize("gone", ["", "_PARKED", "_STATE"])
async def test_a_stream_that_is_deleted_under_a_gateway_is_made_anew_and_read(
    own_nats: NatsServer, start: Starter, gone: str
) -> None:
    store, feed = await start(partitions=1)
    assert await outcomes([store.put(record(number)) for number in range(3)]) == ["stored"] * 3
    async with jetstream(own_nats) as there:
        await there.delete_stream(f"{STREAM}{gone}")
    await until(lambda: takes(store) == "no")
    await until(lambda: takes(store) == "yes" and len(store.partitions) == 1)
    assert await outcome(store.put(record(9))) == "stored"
    await until(lambda: NOW + 9 in [entry.stored_at for entry in feed.entries.values()])
    ref = next(ref for ref, entry in feed.entries.items() if entry.stored_at == NOW + 9)
    parked = Parked(record(9), 0, "no_stream", "no stream takes it", 1.0)
    await until(lambda: takes(store) == "yes" and len(store.partitions) == 1)
    assert await outcome(store.park(ref, 0, parked)) == "done"
    assert "parked" in [one.state for one in await all_held(store)]


async def test_a_list_that_is_cut_short_is_told(
    own_nats: NatsServer, start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its consumer is gone in the middle, with the server that had it, say."""
    store, _ = await start()
    await outcomes([store.put(record(number)) for number in range(5)])
    monkeypatch.setattr(pages, "_PAGE", 2)
    held = store.held()
    await anext(held)
    async with jetstream(own_nats) as there:
        for one in await there.consumers_info(STREAM):
            if one.config.deliver_subject is None:
                await there.delete_consumer(STREAM, one.name)
    await anext(held)  # of the same page
    with pytest.raises(InboxUnavailableError, match="the list was cut short"):
        await anext(held)
    assert len(await all_held(store)) == 5


# The server goes, and comes back.


async def test_a_server_that_is_away_at_the_start_is_waited_for(
    new_nats: Callable[..., NatsServer],
) -> None:
    server = new_nats()
    server.kill()
    store, feed = jetstream_store(server.url), FeedLog()
    await store.start(feed)
    assert takes(store) == "no"
    assert await outcome(store.put(record(1))) == "inbox_unavailable"
    await asyncio.to_thread(server.start)
    await until(lambda: takes(store) == "yes")
    assert await outcome(store.put(record(1))) == "stored"
    await until(lambda: len(feed.order) == 1)
    await store.close(2)


async def test_what_was_acknowledged_survives_the_kill_of_the_server(
    own_nats: NatsServer, start: Starter
) -> None:
    store, feed = await start()
    numbers = iter(range(100_000))
    acknowledged: set[int] = set()
    refused: set[int] = set()

    async def send() -> None:
        for number in numbers:
            if (told := await outcome(store.put(record(number)))) == "stored":
                acknowledged.add(number)
            else:
                assert told == "inbox_unavailable"
                refused.add(number)
                await asyncio.sleep(0.01)

    async def more() -> None:
        enough = len(acknowledged) + 200
        await until(lambda: len(acknowledged) > enough)

    senders = [asyncio.create_task(send()) for _ in range(16)]
    for kills in range(1, 4):
        await more()
        await asyncio.to_thread(own_nats.kill)
        await until(lambda: takes(store) == "no")
        assert await outcome(store.put(record(200_000 + kills))) == "inbox_unavailable"
        await asyncio.to_thread(own_nats.start)
        await until(lambda: takes(store) == "yes")
    await more()
    for sender in senders:
        sender.cancel()
    await asyncio.gather(*senders, return_exceptions=True)
    held = [one.record async for one in store.held()]
    there = {one.plan.metadata.id for one in held}
    lost = {number for number in acknowledged if f"msg_{number:08}" not in there}
    print(f"kills 3, acknowledged {len(acknowledged)}, refused {len(refused)}, lost {len(lost)}")
    assert not lost
    assert len(held) == len(there)
    # The feed gets each one, in order, over all the connections.
    await until(lambda: len(feed.entries) == store.usage.events)
    assert list(feed.entries) == sorted(feed.entries)


async def test_a_frozen_server_ends_the_leases_and_nothing_else(
    own_nats: NatsServer, start: Starter
) -> None:
    store, feed = await start()
    await outcomes([store.put(record(number)) for number in range(10)])
    assert len(feed.entries) == 10
    own_nats.pause()
    await until(lambda: not feed.entries)
    ref = feed.order[0]
    assert await outcome(store.settle(ref, 0)) == "inbox_unavailable"
    own_nats.resume()
    await until(lambda: len(feed.entries) == 10)
    assert await outcome(store.settle(ref, 0)) == "done"


def test_records_are_of_one_form() -> None:
    """The parked form carries the record's own bytes, version and all."""
    parked = Parked(record(1), 0, "too_large", "of 2 MB", 3.5)
    assert decode_parked(encode_parked(parked)) == parked
    assert msgspec.msgpack.decode(encode_parked(parked))[0] == 1
