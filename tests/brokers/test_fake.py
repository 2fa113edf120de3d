"""What the fake does when it is told to, beyond the contract that it shares with real brokers."""

from __future__ import annotations

import asyncio

import pytest

from gateway.brokers.base import BrokerError, Message, Need, Receipt, Refused, State, Unavailable
from gateway.brokers.base import Unknown as NoAnswer
from gateway.brokers.fake import FakeBroker
from tests.brokers.harness.base import outcome


@pytest.fixture
async def fake() -> FakeBroker:
    """Give a fake that is up and waits half a second for answers."""
    broker = FakeBroker(request_timeout=0.5, keep=3)
    await broker.start()
    return broker


def publish(
    fake: FakeBroker, destination: str = "users", name: str = "1", within: float = 0.2
) -> asyncio.Future[Receipt]:
    """Publish one record whose value and dedupe id are `name`."""
    deadline = asyncio.get_running_loop().time() + within
    return fake.publish(Message(destination, name.encode(), (), name), deadline)


async def ended(future: asyncio.Future[Receipt]) -> str:
    """Give the outcome in a word or two."""
    end = await outcome(future)
    return f"{type(end).__name__} {end.reason}" if isinstance(end, BrokerError) else "Receipt"


def values(fake: FakeBroker) -> list[bytes]:
    """Give the values that it holds."""
    return [record.message.value for record in fake.stored()]


async def test_rules_hold_in_the_order_they_were_told(fake: FakeBroker) -> None:
    fake.refuse("not_authorized", times=1)
    fake.fail("no_leader", "users", times=1)
    assert [await ended(publish(fake)) for _ in range(3)] == [
        "Refused not_authorized",
        "Unavailable no_leader",
        "Receipt",
    ]
    assert values(fake) == [b"1"]


async def test_a_rule_holds_for_its_destination_until_told_otherwise(fake: FakeBroker) -> None:
    fake.refuse("not_authorized", "users")
    assert await ended(publish(fake, "orgs", "0")) == "Receipt"
    for _ in range(2):
        assert await ended(publish(fake)) == "Refused not_authorized"
    fake.obey()
    assert await ended(publish(fake)) == "Receipt"


async def test_retries_inside_end_at_the_deadline(fake: FakeBroker) -> None:
    fake.fail("no_leader", at_deadline=True)
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await ended(publish(fake, within=0.2)) == "Unavailable no_leader"
    assert 0.19 <= loop.time() - began < 0.45


async def test_a_late_ack_comes_when_it_was_told_to(fake: FakeBroker) -> None:
    fake.ack_late(0.2)
    late = publish(fake)
    assert values(fake) == [b"1"]
    assert fake.in_flight == (1, 1)
    await asyncio.sleep(0.1)
    assert not late.done()
    assert await ended(late) == "Receipt"


async def test_a_lost_ack_is_unknown_and_the_record_stored(fake: FakeBroker) -> None:
    fake.lose_acks(times=1)
    assert await ended(publish(fake)) == "Unknown no_ack"
    assert values(fake) == [b"1"]
    assert fake.in_flight == (0, 0)
    again = await publish(fake)
    assert again.duplicate
    assert values(fake) == [b"1"]


async def test_what_is_stalled_is_stored_in_order_later(fake: FakeBroker) -> None:
    fake.stall()
    sent = [publish(fake, name=name) for name in ("a", "b")]
    await asyncio.sleep(0)
    assert (values(fake), fake.state) == ([], State.UP)
    fake.resume()
    assert [(await future).seq for future in sent] == [1, 2]
    assert values(fake) == [b"a", b"b"]


async def test_what_nobody_waits_for_any_more_is_not_stored_later(fake: FakeBroker) -> None:
    fake.stall()
    assert await ended(publish(fake)) == "Unknown no_ack"
    fake.resume()
    assert values(fake) == []


@pytest.mark.parametrize("state", [State.DOWN, State.CONNECTING])
async def test_a_lost_connection_leaves_what_was_sent_unknown(
    fake: FakeBroker, state: State
) -> None:
    fake.lose_acks()
    sent = publish(fake)
    fake.go_down(state)
    assert sent.done()
    assert isinstance(sent.exception(), NoAnswer)
    assert fake.state is state
    assert isinstance(publish(fake).exception(), Unavailable)
    with pytest.raises(Unavailable, match="broker_down"):
        await fake.tail([])


async def test_it_holds_no_more_than_it_was_told_to(fake: FakeBroker) -> None:
    for number in range(5):
        await publish(fake, name=str(number))
    assert values(fake) == [b"2", b"3", b"4"]
    assert not (await publish(fake, name="0")).duplicate
    assert (await publish(fake, name="4")).duplicate


async def test_its_stored_records_can_be_asked_for_by_destination(fake: FakeBroker) -> None:
    receipt = await publish(fake, "orgs", "0")
    await publish(fake, "users", "1")
    (record,) = fake.stored("orgs")
    assert record.receipt == receipt == Receipt("orgs", stream="FAKE", seq=1)
    assert record.message.value == b"0"


async def test_a_slow_reader_of_a_tail_loses_the_oldest(fake: FakeBroker) -> None:
    arrivals = await fake.tail([Need("users.", True, 1, "route users")])
    for number in range(5):
        await publish(fake, "users.created", str(number))
    await publish(fake, "orgs.created", "x")
    assert [(await anext(arrivals)).value for _ in range(3)] == [b"2", b"3", b"4"]
    await arrivals.aclose()


async def test_check_tells_what_it_was_told_to_refuse(fake: FakeBroker) -> None:
    fake.refuse("not_authorized", "users")
    findings = await fake.check([Need("users", False, 1, "route users")])
    assert [finding.severity for finding in findings] == ["ok", "error"]
    assert isinstance(publish(fake, "").exception(), Refused)
