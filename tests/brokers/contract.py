"""What every kind of broker does alike: publishing, its limits, and what it refuses.

`test_contract.py` runs these classes on every kind; `harness` is the kind's.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.brokers.base import BrokerError, Headers, Need, Receipt, Refused, State, Unavailable
from tests.brokers.harness.base import Harness, Options, Record, Subject, eventually, outcome

ONE_MEBIBYTE = 1024 * 1024
HEADERS: Headers = (
    ("ce_specversion", "1.0"),
    ("svix-id", "msg_1"),
    ("content-type", "application/json; charset=utf-8"),
    ("a-name", "Zoë 祐 🦊"),
    ("a-list", "v1,aGVsbG8= v1,d29ybGQ="),
    ("colons", "a: b: c"),
    ("empty", ""),
)
VALUES = {
    "text": b'{"type":"user.created"}',
    "binary": bytes(range(256)),
    "line ends": b"a\r\n\r\nb\n",
    "empty": b"",
    "300 kB": bytes(range(256)) * 1172,
}


def stored(harness: Harness, headers: Headers) -> Headers:
    """Give headers as they are read back from this kind."""
    return headers if harness.traits.ordered_headers else tuple(sorted(headers))


async def receipts(futures: list[asyncio.Future[Receipt]]) -> list[Receipt]:
    """Wait for receipts and nothing else."""
    async with asyncio.timeout(60):
        return list(await asyncio.gather(*futures))


async def refusal(future: asyncio.Future[Receipt]) -> tuple[type[object], str]:
    """Give the class and the reason of what a publish failed with."""
    ended = await outcome(future)
    assert isinstance(ended, BrokerError), ended
    assert ended.broker == "contract"
    return type(ended), ended.reason


class PublishContract:
    """What a publish gives when all is well."""

    @pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
    async def test_a_record_is_stored_as_it_was_given(self, harness: Harness, value: bytes) -> None:
        destination = await harness.destination()
        subject = await harness.started()
        receipt = await subject.publish(destination, value, headers=HEADERS, key="org_1 ü")
        assert receipt.destination == destination
        assert not receipt.duplicate
        key = "org_1 ü" if harness.traits.keyed else None
        expected = Record(value, stored(harness, HEADERS), key, harness.place(receipt))
        assert await harness.read(destination, 1) == [expected]
        assert subject.broker.in_flight == (0, 0)

    async def test_key_and_headers_may_be_left_out(self, harness: Harness) -> None:
        destination = await harness.destination()
        subject = await harness.started()
        receipt = await subject.publish(destination, b"x", key=None)
        assert await harness.read(destination, 1) == [
            Record(b"x", (), None, harness.place(receipt))
        ]

    async def test_records_of_one_key_stay_in_order(self, harness: Harness) -> None:
        destination = await harness.destination()
        subject = await harness.started()
        values = [str(number).encode() for number in range(300)]
        acks = await receipts([subject.publish(destination, value) for value in values])
        found = await harness.read(destination, len(values))
        assert [record.value for record in found] == values
        assert [record.place for record in found] == [harness.place(ack) for ack in acks]

    async def test_many_at_once_are_each_acked_and_stored_once(self, harness: Harness) -> None:
        destinations = [await harness.destination() for _ in range(3)]
        subject = await harness.started()
        sent = [(destinations[number % 3], str(number).encode()) for number in range(500)]
        acks = await receipts(
            [subject.publish(where, value, key=value.decode()) for where, value in sent]
        )
        assert subject.broker.in_flight == (0, 0)
        for destination in destinations:
            mine = [
                (value, harness.place(ack))
                for (where, value), ack in zip(sent, acks, strict=True)
                if where == destination
            ]
            found = await harness.read(destination, len(mine))
            assert Counter((record.value, record.place) for record in found) == Counter(mine)

    async def test_a_repeated_record_is_called_a_duplicate_where_the_broker_knows(
        self, harness: Harness
    ) -> None:
        destination = await harness.destination()
        subject = await harness.started()
        first = await subject.publish(destination, b"x", dedupe_id="msg_1.a")
        second = await subject.publish(destination, b"x", dedupe_id="msg_1.a")
        known = harness.traits.deduplicates
        assert (first.duplicate, second.duplicate) == (False, known)
        assert len(await harness.read(destination, 1 if known else 2)) == (1 if known else 2)
        if known:
            assert harness.place(second) == harness.place(first)

    async def test_a_record_nobody_waits_for_is_stored_all_the_same(self, harness: Harness) -> None:
        destination = await harness.destination()
        subject = await harness.started()
        subject.publish(destination, b"cancelled").cancel()
        subject.publish_and_forget(destination, b"dropped")
        assert subject.broker.in_flight[0] == 2
        found = await harness.read(destination, 2)
        assert [record.value for record in found] == [b"cancelled", b"dropped"]
        await eventually(lambda: subject.broker.in_flight == (0, 0))


class LimitContract:
    """What a broker does not take."""

    async def test_more_than_the_count_is_refused_at_once(self, harness: Harness) -> None:
        destination = await harness.destination()
        subject = await harness.started(Options(max_in_flight=5))
        taken = [subject.publish(destination) for _ in range(5)]
        assert subject.broker.in_flight[0] == 5
        over = subject.publish(destination)
        assert over.done()
        assert await refusal(over) == (Unavailable, "overloaded")
        assert len(await receipts(taken)) == 5
        assert subject.broker.in_flight == (0, 0)
        assert isinstance(await subject.publish(destination), Receipt)

    async def test_more_than_the_bytes_is_refused_at_once(self, harness: Harness) -> None:
        destination = await harness.destination()
        subject = await harness.started(Options(max_in_flight_bytes=100_000))
        taken = [subject.publish(destination, bytes(30_000)) for _ in range(3)]
        count, size = subject.broker.in_flight
        assert count == 3
        assert 90_000 <= size <= 100_000
        over = subject.publish(destination, bytes(30_000))
        assert over.done()
        assert await refusal(over) == (Unavailable, "overloaded")
        assert len(await receipts(taken)) == 3
        assert subject.broker.in_flight == (0, 0)
        assert isinstance(await subject.publish(destination, bytes(30_000)), Receipt)

    @pytest.mark.parametrize(
        ("size", "headers"),
        [(2 * ONE_MEBIBYTE, ()), (ONE_MEBIBYTE - 100, (("ce_subject", "u" * 500),))],
        ids=["value", "by its headers"],
    )
    async def test_a_record_that_is_too_large_harms_no_other(
        self, harness: Harness, size: int, headers: Headers
    ) -> None:
        destination = await harness.destination()
        subject = await harness.started()
        before = subject.publish(destination, b"before")
        large = subject.publish(destination, bytes(size), headers=headers)
        after = subject.publish(destination, b"after")
        assert await refusal(large) == (Refused, "too_large")
        assert len(await receipts([before, after])) == 2
        assert subject.told == [("contract", State.UP)]
        found = await harness.read(destination, 2)
        assert [record.value for record in found] == [b"before", b"after"]

    async def test_a_destination_that_does_not_exist(self, harness: Harness) -> None:
        subject = await harness.started()
        missing = await harness.missing()
        began = time.monotonic()
        ended = await outcome(subject.publish(missing, within=2.0))
        if harness.traits.missing is None:
            assert isinstance(ended, Receipt)
            return
        assert isinstance(ended, BrokerError), ended
        assert (type(ended), ended.reason) == harness.traits.missing
        assert ended.destination == missing
        assert time.monotonic() - began < 3.0

    async def test_a_destination_that_appears_is_found(self, harness: Harness) -> None:
        """A broker must not remember for long that there was none."""
        subject = await harness.started()
        name = await harness.missing()
        await outcome(subject.publish(name, within=0.5))
        await harness.destination(name)
        ended: Receipt | BrokerError | None = None
        async with asyncio.timeout(10):
            while not isinstance(ended, Receipt):
                ended = await outcome(subject.publish(name, within=0.5))
                await asyncio.sleep(0.05)

    async def test_a_name_that_no_destination_has_is_refused(self, harness: Harness) -> None:
        subject = await harness.started()
        for name in harness.traits.invalid:
            assert await refusal(subject.publish(name)) == (Refused, "invalid_destination"), name
        destination = await harness.destination()
        assert isinstance(await subject.publish(destination), Receipt)

    async def test_text_without_a_form_in_bytes_is_refused(self, harness: Harness) -> None:
        r"""JSON may hold half of a surrogate pair (`"\ud800"`), and keys come from JSON."""
        destination = await harness.destination()
        subject = await harness.started()
        half = subject.publish(destination, headers=(("x", "\ud800"),))
        assert await refusal(half) == (Refused, "invalid_record")
        if harness.traits.keyed:
            keyed = subject.publish(destination, key="\ud800")
            assert await refusal(keyed) == (Refused, "invalid_record")
        assert isinstance(await subject.publish(destination, b"after"), Receipt)
        assert subject.broker.in_flight == (0, 0)


class LifeContract:
    """Start, close, state, and what can be asked besides publishing."""

    async def test_nothing_is_published_before_the_start(self, harness: Harness) -> None:
        subject = harness.subject()
        assert subject.broker.name == "contract"
        assert subject.broker.state is not State.UP
        early = subject.publish(await harness.destination())
        assert early.done()
        assert await refusal(early) == (Unavailable, "broker_down")

    async def test_states_are_told_once_each(self, harness: Harness) -> None:
        subject = await harness.started()
        await subject.broker.start()
        assert subject.told == [("contract", State.UP)]
        await subject.broker.close(5)
        assert subject.told == [("contract", State.UP), ("contract", State.DOWN)]
        assert subject.broker.state is State.DOWN

    async def test_close_waits_for_what_is_in_flight(self, harness: Harness) -> None:
        destination = await harness.destination()
        subject = await harness.started()
        sent = [subject.publish(destination) for _ in range(50)]
        await subject.broker.close(10)
        assert all(future.done() for future in sent)
        assert len(await receipts(sent)) == 50
        assert len(await harness.read(destination, 50)) == 50

    async def test_close_is_idempotent_and_final(self, harness: Harness) -> None:
        destination = await harness.destination()
        subject = await harness.started()
        await asyncio.gather(subject.broker.close(5), subject.broker.close(5))
        await subject.broker.close(5)
        late = subject.publish(destination)
        assert late.done()
        assert await refusal(late) == (Unavailable, "closing")
        await subject.broker.start()
        assert await refusal(subject.publish(destination)) == (Unavailable, "closing")

    async def test_close_without_a_start(self, harness: Harness) -> None:
        subject = harness.subject()
        await subject.broker.close(5)
        assert await refusal(subject.publish("x")) == (Unavailable, "closing")

    async def test_failures_that_nobody_looks_at_make_no_noise(self, harness: Harness) -> None:
        noise: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: noise.append(context))
        destination = await harness.destination()
        subject = await harness.started(Options(max_in_flight=1))
        subject.publish_and_forget(destination, bytes(2 * ONE_MEBIBYTE))
        subject.publish_and_forget("")
        subject.publish_and_forget(destination)
        subject.publish_and_forget(destination)
        await eventually(lambda: subject.broker.in_flight == (0, 0))
        await subject.broker.close(5)
        subject.publish_and_forget(destination)
        await asyncio.sleep(0)
        gc.collect()
        assert noise == []

    async def test_two_brokers_of_one_process_are_independent(self, harness: Harness) -> None:
        destination = await harness.destination()
        first, second = await harness.started(), await harness.started()
        await first.broker.close(5)
        assert isinstance(await second.publish(destination), Receipt)

    async def test_check_finds_what_is_and_what_is_not(self, harness: Harness) -> None:
        destination, subject = await harness.destination(), harness.subject()
        missing = await harness.missing()
        needs = [Need(name, False, 1000, "route users") for name in (destination, missing)]
        findings = await subject.broker.check(needs)
        worst = {finding.severity for finding in findings if destination in finding.about}
        assert worst <= {"ok", "warning"}, findings
        assert not any(finding.severity == "unreachable" for finding in findings)
        if harness.traits.missing is not None:
            about = [finding for finding in findings if missing in finding.about]
            assert [finding.severity for finding in about] == ["error"], findings

    async def test_check_says_when_records_are_too_large(self, harness: Harness) -> None:
        destination, subject = await harness.destination(), harness.subject()
        need = Need(destination, False, 2 * ONE_MEBIBYTE, "route users")
        findings = await subject.broker.check([need])
        assert "error" in {finding.severity for finding in findings}, findings

    async def test_tail_gives_what_arrives(self, harness: Harness) -> None:
        destination = await harness.destination()
        subject = await harness.started()
        await subject.publish(destination, b"too early")
        need = Need(destination, False, 1000, "route users")
        async with tailing(subject, need) as arrivals:
            receipt = await subject.publish(destination, b"seen", headers=HEADERS, key="k")
            async with asyncio.timeout(20):
                arrival = await anext(arrivals)
        assert (arrival.broker, arrival.destination) == ("contract", destination)
        assert arrival.value == b"seen"
        assert set(HEADERS) <= set(arrival.headers)
        assert arrival.key == ("k" if harness.traits.keyed else None)
        assert (arrival.partition, arrival.offset) == (receipt.partition, receipt.offset)
        if arrival.stream is not None:
            assert (arrival.stream, arrival.seq) == (receipt.stream, receipt.seq)


@contextlib.asynccontextmanager
async def tailing(subject: Subject, need: Need) -> AsyncIterator[Any]:
    """Tail one destination for the length of a block."""
    arrivals = await subject.broker.tail([need])
    try:
        yield arrivals
    finally:
        await arrivals.aclose()
