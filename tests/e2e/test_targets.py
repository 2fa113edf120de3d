"""What the sender is told of a target that cannot take an event now, or never will."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.e2e.client import Client, event, signed
from tests.e2e.conftest import Start
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.readback import stream_messages
from tests.e2e.rows import LETTERS, RETRY_AFTER, STREAM, Bus, config


@pytest.fixture(scope="module")
def plain(module_gateways: Start, bus: Bus) -> GatewayProcess:
    """Give a gateway without a dead letter, `unmatched: accept`."""
    return module_gateways(config(bus))


@pytest.fixture(scope="module")
def lettering(module_gateways: Start, bus: Bus) -> GatewayProcess:
    """Give a gateway that keeps what is refused and what no route takes."""
    letter = {"dead_letter": {"broker": "bus", "subject": LETTERS}}
    return module_gateways(config(bus, delivery=letter, unmatched="dead_letter"))


@pytest.fixture
async def client(plain: GatewayProcess, bus: Bus) -> AsyncIterator[Client]:
    async with Client(plain) as client:
        await client.until_ready("degraded")
        yield client


# --- a target that cannot, or will not


async def test_a_broker_that_is_down(client: Client, bus: Bus) -> None:
    body, before = event("session.created"), await bus.count()
    async with client.counting(("clerk", "failed", "broker_down")):
        answer = await client.post(body)
    assert answer.word == (503, "failed")
    assert answer.headers["retry-after"] == RETRY_AFTER
    assert answer.body["targets"] == [
        {
            "route": "session",
            "broker": "away",
            "topic": "sessions",
            "status": "failed",
            "reason": "broker_down",
        }
    ]
    assert answer.seconds < 1
    assert await bus.count() == before


REFUSED = [
    pytest.param("organization.created", 0, "expression", id="expression"),
    pytest.param("user.updated", 90_000, "too_large", id="too-large"),
    pytest.param("role.created", 0, "no_stream", id="no-stream"),
]


@pytest.mark.parametrize(("event_type", "size", "reason"), REFUSED)
async def test_refused_for_good_without_a_dead_letter(
    client: Client, bus: Bus, event_type: str, size: int, reason: str
) -> None:
    body, before = event(event_type, size), await bus.count()
    async with client.counting(("clerk", "failed", reason)):
        answer = await client.post(body)
    assert answer.word == (503, "failed")
    assert answer.headers["retry-after"] == RETRY_AFTER
    assert answer.body["reason"] == reason
    assert [target["reason"] for target in answer.body["targets"]] == [reason]
    assert await bus.count() == before


@pytest.mark.parametrize(
    ("event_type", "reason", "target"),
    [
        pytest.param("organization.created", "expression", "bus/rows.", id="expression"),
        pytest.param("role.created", "no_stream", "bus/nowhere.role.created", id="no-stream"),
        pytest.param("sms.created", "unmatched", "", id="unmatched"),
    ],
)
async def test_dead_lettered(
    lettering: GatewayProcess, bus: Bus, event_type: str, reason: str, target: str
) -> None:
    body = event(event_type)
    headers = signed(body)
    async with Client(lettering) as client:
        await client.until_ready("degraded")
        async with client.counting(("clerk", "dead_lettered", reason)):
            answer = await client.post(body, headers)
    assert answer.word == (200, "dead_lettered"), answer.raw
    assert [one["status"] for one in answer.body["targets"]] == ["dead_lettered"]
    letter = (await stream_messages(bus.url, STREAM))[-1]
    assert (letter.subject, letter.data) == (LETTERS, body)
    assert letter.headers["gateway-dead-letter-reason"] == reason
    assert letter.headers["gateway-dead-letter-target"].startswith(target)
    assert letter.headers["gateway-dead-letter-detail"]
    assert letter.headers["svix-id"] == headers["svix-id"]
    assert letter.headers["svix-signature"] == headers["svix-signature"]


async def test_a_letter_that_is_refused_itself(lettering: GatewayProcess, bus: Bus) -> None:
    before = await bus.count()
    async with Client(lettering) as client:
        await client.until_ready("degraded")
        async with client.counting(("clerk", "failed", "dead_letter_refused")):
            answer = await client.post(event("user.updated", 90_000))
    assert answer.word == (503, "failed")
    assert answer.body["reason"] == "dead_letter_refused"
    assert await bus.count() == before
