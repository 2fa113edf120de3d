"""What every store of the inbox does alike: the docstrings of `gateway/delivery/inbox/store.py`."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from gateway.delivery.inbox.record import Record, replayed, targets
from gateway.delivery.inbox.store import Bounds, InboxFullError, Parked, Store, Usage, Writable
from tests.inbox.conftest import Opened
from tests.inbox.harness import (
    MIB,
    ROOMY,
    FeedLog,
    Place,
    all_held,
    outcome,
    outcomes,
    record,
    takes,
    until,
)

TWO = ("clerk.users", "clerk.audit")


async def put(store: Store, feed: FeedLog, given: Record) -> int:
    """Store a record that is new, and give its number."""
    assert await outcome(store.put(given)) == "stored"
    return feed.order[-1]


async def park(store: Store, ref: int, given: Record, target: int, owed: int) -> str:
    """Set one target aside."""
    parked = Parked(given, target, "no_stream", "no stream takes it", 1_800_000_100.0)
    return await outcome(store.park(ref, owed, parked))


# Put.


async def test_what_was_put_is_fed_before_it_is_told(opened: Opened) -> None:
    store, feed = await opened()
    given = record(1, topics=TWO, refused=1)
    future = store.put(given)
    assert feed.order == []
    seen = list[int]()
    future.add_done_callback(lambda _: seen.extend(feed.order))
    assert await outcome(future) == "stored"
    assert len(seen) == 1
    entry = feed.entries[seen[0]]
    assert entry.stored_at == given.stored_at
    assert entry.owed == 0b111
    assert entry.targets == targets(given)
    assert entry.size > len(given.plan.body)
    assert await store.load(entry.ref) == given


async def test_later_arrivals_have_greater_numbers(opened: Opened) -> None:
    store, feed = await opened()
    given = [record(number) for number in range(200)]
    assert await outcomes([store.put(one) for one in given]) == ["stored"] * 200
    assert len(feed.order) == 200
    assert feed.order == sorted(set(feed.order))
    assert [await store.load(ref) for ref in feed.order] == given


async def test_a_copy_of_what_waits_is_pending(opened: Opened) -> None:
    store, feed = await opened()
    await put(store, feed, record(1))
    copy = msgspec.structs.replace(record(1), stored_at=2_000_000_000.0)
    assert await outcome(store.put(copy)) == "pending"
    assert len(feed.order) == 1
    assert store.usage.events == 1


async def test_copies_that_come_together_are_stored_once(opened: Opened) -> None:
    store, feed = await opened()
    futures = [store.put(record(number % 3)) for number in range(30)]
    told = await outcomes(futures)
    assert told == ["stored"] * 3 + ["pending"] * 27
    assert len(feed.order) == 3


async def test_one_id_of_two_sources_is_two_events(opened: Opened) -> None:
    store, _ = await opened()
    assert await outcome(store.put(record(1))) == "stored"
    assert await outcome(store.put(record(1, source="other"))) == "stored"


async def test_a_put_that_is_cancelled_is_stored_all_the_same(opened: Opened) -> None:
    store, feed = await opened()
    store.put(record(1)).cancel()
    await put(store, feed, record(2))
    assert len(feed.order) == 2
    assert await outcome(store.put(record(1))) == "pending"


async def test_puts_that_come_together_share_commits(place: Place, opened: Opened) -> None:
    store, feed = await opened()
    await put(store, feed, record(1_000))
    before = store.commits
    rounds = 8
    for at in range(rounds):
        futures = [store.put(record(number)) for number in range(64 * at, 64 * (at + 1))]
        assert await outcomes(futures) == ["stored"] * 64
    most = 64 * rounds // 8 if place.groups_commits else 64 * rounds
    assert 0 < store.commits - before <= most


# Load and settle.


async def test_a_record_that_is_not_there_cannot_be_loaded(opened: Opened) -> None:
    store, feed = await opened()
    ref = await put(store, feed, record(1))
    await store.settle(ref, 0)
    for missing in (ref, ref + 1_000_000):
        future = asyncio.ensure_future(store.load(missing))
        assert await outcome(future) == "inbox_unavailable"  # type: ignore[arg-type]  # a record is none of its words


async def test_what_is_settled_is_owed_no_more(opened: Opened) -> None:
    store, feed = await opened()
    ref = await put(store, feed, record(1, topics=TWO, refused=1))
    assert await outcome(store.settle(ref, 0b101)) == "done"
    store, feed = await opened()
    assert [(one.ref, one.owed) for one in feed.entries.values()] == [(ref, 0b101)]
    assert await outcome(store.settle(ref, 0b100)) == "done"
    # An earlier word that is said again brings nothing back.
    assert await outcome(store.settle(ref, 0b101)) == "done"
    store, feed = await opened()
    assert [(one.ref, one.owed) for one in feed.entries.values()] == [(ref, 0b100)]
    assert await outcome(store.settle(ref, 0)) == "done"
    store, feed = await opened()
    assert feed.entries == {}


async def test_several_words_about_one_record_at_once(opened: Opened) -> None:
    store, feed = await opened()
    ref = await put(store, feed, record(1, topics=TWO, refused=2))
    told = [store.settle(ref, owed) for owed in (0b1110, 0b1100, 0b1000)]
    assert [await outcome(one) for one in told] == ["done"] * 3
    store, feed = await opened()
    assert feed.entries[ref].owed == 0b1000


async def test_words_that_together_leave_nothing_owed_finish_a_record(opened: Opened) -> None:
    store, feed = await opened()
    ref = await put(store, feed, record(1, topics=TWO))
    assert await outcome(store.settle(ref, 0b01)) == "done"
    # The one who says this was told that the first had failed, though it was kept.
    assert await outcome(store.settle(ref, 0b10)) == "done"
    assert store.usage.events == 0
    assert await outcome(store.put(record(1, topics=TWO))) == "finished"
    store, feed = await opened()
    assert feed.entries == {}


@pytest.mark.parametrize("count", [1, 62, 63, 64, 65, 130])
async def test_a_record_may_have_many_targets(opened: Opened, count: int) -> None:
    store, feed = await opened()
    ref = await put(store, feed, record(1, refused=count - 1))
    assert feed.entries[ref].owed == (1 << count) - 1
    left = ((1 << count) - 1) & ~0b1
    assert await outcome(store.settle(ref, left)) == "done"
    store, feed = await opened()
    if left:
        assert feed.entries[ref].owed == left
        assert len(feed.entries[ref].targets) == count
        last = 1 << (count - 1)
        assert await outcome(store.settle(ref, last)) == "done"
        store, feed = await opened()
        assert feed.entries[ref].owed == last
    else:
        assert feed.entries == {}


async def test_settling_may_be_repeated(opened: Opened) -> None:
    store, feed = await opened()
    ref = await put(store, feed, record(1))
    for _ in range(3):
        assert await outcome(store.settle(ref, 0)) == "done"
    assert store.usage == Usage(0, 0, 0, 0)


async def test_a_finished_record_is_remembered_by_name(opened: Opened) -> None:
    store, feed = await opened()
    ref = await put(store, feed, record(1))
    await store.settle(ref, 0)
    assert await outcome(store.put(record(1))) == "finished"
    store, feed = await opened()
    assert await outcome(store.put(record(1))) == "finished"
    assert feed.entries == {}


async def test_after_the_window_an_event_is_new(opened: Opened) -> None:
    store, feed = await opened()
    ref = await put(store, feed, record(1))
    await store.settle(ref, 0)
    store.bound(Bounds(ROOMY.max_bytes, ROOMY.parked_max_bytes, 0.0))
    assert await outcome(store.put(record(1))) == "stored"
    assert feed.order[1] > ref
    assert store.usage.events == 1


# Bounds.


async def test_what_waits_has_a_bound_and_settling_gives_it_back(opened: Opened) -> None:
    store, feed = await opened(Bounds(MIB, MIB, 120.0))
    futures = [store.put(record(number, size=100_000)) for number in range(20)]
    told = await outcomes(futures)
    fitted = told.count("stored")
    assert told == ["stored"] * fitted + ["inbox_full"] * (20 - fitted)
    assert 8 <= fitted <= 10
    error = futures[-1].exception()
    assert isinstance(error, InboxFullError)
    assert "wait until there is room, or raise the bound in delivery.inbox" in str(error)
    assert error.max_bytes == MIB
    assert takes(store) == Writable.FULL
    assert store.usage.bytes == sum(one.size for one in feed.entries.values()) <= MIB
    # Copies of what waits need no room.
    assert await outcome(store.put(record(0, size=100_000))) == "pending"
    for ref in feed.order[:2]:
        await store.settle(ref, 0)
    assert takes(store) == Writable.YES
    assert await outcome(store.put(record(19, size=100_000))) == "stored"


async def test_a_live_change_of_the_bound_counts_at_once(opened: Opened) -> None:
    store, feed = await opened(Bounds(MIB, MIB, 120.0))
    await outcomes([store.put(record(number, size=100_000)) for number in range(20)])
    assert takes(store) == Writable.FULL
    store.bound(ROOMY)
    await until(lambda: takes(store) == Writable.YES)
    assert await outcome(store.put(record(30, size=100_000))) == "stored"
    # A smaller one drops nothing.
    held = len(feed.order)
    store.bound(Bounds(1000, 1000, 120.0))
    assert await outcome(store.put(record(31))) == "inbox_full"
    assert store.usage.events == held


async def test_a_record_that_could_never_fit_is_refused(opened: Opened) -> None:
    store, _ = await opened(Bounds(100_000, MIB, 120.0))
    assert await outcome(store.put(record(1, size=200_000))) == "inbox_full"
    # It says nothing of the others: they come, for the store is not full.
    assert takes(store) == Writable.YES
    assert await outcome(store.put(record(2))) == "stored"
    assert takes(store) == Writable.YES


async def test_parked_ones_have_a_bound_of_their_own(opened: Opened) -> None:
    store, feed = await opened(Bounds(MIB, 250_000, 120.0))
    given = [record(number, size=100_000) for number in range(3)]
    refs = [await put(store, feed, one) for one in given]
    told = [await park(store, ref, one, 0, 0) for ref, one in zip(refs, given, strict=True)]
    assert told == ["done", "done", "inbox_full"]
    assert (store.usage.events, store.usage.parked) == (1, 2)
    assert takes(store) == Writable.YES
    store, feed = await opened(Bounds(MIB, 250_000, 120.0))
    assert {ref: one.owed for ref, one in feed.entries.items()} == {refs[2]: 1}


async def test_usage_is_the_same_after_a_restart(opened: Opened) -> None:
    store, feed = await opened()
    given = [record(number, topics=TWO, size=10 * number) for number in range(60)]
    refs = [await put(store, feed, one) for one in given]
    for ref in refs[:20]:
        await store.settle(ref, 0)
    for ref in refs[20:30]:
        await store.settle(ref, 0b01)
    for ref, one in zip(refs[30:35], given[30:35], strict=True):
        assert await park(store, ref, one, 1, 0b01) == "done"
    for ref, one in zip(refs[35:40], given[35:40], strict=True):
        assert await park(store, ref, one, 1, 0) == "done"
    before = store.usage
    assert (before.events, before.parked) == (35, 10)
    waiting = {
        ref: one.size for ref, one in feed.entries.items() if ref in {*refs[20:35], *refs[40:]}
    }
    assert before.bytes == sum(waiting.values())
    store, feed = await opened()
    assert store.usage == before
    assert {ref: one.size for ref, one in feed.entries.items()} == waiting


# Start.


async def test_a_start_feeds_all_that_waits_in_order(opened: Opened) -> None:
    store, feed = await opened()
    count = 2_500
    await outcomes([store.put(record(number, topics=TWO)) for number in range(count)])
    before = feed.order
    await asyncio.gather(*(store.settle(ref, 0) for ref in before[::5]))
    left = [ref for at, ref in enumerate(before) if at % 5]
    kept = {ref: feed.entries[ref] for ref in left}
    store, feed = await opened()
    assert feed.order == left
    assert feed.entries == kept
    assert await store.load(left[0]) == record(1, topics=TWO)
    assert await put(store, feed, record(count)) > max(before)


async def test_numbers_are_never_given_twice(opened: Opened) -> None:
    seen = list[int]()
    for number in range(4):
        store, feed = await opened(Bounds(MIB, MIB, 0.0))
        seen.append(await put(store, feed, record(number)))
        await store.settle(seen[-1], 0)
    assert seen == sorted(set(seen))


# What an operator does.


async def test_held_shows_all_that_waits_and_all_that_is_parked(opened: Opened) -> None:
    store, feed = await opened()
    given = [record(number, topics=TWO) for number in range(100)]
    refs = [await put(store, feed, one) for one in given]
    await store.settle(refs[0], 0)
    await store.settle(refs[1], 0b10)
    assert await park(store, refs[2], given[2], 1, 0b01) == "done"
    held = await all_held(store)
    assert len({one.id for one in held}) == len(held) == 100
    assert [one.held_since for one in held] == sorted(one.held_since for one in held)
    pending = [one for one in held if one.state == "pending"]
    assert [one.record for one in pending] == given[1:]
    assert [one.owed for one in pending[:3]] == [0b10, 0b01, 0b11]
    (parked,) = [one for one in held if one.state == "parked"]
    assert (parked.record, parked.owed) == (given[2], 0b10)
    assert (parked.reason, parked.detail) == ("no_stream", "no stream takes it")
    assert parked.held_since == 1_800_000_100.0
    assert sum(one.size for one in pending) == store.usage.bytes
    assert parked.size == store.usage.parked_bytes


async def test_parking_may_be_repeated(opened: Opened) -> None:
    store, feed = await opened()
    given = record(1, topics=TWO)
    ref = await put(store, feed, given)
    for _ in range(3):
        assert await park(store, ref, given, 1, 0b01) == "done"
    assert store.usage.parked == 1


async def test_unparked_targets_are_dispatched_anew(opened: Opened) -> None:
    store, feed = await opened()
    given = record(1, topics=TWO)
    ref = await put(store, feed, given)
    await park(store, ref, given, 0, 0b10)
    await park(store, ref, given, 1, 0)
    later = await put(store, feed, record(2))
    ids = [one.id for one in await all_held(store) if one.state == "parked"]
    assert await store.unpark([*ids, "nothing", "1.9", "", *ids], rerouted={}) == 2
    assert store.usage.parked == store.usage.parked_bytes == 0
    first, second = feed.order[-2:]
    assert later < first < second
    for target, ref in enumerate((first, second)):
        loaded = await store.load(ref)
        assert loaded == replayed(given, target, loaded.stored_at)
        # Its age counts from now on.
        assert feed.entries[ref].stored_at == loaded.stored_at != given.stored_at
        assert feed.entries[ref].owed == 1
        assert feed.entries[ref].targets == targets(loaded)
    assert await store.unpark(ids, rerouted={}) == 0
    store, feed = await opened()
    assert {later, first, second} <= set(feed.order)


async def test_a_rerouted_record_takes_the_place_of_its_replay(opened: Opened) -> None:
    store, feed = await opened()
    given = record(1)
    ref = await put(store, feed, given)
    await park(store, ref, given, 0, 0)
    (held,) = await all_held(store)
    elsewhere = msgspec.structs.replace(record(1, topics=("clerk.new",)), replay=1)
    assert await store.unpark([held.id], rerouted={held.id: elsewhere}) == 1
    assert await store.load(feed.order[-1]) == elsewhere


async def test_a_replay_that_fails_can_be_parked_and_replayed_again(opened: Opened) -> None:
    store, feed = await opened()
    given = record(1)
    ref = await put(store, feed, given)
    for replay in range(1, 4):
        assert await park(store, ref, given, 0, 0) == "done"
        (held,) = await all_held(store)
        assert await store.unpark([held.id], rerouted={}) == 1
        ref = feed.order[-1]
        given = await store.load(ref)
        assert given.replay == replay
    assert store.usage.events == 1


async def test_what_has_no_room_stays_parked(opened: Opened) -> None:
    bounds = Bounds(250_000, MIB, 120.0)
    store, feed = await opened(bounds)
    for number in range(4):
        given = record(number, size=100_000)
        ref = await put(store, feed, given)
        assert await park(store, ref, given, 0, 0) == "done"
    ids = [one.id for one in await all_held(store)]
    assert await store.unpark(ids, rerouted={}) == 2
    assert (store.usage.events, store.usage.parked) == (2, 2)
    with pytest.raises(InboxFullError):
        await store.unpark(ids, rerouted={})
    assert (store.usage.events, store.usage.parked) == (2, 2)


async def test_discard_drops_what_waits_and_what_is_parked(opened: Opened) -> None:
    store, feed = await opened()
    given = [record(number, topics=TWO) for number in range(4)]
    refs = [await put(store, feed, one) for one in given]
    await park(store, refs[0], given[0], 0, 0b10)
    await store.settle(refs[0], 0)
    await store.settle(refs[1], 0b10)
    feed.publishing.add(refs[2])
    ids = [one.id for one in await all_held(store)]
    assert len(ids) == 4
    assert await store.discard([*ids, *ids, "nothing", "99999"]) == 3
    assert feed.withdrawals == [refs[1], refs[3]]
    dropped = [(given[0], 0b01), (given[1], 0b10), (given[3], 0b11)]
    assert sorted(feed.discards, key=lambda one: one[0].stored_at) == dropped
    assert [one.record for one in await all_held(store)] == [given[2]]
    assert store.usage.parked == 0
    assert await store.discard([one for one in ids if one != ids[1]]) == 0
    # It was answered 200, and is settled now.
    assert await outcome(store.put(given[1])) == "finished"


# The end.


async def test_what_was_taken_is_written_by_the_close(opened: Opened) -> None:
    store, _ = await opened()
    futures = [store.put(record(number)) for number in range(500)]
    await store.close(30)
    assert await outcomes(futures) == ["stored"] * 500
    store, feed = await opened()
    assert len(feed.order) == 500


async def test_a_closed_store_takes_nothing(opened: Opened) -> None:
    store, feed = await opened()
    ref = await put(store, feed, record(1))
    await store.close(10)
    await store.close(10)
    assert await outcome(store.put(record(2))) == "closing"
    assert await outcome(store.settle(ref, 0)) == "closing"
    assert await park(store, ref, record(1), 0, 0) == "closing"
    assert takes(store) == Writable.NO
