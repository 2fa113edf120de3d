"""The consumer that reads topics back: of no group, so that it leaves nothing behind."""

from __future__ import annotations

from aiokafka import AIOKafkaConsumer

from gateway.brokers.kafka.options import CLIENT_ID, ClientOptions

__all__ = ["reader"]

_REQUEST_TIMEOUT_MS = 10_000


def reader(options: ClientOptions) -> AIOKafkaConsumer:
    """Give a consumer, not started; who reads assigns partitions and sets where each begins."""
    return AIOKafkaConsumer(
        bootstrap_servers=[f"{host}:{port}" for host, port in options.servers],
        client_id=CLIENT_ID,
        group_id=None,
        # Only for an offset that retention has removed meanwhile; starts are set by hand.
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        request_timeout_ms=_REQUEST_TIMEOUT_MS,
        **options.login(),
    )
