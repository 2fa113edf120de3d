"""Cross checks of inbox mode: its store, and what it keeps to itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from gateway.config.findings import Finding, View
from gateway.config.models import DeadLetterConfig, GatewayConfig, InboxConfig, TargetConfig
from gateway.config.names import listing
from gateway.config.problems import DocumentPath
from gateway.config.target_rules import unknown_broker
from gateway.config.units import format_size
from gateway.destinations import literal_beginning

__all__ = ["check_inbox"]

_PATH: Final[DocumentPath] = ("delivery", "inbox")
_MODE: Final[DocumentPath] = ("delivery", "mode")
_HEADERS: Final = 8 * 1024
"""Bytes that a record may have beside its body."""
_MAX_SOCKET: Final = 100
"""Bytes of a Unix socket's path. Linux takes 107, others 103; `.sock` stands beside the file."""


def check_inbox(config: GatewayConfig, view: View) -> Iterator[Finding]:
    """Yield what is wrong with the inbox, and where others use what is its own."""
    delivery = config.delivery
    if delivery.mode == "direct":
        if "inbox" in delivery.model_fields_set:
            yield Finding(
                _PATH,
                "inbox: has no effect with mode: direct; write mode: inbox, or remove it",
                "warning",
                uses=(_MODE,),
            )
        return
    if "ledger" in delivery.model_fields_set:
        yield Finding(
            ("delivery", "ledger"),
            "ledger: has no effect with mode: inbox, which knows its events by itself; remove it",
            "warning",
            uses=(_MODE,),
        )
    yield from _without_effect(delivery.inbox)
    yield from _too_small(config)
    if delivery.inbox.store == "sqlite":
        yield from _file(delivery.inbox)
    else:
        yield from _stream(config, view)
        yield from _own_subjects(config)


def _without_effect(inbox: InboxConfig) -> Iterator[Finding]:
    others = ("broker", "stream") if inbox.store == "sqlite" else ("path",)
    for field in others:
        if field in inbox.model_fields_set:
            yield Finding(
                (*_PATH, field),
                f"{field}: has no effect with store: {inbox.store}; remove it",
                "warning",
                uses=((*_PATH, "store"),),
            )


def _too_small(config: GatewayConfig) -> Iterator[Finding]:
    least = config.server.max_body + _HEADERS
    if config.delivery.inbox.max_bytes < least:
        yield Finding(
            (*_PATH, "max_bytes"),
            f"max_bytes: an event of server.max_body with its headers ({format_size(least)}) would"
            " never fit; write more",
            "warning",
            uses=(("server", "max_body"),),
        )


def _file(inbox: InboxConfig) -> Iterator[Finding]:
    socket = len(os.fsencode(f"{inbox.path}.sock"))
    if socket > _MAX_SOCKET:
        yield Finding(
            (*_PATH, "path"),
            f"path: {socket} bytes with .sock behind it, and a socket's path has at most"
            f" {_MAX_SOCKET}; choose a shorter one",
        )


def _stream(config: GatewayConfig, view: View) -> Iterator[Finding]:
    name = config.delivery.inbox.broker
    path: DocumentPath = (*_PATH, "broker")
    nats = [known for known, broker in config.brokers.items() if broker.kind == "nats"]
    if name is None:
        yield Finding(
            _PATH,
            f"inbox: store: jetstream needs broker, a NATS broker; there is {_or_none(nats)}",
            uses=((*_PATH, "store"),),
        )
        return
    broker = config.brokers.get(name)
    if broker is None:
        yield unknown_broker(path, name, view, nats)
    elif broker.kind != "nats":
        yield Finding(
            path,
            f"broker: {name} is Kafka; store: jetstream needs a NATS broker, there is"
            f" {_or_none(nats)}",
            uses=(("brokers", name, "kind"),),
        )
    elif not broker.jetstream:
        yield Finding(
            path,
            f"broker: {name} is core NATS; write jetstream: true there",
            uses=(("brokers", name, "jetstream"),),
        )


def _or_none(names: list[str]) -> str:
    return listing(names) or "none"


def _own_subjects(config: GatewayConfig) -> Iterator[Finding]:
    """Yield the subjects that lead into the inbox itself, on any broker: two of them may be one
    cluster.
    """
    for at, route in enumerate(config.routes):
        for number, target in enumerate(route.targets):
            yield from _subject(("routes", at, "targets", number), target, config)
    letter = config.delivery.dead_letter
    if letter is not None:
        yield from _subject(("delivery", "dead_letter"), letter, config)


def _subject(
    path: DocumentPath, target: TargetConfig | DeadLetterConfig, config: GatewayConfig
) -> Iterator[Finding]:
    own = config.delivery.inbox.stream
    if target.subject is None:
        return
    literal, _ = literal_beginning(target.subject)
    if literal == own or literal.startswith(f"{own}."):
        yield Finding(
            (*path, "subject"),
            f"subject: {own} and all below it is the inbox's own; write another",
            uses=((*_PATH, "stream"),),
        )
