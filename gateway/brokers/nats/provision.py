"""Create the streams that the config asks for when they are missing."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from gateway.brokers.nats.errors import ConnectionLost
from gateway.brokers.nats.jetstream import ApiRefused, Requests

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.config.models import StreamConfig

log = logging.getLogger("gateway.brokers")

_WITHIN = 5.0
_NANOSECONDS = 1_000_000_000


class Provisioner:
    """Sees to it that the configured streams exist. One that exists is left as it is."""

    def __init__(self, broker: str, streams: Sequence[StreamConfig]) -> None:
        self._broker = broker
        self._streams = streams
        self._problem = ""

    async def run(self, requests: Requests) -> bool:
        """Create what is missing, within seconds; returns whether all streams are there.

        A failure is logged when its cause changes: the gateway goes on without, because the
        stream may still be created by hand.
        """
        for stream in self._streams:
            try:
                # Asked first: creating one that exists with other settings is an error.
                if await requests.stream(stream.name, _WITHIN) is None:
                    await requests.create_stream(stream_settings(stream), _WITHIN)
                    log.info("nats broker %s: created stream %s", self._broker, stream.name)
            except (ApiRefused, ConnectionLost) as error:
                self._report(stream.name, error)
                return False
        self._problem = ""
        return True

    def _report(self, stream: str, error: ApiRefused | ConnectionLost) -> None:
        why = error.error.description if isinstance(error, ApiRefused) else error.problem
        problem = f"could not create stream {stream}: {why}"
        if problem != self._problem:
            log.warning("nats broker %s: %s", self._broker, problem)
        self._problem = problem


def stream_settings(stream: StreamConfig) -> dict[str, Any]:
    """The body of STREAM.CREATE: limits retention, the oldest records go when it is full.

    The duplicate window is cut to `max_age`, which JetStream demands.
    """
    window = stream.duplicate_window
    if stream.max_age is not None:
        window = min(window, stream.max_age)
    return {
        "name": stream.name,
        "subjects": list(stream.subjects),
        "storage": stream.storage,
        "num_replicas": stream.replicas,
        "retention": "limits",
        "discard": "old",
        "max_age": int((stream.max_age or 0) * _NANOSECONDS),
        "max_bytes": -1 if stream.max_bytes is None else stream.max_bytes,
        "max_msgs": -1,
        "max_consumers": -1,
        "duplicate_window": int(window * _NANOSECONDS),
    }
