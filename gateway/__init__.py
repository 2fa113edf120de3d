"""Verifies Clerk webhooks and publishes each one to Kafka topics and NATS subjects."""

__all__ = ["GatewayError", "__version__"]

__version__ = "0.1.0"


class GatewayError(Exception):
    """The one root of every error this package raises on purpose.

    A subclass sets its fields first and then passes `super().__init__` a message made from them:
    what happened, to what, what to do. Anything else that escapes is a bug.
    """
