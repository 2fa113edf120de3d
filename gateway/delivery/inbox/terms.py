"""What a config decides about dispatching what waits in the inbox."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from gateway.delivery.fanout import Outlets
from gateway.delivery.inbox.windows import Window

__all__ = ["Reach", "Terms"]


class Reach(msgspec.Struct, frozen=True):
    """What the dispatcher may ask of one broker."""

    kind: Literal["kafka", "nats"]
    window: Window
    request_timeout: float
    """Seconds within which the broker answers a publish after its deadline at the latest."""


class Terms(msgspec.Struct, frozen=True):
    """What a config decides about dispatching; replaced as a whole by a new one."""

    outlets: Outlets
    reaches: Mapping[str, Reach]
    """By the broker's name."""
    max_age: float
    """Seconds."""
