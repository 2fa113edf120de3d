"""Whether the gateway should get traffic: a pure rule over what each process reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from gateway.brokers.base import State
from gateway.delivery.inbox.store import Writable

__all__ = ["CURRENT", "ConfigHealth", "ProcessHealth", "readiness"]


class ProcessHealth(msgspec.Struct, frozen=True):
    """What one process that serves webhooks says of itself."""

    phase: Literal["loading", "ready", "draining"]
    brokers: dict[str, State]
    """State by broker name."""
    routes: dict[str, tuple[str, ...]]
    """The brokers each route needs, by route name."""
    replacing: tuple[str, ...] = ()
    """Brokers whose new client is not up yet, while it is served as before."""
    inbox: Writable | None = None
    """Whether the inbox takes events; None in direct mode."""
    generation: int = 1
    """Which config it serves by; see `Blueprint`."""


class ConfigHealth(msgspec.Struct, frozen=True):
    """How what is served stands to what is in the files. Holds no value of a file."""

    state: Literal["current", "stale", "needs_restart"]
    """`stale`: what the files hold now cannot be used. `needs_restart`: a part of it only then."""
    needs_restart: tuple[str, ...] = ()
    """Sections that changed and wait for the next start."""
    problems: int = 0
    """How many there are where it is stale."""
    first: str = ""
    """Where the first one is: `file:line:col`, or the file alone; empty for what is elsewhere."""


CURRENT = ConfigHealth("current")


def readiness(
    processes: Sequence[ProcessHealth], config: ConfigHealth = CURRENT
) -> tuple[int, Mapping[str, Any]]:
    """Give the HTTP status and body of `/readyz`. A stale config serves as well as before.

    503 while loading or draining, when the inbox takes no writes, and without an inbox when no
    route could be delivered. Otherwise 200, with `degraded` where a broker is not up: one team's
    broker must not take the others' traffic away.
    """
    phases = {process.phase for process in processes} or {"loading"}
    brokers = _worst(processes)
    broken = sorted(name for name, state in brokers.items() if state is not State.UP)
    body: dict[str, Any] = {
        "brokers": {name: str(state) for name, state in brokers.items()},
        **_config(processes, config),
    }
    if replacing := {name for process in processes for name in process.replacing}:
        body["replacing"] = sorted(replacing)
    if "draining" in phases:
        return 503, {"status": "draining", **body}
    if "ready" not in phases:
        return 503, {"status": "loading", **body}
    inboxes = [process.inbox for process in processes if process.inbox is not None]
    for writable, status in ((Writable.NO, "inbox_unavailable"), (Writable.FULL, "inbox_full")):
        if writable in inboxes:
            return 503, {"status": status, "broken": broken, **body}
    # What waits in an inbox is accepted whatever the brokers do.
    serving = [process for process in processes if process.phase == "ready"]
    if not inboxes and not any(map(_deliverable, serving)):
        return 503, {"status": "undeliverable", "broken": broken, **body}
    if broken:
        return 200, {"status": "degraded", "broken": broken, **body}
    return 200, {"status": "ready", **body}


def _config(processes: Sequence[ProcessHealth], config: ConfigHealth) -> dict[str, Any]:
    """Say what is served; the generation is the oldest one by which some process serves still."""
    body: dict[str, Any] = {"config": config.state}
    if processes:
        body["generation"] = min(process.generation for process in processes)
    if config.state == "stale":
        place = {"first": config.first} if config.first else {}
        body["problems"] = {"count": config.problems, **place}
    if config.needs_restart:
        body["needs_restart"] = list(config.needs_restart)
    return body


def _deliverable(process: ProcessHealth) -> bool:
    """Tell whether some route has all its brokers up; without routes there is nothing to fail."""
    if not process.routes:
        return True
    return any(
        all(process.brokers.get(name) is State.UP for name in needed)
        for needed in process.routes.values()
    )


def _worst(processes: Sequence[ProcessHealth]) -> dict[str, State]:
    order = (State.UP, State.CONNECTING, State.DOWN)
    worst: dict[str, State] = {}
    for process in processes:
        for name, state in process.brokers.items():
            worst[name] = max(state, worst.get(name, State.UP), key=order.index)
    return worst
