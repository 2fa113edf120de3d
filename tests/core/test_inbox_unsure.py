"""A write of the store that is said to have failed, and is durable all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.brokers.base import Message
from gateway.delivery.inbox.fake import FakeStore
from gateway.delivery.inbox.store import InboxUnavailableError
from tests.core.inbox_rig import BOUNDS, LETTERS, Rig, plan, until


class UnsureStore(FakeStore):
    """Loses the answer to each kind of write once."""

    def __init__(self) -> None:
        super().__init__(BOUNDS)
        self.losing = {"park", "settle"}

    def park(self, *args: Any) -> asyncio.Future[None]:
        return self._unsure("park", lambda: super(UnsureStore, self).park(*args))

    def settle(self, *args: Any) -> asyncio.Future[None]:
        return self._unsure("settle", lambda: super(UnsureStore, self).settle(*args))

    def _unsure(self, kind: str, write: Callable[[], asyncio.Future[None]]) -> asyncio.Future[None]:
        if kind not in self.losing:
            return write()
        self.losing.remove(kind)
        lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        error = InboxUnavailableError("the inbox", "inbox_unavailable", "no answer")
        write().add_done_callback(lambda _: lost.set_exception(error))
        return lost


@pytest.mark.parametrize("dead_letter", [None, "kafka"])
async def test_what_was_parked_unknowingly_is_parked_once_and_holds_nothing_up(
    dead_letter: Any,
) -> None:
    async with Rig(UnsureStore(), dead_letter=dead_letter) as rig:
        rig.events.refuse("not_authorized", times=1)
        rig.letters.refuse("not_authorized", LETTERS, times=1)
        await rig.deliver(plan("msg_1", "events"))
        await rig.deliver(plan("msg_2", "events"))
        await until(lambda: len(rig.events.stored()) == 1)
        assert rig.events.stored()[0].message.value == b"msg_2"
        assert rig.store.usage.parked == 1
        assert rig.letters.stored() == ()
        await until(lambda: rig.waiting == 0)


async def test_a_settlement_beside_what_was_parked_unknowingly_ends_the_record() -> None:
    async with Rig(UnsureStore()) as rig:
        rig.events.refuse("not_authorized", times=1)
        await rig.deliver(plan("msg_1", "events", "bus"))
        await until(lambda: rig.waiting == 0)
        assert rig.store.usage.parked == 1
        assert [message.value for message in published(rig)] == [b"msg_1"]


def published(rig: Rig) -> list[Message]:
    return [one.message for one in rig.bus.stored()]
