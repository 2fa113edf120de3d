"""What became of an event and of each of its targets."""

from __future__ import annotations

from typing import Literal

import msgspec

from gateway.brokers.base import Receipt

__all__ = ["Delivery", "Settlement", "Status"]

Status = Literal["delivered", "stored", "duplicate", "dead_lettered", "discarded", "failed"]


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """What became of one target.

    Two are not final: after `failed` the sender's retry tries again, and what is `stored` in the
    inbox is settled later. Only an operator discards.
    """

    routes: tuple[str, ...]
    broker: str
    destination: str
    status: Status
    reason: str = ""
    """A bounded word; empty for `delivered`."""
    detail: str = ""
    """For the operator's log only."""
    receipt: Receipt | None = None


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """What became of an event: its status on the wire, and each target.

    `duplicate`: every target had been settled, or was about to be, by another copy of the event.
    """

    status: Literal["delivered", "stored", "duplicate", "dead_lettered", "failed"]
    settlements: tuple[Settlement, ...]
