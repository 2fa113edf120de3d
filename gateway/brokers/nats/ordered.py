"""What whoever follows a stream in order agrees on with the server.

An ephemeral consumer that pushes and needs no acks, and is made anew from the last number when one
of its deliveries is missing or it falls silent, as the ordered consumers of the official clients
are (ADR-17). The server's flow control bounds what is on its way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nats.aio.msg import Msg

__all__ = ["HEARTBEAT", "MISSED_AFTER", "answer_to", "consumer", "is_control", "numbers"]

HEARTBEAT = 2.0
"""Seconds of silence after which the server sends a sign of life."""
MISSED_AFTER = 3 * HEARTBEAT
_KEPT_FOR = 30.0
"""Seconds after which the server removes a consumer that nobody listens to."""
_NANOSECONDS = 1_000_000_000
_CONTROL = "100"
_ACK_TOKENS = 9
"""`$JS.ACK.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<time>.<pending>`"""


def consumer(name: str, inbox: str) -> dict[str, Any]:
    """Give the configuration of a consumer, apart from where it starts and what it filters."""
    return {
        "name": name,
        "deliver_subject": inbox,
        "ack_policy": "none",
        "max_deliver": 1,
        "flow_control": True,
        "idle_heartbeat": int(HEARTBEAT * _NANOSECONDS),
        "inactive_threshold": int(_KEPT_FOR * _NANOSECONDS),
        "mem_storage": True,
        "num_replicas": 1,
    }


def is_control(msg: Msg, headers: Mapping[str, str]) -> bool:
    """Tell whether the server speaks itself: a sign of life, or a question of flow control."""
    return not msg.data and headers.get("Status") == _CONTROL


def answer_to(msg: Msg, headers: Mapping[str, str]) -> str:
    """Give the subject on which the server waits for an answer; empty for a sign of life."""
    return msg.reply or headers.get("Nats-Consumer-Stalled", "")


def numbers(reply: str) -> tuple[int, int, int]:
    """Stream and consumer sequence of a delivery, and how many are to come.

    `reply` is its reply subject, with a domain or without.
    """
    tokens = reply.split(".")
    skip = 2 if len(tokens) > _ACK_TOKENS else 0
    return int(tokens[5 + skip]), int(tokens[6 + skip]), int(tokens[8 + skip])
