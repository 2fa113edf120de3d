"""The embedded broker in the place of brokers whose `servers` are left out. Pure.

All of them share one nats-server, so what they store must not overlap: the topics of a Kafka
broker go below a subject of its own, and NATS brokers share one stream for what the config's own
streams do not take.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from gateway.brokers.base import Need
from gateway.brokers.nats.subjects import covers
from gateway.clerk.catalogue import ALSO_SEEN, CATALOGUE
from gateway.config import GatewayConfig, LoadedConfig
from gateway.config.models import (
    BrokerConfig,
    DeadLetterConfig,
    NatsConfig,
    RouteConfig,
    StreamConfig,
    TargetConfig,
)

__all__ = ["PREFIX", "dev_streams", "dev_subjects", "stand_in"]

PREFIX = "DEV_"
"""What the names of the stand-in's own streams begin with."""

_ENTITIES = sorted({known.entity for known in (*CATALOGUE.values(), *ALSO_SEEN.values())})


def stand_in(
    loaded: LoadedConfig, url: str, ports: tuple[int, int], needs: Mapping[str, Sequence[Need]]
) -> LoadedConfig:
    """Give the config to run on a laptop: `url` for the missing servers, (ingress, admin) ports.

    A Kafka broker without `servers` becomes a NATS one, its topic `users` the subject
    `kafka.<broker>.users`. A stream is added for what no stream of the config takes.
    """
    config = loaded.config
    missing = {name: broker for name, broker in config.brokers.items() if not broker.servers}
    kafka = frozenset(name for name, broker in missing.items() if broker.kind == "kafka")
    port, admin_port = ports
    changed = config.model_copy(
        update={
            "server": config.server.model_copy(update={"host": "127.0.0.1", "port": port}),
            "admin": config.admin.model_copy(update={"host": "127.0.0.1", "port": admin_port}),
            "brokers": {**config.brokers, **_brokers(missing, url, needs)},
            "routes": tuple(_route(route, kafka) for route in config.routes),
            "delivery": config.delivery.model_copy(
                update={"dead_letter": _dead_letter(config, kafka)}
            ),
        }
    )
    return dataclasses.replace(loaded, config=changed)


def dev_streams(config: GatewayConfig) -> dict[str, tuple[str, ...]]:
    """Give the subjects of each stream that `stand_in` has added."""
    return {
        stream.name: stream.subjects
        for broker in config.brokers.values()
        if isinstance(broker, NatsConfig)
        for stream in broker.streams
        if stream.name.startswith(PREFIX)
    }


def dev_subjects(needs: Iterable[Need]) -> tuple[str, ...]:
    """Give stream subjects that take every destination, none overlapping another."""
    wanted = dict.fromkeys(pattern for need in needs for pattern in _patterns(need))
    return tuple(
        subject
        for subject in wanted
        if not any(covers(other, subject) for other in wanted if other != subject)
    )


def _patterns(need: Need) -> list[str]:
    if not need.templated:
        return [need.destination]
    parent, dot, beginning = need.destination.rpartition(".")
    if dot:
        return [f"{parent}.>"]
    # No wildcard stands for a part of a token, and `>` or `*.*` would take JetStream's own
    # subjects too. What a placeholder yields has no dot, unless it is the type of an event.
    return ["*", *(f"{beginning}{entity}.*" for entity in _ENTITIES)]


def _brokers(
    missing: Mapping[str, BrokerConfig], url: str, needs: Mapping[str, Sequence[Need]]
) -> dict[str, NatsConfig]:
    kafka = {
        name: NatsConfig(
            kind="nats",
            servers=(url,),
            streams=(StreamConfig(name=f"{PREFIX}{name}", subjects=(_subject(name, ">"),)),),
        )
        for name, broker in missing.items()
        if broker.kind == "kafka"
    }
    nats = {
        name: broker.model_copy(update={"servers": (url,)})
        for name, broker in missing.items()
        if isinstance(broker, NatsConfig)
    }
    stored = [name for name, broker in nats.items() if broker.jetstream]
    taken = [s for name in stored for stream in nats[name].streams for s in stream.subjects]
    wanted = (need for name in stored for need in needs.get(name, ()))
    if subjects := dev_subjects(need for need in wanted if not _is_taken(need, taken)):
        own = nats[stored[0]]
        streams = (*own.streams, StreamConfig(name=f"{PREFIX}{stored[0]}", subjects=subjects))
        nats[stored[0]] = own.model_copy(update={"streams": streams})
    return kafka | nats


def _is_taken(need: Need, taken: Sequence[str]) -> bool:
    return all(any(covers(wide, one) for wide in taken) for one in _patterns(need))


def _subject(broker: str, topic: str) -> str:
    return f"kafka.{broker}.{topic}"


def _route(route: RouteConfig, kafka: frozenset[str]) -> RouteConfig:
    targets = tuple(_target(target, kafka) for target in route.targets)
    return route.model_copy(update={"targets": targets})


def _target(target: TargetConfig, kafka: frozenset[str]) -> TargetConfig:
    if target.broker not in kafka or target.topic is None:
        return target
    subject = _subject(target.broker, target.topic)
    return target.model_copy(update={"topic": None, "subject": subject})


def _dead_letter(config: GatewayConfig, kafka: frozenset[str]) -> DeadLetterConfig | None:
    letter = config.delivery.dead_letter
    if letter is None or letter.broker not in kafka or letter.topic is None:
        return letter
    subject = _subject(letter.broker, letter.topic)
    return letter.model_copy(update={"topic": None, "subject": subject})
