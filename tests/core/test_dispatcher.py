"""What waits is taken to its targets: once, in order, and never forgotten."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from gateway.brokers.base import Message, Receipt, State
from gateway.delivery.inbox import flights
from gateway.delivery.inbox.fake import FakeStore
from gateway.delivery.inbox.store import Bounds
from gateway.delivery.inbox.windows import Window
from gateway.delivery.plan import Refusal
from tests.core.inbox_rig import BOUNDS, LETTERS, MIB, Rig, plan, until

EXPRESSION = Refusal(("orgs",), "bus", "clerk.{data.x}", "expression", "gave nothing")


async def test_records_of_a_key_arrive_in_order_through_an_outage() -> None:
    async with Rig() as rig:
        rig.events.go_down()
        for number in range(20):
            await rig.deliver(plan(str(number), "events", "bus", key=f"user_{number % 2}"))
        await until(lambda: len(rig.told) == 20)
        assert [broker for broker, _ in rig.listener.attempts] == ["bus"] * 20
        rig.events.come_up()
        await until(lambda: not rig.waiting)
        for parity in (0, 1):
            arrived = [one.message.value for one in rig.events.stored()]
            mine = [int(value) for value in arrived if int(value) % 2 == parity]
            assert mine == sorted(mine)
            assert len(mine) == 10
        assert len(rig.told) == 40


async def test_a_lane_goes_on_when_the_settlement_is_durable() -> None:
    async with Rig() as rig:
        await rig.deliver(plan("1", "events"))
        rig.store.hold()
        second = asyncio.create_task(rig.deliver(plan("2", "events")))
        await until(lambda: len(rig.events.stored()) == 1)
        await asyncio.sleep(0.02)
        assert (rig.arrived(), rig.told) == (["events 1"], [])
        rig.store.release()
        await second
        await until(lambda: not rig.waiting)
        assert rig.arrived() == ["events 1", "events 2"]


async def test_a_crash_repeats_at_most_what_was_on_its_way() -> None:
    async with Rig() as rig:
        for number in range(5):
            await rig.deliver(plan(str(number), "bus"))
        await until(lambda: not rig.waiting)
        rig.bus.stall()
        for number in range(5, 10):
            await rig.deliver(plan(str(number), "bus", key=f"user_{number % 2}"))
        await rig.crash()
        rig.bus.resume()
        await until(lambda: not rig.waiting)
        arrived = [one.message.value.decode() for one in rig.bus.stored()]
        # The fake drops a repeat by its dedupe id, as JetStream does.
        assert sorted(arrived) == [str(number) for number in range(10)]
        assert [one.status for one in rig.told].count("duplicate") <= 2


async def test_what_fails_is_tried_again_and_told() -> None:
    async with Rig() as rig:
        rig.events.fail("no_leader", times=1)
        await rig.deliver(plan("1", "events"))
        await until(lambda: not rig.waiting)
        assert rig.listener.attempts == [("events", "unavailable"), ("events", "acked")]
        assert rig.listener.setbacks == [("failed", "1", "no_leader")]
        assert [one.status for one in rig.told] == ["delivered"]


async def test_a_settlement_that_cannot_be_written_is_kept() -> None:
    async with Rig() as rig:
        rig.bus.stall()
        await rig.deliver(plan("1", "bus"))
        await until(lambda: rig.bus.in_flight[0] == 1)
        rig.store.fail(times=2)
        rig.bus.resume()
        await until(lambda: not rig.waiting)
        assert rig.listener.failures == ["inbox_unavailable"] * 2
        assert [one.status for one in rig.told] == ["delivered"]
        assert rig.listener.attempts == [("bus", "acked")]


async def test_what_is_refused_goes_to_the_dead_letter() -> None:
    async with Rig(dead_letter="kafka") as rig:
        rig.events.refuse("too_large", times=1)
        delivery = await rig.deliver(plan("1", "events", "bus", refusals=(EXPRESSION,)))
        assert [(one.status, one.reason) for one in delivery.settlements] == [
            ("stored", ""),
            ("stored", ""),
            ("stored", "expression"),
        ]
        await until(lambda: not rig.waiting)
        told = sorted((one.status, one.broker, one.reason) for one in rig.told)
        assert told == [
            ("dead_lettered", "bus", "expression"),
            ("dead_lettered", "events", "too_large"),
            ("delivered", "bus", ""),
        ]
        letters = rig.sent_letters()
        assert {one["gateway-dead-letter-reason"] for one in letters} == {"too_large", "expression"}
        assert {one["body"] for one in letters} == {"1"}
        assert sorted(rig.listener.setbacks) == [
            ("dead_lettered", "1", "expression"),
            ("dead_lettered", "1", "too_large"),
        ]


async def test_refusals_of_one_place_have_a_letter_each() -> None:
    async with Rig(dead_letter="nats") as rig:
        other = msgspec.structs.replace(EXPRESSION, routes=("staff",))
        await rig.deliver(plan("1", refusals=(EXPRESSION, EXPRESSION, other)))
        await until(lambda: not rig.waiting)
        assert [one.status for one in rig.told] == ["dead_lettered"] * 3
        routes = [one["gateway-route"] for one in rig.sent_letters()]
        assert sorted(routes) == ["orgs", "orgs", "staff"]


async def test_without_a_dead_letter_it_is_parked_with_its_reason() -> None:
    async with Rig() as rig:
        rig.events.refuse("too_large", times=1)
        await rig.deliver(plan("1", "events", refusals=(EXPRESSION,)))
        await until(lambda: not rig.waiting)
        held = [one async for one in rig.store.held()]
        assert sorted((one.state, one.reason, one.owed) for one in held) == [
            ("parked", "expression", 0b10),
            ("parked", "too_large", 0b01),
        ]
        assert rig.told == []


async def test_a_letter_that_is_refused_is_parked_and_told_apart() -> None:
    async with Rig(dead_letter="kafka") as rig:
        rig.events.refuse("too_large", times=1)
        rig.letters.refuse("not_authorized")
        await rig.deliver(plan("1", "events"))
        await until(lambda: not rig.waiting)
        (held,) = [one async for one in rig.store.held()]
        assert (held.reason, rig.listener.setbacks) == (
            "dead_letter_refused",
            [("parked", "1", "dead_letter_refused")],
        )


async def test_what_cannot_be_parked_stays_owed() -> None:
    full = Bounds(MIB, 0, 120.0)
    async with Rig(FakeStore(full)) as rig:
        rig.events.refuse("too_large", times=1)
        await rig.deliver(plan("1", "events"))
        await until(lambda: bool(rig.listener.setbacks))
        assert rig.listener.setbacks == [("parked_full", "1", "too_large")]
        assert (rig.waiting, rig.told) == (1, [])
        wakes_at = rig.dispatcher.lanes.wakes_at()
        assert wakes_at is not None
        assert wakes_at - asyncio.get_running_loop().time() > 20
        # A crash or an operator's room brings it back.
        rig.store.bound(BOUNDS)
        rig.events.refuse("too_large", times=1)
        await rig.crash()
        await until(lambda: not rig.waiting)
        assert rig.store.usage.parked == 1


async def test_a_park_and_a_settlement_of_one_event_do_not_undo_each_other() -> None:
    full = Bounds(MIB, 0, 120.0)
    async with Rig(FakeStore(full)) as rig:
        rig.events.refuse("too_large", times=1)
        await rig.deliver(plan("1", "events", "bus"))
        await until(lambda: bool(rig.told) and bool(rig.listener.setbacks))
        (held,) = [one async for one in rig.store.held()]
        assert (held.state, held.owed) == ("pending", 0b01)


async def test_what_is_too_old_goes_to_the_dead_letter_though_its_broker_is_down() -> None:
    async with Rig(dead_letter="kafka") as rig:
        rig.events.go_down()
        await rig.deliver(plan("1", "events"))
        rig.now += rig.max_age
        rig.apply()
        await until(lambda: not rig.waiting)
        assert [one["gateway-dead-letter-reason"] for one in rig.sent_letters()] == ["max_age"]
        assert [(one.status, one.reason) for one in rig.told] == [("dead_lettered", "max_age")]
        assert rig.events.stored() == ()


async def test_what_was_made_for_a_broker_of_another_kind_waits_for_it_or_for_its_age() -> None:
    """A broker keeps its name and becomes NATS: its topics are no subjects, nor its headers."""
    async with Rig() as rig:
        rig.events.go_down()
        for number in ("1", "2"):
            made = plan(number, "events")
            (one,) = made.assignments
            assignments = (msgspec.structs.replace(one, kind="kafka"),)
            await rig.deliver(msgspec.structs.replace(made, assignments=assignments))
        kafka = rig.reach
        rig.reach = msgspec.structs.replace(kafka, kind="nats")
        rig.apply()
        rig.events.come_up()
        await asyncio.sleep(0.01)
        assert (rig.waiting, rig.arrived()) == (2, [])
        rig.reach = kafka
        rig.apply()
        await until(lambda: not rig.waiting)
        assert len(rig.arrived()) == 2

        rig.events.go_down()
        await rig.deliver(msgspec.structs.replace(plan("3", "events"), assignments=assignments))
        rig.reach = msgspec.structs.replace(kafka, kind="nats")
        rig.now += rig.max_age
        rig.apply()
        rig.events.come_up()
        await until(lambda: not rig.waiting)
        (held,) = [one async for one in rig.store.held()]
        assert held.reason == "no_broker"


async def test_a_target_whose_broker_left_the_config_waits_for_its_age() -> None:
    async with Rig() as rig:
        rig.events.go_down()
        await rig.deliver(plan("1", "events"))
        rig.apply(bus=rig.bus, letters=rig.letters)
        rig.events.come_up()
        await asyncio.sleep(0.01)
        assert (rig.waiting, rig.arrived()) == (1, [])
        rig.now += rig.max_age
        rig.apply(bus=rig.bus, letters=rig.letters)
        await until(lambda: not rig.waiting)
        (held,) = [one async for one in rig.store.held()]
        assert held.reason == "no_broker"


async def test_a_letter_follows_a_changed_dead_letter() -> None:
    async with Rig(dead_letter="kafka") as rig:
        rig.letters.go_down()
        await rig.deliver(plan("1", refusals=(EXPRESSION,)))
        await asyncio.sleep(0.01)
        assert rig.waiting == 1
        rig.dead_letter = None
        rig.apply()
        await until(lambda: not rig.waiting)
        assert rig.store.usage.parked == 1


async def test_a_replayed_letter_has_an_id_of_its_own() -> None:
    async with Rig(dead_letter="kafka") as rig:
        rig.dead_letter = None
        rig.apply()
        await rig.deliver(plan("1", refusals=(EXPRESSION,)))
        await until(lambda: rig.store.usage.parked == 1)
        rig.dead_letter = "kafka"
        rig.apply()
        (held,) = [one async for one in rig.store.held()]
        assert await rig.store.unpark([held.id], rerouted={}) == 1
        await until(lambda: not rig.waiting)
        (letter,) = rig.sent_letters()
        assert letter["dedupe_id"].endswith(".r1")


async def test_replayed_refusals_of_one_place_have_a_letter_each() -> None:
    async with Rig() as rig:
        await rig.deliver(plan("1", refusals=(EXPRESSION, EXPRESSION)))
        await until(lambda: rig.store.usage.parked == 2)
        rig.dead_letter = "nats"
        rig.apply()
        held = [one.id async for one in rig.store.held()]
        assert await rig.store.unpark(held, rerouted={}) == 2
        await until(lambda: not rig.waiting)
        assert len({letter["dedupe_id"] for letter in rig.sent_letters()}) == 2


async def test_a_publish_that_is_never_answered_blocks_its_lane_for_a_while_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flights, "_MARGIN", 0.01)
    async with Rig(request_timeout=0.01) as rig:
        publish = rig.events.publish
        silent = asyncio.get_running_loop().create_future()

        def once(message: Message, deadline: float) -> asyncio.Future[Receipt]:
            rig.events.publish = publish  # type: ignore[method-assign]  # the next one works
            return silent

        rig.events.publish = once  # type: ignore[method-assign]  # breaks the broker's contract
        await rig.deliver(plan("1", "events"))
        await until(lambda: not rig.waiting)
        silent.set_result(Receipt("clerk.events"))
        assert rig.listener.attempts == [("events", "unknown"), ("events", "acked")]
        assert len(rig.told) == 1


async def test_records_that_are_not_at_hand_are_loaded_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Rig() as rig:
        rig.events.go_down()
        rig.bus.go_down()
        for number in range(3):
            await rig.deliver(plan(str(number), "events", "bus"))
        await rig.crash()
        rig.store.fail(times=1)
        rig.events.come_up()
        rig.bus.come_up()
        await until(lambda: bool(rig.listener.failures))
        rig.store.fail(times=0)
        await until(lambda: not rig.waiting)
        assert sorted(rig.arrived()) == sorted(
            f"{broker} {number}" for broker in ("events", "bus") for number in range(3)
        )


async def test_what_an_operator_discards_is_settled() -> None:
    async with Rig() as rig:
        rig.events.go_down()
        await rig.deliver(plan("1", "events", refusals=(EXPRESSION,)))
        await until(lambda: rig.store.usage.parked == 1)
        ids = [one.id async for one in rig.store.held()]
        assert await rig.store.discard(ids) == 2
        assert sorted(one.status for one in rig.told) == ["discarded", "discarded"]
        rig.events.come_up()
        await asyncio.sleep(0.01)
        assert rig.arrived() == []


async def test_what_is_being_published_is_not_discarded() -> None:
    async with Rig() as rig:
        rig.events.stall()
        await rig.deliver(plan("1", "events"))
        await until(lambda: rig.events.in_flight[0] == 1)
        ids = [one.id async for one in rig.store.held()]
        assert await rig.store.discard(ids) == 0
        rig.events.resume()
        await until(lambda: not rig.waiting)


async def test_the_window_is_never_exceeded() -> None:
    async with Rig(window=Window(8, MIB)) as rig:
        rig.events.stall()
        for number in range(50):
            await rig.deliver(plan(str(number), "events", key=f"user_{number}"))
        await asyncio.sleep(0.01)
        assert rig.events.in_flight[0] == 4
        rig.events.resume()
        await until(lambda: not rig.waiting)
        assert ("events", "unavailable") not in rig.listener.attempts


async def test_closing_waits_for_what_is_on_its_way_and_takes_no_more() -> None:
    async with Rig() as rig:
        rig.events.stall()
        for number in range(3):
            await rig.deliver(plan(str(number), "events"))
        await until(lambda: rig.events.in_flight[0] == 1)
        closing = asyncio.create_task(rig.inbox.close(30))
        await asyncio.sleep(0.01)
        assert not closing.done()
        rig.events.resume()
        await closing
        assert rig.arrived() == ["events 0"]
        assert rig.store.usage.events == 2


async def test_a_lost_partition_is_dispatched_no_more() -> None:
    async with Rig() as rig:
        rig.events.stall()
        for number in range(2):
            await rig.deliver(plan(str(number), "events"))
        await until(lambda: rig.events.in_flight[0] == 1)
        rig.dispatcher.lost(0)
        rig.events.resume()
        await until(lambda: rig.listener.attempts == [("events", "acked")])
        await asyncio.sleep(0.01)
        assert (rig.told, rig.arrived(), rig.store.usage.events) == ([], ["events 0"], 2)


async def test_a_state_of_a_broker_that_is_not_in_the_config_is_passed_over() -> None:
    async with Rig() as rig:
        rig.inbox.broker_state("elsewhere", State.UP)
        await rig.deliver(plan("1", "events"))
        await until(lambda: not rig.waiting)
        assert rig.inbox.oldest_age == 0.0
        assert rig.letters.stored(LETTERS) == ()
