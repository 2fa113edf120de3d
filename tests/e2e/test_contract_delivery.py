"""What the contract says of retries, duplicates and the ledger, sentence by sentence.

`test_ledger.py` has the ordinary cases. Here are those in which a target is dead-lettered, the
window is over, the ledger is full, or another process had the event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.client import Client, event, new_id, signed, until
from tests.e2e.conftest import Start
from tests.e2e.readback import create_stream, stream_count, stream_messages
from tests.servers.nats import NatsServer
from tests.servers.process import free_port

Unique = Callable[[str], str]


def nats(*servers: NatsServer) -> dict[str, Any]:
    """Give a broker as the config has it."""
    return {"kind": "nats", "servers": [server.url for server in servers]}


def route(name: str, *targets: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "events": ["*"], "targets": list(targets), **more}


async def test_a_dead_lettered_target_is_settled_and_not_repeated_on_a_retry(
    gateways: Start, nats_server: NatsServer, own_nats: NatsServer, unique: Unique
) -> None:
    """One target is refused for good and its letter kept, the other one's broker is down."""
    letters, late = unique("letters"), unique("late")
    await create_stream(nats_server.url, letters, letters)
    await create_stream(own_nats.url, late, late)
    gateway = gateways(
        {
            "brokers": {"bus": nats(nats_server), "away": nats(own_nats)},
            "routes": [
                route("refused", {"broker": "bus", "subject": f"{letters}.never.{{data.missing}}"}),
                route("owed", {"broker": "away", "subject": late}),
            ],
            "delivery": {"dead_letter": {"broker": "bus", "subject": letters}},
        }
    )
    svix_id, body = new_id(), event()
    async with Client(gateway) as client:
        await client.until_ready()
        own_nats.kill()
        await client.until_ready("degraded")
        for _ in range(3):
            failed = await client.post(body, signed(body, svix_id))
            assert failed.word == (503, "failed")
            assert failed.headers["retry-after"] == "5"
            by_route = {one["route"]: one["status"] for one in failed.body["targets"]}
            assert by_route == {"refused": "dead_lettered", "owed": "failed"}
        await asyncio.to_thread(own_nats.start)
        await client.until_ready()
        retry = await client.post(body, signed(body, svix_id))
        assert retry.word == (200, "dead_lettered"), "the worst of the settled ones is told"
        by_route = {one["route"]: one["status"] for one in retry.body["targets"]}
        assert by_route == {"refused": "dead_lettered", "owed": "delivered"}
        copy = await client.post(body, signed(body, svix_id))
        assert copy.word == (200, "duplicate")
        settled = await client.samples("gateway_settlements_total")
    assert [one.data for one in await stream_messages(nats_server.url, letters)] == [body]
    assert [one.data for one in await stream_messages(own_nats.url, late)] == [body]
    settled = {key: count for key, count in settled.items() if "failed" not in key and count}
    assert list(settled.values()) == [1, 1], settled


async def test_an_incomplete_event_is_remembered_beyond_the_window(
    gateways: Start, nats_server: NatsServer, own_nats: NatsServer, unique: Unique
) -> None:
    """A complete event that came after it is forgotten, and its own target is not repeated."""
    first, late = unique("first"), unique("late")
    await create_stream(nats_server.url, first, f"{first}.>", duplicate_window=0.1)
    await create_stream(own_nats.url, late, late)
    gateway = gateways(
        {
            "brokers": {"bus": nats(nats_server), "away": nats(own_nats)},
            "routes": [
                route("both", {"broker": "bus", "subject": f"{first}.{{type}}"}),
                route("owed", {"broker": "away", "subject": late}, events=["user.*"]),
            ],
            "delivery": {"dedupe": {"window": "200ms"}},
        }
    )
    (owed, body), (complete, other) = (new_id(), event()), (new_id(), event("role.created"))
    async with Client(gateway) as client:
        await client.until_ready()
        own_nats.kill()
        await client.until_ready("degraded")
        assert (await client.post(body, signed(body, owed))).word == (503, "failed")
        assert (await client.post(other, signed(other, complete))).word == (200, "delivered")

        async def is_forgotten() -> bool:
            return (await client.post(other, signed(other, complete))).word == (200, "delivered")

        await until(is_forgotten, "the window is over")
        await asyncio.to_thread(own_nats.start)
        await client.until_ready()
        assert (await client.post(body, signed(body, owed))).word == (200, "delivered")
    stored = [one.headers["svix-id"] for one in await stream_messages(nats_server.url, first)]
    assert stored.count(owed) == 1
    assert stored.count(complete) >= 2
    assert await stream_count(own_nats.url, late) == 1


