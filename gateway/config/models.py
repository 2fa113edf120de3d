"""The shape of the config file: one source for validation, defaults, schema and reference.

Field descriptions are the user manual. Times are seconds and sizes bytes once loaded.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from gateway.config.units import Duration, Size


class Model(BaseModel):
    """Immutable, and no key that is not declared."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ServerConfig(Model):
    """The ingress port, which serves webhooks and nothing else."""

    host: str = "0.0.0.0"
    port: int = 8080
    max_body: Size = 512 * 1024
    deadline: Duration = 10.0
    header_timeout: Duration = 5.0
    body_timeout: Duration = 10.0
    shutdown: Duration = 20.0
    trusted_proxies: tuple[str, ...] = ()


class AdminConfig(Model):
    """Health, metrics and console, one port for the whole process tree."""

    host: str = "127.0.0.1"
    port: int = 9090
    token: SecretStr = SecretStr("")
    metrics_public: bool = False


class LogConfig(Model):
    """Logs go to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"
    sample: float = 1.0


class SourceConfig(Model):
    """One sender of webhooks."""

    kind: Literal["clerk", "svix", "standard-webhooks"] = "clerk"
    path: str = "/webhooks/clerk"
    tolerance: Duration = 300.0
    allow_from: tuple[str, ...] = ()
    uri: str | None = None
    type: str = "type"
    secrets: tuple[SecretStr, ...]
    abort_permanent: bool = False


class TlsConfig(Model):
    """TLS to a broker."""

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None


class SaslConfig(Model):
    """Kafka SASL."""

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
    username: str
    password: SecretStr


class TopicsConfig(Model):
    """Whether missing topics are created at start, and how."""

    create: bool = False
    partitions: int = 6
    replication_factor: int = 3


class KafkaConfig(Model):
    """An Apache Kafka cluster, or anything that speaks its protocol."""

    kind: Literal["kafka"]
    servers: tuple[str, ...] = ()
    tls: TlsConfig | None = None
    sasl: SaslConfig | None = None
    topics: TopicsConfig = TopicsConfig()
    linger: Duration = 0.0
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "none"
    request_timeout: Duration = 30.0
    max_in_flight: int = 10_000
    max_in_flight_bytes: Size = 64 * 1024 * 1024


class StreamConfig(Model):
    """A JetStream stream to create when it is missing."""

    name: str
    subjects: tuple[str, ...]
    storage: Literal["file", "memory"] = "file"
    replicas: int = 1
    max_age: Duration | None = None
    max_bytes: Size | None = None
    duplicate_window: Duration = 120.0


class NatsConfig(Model):
    """A NATS server or cluster, through JetStream unless told otherwise."""

    kind: Literal["nats"]
    servers: tuple[str, ...] = ()
    jetstream: bool = True
    streams: tuple[StreamConfig, ...] = ()
    credentials_file: str | None = None
    nkey_seed_file: str | None = None
    token: SecretStr | None = None
    username: str | None = None
    password: SecretStr | None = None
    tls: TlsConfig | None = None
    request_timeout: Duration = 30.0
    max_in_flight: int = 10_000
    max_in_flight_bytes: Size = 64 * 1024 * 1024


BrokerConfig = Annotated[KafkaConfig | NatsConfig, Field(discriminator="kind")]


class HeaderOptions(Model):
    """Which of the standard headers are sent."""

    signature: bool = True


class TargetConfig(Model):
    """One destination of a route: a Kafka topic or a NATS subject."""

    broker: str
    topic: str | None = None
    subject: str | None = None
    key: str | None = None
    payload: Literal["original", "data", "cloudevents"] = "original"
    headers: dict[str, str] = {}
    redact: tuple[str, ...] = ()


class RouteConfig(Model):
    """Which events go to which targets."""

    name: str
    events: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    sources: tuple[str, ...] | None = None
    when: str | None = None
    targets: tuple[TargetConfig, ...]


class DedupeConfig(Model):
    """How long a complete event is remembered."""

    window: Duration = 120.0


class LedgerConfig(Model):
    """Where the memory of events is kept, and for how long."""

    store: Literal["memory", "nats-kv"] = "memory"
    broker: str | None = None
    bucket: str = "GATEWAY_LEDGER"
    incomplete_for: Duration = 108_000.0
    max_bytes: Size = 64 * 1024 * 1024


class DeadLetterConfig(Model):
    """Where what is refused for good goes."""

    broker: str
    topic: str | None = None
    subject: str | None = None
    unredacted: bool = False


class InboxConfig(Model):
    """The store of inbox mode."""

    store: Literal["sqlite", "jetstream"] = "sqlite"
    path: str = "./gateway-inbox.db"
    broker: str | None = None
    stream: str = "GATEWAY_INBOX"
    max_bytes: Size = 1024**3
    parked_max_bytes: Size = 256 * 1024 * 1024
    max_age: Duration = 604_800.0


class DeliveryConfig(Model):
    """How an event's targets are served."""

    mode: Literal["direct", "inbox"] = "direct"
    dedupe: DedupeConfig = DedupeConfig()
    ledger: LedgerConfig = LedgerConfig()
    dead_letter: DeadLetterConfig | None = None
    inbox: InboxConfig = InboxConfig()


class GatewayConfig(Model):
    """The whole file."""

    server: ServerConfig = ServerConfig()
    admin: AdminConfig = AdminConfig()
    log: LogConfig = LogConfig()
    headers: HeaderOptions = HeaderOptions()
    sources: dict[str, SourceConfig]
    brokers: dict[str, BrokerConfig]
    routes: tuple[RouteConfig, ...]
    unmatched: Literal["accept", "dead_letter", "reject"] = "accept"
    delivery: DeliveryConfig = DeliveryConfig()
