"""NATS, through JetStream or core, over nats-py (see `connection`)."""

from gateway.brokers.nats.broker import NatsBroker

__all__ = ["NatsBroker"]
