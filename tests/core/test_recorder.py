"""What the recorder counts of a settlement."""

from __future__ import annotations

import pytest

from gateway.brokers.base import Receipt
from gateway.delivery.settlement import Settlement
from gateway.observability.metrics import Metrics
from gateway.observability.record import Recorder


@pytest.mark.parametrize(
    ("receipt", "counted"),
    [(Receipt("t", 0, 7, unsure=True), 1.0), (Receipt("t", 0, 7), None), (None, None)],
)
def test_an_ack_of_what_may_be_there_twice_is_counted(
    receipt: Receipt | None, counted: float | None
) -> None:
    settlement = Settlement(("users",), "events", "t", "delivered", receipt=receipt)
    labels = {"broker": "events"}
    recorder = Recorder(Metrics())
    recorder.settled(settlement)
    registry = recorder.metrics.registry
    assert registry.get_sample_value("gateway_unsure_acks_total", labels) == counted
    late = Recorder(Metrics())
    late.acked_late(settlement)
    assert late.metrics.registry.get_sample_value("gateway_unsure_acks_total", labels) == counted
