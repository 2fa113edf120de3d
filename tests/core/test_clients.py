"""Clients of brokers that change: who serves, who takes over, who is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial

import pytest

from gateway.brokers.base import BrokerOptionsError, Message, State, StateListener
from gateway.brokers.fake import FakeBroker
from gateway.delivery import clients as clients_module
from gateway.delivery.clients import Clients, Recipe
from tests.core.test_fanout import message, soon, turns

LINGER = 30.0


class Rig:
    """Clients over fakes, each made by `settings`, and all that they told."""

    def __init__(self) -> None:
        self.made: list[FakeBroker] = []
        self.told: list[tuple[str, State]] = []
        self.takeovers = 0
        self.unreachable: set[str] = set()
        """Settings that do not lead to a connection."""
        self.impossible: set[str] = set()
        self.clients = Clients(
            self.recipes(events="a", bus="a"), self._state_changed, self._took_over, LINGER
        )

    def recipes(self, place: str = "here", **settings: str) -> dict[str, Recipe]:
        return {
            name: Recipe(setting, place, partial(self._make, name, setting))
            for name, setting in settings.items()
        }

    def _make(self, name: str, setting: str, on_state: StateListener) -> FakeBroker:
        broker = (
            _Impossible(name) if setting in self.impossible else FakeBroker(name, on_state=on_state)
        )
        if setting in self.unreachable:
            broker.go_down(State.CONNECTING)
        self.made.append(broker)
        return broker

    def _state_changed(self, name: str, state: State) -> None:
        self.told.append((name, state))

    def _took_over(self) -> None:
        self.takeovers += 1

    @property
    def events(self) -> FakeBroker:
        broker = self.clients.brokers["events"]
        assert isinstance(broker, FakeBroker)
        return broker


class _Impossible(FakeBroker):
    async def start(self) -> None:
        raise BrokerOptionsError("events", "tls.ca_file", "cannot be read")


@pytest.fixture
async def rig(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    monkeypatch.setattr(clients_module, "_CONNECT_WITHIN", 0.02)
    made = Rig()
    await made.clients.start()
    yield made
    await made.clients.close(0)


async def later(condition: Callable[[], object]) -> None:
    """Wait for what a timer does."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not come about")


def is_open(broker: FakeBroker) -> bool:
    return broker.state is State.UP


def record() -> Message:
    return message("clerk.users")


async def test_the_same_recipes_touch_nothing(rig: Rig) -> None:
    before = dict(rig.clients.brokers)
    await rig.clients.change(rig.recipes(events="a", bus="a"))
    await turns()
    assert rig.clients.brokers == before
    assert len(rig.made) == 2
    assert rig.takeovers == 0


async def test_a_changed_one_takes_over_and_the_other_stays(rig: Rig) -> None:
    first, bus, serving = rig.events, rig.clients.brokers["bus"], rig.clients.brokers
    await rig.clients.change(rig.recipes(events="b", bus="a"))
    assert rig.events is rig.made[2] is not first
    assert rig.clients.brokers["bus"] is bus
    assert serving["events"] is first, "who took the mapping before keeps what it had"
    assert rig.clients.replacing == ()


async def test_a_predecessor_stays_for_requests_that_began_with_it(rig: Rig) -> None:
    first = rig.events
    first.stall()
    ack = first.publish(record(), 1e9)
    await rig.clients.change(rig.recipes(events="b", bus="a"))
    await turns()
    assert rig.clients.in_flight()["events"][0] == 1
    assert is_open(first)
    first.resume()
    assert (await ack).destination == "clerk.users"


async def test_a_predecessor_closes_after_the_last_request_could_need_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rig.clients, "_linger", 0.0)
    first = rig.events
    await rig.clients.change(rig.recipes(events="b", bus="a"))
    await later(lambda: not is_open(first))
    assert rig.clients.in_flight() == {"events": (0, 0), "bus": (0, 0)}


async def test_a_successor_that_is_not_up_waits_while_its_predecessor_serves(rig: Rig) -> None:
    first = rig.events
    rig.unreachable.add("b")
    await rig.clients.change(rig.recipes(events="b", bus="a"))
    await turns()
    assert rig.clients.replacing == ("events",)
    assert rig.events is first
    told = len(rig.told)
    rig.made[2].come_up()
    await soon(lambda: rig.takeovers)
    assert rig.events is rig.made[2]
    assert rig.told[told:] == [("events", State.UP)]


async def test_a_successor_takes_over_when_its_predecessor_is_down(rig: Rig) -> None:
    first = rig.events
    rig.unreachable.add("b")
    await rig.clients.change(rig.recipes(events="b", bus="a"))
    await turns()
    first.go_down()
    await soon(lambda: rig.takeovers)
    assert rig.events is rig.made[2]
    assert rig.told[-1] == ("events", State.CONNECTING)


