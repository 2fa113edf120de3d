"""Creates the streams of the inbox where they are missing, and refuses what is not ours."""

from __future__ import annotations

import logging
import time
from typing import Any

import msgspec

from gateway.brokers.nats.jetstream import ApiRefused, Requests
from gateway.delivery.inbox.jetstream.layout import (
    Layout,
    StreamSettings,
    differing,
    foreign,
    partitions_of,
)
from gateway.delivery.inbox.jetstream.questions import WITHIN, look, subjects, update
from gateway.delivery.inbox.store import Bounds, InboxUnusableError

__all__ = ["NEEDED_VERSION", "provision", "streams_of"]

log = logging.getLogger("gateway.delivery")

NEEDED_VERSION = (2, 10)
"""The first server that keeps metadata of streams, and consumers with several filters."""

_REPLICAS = (3, 2, 1)
_FEWER = {10005, 10023, 10047, 10074}
"""No suitable peers; insufficient resources, or storage: a server that is alone counts what three
replicas would take before it says that they need a cluster; replicas need a cluster."""
_NAME_IN_USE = 10058
_OVERLAP = 10065
_NUMBERS_A_SECOND = 1000


async def provision(
    requests: Requests, layout: Layout, bounds: Bounds, *, create: bool
) -> tuple[Layout, int]:
    """See to it that the streams are there; give the layout they have, and their replicas.

    Raises `ConnectionLost`, `ApiRefused` and `InboxUnusableError`.
    """
    layout, there = await streams_of(requests, layout, bounds)
    replicas = 0
    for settings in layout.settings(bounds, 1):
        found = there.get(settings["name"])
        if found is None and not create:
            problem = "there is no such stream"
            remedy = "it is created by a gateway in inbox mode; check delivery.inbox.stream"
            raise InboxUnusableError(f"stream {settings['name']}", problem, remedy)
        if found is None:
            if settings["name"] == layout.stream:
                settings["first_seq"] = await _first_number(requests, layout)
            replicas = await _create(requests, settings)
            continue
        replicas = found.num_replicas
        changed = differing(found, settings)
        if create and changed:
            await update(requests, found.name, changed)
            log.info("inbox: stream %s has new bounds: %s", found.name, changed)
    return layout, replicas


async def streams_of(
    requests: Requests, layout: Layout, bounds: Bounds
) -> tuple[Layout, dict[str, StreamSettings]]:
    """The streams of the inbox that exist, by name, and the layout that they have.

    Raises as `provision` does, also for a stream that exists and is not the inbox's.
    """
    there: dict[str, StreamSettings] = {}
    for settings in reversed(layout.settings(bounds, 1)):
        name = settings["name"]
        found = await look(requests, name)
        if found is None or found.config is None:
            continue
        problem = foreign(found.config, settings)
        if problem:
            remedy = "it is left as it is; set delivery.inbox.stream to another name, or mend it"
            raise InboxUnusableError(f"stream {name}", problem, remedy)
        there[name] = found.config
    partitions = {partitions_of(one) for one in there.values()} or {layout.partitions}
    if len(partitions) > 1:
        problem = "its streams have different numbers of partitions"
        remedy = f"remove {layout.state} if nothing waits in {layout.stream}"
        raise InboxUnusableError(f"stream {layout.stream}", problem, remedy)
    return msgspec.structs.replace(layout, partitions=partitions.pop()), there


async def _first_number(requests: Requests, layout: Layout) -> int:
    """Give the first number of a stream of what waits: one that no record has had before.

    The stream may have been deleted, and what is parked and settled is kept by number beside it;
    replicas that run have numbers in memory. So it counts on from the time, and from what is kept.
    """
    first = int(time.time() * _NUMBERS_A_SECOND)
    kept = ((layout.parked, layout.parked_in()), (layout.state, layout.progress_in()))
    for stream, pattern in kept:
        for subject in await subjects(requests, stream, pattern):
            first = max(first, layout.mark_of(subject).ref + 1)
    return first


async def _create(requests: Requests, settings: dict[str, Any]) -> int:
    """Create a stream with as many replicas as the cluster has, three at the most."""
    for replicas in _REPLICAS:
        try:
            wanted = settings | {"num_replicas": replicas}
            await requests.create_stream(wanted, WITHIN)
        except ApiRefused as refused:
            code = refused.error.err_code
            if code == _OVERLAP:
                problem = f"another stream takes {' or '.join(settings['subjects'])}"
                remedy = "set delivery.inbox.stream to another name, or mend that stream"
                where = f"stream {settings['name']}"
                raise InboxUnusableError(where, problem, remedy) from refused
            if code == _NAME_IN_USE:
                # Another replica was quicker, with other bounds.
                found = await look(requests, settings["name"])
                if found is not None and found.config is not None:
                    return found.config.num_replicas
            if code not in _FEWER or replicas == 1:
                raise
        else:
            log.info("inbox: created stream %s with %d replicas", settings["name"], replicas)
            return replicas
    raise AssertionError("the last attempt returns or raises")
