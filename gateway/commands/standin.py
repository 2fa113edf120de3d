"""The embedded broker in the place of brokers whose `servers` are left out. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from gateway.brokers.base import Need
from gateway.config import GatewayConfig, LoadedConfig
from gateway.config.models import NatsConfig, RouteConfig, StreamConfig, TargetConfig

__all__ = ["dev_subjects", "stand_in", "subject_covers"]


def stand_in(
    loaded: LoadedConfig, url: str, ports: tuple[int, int], needs: dict[str, tuple[Need, ...]]
) -> LoadedConfig:
    """Give the config to run on a laptop: `url` for the missing servers, (ingress, admin) ports.

    A Kafka broker without `servers` becomes a NATS one, its topics subjects of the same name; a
    stream is added for what no stream of the config takes.
    """
    config = loaded.config
    missing = frozenset(name for name, broker in config.brokers.items() if not broker.servers)
    brokers = {
        name: _nats(name, broker, url, needs.get(name, ())) if name in missing else broker
        for name, broker in config.brokers.items()
    }
    port, admin_port = ports
    changed = config.model_copy(
        update={
            "server": config.server.model_copy(update={"host": "127.0.0.1", "port": port}),
            "admin": config.admin.model_copy(update={"host": "127.0.0.1", "port": admin_port}),
            "brokers": brokers,
            "routes": tuple(_route(route, missing) for route in config.routes),
            "delivery": config.delivery.model_copy(
                update={"dead_letter": _dead_letter(config, missing)}
            ),
        }
    )
    return dataclasses.replace(loaded, config=changed)


def dev_subjects(needs: Iterable[Need]) -> tuple[str, ...]:
    """Give stream subjects that take every destination, none overlapping another."""
    wanted: list[str] = []
    for need in needs:
        wanted.extend(_patterns(need))
    kept: list[str] = []
    for subject in dict.fromkeys(wanted):
        if any(subject_covers(other, subject) for other in wanted if other != subject):
            continue
        kept.append(subject)
    return tuple(kept)


def subject_covers(wide: str, narrow: str) -> bool:
    """Tell whether `wide` takes every subject that `narrow` takes; both may hold wildcards."""
    theirs = narrow.split(".")
    for at, part in enumerate(wide.split(".")):
        if part == ">":
            return len(theirs) > at
        if at >= len(theirs) or theirs[at] == ">" or part not in {"*", theirs[at]}:
            return False
    return len(theirs) == len(wide.split("."))


def _patterns(need: Need) -> list[str]:
    if not need.templated:
        return [need.destination]
    parent, dot, _ = need.destination.rpartition(".")
    # Without a dot only `>` would take everything, and that takes JetStream's own subjects too.
    return [f"{parent}.>"] if dot else ["*", "*.*"]


def _nats(name: str, broker: object, url: str, needs: Sequence[Need]) -> NatsConfig:
    own = broker if isinstance(broker, NatsConfig) else NatsConfig(kind="nats")
    taken = [subject for stream in own.streams for subject in stream.subjects]
    open_needs = [
        need
        for need in needs
        if not all(any(subject_covers(t, p) for t in taken) for p in _patterns(need))
    ]
    streams = own.streams
    if open_needs and own.jetstream:
        subjects = dev_subjects(open_needs)
        streams = (*streams, StreamConfig(name=f"DEV_{name}", subjects=subjects))
    return own.model_copy(update={"servers": (url,), "streams": streams})


def _route(route: RouteConfig, missing: frozenset[str]) -> RouteConfig:
    targets = tuple(_target(target, missing) for target in route.targets)
    return route.model_copy(update={"targets": targets})


def _target(target: TargetConfig, missing: frozenset[str]) -> TargetConfig:
    if target.broker not in missing or target.topic is None:
        return target
    return target.model_copy(update={"topic": None, "subject": target.topic})


def _dead_letter(config: GatewayConfig, missing: frozenset[str]) -> object:
    letter = config.delivery.dead_letter
    if letter is None or letter.broker not in missing or letter.topic is None:
        return letter
    return letter.model_copy(update={"topic": None, "subject": letter.topic})
