"""The JSON that an answer carries: what the person who debugs at Clerk's dashboard sees.

Before verification a status and a short error; after it, what became of each target. Never an
address, a secret or a part of the payload, and always under 4 kB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from gateway.delivery.settlement import Settlement
from gateway.routing.table import Kind

__all__ = ["event_body", "failure_body", "rejection_body"]

_MAX_BYTES = 3500
_encode = msgspec.json.Encoder().encode


def rejection_body(reason: str, verified_id: str = "") -> bytes:
    """Give the body for a request that is turned away; the svix-id only once it is proven."""
    error = reason.replace("_", " ")
    if verified_id:
        return _encode({"status": "rejected", "id": verified_id, "error": error})
    return _encode({"status": "rejected", "error": error})


def failure_body(reason: str) -> bytes:
    """Give the body for a request that fails before its event is known."""
    return _encode({"status": "failed", "error": reason.replace("_", " ")})


def event_body(
    status: str,
    event: tuple[str, str | None],
    settlements: Sequence[Settlement],
    kinds: Mapping[str, Kind],
    reason: str = "",
) -> bytes:
    """Give the body for an event, which is (svix-id, type); `kinds` by broker name.

    Targets that do not fit are counted in `targets_left_out`.
    """
    svix_id, event_type = event
    content: dict[str, object] = {"status": status, "id": svix_id, "type": event_type}
    if reason:
        content["reason"] = reason
    targets = [_target(settlement, kinds) for settlement in settlements]
    content["targets"] = targets
    body = _encode(content)
    while len(body) > _MAX_BYTES and targets:
        targets.pop()
        content["targets_left_out"] = len(settlements) - len(targets)
        body = _encode(content)
    return body


def _target(settlement: Settlement, kinds: Mapping[str, Kind]) -> dict[str, object]:
    target: dict[str, object] = {
        "route": ",".join(settlement.routes),
        "broker": settlement.broker,
    }
    kind = kinds.get(settlement.broker)
    if kind is not None:
        target["topic" if kind == "kafka" else "subject"] = settlement.destination
    receipt = settlement.receipt
    if receipt is not None and receipt.offset is not None:
        target |= {"partition": receipt.partition, "offset": receipt.offset}
    if receipt is not None and receipt.seq is not None:
        target |= {"stream": receipt.stream, "seq": receipt.seq}
    target["status"] = settlement.status
    if settlement.reason:
        target["reason"] = settlement.reason
    return target
