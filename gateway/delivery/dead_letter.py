"""The dead letter: where a target's record goes when the target will never take it."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from gateway.brokers.base import Message
from gateway.delivery.plan import Plan, Refusal
from gateway.metadata import clean_header, kafka_headers, nats_headers

__all__ = ["DeadLetter", "target_name"]

_MAX_DETAIL = 512


class DeadLetter(msgspec.Struct, frozen=True):
    """The topic or subject that takes refused records."""

    broker: str
    kind: Literal["kafka", "nats"]
    destination: str

    def letter(self, plan: Plan, refusal: Refusal, target_id: str) -> Message:
        """Give the record to publish: the original body, its headers, and why it is here.

        `target_id` is the target's of `Plan.target_ids`. One event may be refused several times at
        one place, and each of its letters needs an id of its own: JetStream drops what it has seen.
        """
        render = kafka_headers if self.kind == "kafka" else nats_headers
        target = target_name(refusal.broker, refusal.destination)
        why = (
            ("gateway-dead-letter-reason", refusal.reason),
            ("gateway-dead-letter-detail", clean_header(refusal.detail)[:_MAX_DETAIL]),
            ("gateway-dead-letter-target", target),
        )
        return Message(
            destination=self.destination,
            value=plan.body,
            headers=render(plan.metadata, plan.key, ",".join(refusal.routes)) + why,
            dedupe_id=_dedupe_id(plan, target_id),
            key=plan.key,
        )


def target_name(broker: str, destination: str) -> str:
    """Name a target as its letters do: `<broker>/<topic or subject>`, cut to 512 characters.

    Empty for an event that no route takes.
    """
    return clean_header(f"{broker}/{destination}")[:_MAX_DETAIL] if broker else ""


def _dedupe_id(plan: Plan, target_id: str) -> str:
    text = f"dead letter\0{plan.metadata.gateway_source}\0{target_id}"
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8)
    return f"{plan.metadata.id}.{digest.hexdigest()}"
