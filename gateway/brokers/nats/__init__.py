"""NATS, through JetStream or core, over a connection of our own (see `connection`)."""

from gateway.brokers.nats.broker import NatsBroker

__all__ = ["NatsBroker"]
