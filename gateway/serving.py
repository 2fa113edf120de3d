"""What a config decides about a request: immutable values, which another config replaces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from gateway.address import Networks
from gateway.delivery.fanout import Outlets
from gateway.event import Sender
from gateway.routing.table import Table
from gateway.signature import Verifier

__all__ = ["Edge", "Endpoint", "Limits", "Serving", "Unmatched"]

Unmatched = Literal["accept", "dead_letter", "reject"]


class Limits(msgspec.Struct, frozen=True):
    """Bounds of one request; bytes and seconds."""

    max_body: int
    deadline: float
    body_timeout: float


class Endpoint(msgspec.Struct, frozen=True):
    """One source's path: who may send there, and how it is proven."""

    sender: Sender
    verifier: Verifier
    allow_from: Networks
    abort_permanent: bool


class Edge(msgspec.Struct, frozen=True):
    """All that the ingress port knows before it knows an event."""

    endpoints: Mapping[str, Endpoint]
    """By path."""
    limits: Limits
    trusted_proxies: Networks


class Serving(msgspec.Struct, frozen=True):
    """All that a config decides about a request. A request ends with what it began with."""

    edge: Edge
    table: Table
    unmatched: Unmatched
    outlets: Outlets
