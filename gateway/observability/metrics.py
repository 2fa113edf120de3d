"""The metrics, in Prometheus' conventions; labels hold config names and bounded words only."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

__all__ = ["AdminMetrics", "ConfigMetrics", "Metrics", "render", "render_shared"]

# The `_created` series double what is scraped, and nothing here is read from them.
disable_created_metrics()  # type: ignore[no-untyped-call]  # untyped library

_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15)


class Metrics:
    """All instruments of one process.

    With several workers prometheus-client keeps each one's values in files
    (`PROMETHEUS_MULTIPROC_DIR`), and the process that answers `/metrics` adds them up.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.events = Counter(
            "gateway_events",
            "Requests by how they ended; every request is counted once.",
            ("source", "outcome", "reason"),
            registry=self.registry,
        )
        self.settlements = Counter(
            "gateway_settlements",
            "Targets of accepted events by how they ended, for each that had to be served.",
            ("route", "broker", "status", "reason"),
            registry=self.registry,
        )
        self.late_acks = Counter(
            "gateway_late_acks",
            "Acks that came after the event was answered as failed; no retry repeats them.",
            ("broker",),
            registry=self.registry,
        )
        self.event_seconds = Histogram(
            "gateway_event_seconds",
            "From a request's first byte to the answer of an event that every target acked.",
            ("source",),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.connections = Gauge(
            "gateway_connections",
            "Connections that are open on the webhook port.",
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self._declare_ledger()
        self._declare_inbox()
        self._declare_brokers()

    def _declare_ledger(self) -> None:
        self.ledger_events = Gauge(
            "gateway_ledger_events",
            "Events that the ledger remembers.",
            ("state",),
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self.ledger_bytes = Gauge(
            "gateway_ledger_bytes",
            "Bytes that the ledger takes, as estimated.",
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self.ledger_evicted = Counter(
            "gateway_ledger_evicted",
            "Events that the ledger had to forget early, because it was full.",
            ("state",),
            registry=self.registry,
        )
        # There from the start, so that an increase from nothing is an increase.
        for state in ("complete", "incomplete"):
            self.ledger_evicted.labels(state)

    def _declare_inbox(self) -> None:
        self.inbox_events = self._inbox_gauge("events", "Events that wait in the inbox.")
        self.inbox_bytes = self._inbox_gauge("bytes", "Bytes that they take in its store.")
        self.inbox_parked_events = self._inbox_gauge(
            "parked_events", "Targets of events that are set aside for an operator."
        )
        self.inbox_parked_bytes = self._inbox_gauge(
            "parked_bytes", "Bytes that they take in its store."
        )
        self.inbox_oldest = self._inbox_gauge(
            "oldest_seconds", "Age of the oldest event that waits in the inbox.", "livemax"
        )
        self.inbox_commits = Counter(
            "gateway_inbox_commits",
            "How often the inbox's store made durable what was written: for SQLite, fsyncs.",
            registry=self.registry,
        )
        self.inbox_attempts = Counter(
            "gateway_inbox_attempts",
            "Publishes of what waits in the inbox, dead letters included, by how they ended.",
            ("broker", "result"),
            registry=self.registry,
        )
        self.inbox_parked = Counter(
            "gateway_inbox_parked",
            "Targets that were to be set aside: parked, or no room for it was left.",
            ("result",),
            registry=self.registry,
        )
        # There from the start, so that an increase from nothing is an increase.
        for result in ("parked", "full"):
            self.inbox_parked.labels(result)

    def _inbox_gauge(
        self, name: str, description: str, mode: Literal["livesum", "livemax"] = "livesum"
    ) -> Gauge:
        return Gauge(
            f"gateway_inbox_{name}", description, multiprocess_mode=mode, registry=self.registry
        )

    def _declare_brokers(self) -> None:
        self.broker_up = Gauge(
            "gateway_broker_up",
            "1 while a publish to the broker could succeed; over several workers the least.",
            ("broker",),
            multiprocess_mode="livemin",
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "gateway_broker_in_flight_records",
            "Records published and not yet acked.",
            ("broker",),
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self.in_flight_bytes = Gauge(
            "gateway_broker_in_flight_bytes",
            "Bytes of the records published and not yet acked.",
            ("broker",),
            multiprocess_mode="livesum",
            registry=self.registry,
        )


class AdminMetrics:
    """The instruments of the admin port.

    They are values of the one process that has the port, and in no files, with workers too.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.refusals = Counter(
            "gateway_admin_refusals",
            "Requests that the admin port refused.",
            ("reason",),
            registry=self.registry,
        )


class ConfigMetrics:
    """The instruments of what a process tree has once, with any number of workers: its config."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reloads = Counter(
            "gateway_config_reloads",
            "Changes of what the config is read from, by what became of them.",
            ("outcome",),
            registry=self.registry,
        )
        self.stale = Gauge(
            "gateway_config_stale",
            "1 while what the config is read from cannot be used, and the last good one serves.",
            registry=self.registry,
        )
        # There from the start, so that an increase from nothing is an increase.
        for outcome in ("applied", "refused"):
            self.reloads.labels(outcome)


def render(registry: CollectorRegistry) -> bytes:
    """Give one process's metrics in the text exposition format."""
    return generate_latest(registry)


def render_shared(directory: Path) -> bytes:
    """Give the metrics of all processes that keep theirs in `directory`, added up."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(directory))  # type: ignore[no-untyped-call]  # untyped library
    return generate_latest(registry)
