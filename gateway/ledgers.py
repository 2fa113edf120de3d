"""The part of the composition that is about the ledger: how long, and shared with whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.delivery.memory import Retention
from gateway.delivery.shared import SharedLedger

if TYPE_CHECKING:
    from gateway.config import GatewayConfig
    from gateway.config.models import NatsConfig
    from gateway.delivery.claims import Claims
    from gateway.delivery.leases import Leases
    from gateway.delivery.ledger import Ledger
    from gateway.delivery.shared import UnsharedListener

__all__ = ["change_leases", "ledger_broker", "make_leases", "retention", "share"]

_LEASE = 0.5
"""Of the deadline: so the retry of an event whose process was killed outlasts its lease."""


def retention(config: GatewayConfig) -> Retention:
    """Say how long events are remembered, and in how many bytes."""
    ledger = config.delivery.ledger
    return Retention(config.delivery.dedupe.window, ledger.incomplete_for, ledger.max_bytes)


def make_leases(config: GatewayConfig) -> Leases | None:
    """Make the claims that replicas share, where they do; nothing connects. An inbox needs none."""
    ledger = config.delivery.ledger
    if ledger.store != "nats-kv" or config.delivery.mode != "direct":
        return None
    # A client of a broker is imported only where it is used.
    from gateway.brokers.nats.bucket import Bucket, BucketSettings  # noqa: PLC0415 - as said
    from gateway.delivery.leases import Leases  # noqa: PLC0415 - as said

    kept = retention(config)
    age = max(kept.window, kept.incomplete_for)
    settings = BucketSettings(ledger.bucket, ledger.max_bytes, age)
    bucket = Bucket(ledger.broker or "", ledger_broker(config), settings)
    return Leases(bucket, kept, config.server.deadline * _LEASE)


def ledger_broker(config: GatewayConfig) -> NatsConfig:
    """Give the config of the broker that has the ledger's bucket."""
    broker = config.brokers[config.delivery.ledger.broker or ""]
    if broker.kind != "nats":  # pragma: no cover - the config's rules say so
        raise TypeError(broker.kind)
    return broker


def share(
    config: GatewayConfig, ledger: Ledger, claims: Claims | None, listener: UnsharedListener
) -> SharedLedger | None:
    """Share a process's ledger with its tree, whose book counts what is claimed, or with replicas.

    `claims` are the tree's, where it has any. None: the process is alone.
    """
    if claims is not None:
        return SharedLedger(ledger, claims, listener, counts_claimed=False)
    leases = make_leases(config)
    if leases is not None:
        return SharedLedger(ledger, leases, listener, counts_claimed=True)
    return None


def change_leases(claims: Claims, config: GatewayConfig) -> None:
    """Have what replicas share be what a changed config says."""
    if config.delivery.ledger.store != "nats-kv":
        return
    from gateway.delivery.leases import Leases  # noqa: PLC0415 - as above

    if isinstance(claims, Leases):
        claims.retain(retention(config))
        claims.bucket.change(ledger_broker(config))
