"""Named events: each gives its log line and its metric together, so that none can be forgotten.

Metrics are never sampled. A line that tells of trouble is a warning, limited per reason, with
the count of what was held back; the others are info, and `log.sample` may thin them.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

import msgspec
import structlog
from prometheus_client import Counter, Histogram

from gateway.brokers.base import State
from gateway.delivery.claims import UnsharedReason
from gateway.delivery.inbox.outcomes import Attempt, Setback
from gateway.delivery.inbox.store import InboxUnavailableError, Usage
from gateway.delivery.ledger import Ledger
from gateway.delivery.memory import EntryState
from gateway.delivery.settlement import Settlement
from gateway.delivery.shared import SharedLedger
from gateway.metadata import Metadata
from gateway.observability.limit import RateLimit
from gateway.observability.logs import EventLog, log_bug
from gateway.observability.metrics import Metrics

__all__ = ["Outcome", "Recorder"]

OutcomeName = Literal[
    "delivered", "stored", "duplicate", "unmatched", "dead_lettered", "rejected", "failed"
]
_WELL = frozenset({"delivered", "stored", "duplicate"})
_MAX_TYPES = 1000


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """How one request ended."""

    name: OutcomeName
    http_status: int
    """0 where the client was gone before an answer."""
    reason: str
    source: str
    """Empty where the path is no source's."""
    seconds: float
    """From the first byte to the answer."""
    svix_id: str = ""
    type: str | None = None
    settlements: tuple[Settlement, ...] = ()


