"""Fan-out: every target settles once, by itself, by the deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Literal

import msgspec
import pytest

from gateway.brokers.base import Message, Receipt
from gateway.brokers.fake import FakeBroker
from gateway.delivery.dead_letter import DeadLetter
from gateway.delivery.fanout import FanOut, Outlets
from gateway.delivery.ledger import Ledger
from gateway.delivery.memory import EntryState, Retention
from gateway.delivery.plan import Assignment, Plan, Refusal
from gateway.delivery.settlement import Delivery, Settlement
from tests.core.builders import BODY, SVIX_ID, metadata

AMPLE = 10.0
SHORT = 0.05
RETENTION = Retention(window=120.0, incomplete_for=3600.0, max_bytes=1024 * 1024)
LETTERS = "clerk.dead-letter"
EXPRESSION = Refusal(("orgs",), "bus", "clerk.{data.x}", "expression", "gave nothing")


class Listener:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Settlement] = []
        self.late: list[Settlement] = []

    def settled(self, settlement: Settlement) -> None:
        self.told.append(settlement)

    def acked_late(self, settlement: Settlement) -> None:
        self.late.append(settlement)


class Watched(FakeBroker):
    """Counts what is published to it, whether or not it takes it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.tried = 0

    def publish(self, message: Message, deadline: float) -> asyncio.Future[Receipt]:
        self.tried += 1
        return super().publish(message, deadline)


class Rig:
    """A fan-out over three fakes: two for targets, one for dead letters."""

    def __init__(self) -> None:
        self.listener = Listener()
        self.events = Watched("events")
        self.bus = Watched("bus")
        self.letters = Watched("letters")
        self.evicted: list[EntryState] = []
        self.restart()
        self.with_dead_letter(None)

    def with_dead_letter(self, kind: Literal["kafka", "nats"] | None = "kafka") -> None:
        brokers = {broker.name: broker for broker in (self.events, self.bus, self.letters)}
        letter = DeadLetter("letters", kind, LETTERS) if kind else None
        self.outlets = Outlets(brokers, letter)

    def restart(self, retention: Retention = RETENTION) -> None:
        """Be another process, which remembers nothing."""
        self.ledger = Ledger(retention, self.evicted.append)
        self.fan_out = FanOut(self.listener, self.ledger)

    async def deliver(self, *refusals: Refusal, within: float = AMPLE) -> Delivery:
        """Deliver one record to each broker, beside what is refused already."""
        return await self.carry_out(plan(*refusals), within)

    async def carry_out(self, what: Plan, within: float = AMPLE) -> Delivery:
        """Deliver what a plan says."""
        deadline = asyncio.get_running_loop().time() + within
        return await self.fan_out.deliver(what, self.outlets, deadline)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    brokers = (made.events, made.bus, made.letters)
    for broker in brokers:
        await broker.start()
    yield made
    for broker in brokers:
        await broker.close(0)


def message(destination: str) -> Message:
    return Message(destination, BODY, (("svix-id", SVIX_ID),), f"{SVIX_ID}.{destination}", "k")


def plan(*refusals: Refusal) -> Plan:
    assignments = (
        Assignment(("users", "audit"), "events", message("clerk.users")),
        Assignment(("users",), "bus", message("clerk.user.created")),
    )
    return Plan("user_1", BODY, metadata(), assignments, refusals)


def statuses(delivery: Delivery) -> list[tuple[str, str]]:
    return [(settlement.status, settlement.reason) for settlement in delivery.settlements]


async def soon(condition: Callable[[], object]) -> None:
    """Let the loop turn until it has done what it is about to do."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    pytest.fail("it did not come about")


async def turns() -> None:
    """Let the loop do what it has to do, where nothing is expected to come of it."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_all_targets_get_their_record_and_give_their_receipt(rig: Rig) -> None:
    delivery = await rig.deliver()
    assert delivery.status == "delivered"
    first, second = delivery.settlements
    assert first == Settlement(
        ("users", "audit"),
        "events",
        "clerk.users",
        "delivered",
        receipt=Receipt("clerk.users", stream="FAKE", seq=1),
    )
    assert (second.broker, second.status) == ("bus", "delivered")
    assert [record.message for record in rig.events.stored()] == [message("clerk.users")]
    assert [record.message for record in rig.bus.stored()] == [message("clerk.user.created")]
    assert sorted(rig.listener.told, key=lambda s: s.broker) == [second, first]
    assert rig.listener.late == []


