"""What every kind of broker does alike when its server is away, frozen, or comes back.

`harness` owns its server here, and no other test uses it.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter

import pytest

from gateway.brokers.base import Need, Receipt, State, Unavailable, Unknown
from tests.brokers.harness.base import Harness, Options, Subject, eventually, outcome

FAST = 0.5
"""Seconds within which a broker that is known to be down says so, on a busy machine."""
SETTLED = 5.0
"""Seconds beyond `request_timeout` by which every publish must have ended."""


async def recovered(subject: Subject, destination: str) -> Receipt:
    """Wait until a publish succeeds again."""
    await subject.is_up()
    deadline = time.monotonic() + 20
    while True:
        ended = await outcome(subject.publish(destination, b"after"))
        if isinstance(ended, Receipt):
            return ended
        assert time.monotonic() < deadline, ended


async def publish_on(
    subject: Subject, destination: str, sent: dict[bytes, asyncio.Future[Receipt]]
) -> None:
    """Publish one record after the other, a few milliseconds apart, until cancelled."""
    while True:
        value = str(len(sent)).encode()
        sent[value] = subject.publish(destination, value)
        await asyncio.sleep(0.005)


class OutageContract:
    """A server that goes and comes."""

    async def test_a_server_that_is_down_at_the_start(self, own_harness: Harness) -> None:
        destination = await own_harness.destination()
        await own_harness.stop_server()
        subject = own_harness.subject()
        began = time.monotonic()
        await subject.broker.start()
        failed = await outcome(subject.publish(destination))
        assert time.monotonic() - began < FAST
        assert isinstance(failed, Unavailable)
        assert failed.reason == "broker_down"
        assert subject.broker.state is not State.UP
        await own_harness.start_server()
        await subject.is_up()
        assert isinstance(await subject.publish(destination), Receipt)

    async def test_a_server_that_restarts(self, own_harness: Harness) -> None:
        destination = await own_harness.destination()
        subject = await own_harness.started()
        await own_harness.stop_server()
        await eventually(lambda: subject.broker.state is not State.UP)
        failed = subject.publish(destination)
        assert failed.done()
        assert isinstance(failed.exception(), Unavailable)
        await own_harness.start_server()
        await recovered(subject, destination)
        states = [state for _, state in subject.told]
        assert states[0] is states[-1] is State.UP
        assert State.DOWN in states or State.CONNECTING in states
        assert all(left is not right for left, right in itertools.pairwise(states))

    async def test_nothing_acked_is_lost_when_the_server_is_killed(
        self, own_harness: Harness
    ) -> None:
        destination = await own_harness.destination()
        subject = await own_harness.started(Options(request_timeout=5.0))
        sent: dict[bytes, asyncio.Future[Receipt]] = {}
        publishing = asyncio.create_task(publish_on(subject, destination, sent))
        await eventually(lambda: sum(future.done() for future in sent.values()) > 50)
        await own_harness.kill_server()
        await eventually(lambda: any(fut.done() and fut.exception() for fut in sent.values()))
        await own_harness.start_server()
        await subject.is_up()
        publishing.cancel()
        ended = dict(zip(sent, await asyncio.gather(*map(outcome, sent.values())), strict=True))
        acked = [value for value, end in ended.items() if isinstance(end, Receipt)]
        assert acked
        assert subject.broker.in_flight == (0, 0)
        await recovered(subject, destination)
        if own_harness.traits.durable:
            found = Counter(one.value for one in await own_harness.read(destination, len(acked)))
            assert set(acked) <= set(found)
            never = {value for value, end in ended.items() if isinstance(end, Unavailable)}
            assert never & set(found) == set(), "Unavailable says that nothing was stored"

    async def test_a_frozen_server_holds_a_publish_no_longer_than_the_timeout(
        self, own_harness: Harness
    ) -> None:
        destination = await own_harness.destination()
        subject = await own_harness.started(Options(request_timeout=3.0))
        assert isinstance(await subject.publish(destination), Receipt)
        await own_harness.pause_server()
        began = time.monotonic()
        sent = [subject.publish(destination, b"unsure", within=1.0) for _ in range(20)]
        ended = [await outcome(future) for future in sent]
        assert time.monotonic() - began < 3.0 + SETTLED
        assert {type(end) for end in ended} <= {Unknown, Unavailable}
        assert subject.broker.in_flight == (0, 0)
        await own_harness.resume_server()
        await recovered(subject, destination)

    async def test_a_late_ack_still_counts(self, own_harness: Harness) -> None:
        """Long enough for a broker to call the server down, and for the deadline to pass."""
        destination = await own_harness.destination()
        subject = await own_harness.started()
        assert isinstance(await subject.publish(destination, b"before"), Receipt)
        await own_harness.pause_server()
        late = subject.publish(destination, b"late", within=1.0)
        await asyncio.sleep(4.0)
        assert not late.done()
        await own_harness.resume_server()
        receipt = await outcome(late)
        assert isinstance(receipt, Receipt), receipt
        found = await own_harness.read(destination, 2)
        assert [record.value for record in found] == [b"before", b"late"]
        assert found[-1].place == own_harness.place(receipt)
        await recovered(subject, destination)

    async def test_close_does_not_wait_for_a_server_that_is_gone(
        self, own_harness: Harness
    ) -> None:
        destination = await own_harness.destination()
        subject = await own_harness.started()
        await own_harness.stop_server()
        began = time.monotonic()
        sent = subject.publish(destination)
        await subject.broker.close(1.0)
        assert time.monotonic() - began < 1.0 + SETTLED
        assert isinstance(await outcome(sent), (Unknown, Unavailable))
        assert subject.broker.state is State.DOWN

    async def test_close_does_not_wait_for_a_server_that_is_frozen(
        self, own_harness: Harness
    ) -> None:
        destination = await own_harness.destination()
        subject = await own_harness.started()
        assert isinstance(await subject.publish(destination), Receipt)
        await own_harness.pause_server()
        sent = [subject.publish(destination) for _ in range(5)]
        await asyncio.sleep(0.1)
        began = time.monotonic()
        await subject.broker.close(1.0)
        assert time.monotonic() - began < 1.0 + SETTLED
        assert all(future.done() for future in sent)
        # Those that still waited for their turn were not stored, and may say so.
        kinds = [type(await outcome(future)) for future in sent]
        assert kinds[0] is Unknown
        assert set(kinds) <= {Unknown, Unavailable}
        assert subject.broker.in_flight == (0, 0)

    async def test_check_and_tail_say_when_nobody_is_there(self, own_harness: Harness) -> None:
        subject = own_harness.subject()
        need = Need(await own_harness.destination(), False, 1000, "route users")
        await own_harness.stop_server()
        began = time.monotonic()
        findings = await subject.broker.check([need])
        assert [finding.severity for finding in findings] == ["unreachable"], findings
        with pytest.raises(Unavailable, match="broker_down"):
            await subject.broker.tail([need])
        assert time.monotonic() - began < 30
