"""Retries and copies of one event: what is settled is not repeated, what is owed is not lost."""

from __future__ import annotations

import asyncio
import tracemalloc

import msgspec
import pytest

from gateway.delivery.memory import Retention
from gateway.delivery.plan import Assignment, Plan
from gateway.delivery.settlement import Delivery
from tests.core.test_fanout import (
    DOWN,
    EXPRESSION,
    FINE,
    RETENTION,
    SHORT,
    Rig,
    message,
    plan,
    rig,
    soon,
    statuses,
    turns,
)

__all__ = ["rig"]

OVER = ("failed", "deadline")


def tried(rig: Rig) -> tuple[int, int]:
    """Give how often each target was published."""
    return rig.events.tried, rig.bus.tried


async def begun(rig: Rig, within: float = 10.0) -> asyncio.Task[Delivery]:
    """Begin to deliver a copy, and let it come as far as it can."""
    delivering = asyncio.create_task(rig.deliver(within=within))
    await turns()
    return delivering


async def test_a_copy_of_a_complete_event_is_a_duplicate(rig: Rig) -> None:
    first = await rig.deliver()
    assert await rig.deliver() == Delivery("duplicate", first.settlements)
    assert tried(rig) == (1, 1)
    assert len(rig.listener.told) == 2


async def test_a_resend_after_the_window_is_published_again(rig: Rig) -> None:
    rig.restart(msgspec.structs.replace(RETENTION, window=0.0))
    assert (await rig.deliver()).status == "delivered"
    assert rig.ledger.complete == rig.ledger.incomplete == 0
    assert (await rig.deliver()).status == "delivered"
    assert tried(rig) == (2, 2)


@pytest.mark.parametrize("times", [1, 3])
async def test_a_retry_publishes_only_what_is_owed(rig: Rig, times: int) -> None:
    rig.events.fail("no_leader", times=times)
    for _ in range(times):
        assert statuses(await rig.deliver()) == [("failed", "no_leader"), FINE]
    retry = await rig.deliver()
    assert retry.status == "delivered"
    assert statuses(retry) == [FINE, FINE]
    assert tried(rig) == (times + 1, 1)
    assert (await rig.deliver()).status == "duplicate"


async def test_an_event_with_nothing_settled_takes_no_memory(rig: Rig) -> None:
    rig.events.go_down()
    rig.bus.go_down()
    assert statuses(await rig.deliver(EXPRESSION))[:2] == [DOWN, DOWN]
    assert (rig.ledger.incomplete, rig.ledger.size) == (0, 0)


async def test_copies_that_arrive_together_are_one_delivery(rig: Rig) -> None:
    rig.events.stall()
    copies = [await begun(rig) for _ in range(3)]
    assert tried(rig) == (1, 1)
    rig.events.resume()
    deliveries = [await copy for copy in copies]
    assert [one.status for one in deliveries] == ["delivered", "duplicate", "duplicate"]
    assert len({one.settlements for one in deliveries}) == 1
    assert tried(rig) == (1, 1)
    assert len(rig.listener.told) == 2


async def test_a_copy_tries_by_itself_what_the_first_has_failed_to_do(rig: Rig) -> None:
    rig.events.stall()
    first, second = await begun(rig), await begun(rig)
    rig.events.fail("no_leader", times=1)
    rig.events.resume()
    assert statuses(await first) == [("failed", "no_leader"), FINE]
    delivery = await second
    assert delivery.status == "delivered"
    assert statuses(delivery) == [FINE, FINE]
    assert tried(rig) == (2, 1)


async def test_each_copy_tries_once_at_the_most(rig: Rig) -> None:
    rig.events.stall()
    copies = [await begun(rig) for _ in range(4)]
    rig.events.fail("no_leader")
    rig.events.resume()
    assert {(await copy).status for copy in copies} == {"failed"}
    assert tried(rig) == (4, 1)


async def test_a_copy_that_waits_answers_at_its_own_deadline(rig: Rig) -> None:
    rig.events.stall()
    first = await begun(rig)
    delivery = await rig.deliver(within=SHORT)
    assert statuses(delivery) == [OVER, FINE]
    assert not first.done()
    rig.events.resume()
    assert (await first).status == "delivered"
    assert rig.listener.late == []
    assert (await rig.deliver()).status == "duplicate"


async def test_a_late_ack_is_not_repeated(rig: Rig) -> None:
    rig.events.stall()
    assert statuses(await rig.deliver(within=SHORT)) == [OVER, FINE]
    rig.events.resume()
    await soon(lambda: rig.listener.late)
    # The sender was not told: until its retry the event is kept as an incomplete one.
    assert (rig.ledger.complete, rig.ledger.incomplete) == (0, 1)
    retry = await rig.deliver()
    assert retry.status == "duplicate"
    assert statuses(retry) == [FINE, FINE]
    assert tried(rig) == (1, 1)
    assert (rig.ledger.complete, rig.ledger.incomplete) == (1, 0)


async def test_a_retry_while_the_broker_is_frozen_waits_for_what_is_on_its_way(rig: Rig) -> None:
    rig.events.stall()
    assert (await rig.deliver(within=SHORT)).status == "failed"
    assert statuses(await rig.deliver(within=SHORT)) == [OVER, FINE]
    retry = await begun(rig)
    rig.events.resume()
    assert (await retry).status == "duplicate"
    assert tried(rig) == (1, 1)
    assert [late.broker for late in rig.listener.late] == ["events"]