async def test_a_plan_without_targets_is_done(rig: Rig) -> None:
    nothing = Plan("k", BODY, metadata(), (), ())
    assert nothing.is_unmatched
    assert await rig.fan_out.deliver(nothing, rig.outlets, 0) == Delivery("delivered", ())


async def test_what_a_broker_calls_a_duplicate_is_a_delivery(rig: Rig) -> None:
    await rig.deliver()
    rig.restart()
    delivery = await rig.deliver()
    assert delivery.status == "delivered"
    assert statuses(delivery) == [("duplicate", ""), ("duplicate", "")]
    assert len(rig.events.stored()) == 1


DOWN = ("failed", "broker_down")
FINE = ("delivered", "")


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        pytest.param(["events"], [DOWN, FINE], id="the-first"),
        pytest.param(["bus"], [FINE, DOWN], id="the-second"),
        pytest.param(["events", "bus"], [DOWN, DOWN], id="both"),
    ],
)
async def test_a_broker_that_is_down_fails_its_own_target(
    rig: Rig, broken: list[str], expected: list[tuple[str, str]]
) -> None:
    rig.with_dead_letter()
    for name in broken:
        (rig.events if name == "events" else rig.bus).go_down()
    delivery = await rig.deliver()
    assert delivery.status == "failed"
    assert statuses(delivery) == expected
    assert rig.letters.stored() == ()
    assert len(rig.listener.told) == 2


async def test_without_a_dead_letter_a_refusal_fails(rig: Rig) -> None:
    rig.events.refuse("not_authorized")
    delivery = await rig.deliver(EXPRESSION)
    assert delivery.status == "failed"
    assert statuses(delivery) == [("failed", "not_authorized"), FINE, ("failed", "expression")]
    assert delivery.settlements[2].destination == "clerk.{data.x}"
    assert delivery.settlements[2].detail == "gave nothing"


@pytest.mark.parametrize("kind", ["kafka", "nats"])
async def test_with_one_each_refused_target_is_dead_lettered(
    rig: Rig, kind: Literal["kafka", "nats"]
) -> None:
    rig.with_dead_letter(kind)
    rig.events.refuse("too_large")
    delivery = await rig.deliver(EXPRESSION)
    assert delivery.status == "dead_lettered"
    dead = ("dead_lettered", "too_large"), ("dead_lettered", "expression")
    assert statuses(delivery) == [dead[0], FINE, dead[1]]
    letters = [record.message for record in rig.letters.stored(LETTERS)]
    assert [letter.value for letter in letters] == [BODY, BODY]
    assert {dict(letter.headers)["gateway-dead-letter-target"] for letter in letters} == {
        "events/clerk.users",
        "bus/clerk.{data.x}",
    }
    assert len(rig.listener.told) == 3


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        pytest.param(lambda fake: fake.refuse("too_large"), "dead_letter_refused", id="refused"),
        pytest.param(lambda fake: fake.fail("no_leader"), "no_leader", id="unavailable"),
        pytest.param(lambda fake: fake.go_down(), "broker_down", id="down"),
    ],
)
async def test_a_letter_that_is_not_taken_fails_its_target(
    rig: Rig, spoil: Callable[[FakeBroker], None], reason: str
) -> None:
    rig.with_dead_letter()
    rig.events.refuse("too_large")
    spoil(rig.letters)
    delivery = await rig.deliver()
    assert delivery.status == "failed"
    assert statuses(delivery) == [("failed", reason), FINE]


async def test_refusals_of_one_place_have_a_letter_each(rig: Rig) -> None:
    rig.with_dead_letter("nats")
    other = msgspec.structs.replace(EXPRESSION, routes=("staff",))
    assert (await rig.deliver(EXPRESSION, EXPRESSION, other)).status == "dead_lettered"
    letters = [dict(one.message.headers) for one in rig.letters.stored(LETTERS)]
    assert [one["gateway-route"] for one in letters] == ["orgs", "orgs", "staff"]


async def test_a_failure_outweighs_a_dead_letter(rig: Rig) -> None:
    rig.with_dead_letter()
    rig.events.fail("no_leader")
    delivery = await rig.deliver(EXPRESSION)
    assert delivery.status == "failed"
    assert statuses(delivery) == [("failed", "no_leader"), FINE, ("dead_lettered", "expression")]


async def test_a_lost_connection_leaves_the_outcome_unknown(rig: Rig) -> None:
    rig.events.stall()
    delivering = asyncio.create_task(rig.deliver())
    await soon(lambda: rig.events.in_flight[0])
    rig.events.go_down()
    delivery = await delivering
    assert statuses(delivery) == [("failed", "no_ack"), FINE]
    assert rig.listener.late == []


