"""What a record needs on the wire, and what the server's errors mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from gateway.brokers.base import Refused, Unavailable, Unknown
from gateway.brokers.nats.errors import ApiError, server_problem, verdict_of
from gateway.brokers.nats.options import ClientOptions
from gateway.brokers.nats.protocol import denied_publish, denied_subscribe, header_block

NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,20}", fullmatch=True)
VALUES = st.text(st.characters(exclude_categories=["Cc", "Cs", "Z"]), max_size=40)


@given(st.dictionaries(NAMES, VALUES, max_size=5), VALUES)
def test_the_size_of_a_header_block_is_in_bytes(headers: dict[str, str], dedupe_id: str) -> None:
    block = header_block(tuple(headers.items()), dedupe_id)

    assert block is not None
    whole = headers | {"Nats-Msg-Id": dedupe_id}
    lines = "".join(f"{name}: {value}\r\n" for name, value in whole.items())
    assert block == (whole, len(f"NATS/1.0\r\n{lines}\r\n".encode()))


@given(st.lists(st.tuples(NAMES, st.text(max_size=20)), max_size=4))
def test_no_value_makes_another_line(headers: list[tuple[str, str]]) -> None:
    block = header_block(tuple(headers), "id")

    assert block is None or not any(set("\r\n") & set(value) for value in block[0].values())


@pytest.mark.parametrize("names", [("a", "a"), ("a b",), ("",), ("ä",), ("a:",), ("a\n",)])
def test_names_that_would_be_lost_or_break_the_block(names: tuple[str, ...]) -> None:
    assert header_block(tuple((name, "v") for name in names), "id") is None


def test_permission_errors() -> None:
    publish = 'Permissions Violation for Publish to "Clerk.Users"'
    subscribe = 'Permissions Violation for Subscription to "_INBOX.a.*" using queue "q"'

    assert (denied_publish(publish), denied_subscribe(publish)) == ("Clerk.Users", None)
    assert (denied_publish(subscribe), denied_subscribe(subscribe)) == (None, "_INBOX.a.*")


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (ApiError(503, 10077, "maximum messages exceeded"), Unavailable, "stream_full"),
        (ApiError(503, 10077, "maximum bytes exceeded"), Unavailable, "stream_full"),
        (ApiError(503, 10077, "write /data: input/output error"), Unavailable, "broker_error"),
        (ApiError(503, 10023, "insufficient resources"), Unavailable, "stream_full"),
        (ApiError(500, 10047, "insufficient storage"), Unavailable, "stream_full"),
        (ApiError(400, 10054, "message size exceeds maximum allowed"), Refused, "too_large"),
        (ApiError(503, 10008, "temporarily unavailable"), Unavailable, "no_leader"),
        (ApiError(503, 0, "raft: not leader"), Unavailable, "no_leader"),
        (ApiError(409, 10158, "duplicate message id is in process"), Unknown, "no_ack"),
        (ApiError(400, 99999, "something new"), Unavailable, "broker_error"),
    ],
)
def test_what_a_jetstream_error_means(
    error: ApiError, outcome: type[Exception], reason: str
) -> None:
    verdict = verdict_of(error)

    assert (verdict.outcome, verdict.reason) == (outcome, reason)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Authorization Violation", "check brokers.bus.token"),
        ("User Authentication Expired", "renew brokers.bus.token"),
        ("maximum connections exceeded", "max_connections"),
        ("Secure Connection - TLS Required", "set brokers.bus.tls"),
        ("Something New", "the server said 'Something New'"),
    ],
)
def test_what_the_server_says_names_the_setting(text: str, words: str) -> None:
    assert words in server_problem(ClientOptions("bus", (), token=SecretStr("secret")), text)
