"""Inbox mode in process: stored, answered, and dispatched by a real dispatcher over fakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.delivery.settlement import Delivery
from tests.core.inbox_rig import Rig, plan, until


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
