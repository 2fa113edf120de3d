"""What the ingress needs of delivery, whatever its mode."""

from __future__ import annotations

from typing import Protocol

from gateway.delivery.fanout import Outlets
from gateway.delivery.plan import Plan
from gateway.delivery.settlement import Delivery

__all__ = ["Deliverer"]


class Deliverer(Protocol):
    """Delivers plans: `FanOut` to the brokers, `Inbox` to its store first."""

    async def deliver(self, plan: Plan, outlets: Outlets, deadline: float) -> Delivery:
        """Deliver an event, or say by the deadline (event-loop time, seconds) that it failed.

        Raises nothing for what a broker or a store does.
        """
        ...

    def give_up(self) -> None:
        """Answer all that is open as failed, now: the process is about to end."""
        ...
