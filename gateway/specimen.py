"""An event that was never sent: what the gateway would make of a body, for who tries out a table.

Nothing here is verified, so nothing made of it may reach a broker.
"""

from __future__ import annotations

import msgspec

from gateway.event import Event, Sender, read_event

__all__ = ["SIGNATURE", "SVIX_ID", "specimen"]

SVIX_ID = "msg_specimen"
SIGNATURE = "v1,not-signed"
"""Stands where a delivery has its signature."""


class _Unproven(msgspec.Struct, frozen=True):
    """What a proof would say; see `gateway.event.Proven`."""

    id: str
    timestamp: str
    signature: str


def specimen(sender: Sender, body: bytes, now: float, svix_id: str = SVIX_ID) -> Event:
    """Read an event as the source `sender` would, received at `now` (Unix seconds).

    Raises `EventError` for a body that the gateway would answer with 400.
    """
    proof = _Unproven(svix_id, str(int(now)), SIGNATURE)
    return read_event(proof, body, sender, now)
