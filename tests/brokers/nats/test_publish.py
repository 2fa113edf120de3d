"""The way of a record on a real nats-server: acks, refusals, caps, and what a trap would do."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

import pytest
from nats.aio.msg import Msg

from gateway.brokers.base import BrokerError, State
from gateway.brokers.nats.publisher import _RETRY_MOST
from tests.brokers.nats.conftest import Starter
from tests.brokers.nats.support import (
    client,
    create_stream,
    outcome,
    stored,
    wait_for,
)
from tests.canaries import NATS_USER_PASSWORD
from tests.servers.nats import NatsServer

Unique = Callable[[str], str]
NewNats = Callable[..., NatsServer]


async def test_a_record_is_stored_whole_and_the_receipt_says_where(
    nats_server: NatsServer, unique: Unique, start: Starter
) -> None:
    stream = unique("users")
    await create_stream(nats_server.url, stream, f"{stream}.>")
    under_test = await start(nats_server.url)
    value = bytes(range(256)) * 4
    headers = (("ce-id", "msg_1"), ("ce-subject", "Zoë %E2"), ("x-empty", ""))

    receipt = await under_test.publish(f"{stream}.a", value, headers=headers, dedupe_id="one")

    assert (receipt.destination, receipt.stream, receipt.seq) == (f"{stream}.a", stream, 1)
    assert not receipt.duplicate
    (record,) = await stored(nats_server.url, stream)
    assert (record.subject, record.data) == (f"{stream}.a", value)
    assert record.headers == {**dict(headers), "Nats-Msg-Id": "one"}


async def test_a_second_copy_is_answered_as_a_duplicate(
    nats_server: NatsServer, unique: Unique, start: Starter
) -> None:
    stream = unique("twice")
    await create_stream(nats_server.url, stream, stream)
    under_test = await start(nats_server.url)

    await under_test.publish(stream, dedupe_id="same")
    again = await under_test.publish(stream, dedupe_id="same")

    assert (again.seq, again.duplicate) == (1, True)
    assert len(await stored(nats_server.url, stream)) == 1


async def test_many_at_once_keep_their_order(
    nats_server: NatsServer, unique: Unique, start: Starter
) -> None:
    stream = unique("order")
    await create_stream(nats_server.url, stream, stream)
    under_test = await start(nats_server.url, max_in_flight=2000)

    receipts = await asyncio.gather(*(under_test.publish(stream, b"%d" % at) for at in range(2000)))

    assert [receipt.seq for receipt in receipts] == list(range(1, 2001))
    records = await stored(nats_server.url, stream)
    assert [record.data for record in records] == [b"%d" % at for at in range(2000)]
    assert under_test.broker.in_flight == (0, 0)


async def test_headers_count_against_max_payload_and_the_connection_lives_on(
    new_nats: NewNats, start: Starter
) -> None:
    server = await asyncio.to_thread(new_nats, options={"max_payload": 4096})
    await create_stream(server.url, "S", "s")
    under_test = await start(server.url)
    headers = (("a", "b" * 1000),)
    # NATS/1.0, the header, Nats-Msg-Id and an empty line, each with CR and LF.
    block = 10 + (3 + 1000 + 2) + (13 + 3 + 2) + 2
    fits = b"x" * (4096 - block)

    exact = await under_test.outcome("s", fits, headers=headers, dedupe_id="123")
    over = await under_test.outcome("s", fits + b"x", headers=headers, dedupe_id="456")
    value_alone = await under_test.outcome("s", b"x" * 5000)

    assert (exact, over, value_alone) == ("Receipt", "Refused(too_large)", "Refused(too_large)")
    assert await under_test.outcome("s") == "Receipt"
    assert under_test.states == [State.UP]


async def test_limits_of_a_stream(nats_server: NatsServer, unique: Unique, start: Starter) -> None:
    small, full = unique("small"), unique("full")
    await create_stream(nats_server.url, small, small, max_msg_size=500)
    await create_stream(nats_server.url, full, full, max_msgs=1, discard="new")
    under_test = await start(nats_server.url)

    assert await under_test.outcome(small, b"x" * 600) == "Refused(too_large)"
    assert await under_test.outcome(full) == "Receipt"
    assert await under_test.outcome(full) == "Unavailable(stream_full)"


async def test_a_missing_stream_is_refused_near_the_deadline_and_delays_nobody(
    nats_server: NatsServer, unique: Unique, start: Starter
) -> None:
    stream = unique("there")
    await create_stream(nats_server.url, stream, stream)
    under_test = await start(nats_server.url)
    loop = asyncio.get_running_loop()
    began = loop.time()

    nowhere = unique("missing")
    missing = [under_test.publish(nowhere, within=2.5) for _ in range(3)]
    others = await asyncio.gather(*(under_test.outcome(stream) for _ in range(100)))

    assert set(others) == {"Receipt"}
    assert loop.time() - began < 1.0
    assert [await outcome(future) for future in missing] == ["Refused(no_stream)"] * 3
    assert 0.4 < loop.time() - began < 2.5


async def test_a_stream_that_appears_within_the_deadline_takes_the_record(
    nats_server: NatsServer, unique: Unique, start: Starter
) -> None:
    stream = unique("late")
    under_test = await start(nats_server.url)

    future = under_test.publish(stream, within=10 + _RETRY_MOST)
    await under_test.outcome(unique("missing"), within=0)
    await create_stream(nats_server.url, stream, stream)

    assert (await future).stream == stream


async def test_what_waits_for_a_stream_is_not_stored_when_the_server_goes(
    own_nats: NatsServer, start: Starter
) -> None:
    under_test = await start(own_nats.url)
    waiting = under_test.publish("missing")
    # The first answer of the server is that nobody takes it.
    await under_test.outcome("missing", within=0)
    own_nats.kill()

    assert await outcome(waiting) == "Unavailable(broker_down)"


async def test_a_late_ack_of_what_was_given_up_changes_nothing(
    own_nats: NatsServer, start: Starter
) -> None:
    await create_stream(own_nats.url, "S", "s")
    under_test = await start(own_nats.url, request_timeout=0.5)
    own_nats.pause()
    given_up = await under_test.outcome("s")
    own_nats.resume()

    assert (given_up, await under_test.outcome("s")) == ("Unknown(no_ack)", "Receipt")
    assert under_test.broker.in_flight == (0, 0)
    assert len(await stored(own_nats.url, "S")) == 2


async def test_without_jetstream_on_the_server_nothing_is_final(
    new_nats: NewNats, start: Starter
) -> None:
    server = await asyncio.to_thread(new_nats, jetstream=False)
    under_test = await start(server.url)

    assert await under_test.outcome("users", within=1) == "Unavailable(no_leader)"


@pytest.mark.parametrize(
    "subject", ["", ".", "a..b", "a.", "a b", "a\r\nPING\r\nb", "a.*", ">", "a\ud800", "a" * 901]
)
@pytest.mark.parametrize("jetstream", [True, False])
async def test_a_subject_that_is_none_is_refused_at_once(
    nats_server: NatsServer, start: Starter, subject: str, jetstream: bool
) -> None:
    under_test = await start(nats_server.url, jetstream=jetstream)

    future = under_test.publish(subject)

    assert future.done()
    assert await outcome(future) == "Refused(invalid_destination)"


@pytest.mark.parametrize("value", ["a\r\nx: y", "a\n", "a\r", "\ud800"])
async def test_a_header_that_would_break_the_block_is_refused(
    nats_server: NatsServer, start: Starter, value: str
) -> None:
    under_test = await start(nats_server.url)

    assert await under_test.outcome("s", headers=(("h", value),)) == "Refused(invalid_record)"


async def test_the_caps_by_count_and_by_bytes(own_nats: NatsServer, start: Starter) -> None:
    await create_stream(own_nats.url, "S", "s")
    by_count = await start(own_nats.url, max_in_flight=2)
    by_bytes = await start(own_nats.url, max_in_flight_bytes=3000)
    own_nats.pause()

    few = [by_count.publish("s") for _ in range(3)]
    large = [by_bytes.publish("s", b"x" * 1400) for _ in range(3)]

    assert [future.done() for future in few + large] == [False, False, True] * 2
    assert await outcome(few[2]) == await outcome(large[2]) == "Unavailable(overloaded)"
    assert by_count.broker.in_flight[0] == by_bytes.broker.in_flight[0] == 2
    own_nats.resume()
    assert [await outcome(future) for future in few[:2] + large[:2]] == ["Receipt"] * 4
    assert by_count.broker.in_flight == by_bytes.broker.in_flight == (0, 0)


async def test_no_ack_in_time_is_unknown(own_nats: NatsServer, start: Starter) -> None:
    await create_stream(own_nats.url, "S", "s", no_ack=True)
    under_test = await start(own_nats.url, request_timeout=0.5)

    assert await under_test.outcome("s") == "Unknown(no_ack)"
    assert under_test.broker.in_flight == (0, 0)


async def test_a_caller_that_has_gone_takes_nothing_back_and_nobody_complains(
    nats_server: NatsServer,
    unique: Unique,
    start: Starter,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stream = unique("gone")
    await create_stream(nats_server.url, stream, stream)
    under_test = await start(nats_server.url)

    under_test.publish(stream).cancel()
    ignored = [under_test.publish("not a subject"), under_test.publish(unique("no"), within=0)]
    await wait_for(lambda: under_test.broker.in_flight == (0, 0))
    ignored.clear()
    gc.collect()

    assert len(await stored(nats_server.url, stream)) == 1
    assert not [record for record in caplog.records if record.name == "asyncio"]


async def test_only_a_puback_is_an_ack(
    nats_server: NatsServer, unique: Unique, start: Starter
) -> None:
    stream = unique("both")
    unheard = unique("unheard")
    await create_stream(nats_server.url, stream, stream)
    under_test = await start(nats_server.url, request_timeout=1.0)
    async with client(nats_server.url) as connected:

        async def answer(msg: Msg) -> None:
            for words in (b"{}", b"thanks", b'{"ok":true}'):
                await msg.respond(words)

        for subject in (stream, unheard):
            await connected.subscribe(subject, cb=answer)
        await connected.flush()

        receipt = await under_test.publish(stream)
        assert (receipt.stream, receipt.seq) == (stream, 1)
        assert await under_test.outcome(unheard) == "Unknown(no_ack)"


DENY = {"authorization": {"users": [{"user": "u", "password": NATS_USER_PASSWORD, "permissions": {
    "publish": {"deny": ["secret.>", "Secret.>"]}
}}]}}  # fmt: skip
ALLOW = {"authorization": {"users": [{"user": "u", "password": NATS_USER_PASSWORD}]}}


@pytest.mark.parametrize("subject", ["secret.a", "Secret.A"])
@pytest.mark.parametrize("jetstream", [True, False])
async def test_a_denied_subject_is_refused_after_a_second_try(
    new_nats: NewNats, start: Starter, jetstream: bool, subject: str
) -> None:
    server = await asyncio.to_thread(new_nats, options=DENY)
    login = {"username": "u", "password": NATS_USER_PASSWORD}
    streams = [{"name": "S", "subjects": ["open", "secret.>"]}]
    under_test = await start(server.url, **login, jetstream=jetstream, streams=streams)

    denied = [under_test.publish(subject) for _ in range(3)]
    allowed = await under_test.outcome("open")

    assert allowed == "Receipt"
    assert [await outcome(future) for future in denied] == ["Refused(not_authorized)"] * 3
    assert under_test.states == [State.UP]


async def test_a_permission_that_was_missing_for_a_moment_is_no_refusal(
    new_nats: NewNats, start: Starter
) -> None:
    server = await asyncio.to_thread(new_nats, options=DENY)
    under_test = await start(
        server.url,
        username="u",
        password=NATS_USER_PASSWORD,
        streams=[{"name": "S", "subjects": ["secret.>"]}],
    )

    future = under_test.publish("secret.a")
    await wait_for(lambda: "Publish Violation" in server.log_tail())
    server.reload(ALLOW)

    # nats-server applies it to the connections that there are.
    assert await outcome(future) == "Receipt"


async def test_core_counts_as_done_when_the_server_has_handled_it(
    nats_server: NatsServer, unique: Unique, start: Starter
) -> None:
    subject = unique("core")
    under_test = await start(nats_server.url, jetstream=False)
    async with client(nats_server.url) as connected:
        subscription = await connected.subscribe(subject)
        await connected.flush()

        receipts = await asyncio.gather(
            *(under_test.publish(subject, b"%d" % at) for at in range(500))
        )
        seen = [(await subscription.next_msg(timeout=5)).data for _ in range(500)]

    assert seen == [b"%d" % at for at in range(500)]
    assert {(receipt.destination, receipt.stream, receipt.seq) for receipt in receipts} == {
        (subject, None, None)
    }


async def test_core_is_not_done_while_the_server_is_frozen(
    own_nats: NatsServer, start: Starter
) -> None:
    under_test = await start(own_nats.url, jetstream=False)
    own_nats.pause()

    future = under_test.publish("s")
    done, _ = await asyncio.wait([future], timeout=0.5)

    assert not done
    own_nats.resume()
    assert await outcome(future) == "Receipt"


async def test_every_error_says_who_and_why(nats_server: NatsServer, start: Starter) -> None:
    under_test = await start(nats_server.url)

    with pytest.raises(BrokerError) as caught:
        await under_test.publish("nobody.takes.this", b"a secret body", within=0)

    assert (caught.value.broker, caught.value.destination) == ("bus", "nobody.takes.this")
    assert "create one" in str(caught.value)
    assert "secret" not in repr(caught.value)
