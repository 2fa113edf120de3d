"""The shape of the config file: one source for validation, defaults, schema and reference.

Field descriptions are the user manual. Times are seconds and sizes bytes once loaded.
"""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from gateway.config.admin import AdminConfig
from gateway.config.base import Model
from gateway.config.brokers import (
    BrokerConfig,
    KafkaConfig,
    NatsConfig,
    SaslConfig,
    StreamConfig,
    TlsConfig,
    TopicsConfig,
)
from gateway.config.delivery import (
    A_DESTINATION,
    DeadLetterConfig,
    DedupeConfig,
    DeliveryConfig,
    InboxConfig,
    LedgerConfig,
)
from gateway.config.fields import Cidr, FieldPath, Name, NonEmpty
from gateway.config.sources import SourceConfig
from gateway.config.units import PositiveDuration, Size

__all__ = [
    "AdminConfig",
    "BrokerConfig",
    "DeadLetterConfig",
    "DedupeConfig",
    "DeliveryConfig",
    "GatewayConfig",
    "HeaderOptions",
    "InboxConfig",
    "KafkaConfig",
    "LedgerConfig",
    "LogConfig",
    "Model",
    "NatsConfig",
    "RouteConfig",
    "SaslConfig",
    "ServerConfig",
    "SourceConfig",
    "StreamConfig",
    "TargetConfig",
    "TlsConfig",
    "TopicsConfig",
]


class ServerConfig(Model):
    """The ingress port, which serves webhooks and nothing else."""

    host: NonEmpty = Field(
        default="0.0.0.0",
        description=(
            "The address to listen on. Default: every IPv4 interface. Use 127.0.0.1 behind a proxy"
            " on the same machine, or :: for IPv6."
        ),
        examples=["127.0.0.1"],
    )
    port: int = Field(
        default=8080,
        ge=0,
        le=65_535,
        description="The port to listen on; 0 takes any free one.",
        examples=[8080],
    )
    max_body: Size = Field(
        default=512 * 1024,
        description=(
            "The largest request body; a larger one gets 413. Clerk's events are usually below"
            " 40 kB and at most about 350 kB. The brokers must take this and 8 KiB of headers."
        ),
        examples=["512KiB"],
    )
    max_head: Size = Field(
        default=32 * 1024,
        description=(
            "The largest request line and headers together; larger ones get 431. Svix sends less"
            " than 1 KiB, proxies add to it."
        ),
        examples=["32KiB"],
    )
    max_headers: int = Field(
        default=100,
        ge=10,
        le=10_000,
        description="How many headers a request may have; more get 431. Svix sends about ten.",
        examples=[100],
    )
    max_pipelined: int = Field(
        default=32,
        ge=1,
        le=1_000,
        description=(
            "How many requests of one connection may wait behind the one that is being answered;"
            " the next one gets 503, and the connection closes. Svix sends none before its answer."
        ),
        examples=[32],
    )
    max_connections: int = Field(
        default=4096,
        ge=1,
        le=1_000_000,
        description=(
            "How many connections each worker holds. When there are more, the one that has waited"
            " longest for its sender is closed, so that idle ones keep nobody out; where none"
            " waits, the new one gets 503. Each needs one open file."
        ),
        examples=[4096],
    )
    max_arriving: Size = Field(
        default=64 * 1024 * 1024,
        description=(
            "How many bytes of bodies may be on their way in at a time, in each worker: those that"
            " have begun to arrive and are not whole. The request that goes over it gets 503. It"
            " bounds the memory that senders can take before any signature is checked."
        ),
        examples=["64MiB"],
    )
    deadline: PositiveDuration = Field(
        default=10.0,
        description=(
            "How long a request may take, from its first byte to the answer. When it has passed,"
            " the answer is 503 and the sender retries. Svix gives up after 15s, so stay below 14s."
        ),
        examples=["10s"],
    )
    header_timeout: PositiveDuration = Field(
        default=5.0,
        description="How long the request's headers may take to arrive, within the deadline.",
        examples=["5s"],
    )
    body_timeout: PositiveDuration = Field(
        default=10.0,
        description="How long the request's body may take to arrive, within the deadline.",
        examples=["10s"],
    )
    idle_timeout: PositiveDuration = Field(
        default=75.0,
        description=(
            "How long a connection may wait between requests, or without taking an answer. Longer"
            " than your proxy's own limit, which is often 60s, so that the proxy is the one to"
            " close."
        ),
        examples=["75s"],
    )
    shutdown: PositiveDuration = Field(
        default=20.0,
        description=(
            "How long requests in flight have to end after SIGTERM. Keep it below the grace period"
            " of whatever stops the process (30s in Kubernetes)."
        ),
        examples=["20s"],
    )
    trusted_proxies: tuple[Cidr, ...] = Field(
        default=(),
        description=(
            "CIDRs of the proxies in front. Only from them is X-Forwarded-For believed. Needed for"
            " `sources.*.allow_from` behind a proxy. Name the proxies alone: an address in here is"
            " never the sender's."
        ),
        examples=[["10.0.0.0/8"]],
    )