async def test_copies_that_waited_in_vain_keep_no_memory(rig: Rig) -> None:
    """They are in no broker's caps, and a sender may send any number while it is frozen."""
    size, times = 256 * 1024, 40
    rig.events.stall()
    assert statuses(await rig.deliver(within=SHORT)) == [OVER, FINE]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(times):
            copy = msgspec.structs.replace(plan(), body=bytes(size))
            assert statuses(await rig.carry_out(copy, SHORT)) == [OVER, FINE]
        del copy
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 2 * size
    rig.events.resume()
    await soon(lambda: rig.listener.late)
    assert (await rig.deliver()).status == "duplicate"


async def test_what_fails_late_is_published_by_the_retry_that_waits(rig: Rig) -> None:
    rig.events.stall()
    assert (await rig.deliver(within=SHORT)).status == "failed"
    retry = await begun(rig)
    rig.events.fail("no_leader", times=1)
    rig.events.resume()
    assert (await retry).status == "delivered"
    assert tried(rig) == (2, 1)


async def test_what_fails_late_is_owed(rig: Rig) -> None:
    rig.events.stall()
    assert (await rig.deliver(within=SHORT)).status == "failed"
    rig.events.go_down()
    rig.events.come_up()
    await turns()
    retry = await rig.deliver()
    assert (retry.status, statuses(retry)) == ("delivered", [FINE, FINE])
    assert tried(rig) == (2, 1)


async def test_a_delivery_that_was_cancelled_is_remembered(rig: Rig) -> None:
    rig.events.stall()
    first = await begun(rig)
    second = await begun(rig)
    third = await begun(rig)
    for cancelled in (first, second):
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
    rig.events.resume()
    assert (await third).status == "duplicate"
    assert tried(rig) == (1, 1)


async def test_a_dead_lettered_target_is_not_repeated(rig: Rig) -> None:
    rig.with_dead_letter()
    rig.events.refuse("too_large")
    rig.bus.fail("no_leader", times=1)
    dead = [("dead_lettered", "too_large"), ("dead_lettered", "expression")]
    failed = await rig.deliver(EXPRESSION)
    assert statuses(failed) == [dead[0], ("failed", "no_leader"), dead[1]]
    retry = await rig.deliver(EXPRESSION)
    assert retry.status == "dead_lettered"
    assert statuses(retry) == [dead[0], FINE, dead[1]]
    assert (rig.letters.tried, *tried(rig)) == (2, 1, 2)
    assert (await rig.deliver(EXPRESSION)).status == "duplicate"


async def test_a_letter_that_was_not_taken_is_owed(rig: Rig) -> None:
    rig.with_dead_letter()
    rig.letters.fail("no_leader", times=1)
    assert statuses(await rig.deliver(EXPRESSION)) == [FINE, FINE, ("failed", "no_leader")]
    retry = await rig.deliver(EXPRESSION)
    assert statuses(retry) == [FINE, FINE, ("dead_lettered", "expression")]
    assert (rig.letters.tried, *tried(rig)) == (2, 1, 1)


async def test_a_refused_target_without_a_letter_stays_owed(rig: Rig) -> None:
    for _ in range(2):
        refused = await rig.deliver(EXPRESSION)
        assert statuses(refused) == [FINE, FINE, ("failed", "expression")]
    assert tried(rig) == (1, 1)
    rig.with_dead_letter()
    assert (await rig.deliver(EXPRESSION)).status == "dead_lettered"


async def test_two_refusals_of_one_place_are_two_letters(rig: Rig) -> None:
    rig.with_dead_letter()
    other = msgspec.structs.replace(EXPRESSION, routes=("other",))
    delivery = await rig.deliver(EXPRESSION, EXPRESSION, other)
    assert delivery.status == "dead_lettered"
    assert rig.letters.tried == 3


def elsewhere(*names: str) -> Plan:
    """Give the plan that another config makes of the event: these targets, all on one broker."""
    assignments = (Assignment(("users",), "events", message(name)) for name in names)
    return msgspec.structs.replace(plan(), assignments=tuple(assignments))


async def test_a_retry_under_another_config_publishes_what_is_new_and_owes_no_more_what_is_gone(
    rig: Rig,
) -> None:
    rig.bus.fail("no_leader")
    assert (await rig.deliver()).status == "failed"
    retry = await rig.carry_out(elsewhere("clerk.users", "clerk.new"))
    assert retry.status == "delivered"
    assert tried(rig) == (2, 1)
    assert [one.message.destination for one in rig.events.stored()] == ["clerk.users", "clerk.new"]
    assert (await rig.carry_out(elsewhere("clerk.new"))).status == "duplicate"


async def test_what_another_config_adds_to_a_complete_event_is_owed_until_it_is_there(
    rig: Rig,
) -> None:
    assert (await rig.deliver()).status == "delivered"
    rig.events.fail("no_topic", "clerk.new", times=1)
    more = elsewhere("clerk.users", "clerk.new")
    assert statuses(await rig.carry_out(more)) == [FINE, ("failed", "no_topic")]
    assert (rig.ledger.complete, rig.ledger.incomplete) == (0, 1)
    assert (await rig.carry_out(more)).status == "delivered"
    assert (await rig.carry_out(more)).status == "duplicate"
    assert rig.events.tried == 3


async def test_a_ledger_without_room_refuses_no_event(rig: Rig) -> None:
    rig.restart(Retention(120.0, 3600.0, max_bytes=1))
    rig.events.stall()
    first, second = await begun(rig), await begun(rig)
    rig.events.resume()
    assert [(await one).status for one in (first, second)] == ["delivered", "delivered"]
    assert rig.evicted == ["incomplete", "incomplete"]
    assert (rig.ledger.complete, rig.ledger.incomplete, rig.ledger.size) == (0, 0, 0)
