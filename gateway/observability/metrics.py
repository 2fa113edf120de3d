"""The metrics, in Prometheus' conventions; labels hold config names and bounded words only."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Literal, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from gateway.delivery.claims import UnsharedReason

__all__ = ["AdminMetrics", "ConfigMetrics", "LedgerMetrics", "Metrics", "render", "render_shared"]

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
        self.unsure_acks = Counter(
            "gateway_unsure_acks",
            "Acks of records of which an earlier attempt had no answer: they may be there twice.",
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
        self.ledger = LedgerMetrics(self.registry)
        self._declare_inbox()
        self._declare_brokers()

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


class LedgerMetrics:
    """The instruments of the ledger, of a process that delivers or of one that keeps the book."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        self._events = Gauge(
            "gateway_ledger_events",
            "Events that the ledger remembers.",
            ("state",),
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self._bytes = Gauge(
            "gateway_ledger_bytes",
            "Bytes that the ledger takes, as estimated.",
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self.evicted = Counter(
            "gateway_ledger_evicted",
            "Events that the ledger had to forget early, because it was full.",
            ("state",),
            registry=self.registry,
        )
        self.unshared = Counter(
            "gateway_ledger_unshared",
            "Deliveries of which the other processes may not know, by why.",
            ("reason",),
            registry=self.registry,
        )
        # There from the start, so that an increase from nothing is an increase.
        for state in ("complete", "incomplete"):
            self.evicted.labels(state)
        for reason in get_args(UnsharedReason):
            self.unshared.labels(reason)

    def show(self, complete: int, incomplete: int, size: int) -> None:
        """Set the gauges; `size` is bytes."""
        self._events.labels("complete").set(complete)
        self._events.labels("incomplete").set(incomplete)
        self._bytes.set(size)


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
        self.needs_restart = Gauge(
            "gateway_config_needs_restart",
            "1 while a part of what the config is read from waits for the next start.",
            registry=self.registry,
        )
        self.generation = Gauge(
            "gateway_config_generation",
            "The config that serves: 1 is that of the start, and each reload adds one.",
            registry=self.registry,
        )
        self.last_success = Gauge(
            "gateway_config_last_reload_success_timestamp_seconds",
            "When the config that serves was loaded, in Unix seconds.",
            registry=self.registry,
        )
        # There from the start, so that an increase from nothing is an increase.
        for outcome in ("applied", "refused"):
            self.reloads.labels(outcome)

    def applied(self, generation: int, now: float) -> None:
        """A config serves from `now` on, in Unix seconds."""
        self.generation.set(generation)
        self.last_success.set(now)

    def show(self, *, stale: bool, needs_restart: bool) -> None:
        """Set how what is served stands to what is in the files."""
        self.stale.set(stale)
        self.needs_restart.set(needs_restart)


def render(registry: CollectorRegistry, brokers: Collection[str] | None = None) -> bytes:
    """Give one process's metrics in the text exposition format.

    `brokers` are those that the config has now: a gauge of another one shows what was.
    """
    if brokers is None:
        return generate_latest(registry)
    present = CollectorRegistry()
    present.register(_Present(registry, brokers))
    return generate_latest(present)


def render_shared(
    directory: Path, own: CollectorRegistry, brokers: Collection[str] | None = None
) -> bytes:
    """Give the metrics of all processes that keep theirs in `directory`, and `own`, added up.

    For `brokers` see `render`.
    """
    shared = CollectorRegistry()
    MultiProcessCollector(shared, str(directory))  # type: ignore[no-untyped-call]  # untyped library
    registry = CollectorRegistry()
    registry.register(_Sum(shared, own))
    return render(registry, brokers)


class _Present(Collector):
    """A registry without the gauges of brokers that a reload took away.

    They cannot be removed where they are: with several workers they are in files.
    """

    def __init__(self, registry: CollectorRegistry, brokers: Collection[str]) -> None:
        self._registry = registry
        self._brokers = brokers

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            if family.type == "gauge" and family.name.startswith("gateway_broker_"):
                family.samples = [
                    one for one in family.samples if one.labels["broker"] in self._brokers
                ]
            yield family


class _Sum(Collector):
    """The families of several registries; what has the same name and labels is added up."""

    def __init__(self, *registries: CollectorRegistry) -> None:
        self._registries = registries

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for registry in self._registries:
            for family in registry.collect():
                known = families.setdefault(family.name, family)
                if known is not family:
                    known.samples = _added(known.samples, family.samples)
        yield from families.values()


def _added(some: list[Sample], others: list[Sample]) -> list[Sample]:
    added: dict[object, Sample] = {}
    for sample in (*some, *others):
        key = sample.name, frozenset(sample.labels.items())
        before = added.get(key)
        value = sample.value + (0.0 if before is None else before.value)
        added[key] = sample._replace(value=value)
    return list(added.values())
