"""What can be wrong with what comes in on a connection, each with its answer."""

from __future__ import annotations

from gateway import GatewayError
from gateway.ingress import Fault

__all__ = ["HEAD_TOO_LARGE", "HEAD_TOO_SLOW", "MALFORMED", "OVERLOADED", "FaultError"]

MALFORMED = Fault(400, "malformed_http")
HEAD_TOO_LARGE = Fault(431, "head_too_large")
HEAD_TOO_SLOW = Fault(408, "head_too_slow")
OVERLOADED = Fault(503, "overloaded")


class FaultError(GatewayError):
    """Ends the parser's work inside of one of its callbacks."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        super().__init__(fault.reason.replace("_", " "))
