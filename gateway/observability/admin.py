"""What happens on the admin port, counted and told by the process that serves it."""

from __future__ import annotations

import structlog

from gateway.observability.limit import RateLimit
from gateway.observability.logs import log_bug
from gateway.observability.metrics import AdminMetrics, render

__all__ = ["AdminRecorder"]


class AdminRecorder:
    """Counts and logs the requests that the admin port refuses."""

    def __init__(self) -> None:
        self._metrics = AdminMetrics()
        self._limit = RateLimit()
        self._log = structlog.get_logger()

    def refused(self, reason: str, client: str, now: float) -> None:
        """A request was refused; `client` is its address, or empty, `now` monotonic seconds.

        Nothing of the request itself is told: a wrong token may be a right one elsewhere.
        """
        self._metrics.refusals.labels(reason).inc()
        held_back = self._limit.take(reason, now)
        if held_back is None:
            return
        fields: dict[str, object] = {"reason": reason}
        if client:
            fields["client"] = client
        if held_back:
            fields["held_back"] = held_back
        self._log.warning("admin refused", **fields)

    def failure(self, error: BaseException) -> None:
        """A page failed: a bug."""
        log_bug("admin", error)

    def metrics(self) -> bytes:
        """Give its own metrics in the text exposition format."""
        return render(self._metrics.registry)