class LogConfig(Model):
    """Logs go to standard error. They never hold a payload or a secret."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        description="The least serious lines that are written.",
        examples=["warning"],
    )
    format: Literal["json", "console"] = Field(
        default="json",
        description="`json` is one object per line, for machines; `console` is for people.",
        examples=["console"],
    )
    sample: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description=(
            "The share of `delivered` and `duplicate` lines that is written, 0 to 1. Lower it when"
            " the logs grow too large. Warnings and metrics are never thinned by it."
        ),
        examples=[0.1],
    )


class HeaderOptions(Model):
    """Which of the standard headers are sent."""

    signature: bool = Field(
        default=True,
        description=(
            "Send `svix-signature`, so that a consumer with the secret can verify the record. Who"
            " can verify can also forge; false leaves the header out."
        ),
        examples=[False],
    )


class TargetConfig(Model):
    """One destination of a route: a Kafka topic or a NATS subject."""

    model_config = ConfigDict(json_schema_extra=A_DESTINATION)

    broker: Name = Field(description="The name of a broker under `brokers`.", examples=["events"])
    topic: NonEmpty | None = Field(
        default=None,
        description=(
            "The Kafka topic. May hold `{placeholders}` in JMESPath after a literal beginning that"
            " ends in `.`, `-` or `_`."
        ),
        examples=["clerk.users"],
    )
    subject: NonEmpty | None = Field(
        default=None,
        description=(
            "The NATS subject. May hold `{placeholders}` in JMESPath after a literal beginning that"
            " ends in `.`, `-` or `_`."
        ),
        examples=["clerk.{type}"],
    )
    key: NonEmpty | None = Field(
        default=None,
        description=(
            "Template of the Kafka key; records with the same key stay in order. Default: the id of"
            " the user, organization or payer that the event belongs to."
        ),
        examples=["{data.organization.id || data.id}"],
    )
    payload: Literal["original", "data", "cloudevents"] = Field(
        default="original",
        description=(
            "What the record holds: `original`, the body byte for byte; `data`, its `data` alone;"
            " `cloudevents`, a CloudEvents JSON object (structured mode)."
        ),
        examples=["cloudevents"],
    )
    headers: dict[str, str] = Field(
        default={},
        description="Extra headers; the values are templates.",
        examples=[{"x-tenant": "{data.public_metadata.tenant}"}],
    )
    redact: tuple[FieldPath, ...] = Field(
        default=(),
        description=(
            "Paths into the event that are left out of the record. Not with `payload: original`,"
            " whose bytes are never changed."
        ),
        examples=[["data.private_metadata"]],
    )


class RouteConfig(Model):
    """Which events go to which targets. Every route that matches delivers."""

    name: Name = Field(
        description="What logs, metrics and the header `gateway-route` call it.",
        examples=["users"],
    )
    events: tuple[NonEmpty, ...] = Field(
        min_length=1,
        description="The event types: exact ones, `prefix.*`, or `*` for all.",
        examples=[["user.*", "session.created"]],
    )
    exclude: tuple[NonEmpty, ...] = Field(
        default=(),
        description="Event types that it does not take, although `events` names them.",
        examples=[["user.deleted"]],
    )
    sources: tuple[str, ...] | None = Field(
        default=None,
        description="The sources it takes events of. Default: all. Say it when there are several.",
        examples=[["clerk"]],
        json_schema_extra={"minItems": 1},
    )
    when: NonEmpty | None = Field(
        default=None,
        description="JMESPath over the event; only events for which it is true are taken.",
        examples=["data.public_metadata.tier == 'enterprise'"],
    )
    targets: tuple[TargetConfig, ...] = Field(
        description="Where the events go: to all of these.",
        examples=[[{"broker": "events", "topic": "clerk.users"}]],
        json_schema_extra={"minItems": 1},
    )


class GatewayConfig(Model):
    """The whole file."""

    server: ServerConfig = Field(
        default=ServerConfig(),
        description="The port that takes webhooks, and the bounds of a request.",
        examples=[{"port": 8080}],
    )
    admin: AdminConfig = Field(
        default=AdminConfig(),
        description="The port of health and metrics.",
        examples=[{"port": 9090}],
    )
    log: LogConfig = Field(
        default=LogConfig(),
        description="What is logged, and how.",
        examples=[{"format": "console"}],
    )
    headers: HeaderOptions = Field(
        default=HeaderOptions(),
        description="Which of the standard headers records have.",
        examples=[{"signature": False}],
    )
    sources: dict[Name, SourceConfig] = Field(
        description="Who sends webhooks, by a name of your choice.",
        examples=[{"clerk": {"secrets": ["${CLERK_WEBHOOK_SIGNING_SECRET}"]}}],
        json_schema_extra={"minProperties": 1},
    )
    brokers: dict[Name, BrokerConfig] = Field(
        description="Where events can go, by a name of your choice.",
        examples=[{"bus": {"kind": "nats", "servers": ["nats://localhost:4222"]}}],
        json_schema_extra={"minProperties": 1},
    )
    routes: tuple[RouteConfig, ...] = Field(
        description="Which events go where. Every route that matches delivers.",
        examples=[
            [
                {
                    "name": "users",
                    "events": ["user.*"],
                    "targets": [{"broker": "bus", "subject": "clerk.{type}"}],
                }
            ]
        ],
    )
    unmatched: Literal["accept", "dead_letter", "reject"] = Field(
        default="accept",
        description=(
            "What happens to a genuine event that no route takes: `accept` answers 200 and counts"
            " it, `dead_letter` keeps it, `reject` answers 422."
        ),
        examples=["reject"],
    )
    delivery: DeliveryConfig = Field(
        default=DeliveryConfig(),
        description="How events are delivered, and where those go that are refused for good.",
        examples=[{"dead_letter": {"broker": "events", "topic": "clerk.dead-letter"}}],
    )