async def test_an_incomplete_event_is_forgotten_in_the_end(
    gateways: Start, nats_server: NatsServer, unique: Unique
) -> None:
    stream = unique("first")
    await create_stream(nats_server.url, stream, stream, duplicate_window=0.1)
    gateway = gateways(
        {
            "brokers": {
                "bus": nats(nats_server),
                "away": {"kind": "nats", "servers": [f"nats://127.0.0.1:{free_port()}"]},
            },
            "routes": [
                route("done", {"broker": "bus", "subject": stream}),
                route("owed", {"broker": "away", "subject": stream}),
            ],
            "delivery": {
                "dedupe": {"window": "100ms"},
                "ledger": {"incomplete_for": "3s"},
            },
        }
    )
    svix_id, body = new_id(), event()
    async with Client(gateway) as client:
        await client.until_ready("degraded")
        for _ in range(2):
            assert (await client.post(body, signed(body, svix_id))).word == (503, "failed")
        assert await stream_count(nats_server.url, stream) == 1

        async def incomplete(count: int) -> bool:
            # A retry would begin the time anew, so the gauge is watched.
            return (await client.samples("gateway_ledger_events"))[("incomplete",)] == count

        await until(lambda: incomplete(1), "it is remembered")
        await until(lambda: incomplete(0), "incomplete_for has passed")
        assert (await client.post(body, signed(body, svix_id))).word == (503, "failed")
    assert await stream_count(nats_server.url, stream) == 2


async def test_two_gateways_give_one_record_one_id_and_the_second_says_duplicate(
    gateways: Start, nats_server: NatsServer, unique: Unique
) -> None:
    """Neither knows of the other, and their routes do not even have the same name."""
    stream = unique("replicas")
    await create_stream(nats_server.url, stream, f"{stream}.>")
    target = {"broker": "bus", "subject": f"{stream}.{{type}}"}
    svix_id, body = new_id(), event()
    answers = []
    for name in ("users", "everything"):
        written = {"brokers": {"bus": nats(nats_server)}, "routes": [route(name, target)]}
        async with Client(gateways(written)) as client:
            await client.until_ready()
            answers.append(await client.post(body, signed(body, svix_id)))
    first, second = (answer.body["targets"][0] for answer in answers)
    assert [answer.word for answer in answers] == [(200, "delivered"), (200, "delivered")]
    assert (first["status"], second["status"]) == ("delivered", "duplicate")
    assert (first["stream"], first["seq"]) == (second["stream"], second["seq"])
    (message,) = await stream_messages(nats_server.url, stream)
    assert message.headers["Nats-Msg-Id"].startswith(f"{svix_id}.")


@pytest.mark.parametrize("mode", ["direct", "inbox"])
async def test_every_answer_is_under_4_kb_however_many_targets_there_are(
    gateways: Start, nats_server: NatsServer, unique: Unique, mode: str
) -> None:
    stream = unique("many")
    await create_stream(nats_server.url, stream, f"{stream}.>")
    long = "a-name-that-takes-its-room-in-every-answer"
    targets = [
        {"broker": "bus", "subject": f"{stream}.{long}.{number}.{{data.missing || type}}"}
        for number in range(60)
    ]
    gateway = gateways(
        {
            "brokers": {"bus": nats(nats_server)},
            "routes": [
                route("taken", *targets, events=["user.*"]),
                route(
                    "refused",
                    *({**one, "subject": f"{one['subject']}.{{data.gone}}"} for one in targets),
                    events=["role.*"],
                ),
            ],
            "delivery": {"mode": mode},
        }
    )
    words = {"direct": ["delivered", "failed", "duplicate"], "inbox": ["stored", "stored"]}[mode]
    async with Client(gateway) as client:
        await client.until_ready()
        body, refused = event(), event("role.created")
        headers = signed(body)
        answers = [
            await client.post(body, headers),
            await client.post(refused),
            await client.post(body, headers),
        ]
    for answer, word in zip(answers, words, strict=False):
        assert len(answer.raw) < 4000
        assert answer.body["status"] == word
        assert len(answer.body["targets"]) + answer.body["targets_left_out"] == 60


async def test_a_full_ledger_refuses_nothing_and_counts_what_it_forgets(
    gateways: Start, nats_server: NatsServer, unique: Unique
) -> None:
    """Complete events go first; then the incomplete ones, and these are counted as such."""
    stream = unique("evicted")
    await create_stream(nats_server.url, stream, f"{stream}.>")
    away = {"kind": "nats", "servers": [f"nats://127.0.0.1:{free_port()}"]}
    gateway = gateways(
        {
            "brokers": {"bus": nats(nats_server), "away": away},
            "routes": [
                route("done", {"broker": "bus", "subject": f"{stream}.{{type}}"}),
                route("owed", {"broker": "away", "subject": "x.y"}, events=["role.*"]),
            ],
            "delivery": {"ledger": {"max_bytes": "64KiB"}},
        }
    )
    async with Client(gateway) as client:
        await client.until_ready("degraded")
        evicted: dict[tuple[str, ...], float] = {}

        async def is_evicted(state: str, event_type: str, word: tuple[int, str]) -> bool:
            body = event(event_type)
            answers = await asyncio.gather(*(client.post(body) for _ in range(20)))
            assert {answer.word for answer in answers} == {word}
            evicted.update(await client.samples("gateway_ledger_evicted_total"))
            return evicted.get((state,), 0) > 0

        await until(
            lambda: is_evicted("complete", "user.created", (200, "delivered")),
            "complete events are forgotten",
        )
        assert not evicted.get(("incomplete",))
        await until(
            lambda: is_evicted("incomplete", "role.created", (503, "failed")),
            "incomplete events are forgotten",
        )

        async def incomplete_alone_are_left() -> bool:
            left = await client.samples("gateway_ledger_events")
            return left[("complete",)] == 0 and left[("incomplete",)] > 0

        await until(incomplete_alone_are_left, "no complete event is left")
        assert sum((await client.samples("gateway_ledger_bytes")).values()) <= 64 * 1024
