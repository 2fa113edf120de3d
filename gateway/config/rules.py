"""Cross checks: what each field cannot know by itself. Pure: a config in, findings out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from gateway.address import parse_address
from gateway.config.address_rules import check_addresses
from gateway.config.findings import Finding, View
from gateway.config.inbox_rules import check_inbox
from gateway.config.misplaced import misplaced_secrets
from gateway.config.models import (
    BrokerConfig,
    DeadLetterConfig,
    GatewayConfig,
    KafkaConfig,
    NatsConfig,
    TlsConfig,
)
from gateway.config.problems import DocumentPath
from gateway.config.route_rules import check_routes
from gateway.config.target_rules import broker_findings, check_targets, unknown_broker
from gateway.config.units import format_duration
from gateway.destinations import literal_beginning, subject_problem, topic_problem

__all__ = ["check"]

_HOST: Final = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)"
_KAFKA_SERVER: Final = re.compile(rf"{_HOST}(:[0-9]{{1,5}})?")
_NATS_SERVER: Final = re.compile(rf"((nats|tls|ws|wss)://)?{_HOST}(:[0-9]{{1,5}})?(/[!-~]*)?")

_SVIX_PATIENCE: Final = 14.0
"""Seconds. Svix gives up at 15."""


def check(config: GatewayConfig, view: View) -> Iterator[Finding]:
    """Yield everything that is wrong or doubtful, in no order."""
    yield from _server(config)
    yield from _admin(config)
    yield from _sources(config, view)
    yield from check_addresses(config, view)
    for name, broker in config.brokers.items():
        yield from _broker(("brokers", name), broker, view)
        yield from _in_flight(("brokers", name, "max_in_flight"), config, broker.max_in_flight)
    if not config.brokers:
        yield Finding(("brokers",), "no broker; add one of kind kafka or nats")
    yield from check_routes(config, view)
    yield from check_targets(config, view)
    yield from _delivery(config, view)
    yield from misplaced_secrets(config)


def _server(config: GatewayConfig) -> Iterator[Finding]:
    server = config.server
    deadline = format_duration(server.deadline)
    if server.deadline > _SVIX_PATIENCE:
        yield Finding(
            ("server", "deadline"),
            f"deadline: {deadline} is longer than Svix waits (15s), so it would retry what is"
            " still being delivered; write at most 14s",
            "warning",
        )
    for field in ("header_timeout", "body_timeout"):
        timeout: float = getattr(server, field)
        if timeout > server.deadline:
            yield Finding(
                ("server", field),
                f"{field}: {format_duration(timeout)} is longer than the deadline of {deadline},"
                " which ends the request first; write less",
                "warning",
                uses=(("server", "deadline"),),
            )


def _admin(config: GatewayConfig) -> Iterator[Finding]:
    admin = config.admin
    if not _is_loopback(admin.host) and not admin.token.get_secret_value():
        yield Finding(
            ("admin", "host"),
            "host: the admin port is open to other machines only with a token; set admin.token,"
            " or write 127.0.0.1",
            uses=(("admin", "token"),),
        )
    if admin.port and admin.port == config.server.port:
        yield Finding(
            ("admin", "port"),
            "port: server.port is the same; the ingress port serves webhooks and nothing else,"
            " write another",
            uses=(("server", "port"),),
        )


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    address = parse_address(host)
    return address is not None and address.is_loopback


def _sources(config: GatewayConfig, view: View) -> Iterator[Finding]:
    if not config.sources:
        yield Finding(("sources",), "no source; add one with the signing secret of its endpoint")
    first: dict[str, str] = {}
    for name, source in config.sources.items():
        path = ("sources", name, "path")
        other = first.setdefault(source.path, name)
        if other != name:
            where = view.where(("sources", other, "path"))
            yield Finding(
                path,
                f"path: the source {other} has the same one ({where}); give each its own",
                uses=(("sources", other, "path"),),
            )


def _broker(path: DocumentPath, broker: BrokerConfig, view: View) -> Iterator[Finding]:
    if not broker.servers and not view.allow_missing_servers:
        example = "localhost:9092" if broker.kind == "kafka" else "nats://localhost:4222"
        yield Finding(
            (*path, "servers"), f'servers: none; write servers: ["{example}"]', uses=(path,)
        )
    if broker.tls is not None:
        yield from _tls((*path, "tls"), broker.tls)
    if broker.kind == "kafka":
        yield from _kafka(path, broker)
    else:
        yield from _nats(path, broker, view)


def _in_flight(path: DocumentPath, config: GatewayConfig, max_in_flight: int) -> Iterator[Finding]:
    most = config.server.max_connections
    if config.delivery.mode == "direct" and max_in_flight >= most:
        yield Finding(
            path,
            f"max_in_flight: {max_in_flight} events that wait for a slow broker would hold every"
            f" connection there may be (server.max_connections: {most}), also those of routes that"
            " do not use it; write less",
            "warning",
            uses=(("server", "max_connections"),),
        )


def _tls(path: DocumentPath, tls: TlsConfig) -> Iterator[Finding]:
    if tls.cert_file is not None and tls.key_file is None:
        yield Finding((*path, "cert_file"), "cert_file: needs its key; add key_file", uses=(path,))
    if tls.key_file is not None and tls.cert_file is None:
        yield Finding(
            (*path, "key_file"), "key_file: needs its certificate; add cert_file", uses=(path,)
        )


def _kafka(path: DocumentPath, broker: KafkaConfig) -> Iterator[Finding]:
    for at, server in enumerate(broker.servers):
        if not _KAFKA_SERVER.fullmatch(server):
            yield Finding(
                (*path, "servers", at),
                f"servers[{at}]: Kafka takes host:port, without a scheme, one in each entry",
            )


def _nats(path: DocumentPath, broker: NatsConfig, view: View) -> Iterator[Finding]:
    for at, server in enumerate(broker.servers):
        if "@" in server:
            yield Finding(
                (*path, "servers", at),
                f"servers[{at}]: a login in a URL ends up in logs; use username and password, or"
                " token",
            )
        elif not _NATS_SERVER.fullmatch(server):
            yield Finding(
                (*path, "servers", at),
                f"servers[{at}]: NATS takes nats://host:port, tls://, ws:// or wss://, one in each"
                " entry",
            )
    yield from _nats_login(path, broker)
    if broker.streams and not broker.jetstream:
        yield Finding(
            (*path, "streams"),
            "streams: need jetstream: true, core NATS has no streams",
            uses=((*path, "jetstream"),),
        )
    yield from _streams((*path, "streams"), broker, view)


def _nats_login(path: DocumentPath, broker: NatsConfig) -> Iterator[Finding]:
    ways = [
        field
        for field in ("credentials_file", "nkey_seed_file", "token", "username")
        if getattr(broker, field) is not None
    ]
    for field in ways[1:]:
        yield Finding(
            (*path, field),
            f"{field}: {ways[0]} is set as well; log in one way and remove the other",
            uses=((*path, ways[0]),),
        )
    if broker.username is not None and broker.password is None:
        yield Finding(
            (*path, "username"), "username: needs its password; add password", uses=(path,)
        )
    if broker.password is not None and broker.username is None:
        yield Finding((*path, "password"), "password: needs its user; add username", uses=(path,))


def _streams(path: DocumentPath, broker: NatsConfig, view: View) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for at, stream in enumerate(broker.streams):
        here = (*path, at)
        other = first.setdefault(stream.name, at)
        if other != at:
            where = view.where((*path, other, "name"))
            yield Finding(
                (*here, "name"),
                f"name: another stream is called {view.show((*here, 'name'), stream.name)}"
                f" ({where}); put the subjects in one",
                uses=((*path, other, "name"),),
            )
        if stream.max_age is not None and stream.duplicate_window > stream.max_age:
            yield Finding(
                (*here, "max_age"),
                f"max_age: shorter than duplicate_window"
                f" ({format_duration(stream.duplicate_window)}), which NATS refuses; set"
                f" duplicate_window: {format_duration(stream.max_age)}",
                uses=((*here, "duplicate_window"),),
            )


def _delivery(config: GatewayConfig, view: View) -> Iterator[Finding]:
    delivery = config.delivery
    path: DocumentPath = ("delivery",)
    yield from check_inbox(config, view)
    yield from _ledger((*path, "ledger"), config, view)
    letter = delivery.dead_letter
    if letter is not None:
        yield from _dead_letter((*path, "dead_letter"), letter, config, view)
    elif config.unmatched == "dead_letter":
        yield Finding(
            ("unmatched",),
            "unmatched: dead_letter needs a place to put them; add delivery.dead_letter",
            uses=((*path, "dead_letter"),),
        )


def _ledger(path: DocumentPath, config: GatewayConfig, view: View) -> Iterator[Finding]:
    ledger = config.delivery.ledger
    if ledger.store == "memory":
        for field in ("broker", "bucket"):
            if field in ledger.model_fields_set:
                yield Finding(
                    (*path, field),
                    f"{field}: has no effect with store: memory; remove it",
                    "warning",
                    uses=((*path, "store"),),
                )
        return
    if ledger.broker is None:
        yield Finding(
            (*path, "store"),
            "store: nats-kv needs a NATS broker; add broker",
            uses=((*path, "broker"),),
        )
        return
    broker = config.brokers.get(ledger.broker)
    if broker is None:
        yield unknown_broker((*path, "broker"), ledger.broker, view)
    elif broker.kind != "nats" or not broker.jetstream:
        yield Finding(
            (*path, "broker"),
            "broker: the ledger needs one of kind nats with jetstream: true",
            uses=(("brokers", ledger.broker),),
        )


def _dead_letter(
    path: DocumentPath, letter: DeadLetterConfig, config: GatewayConfig, view: View
) -> Iterator[Finding]:
    yield from broker_findings(path, letter, config, view)
    for field, text in (("topic", letter.topic), ("subject", letter.subject)):
        if text is None:
            continue
        literal, is_literal = literal_beginning(text)
        problem = topic_problem(literal) if field == "topic" else subject_problem(literal)
        if not is_literal:
            problem = "must be a literal name, without placeholders"
        if problem is not None:
            yield Finding((*path, field), f"{field}: {problem}")
    if letter.unredacted:
        return
    for at, route in enumerate(config.routes):
        for number, target in enumerate(route.targets):
            if target.redact:
                redact: DocumentPath = ("routes", at, "targets", number, "redact")
                yield Finding(
                    redact,
                    "redact: a dead letter of this target holds the whole body; write"
                    " delivery.dead_letter.unredacted: true if that is right",
                    "warning",
                    uses=((*path, "unredacted"),),
                )
