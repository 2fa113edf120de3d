"""The part of the composition that is about the inbox: its store, and what bounds it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.brokers.base import BrokerOptionsError, Finding
from gateway.delivery.inbox.member import ALONE, Member, store_at
from gateway.delivery.inbox.store import Bounds, Store
from gateway.delivery.inbox.terms import Reach
from gateway.delivery.inbox.windows import Window
from gateway.routing.table import HEADROOM

if TYPE_CHECKING:
    from gateway.brokers.nats.options import ClientOptions
    from gateway.config import GatewayConfig
    from gateway.config.models import BrokerConfig

__all__ = ["bounds", "check_inbox", "make_store", "reach"]

_WINDOW_SHARE = 0.8
"""Of a broker's in-flight caps that the inbox uses, so that it is never answered `overloaded`."""


def bounds(config: GatewayConfig) -> Bounds:
    """Say how much may be in the inbox, and how long a finished event is known."""
    inbox = config.delivery.inbox
    return Bounds(inbox.max_bytes, inbox.parked_max_bytes, config.delivery.dedupe.window)


def reach(broker: BrokerConfig) -> Reach:
    """Say what the inbox may ask of a broker: less than it takes."""
    records = max(1, int(broker.max_in_flight * _WINDOW_SHARE))
    window = Window(records, int(broker.max_in_flight_bytes * _WINDOW_SHARE))
    return Reach(broker.kind, window, broker.request_timeout)


def make_store(config: GatewayConfig, member: Member = ALONE, *, dispatches: bool = True) -> Store:
    """Make the store of inbox mode; without `dispatches` for a command, which takes no lease.

    Raises `InboxUnusableError` where it could not even be looked for.
    """
    inbox = config.delivery.inbox
    if inbox.store == "jetstream":
        from gateway.delivery.inbox.jetstream import JetStreamStore  # noqa: PLC0415 - only where it is used

        options = _stream_options(config)
        return JetStreamStore(options, inbox.stream, bounds(config), dispatches=dispatches)
    return store_at(Path(inbox.path), bounds(config), member)


async def check_inbox(config: GatewayConfig) -> list[Finding]:
    """Say what the place of the inbox is like, for `check --connect`; nothing is changed.

    Raises `BrokerOptionsError`.
    """
    delivery = config.delivery
    if delivery.mode == "direct":
        return []
    if delivery.inbox.store == "sqlite":
        return _directory(delivery.inbox.path)
    from gateway.delivery.inbox.jetstream.check import check_streams  # noqa: PLC0415 - only where it is used

    record_bytes = config.server.max_body + HEADROOM
    options = _stream_options(config)
    return await check_streams(options, delivery.inbox.stream, bounds(config), record_bytes)


def _directory(path: str) -> list[Finding]:
    """Warn only: the gateway may be to run elsewhere, or as another user."""
    directory = Path(path).absolute().parent
    if not directory.is_dir():
        problem = f"{directory} does not exist here, and the gateway makes none; create it"
    elif not os.access(directory, os.W_OK | os.X_OK):
        problem = f"this user may not write to {directory}; the gateway's has to"
    else:
        return []
    return [Finding("warning", "delivery.inbox.path", problem)]


def _stream_options(config: GatewayConfig) -> ClientOptions:
    from gateway.brokers.nats.options import client_options  # noqa: PLC0415 - only where it is used

    name = config.delivery.inbox.broker or ""
    broker = config.brokers[name]
    if broker.kind != "nats":
        raise BrokerOptionsError(name, "kind", "is not nats, and the inbox is a stream of it")
    return client_options(name, broker)