async def test_a_dead_target_delays_no_other_and_fails_at_the_deadline(rig: Rig) -> None:
    rig.events.stall()
    delivering = asyncio.create_task(rig.deliver(within=SHORT))
    await soon(lambda: rig.listener.told)
    assert [settlement.broker for settlement in rig.listener.told] == ["bus"]
    assert not delivering.done()
    assert rig.fan_out.unanswered == 1
    delivery = await delivering
    assert delivery.status == "failed"
    assert statuses(delivery) == [("failed", "deadline"), FINE]
    assert rig.fan_out.unanswered == 0


async def test_an_ack_after_the_deadline_still_counts(rig: Rig) -> None:
    rig.events.stall()
    delivery = await rig.deliver(within=SHORT)
    assert delivery.settlements[0].reason == "deadline"
    rig.events.resume()
    await soon(lambda: rig.listener.late)
    (late,) = rig.listener.late
    assert (late.broker, late.status) == ("events", "delivered")
    assert len(rig.events.stored()) == 1
    assert len(rig.listener.told) == 2


@pytest.mark.parametrize("fault", ["refuse", "fail"])
async def test_a_failure_after_the_deadline_changes_nothing(rig: Rig, fault: str) -> None:
    rig.with_dead_letter()
    rig.events.stall()
    await rig.deliver(within=SHORT)
    getattr(rig.events, fault)("not_authorized")
    rig.events.resume()
    await soon(lambda: rig.events.in_flight[0] == 0)
    await turns()
    assert rig.listener.late == []
    assert rig.letters.stored() == ()
    assert len(rig.listener.told) == 2


async def test_a_letter_acked_after_the_deadline_still_counts(rig: Rig) -> None:
    rig.with_dead_letter()
    rig.letters.stall()
    delivery = await rig.deliver(EXPRESSION, within=SHORT)
    assert statuses(delivery) == [FINE, FINE, ("failed", "deadline")]
    rig.letters.resume()
    await soon(lambda: rig.listener.late)
    assert [late.status for late in rig.listener.late] == ["dead_lettered"]


async def test_a_deadline_that_has_passed_fails_at_once(rig: Rig) -> None:
    rig.events.stall()
    rig.bus.stall()
    delivery = await rig.deliver(EXPRESSION, within=-1)
    assert statuses(delivery) == [("failed", "deadline")] * 2 + [("failed", "expression")]


async def test_a_process_that_ends_gives_up_what_is_open(rig: Rig) -> None:
    rig.events.stall()
    plans = [msgspec.structs.replace(plan(), metadata=metadata(id=f"msg_{n}")) for n in range(3)]
    several = [asyncio.create_task(rig.carry_out(one)) for one in plans]
    await soon(lambda: len(rig.listener.told) == 3)
    assert rig.fan_out.unanswered == 3
    rig.fan_out.give_up()
    deliveries = await asyncio.gather(*several)
    assert {delivery.status for delivery in deliveries} == {"failed"}
    assert {delivery.settlements[0].reason for delivery in deliveries} == {"deadline"}
    rig.fan_out.give_up()
    assert len(rig.listener.told) == 6


async def test_a_cancelled_delivery_settles_every_target_once_all_the_same(rig: Rig) -> None:
    rig.events.stall()
    delivering = asyncio.create_task(rig.deliver())
    await soon(lambda: rig.events.in_flight[0])
    delivering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await delivering
    assert rig.fan_out.unanswered == 0
    rig.events.resume()
    await soon(lambda: len(rig.listener.told) == 2)
    assert {settlement.status for settlement in rig.listener.told} == {"delivered"}
    assert rig.listener.late == []


async def test_a_refusal_after_cancellation_sends_no_letter(rig: Rig) -> None:
    """Nobody was answered: the sender repeats the event, and its retry sends the letter."""
    rig.with_dead_letter()
    rig.events.stall()
    delivering = asyncio.create_task(rig.deliver())
    await soon(lambda: rig.events.in_flight[0])
    delivering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await delivering
    rig.events.refuse("too_large")
    rig.events.resume()
    await soon(lambda: len(rig.listener.told) == 2)
    assert (rig.listener.told[1].status, rig.listener.told[1].reason) == ("failed", "too_large")
    await turns()
    assert rig.letters.stored() == ()


async def test_a_broker_that_breaks_its_contract_fails_its_target_only(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
    broken.set_exception(RuntimeError("none of the three errors"))
    monkeypatch.setattr(rig.events, "publish", lambda *_: broken)
    assert statuses(await rig.deliver()) == [("failed", "broker_error"), FINE]
