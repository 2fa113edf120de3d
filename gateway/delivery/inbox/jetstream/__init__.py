"""The inbox in a NATS cluster: a replicated stream that replicas of the gateway share."""

from gateway.delivery.inbox.jetstream.store import JetStreamStore

__all__ = ["JetStreamStore"]
