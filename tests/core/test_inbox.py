"""Inbox mode in process: stored, answered, and dispatched by a real dispatcher over fakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.delivery.inbox.fake import FakeStore
from gateway.delivery.inbox.store import Bounds, Writable
from gateway.delivery.settlement import Delivery
from tests.core.inbox_rig import MIB, Rig, plan, until


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with Rig() as rig:
        yield rig


def statuses(delivery: Delivery) -> list[tuple[str, str]]:
    return [(one.status, one.reason) for one in delivery.settlements]


async def test_an_event_is_answered_once_it_is_stored_and_then_delivered(rig: Rig) -> None:
    rig.store.hold()
    answer = asyncio.create_task(rig.deliver(plan("1", "events", "bus")))
    await asyncio.sleep(0.01)
    assert not answer.done()
    rig.store.release()
    delivery = await answer
    assert (delivery.status, statuses(delivery)) == ("stored", [("stored", "")] * 2)
    await until(lambda: not rig.waiting)
    assert rig.arrived() == ["events 1", "bus 1"]
    assert [one.status for one in rig.told] == ["delivered", "delivered"]


async def test_a_copy_of_what_waits_is_stored_again_and_published_once(rig: Rig) -> None:
    rig.events.go_down()
    assert (await rig.deliver(plan("1", "events"))).status == "stored"
    # A reload may have given it other targets, which are not stored.
    copy = await rig.deliver(plan("1", "events", "bus"))
    assert (copy.status, statuses(copy)) == ("stored", [])
    rig.events.come_up()
    await until(lambda: not rig.waiting)
    assert rig.arrived() == ["events 1"]
    copy = await rig.deliver(plan("1", "events"))
    assert (copy.status, statuses(copy)) == ("duplicate", [])


async def test_copies_that_come_together_are_one_event(rig: Rig) -> None:
    first, second = await asyncio.gather(*(rig.deliver(plan("1", "events")) for _ in range(2)))
    assert first.status == "stored"
    assert second.status in {"stored", "duplicate"}
    await until(lambda: not rig.waiting)
    assert rig.arrived() == ["events 1"]


async def test_a_full_inbox_fails_what_comes() -> None:
    async with Rig(FakeStore(Bounds(10, MIB, 120.0))) as rig:
        delivery = await rig.deliver(plan("1", "events", "bus"))
        assert (delivery.status, statuses(delivery)) == ("failed", [("failed", "inbox_full")] * 2)


async def test_a_store_that_fails_fails_what_comes(rig: Rig) -> None:
    rig.store.fail(times=1)
    assert rig.inbox.writable is Writable.NO
    delivery = await rig.deliver(plan("1", "events"))
    assert statuses(delivery) == [("failed", "inbox_unavailable")]
    assert (await rig.deliver(plan("1", "events"))).status == "stored"


async def test_the_deadline_answers_and_what_is_stored_later_is_delivered(rig: Rig) -> None:
    rig.store.hold()
    delivery = await rig.deliver(plan("1", "events"), within=0.01)
    assert statuses(delivery) == [("failed", "deadline")]
    rig.store.release()
    await until(lambda: rig.arrived() == ["events 1"] and not rig.waiting)
    assert (await rig.deliver(plan("1", "events"))).status == "duplicate"


async def test_a_shutdown_answers_what_is_open(rig: Rig) -> None:
    rig.store.hold()
    answer = asyncio.create_task(rig.deliver(plan("1", "events")))
    await asyncio.sleep(0)
    rig.inbox.give_up()
    rig.inbox.give_up()
    assert statuses(await answer) == [("failed", "deadline")]


async def test_who_stops_waiting_takes_nothing_back(rig: Rig) -> None:
    rig.store.hold()
    answer = asyncio.create_task(rig.deliver(plan("1", "events")))
    await asyncio.sleep(0)
    answer.cancel()
    await asyncio.wait((answer,))
    rig.store.release()
    await until(lambda: rig.arrived() == ["events 1"])


async def test_the_oldest_has_an_age(rig: Rig) -> None:
    rig.events.go_down()
    await rig.deliver(plan("1", "events"))
    rig.now += 90
    assert rig.inbox.oldest_age == 90.0
    assert rig.inbox.usage.events == 1
    assert rig.inbox.commits == 1