async def test_nothing_changes_before_what_is_new_is_up(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that no request of the new table meets a broker of the old one, or one that is not up."""
    monkeypatch.setattr(clients_module, "_CONNECT_WITHIN", 600.0)
    before = rig.clients.brokers
    rig.unreachable |= {"b", "c"}
    recipes = rig.recipes("elsewhere", events="b") | rig.recipes(more="c")
    changing = asyncio.create_task(rig.clients.change(recipes))
    await turns()
    assert rig.clients.replacing == ("events", "more")
    rig.made[2].come_up()
    await turns()
    assert rig.clients.brokers is before
    rig.made[3].come_up()
    await changing
    assert rig.clients.brokers == {"events": rig.made[2], "more": rig.made[3]}
    assert not rig.clients.replacing


async def test_a_change_that_is_cancelled_changes_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients_module, "_CONNECT_WITHIN", 600.0)
    before = rig.clients.brokers
    rig.unreachable.add("b")
    changing = asyncio.create_task(rig.clients.change(rig.recipes(events="b", more="a")))
    await turns()
    changing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await changing
    assert rig.clients.brokers is before
    assert rig.clients.replacing == ()
    assert [is_open(broker) for broker in rig.made] == [True, True, False, False]


async def test_what_a_cancelled_change_has_begun_is_closed_at_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not one after the other: the process may be about to end."""
    monkeypatch.setattr(clients_module, "_CONNECT_WITHIN", 60.0)
    all_close = asyncio.Barrier(2)
    close = FakeBroker.close

    async def close_together(broker: FakeBroker, timeout: float) -> None:
        async with asyncio.timeout(5):
            await all_close.wait()
        await close(broker, timeout)

    rig.unreachable.add("b")
    changing = asyncio.create_task(rig.clients.change(rig.recipes(events="b", bus="b")))
    await turns()
    with monkeypatch.context() as patched:
        patched.setattr(FakeBroker, "close", close_together)
        changing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await changing
    assert [is_open(broker) for broker in rig.made] == [True, True, False, False]


async def test_another_place_serves_in_the_end_and_another_login_does_not(rig: Rig) -> None:
    """Nothing goes on to where it should not go any more; a login may come to be good."""
    bus = rig.clients.brokers["bus"]
    rig.unreachable |= {"b", "c"}
    await rig.clients.change(rig.recipes("elsewhere", events="b") | rig.recipes(bus="c"))
    assert rig.events is rig.made[2]
    assert rig.clients.brokers["bus"] is bus
    assert rig.clients.replacing == ("bus",)


async def test_a_newer_change_dismisses_a_successor_that_never_served(rig: Rig) -> None:
    rig.unreachable.add("b")
    await rig.clients.change(rig.recipes(events="b", bus="a"))
    await turns()
    await rig.clients.change(rig.recipes(events="c", bus="a"))
    assert rig.events is rig.made[3]
    rig.made[2].come_up()
    await turns()
    assert rig.events is rig.made[3]
    assert rig.takeovers == 0


async def test_a_change_that_is_taken_back_leaves_the_first_one(rig: Rig) -> None:
    first = rig.events
    rig.unreachable.add("b")
    await rig.clients.change(rig.recipes(events="b", bus="a"))
    await rig.clients.change(rig.recipes(events="a", bus="a"))
    rig.made[2].come_up()
    await turns()
    assert rig.events is first
    assert rig.clients.replacing == ()
    assert len(rig.made) == 3


async def test_a_successor_that_takes_over_during_a_change_back_is_replaced(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change waits for another broker; what is wanted must serve in the end all the same."""
    rig.unreachable.add("b")
    await rig.clients.change(rig.recipes(events="b", bus="a"))
    await turns()
    monkeypatch.setattr(clients_module, "_CONNECT_WITHIN", 60.0)
    rig.unreachable.add("c")
    wanted = rig.recipes(events="a", bus="c")
    changing = asyncio.create_task(rig.clients.change(wanted))
    await turns()
    rig.made[2].come_up()
    await turns()
    assert rig.events is rig.made[2], "it took over"
    rig.made[3].come_up()
    await changing
    serving = {name: client.recipe for name, client in rig.clients._serving.items()}
    assert serving == wanted
    assert rig.events is rig.made[4]
    assert rig.clients.replacing == ()


async def test_options_that_cannot_work_change_nothing(rig: Rig) -> None:
    before = dict(rig.clients.brokers)
    rig.impossible.add("b")
    with pytest.raises(BrokerOptionsError):
        await rig.clients.change(rig.recipes(bus="c", events="b", more="a"))
    await turns()
    assert rig.clients.brokers == before
    assert rig.clients.replacing == ()
    assert [is_open(broker) for broker in rig.made[2:]] == [False] * 3


async def test_brokers_come_and_go(rig: Rig) -> None:
    events = rig.events
    await rig.clients.change(rig.recipes(bus="a", more="a"))
    assert set(rig.clients.brokers) == {"bus", "more"}
    assert ("more", State.UP) in rig.told
    assert is_open(events), "a request may still use it"


async def test_the_end_closes_all_and_tells_of_none(rig: Rig) -> None:
    rig.unreachable.add("c")
    await rig.clients.change(rig.recipes(events="b", bus="a"))
    await rig.clients.change(rig.recipes(events="c", bus="a"))
    told = list(rig.told)
    await rig.clients.close(0)
    assert not any(is_open(broker) for broker in rig.made)
    assert rig.told == told