class Recorder:
    """Counts and logs what happens; one per process."""

    def __init__(self, metrics: Metrics, sample: float = 1.0) -> None:
        """Take the share of well-ended events to log, 0 to 1."""
        self.metrics = metrics
        self._sample = sample
        self._log = structlog.get_logger()
        self._events_log = EventLog()
        self._limit = RateLimit()
        self._unmatched: set[str] = set()
        self._commits = 0

        # Bound children, because `labels()` costs more than the increment.
        @lru_cache(maxsize=4096)
        def events(source: str, outcome: str, reason: str) -> Counter:
            return metrics.events.labels(source, outcome, reason)

        @lru_cache(maxsize=4096)
        def settlements(routes: tuple[str, ...], broker: str, status: str, reason: str) -> Counter:
            return metrics.settlements.labels(",".join(routes), broker, status, reason)

        @lru_cache(maxsize=256)
        def seconds(source: str) -> Histogram:
            return metrics.event_seconds.labels(source)

        @lru_cache(maxsize=256)
        def attempts(broker: str, result: str) -> Counter:
            return metrics.inbox_attempts.labels(broker, result)

        self._events, self._settlements, self._seconds = events, settlements, seconds
        self._attempts = attempts

    def ended(self, outcome: Outcome, now: float) -> None:
        """A request ended; `now` is monotonic seconds, for the limit on warnings."""
        self._events(outcome.source, outcome.name, outcome.reason).inc()
        if outcome.name in _WELL:
            # A duplicate is an answer from memory, and says nothing of the brokers' time.
            if outcome.name != "duplicate":
                self._seconds(outcome.source).observe(outcome.seconds)
            if self._sample >= 1 or random.random() < self._sample:  # noqa: S311 - a sample, no secret
                self._events_log.write("info", _fields(outcome))
            return
        if outcome.name == "unmatched":
            self._unmatched_type(outcome)
            return
        held_back = self._limit.take(f"{outcome.name}/{outcome.reason}", now)
        if held_back is None:
            return
        fields = _fields(outcome)
        if held_back:
            fields["held_back"] = held_back
        self._events_log.write("warning", fields)

    def turned_away(self, http_status: int, reason: str, seconds: float, now: float) -> None:
        """A request ended before the ingress saw it: no HTTP, too slow, too large, no place."""
        name: OutcomeName = "failed" if http_status == 503 else "rejected"
        self.ended(Outcome(name, http_status, reason, "", seconds), now)

    def settled(self, settlement: Settlement) -> None:
        """One target of an event settled."""
        self._settlements(
            settlement.routes, settlement.broker, settlement.status, settlement.reason
        ).inc()
        self._note_unsure(settlement)

    def acked_late(self, settlement: Settlement) -> None:
        """A target acked after its event was answered as failed; the retry does not repeat it."""
        self.metrics.late_acks.labels(settlement.broker).inc()
        self._note_unsure(settlement)

    def _note_unsure(self, settlement: Settlement) -> None:
        if settlement.receipt is not None and settlement.receipt.unsure:
            self.metrics.unsure_acks.labels(settlement.broker).inc()

    def attempted(self, broker: str, attempt: Attempt) -> None:
        """A publish of what waits in the inbox ended."""
        self._attempts(broker, attempt).inc()

    def set_back(self, setback: Setback, metadata: Metadata, settlement: Settlement) -> None:
        """A target of an event in the inbox is tried again, dead-lettered, or parked."""
        if setback in {"parked", "parked_full"}:
            self.metrics.inbox_parked.labels("parked" if setback == "parked" else "full").inc()
        now = time.monotonic()
        held_back = self._limit.take(f"inbox {setback}/{settlement.reason}", now)
        if held_back is None:
            return
        fields: dict[str, object] = {"setback": setback, "reason": settlement.reason}
        fields |= {"svix_id": metadata.id, "type": metadata.type, "target": _target(settlement)}
        if held_back:
            fields["held_back"] = held_back
        self._log.warning("inbox", **fields)

    def inbox_failed(self, error: InboxUnavailableError) -> None:
        """The inbox's store could not be read or written for the dispatcher; it tries again."""
        held_back = self._limit.take(f"inbox store/{error.reason}", time.monotonic())
        if held_back is not None:
            self._log.warning("inbox store", error=str(error), held_back=held_back)

    def evicted(self, state: EntryState) -> None:
        """The ledger forgot an event early; of an incomplete one a retry may make a duplicate."""
        self.metrics.ledger.evicted.labels(state).inc()

    def unshared(self, reason: UnsharedReason) -> None:
        """A delivery went on of which the other processes do not know, or may not."""
        self.metrics.ledger.unshared.labels(reason).inc()

    def broker_state(self, broker: str, state: State) -> None:
        """A broker's state changed."""
        self.metrics.broker_up.labels(broker).set(state is State.UP)
        level = "warning" if state is State.DOWN else "info"
        getattr(self._log, level)("broker", broker=broker, state=state.value)

    def failure(self, where: str, error: BaseException) -> None:
        """Something failed that should not have: a bug, told by its class and place only."""
        log_bug(where, error)

    def tick(
        self,
        in_flight: Mapping[str, tuple[int, int]],
        ledger: Ledger | SharedLedger,
        now: float,
    ) -> None:
        """Once a second: set the gauges (records and bytes), and tell what the limit held back."""
        self.metrics.ledger.show(ledger.complete, ledger.incomplete, ledger.size)
        for broker, (records, size) in in_flight.items():
            self.metrics.in_flight.labels(broker).set(records)
            self.metrics.in_flight_bytes.labels(broker).set(size)
        for reason, held_back in self._limit.overdue(now):
            self._log.warning("events held back", reason=reason, held_back=held_back)

    def inbox_tick(self, usage: Usage, commits: int, oldest_age: float) -> None:
        """Once a second: set the gauges of the inbox. `commits` counts from the start."""
        metrics = self.metrics
        metrics.inbox_events.set(usage.events)
        metrics.inbox_bytes.set(usage.bytes)
        metrics.inbox_parked_events.set(usage.parked)
        metrics.inbox_parked_bytes.set(usage.parked_bytes)
        metrics.inbox_oldest.set(oldest_age)
        metrics.inbox_commits.inc(max(0, commits - self._commits))
        self._commits = commits

    def _unmatched_type(self, outcome: Outcome) -> None:
        """Tell of each type once, and once that there are more than can be remembered."""
        event_type = outcome.type or ""
        if event_type in self._unmatched or len(self._unmatched) > _MAX_TYPES:
            return
        self._unmatched.add(event_type)
        fields = _fields(outcome)
        if len(self._unmatched) > _MAX_TYPES:
            fields["note"] = f"more than {_MAX_TYPES} types: further ones are counted only"
        self._events_log.write("warning", fields)


def _fields(outcome: Outcome) -> dict[str, object]:
    fields: dict[str, object] = {
        "outcome": outcome.name,
        "status": outcome.http_status,
        "ms": round(outcome.seconds * 1000, 2),
    }
    if outcome.source:
        fields["source"] = outcome.source
    if outcome.reason:
        fields["reason"] = outcome.reason
    if outcome.svix_id:
        fields["svix_id"] = outcome.svix_id
        fields["type"] = outcome.type
    if outcome.settlements:
        fields["targets"] = [_target(settlement) for settlement in outcome.settlements]
    return fields


def _target(settlement: Settlement) -> str:
    """One word per target: `events/clerk.users[3]@42`, `bus/clerk.user.created#7`, or why not."""
    place = f"{settlement.broker}/{settlement.destination}"
    receipt = settlement.receipt
    if receipt is None:
        why = settlement.detail or settlement.reason
        return f"{place} {settlement.status}" + (f": {why}" if why else "")
    if receipt.offset is not None:
        return f"{place}[{receipt.partition}]@{receipt.offset}"
    if receipt.seq is not None:
        return f"{place}#{receipt.seq}"
    return place
