"""The dead letter's record."""

from __future__ import annotations

from typing import Literal

import pytest

from gateway.delivery.dead_letter import DeadLetter
from gateway.delivery.plan import Plan, Refusal
from gateway.metadata import kafka_headers, nats_headers
from tests.core.builders import BODY, SVIX_ID, metadata

PLAN = Plan("user_1", BODY, metadata(), (), ())
REFUSAL = Refusal(("users", "audit"), "bus", "clerk.{type}", "expression", "gave nothing")


@pytest.mark.parametrize("kind", ["kafka", "nats"])
def test_a_letter_holds_the_original_body_its_headers_and_why(
    kind: Literal["kafka", "nats"],
) -> None:
    letter = DeadLetter("events", kind, "clerk.dead-letter").letter(PLAN, REFUSAL, "")
    render = kafka_headers if kind == "kafka" else nats_headers
    assert letter.destination == "clerk.dead-letter"
    assert letter.value is BODY
    assert letter.key == "user_1"
    assert letter.headers == (
        *render(PLAN.metadata, "user_1", "users,audit"),
        ("gateway-dead-letter-reason", "expression"),
        ("gateway-dead-letter-detail", "gave nothing"),
        ("gateway-dead-letter-target", "bus/clerk.{type}"),
    )


def letter_of(
    reason: str = "expression",
    detail: str = "",
    *,
    broker: str = "bus",
    destination: str = "clerk.x",
    plan: Plan = PLAN,
    target_id: str = "a target",
) -> tuple[str, dict[str, str]]:
    refusal = Refusal((), broker, destination, reason, detail)
    letter = DeadLetter("events", "kafka", "clerk.dead-letter").letter(plan, refusal, target_id)
    return letter.dedupe_id, dict(letter.headers)


def test_the_detail_is_bounded_and_clean() -> None:
    _, headers = letter_of(detail="a\r\nb" + "c" * 1000)
    assert headers["gateway-dead-letter-detail"] == "ab" + "c" * 510


def test_an_event_that_no_route_took_names_no_target() -> None:
    _, headers = letter_of("unmatched", broker="", destination="")
    assert headers["gateway-dead-letter-target"] == ""
    assert headers["gateway-route"] == ""


def test_letters_of_one_event_differ_by_target_and_by_nothing_else() -> None:
    first, _ = letter_of()
    assert first.startswith(f"{SVIX_ID}.")
    assert letter_of("too_large", "another detail")[0] == first
    others = {
        letter_of(target_id="another target")[0],
        letter_of(plan=Plan("k", BODY, metadata(gateway_source="other"), (), ()))[0],
        letter_of(plan=Plan("k", BODY, metadata(id="msg_other"), (), ()))[0],
    }
    assert len(others | {first}) == 4
