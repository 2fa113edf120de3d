"""The config of each kind of broker. A new kind adds its model here and to `BrokerConfig`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gateway.config.base import Model
from gateway.config.fields import FilePath, NonEmpty, Password, StreamName
from gateway.config.units import Duration, PositiveDuration, Size

__all__ = [
    "BrokerConfig",
    "KafkaConfig",
    "NatsConfig",
    "SaslConfig",
    "StreamConfig",
    "TlsConfig",
    "TopicsConfig",
]

_REQUEST_TIMEOUT = (
    "How long the client waits for an ack before it gives a publish up as unknown. It is longer"
    " than `server.deadline` on purpose: an ack that comes after the 503 still counts. A shorter"
    " one makes more duplicates."
)
_MAX_IN_FLIGHT = (
    "How many records may wait for an ack at a time. More are answered 503 at once. Raise it when"
    " `overloaded` shows in the metrics while the broker itself is not busy. Stay well below"
    " `server.max_connections`: each holds the connection of its sender, and a slow broker must not"
    " hold those of other routes, too."
)
_MAX_IN_FLIGHT_BYTES = (
    "How many bytes may wait for an ack at a time; the bound on the memory of a slow broker."
)
_TLS = "TLS to the broker. `tls: {}` uses the system's certificate authorities."


class TlsConfig(Model):
    """TLS to a broker."""

    ca_file: FilePath | None = Field(
        default=None,
        description=(
            "PEM file of the certificate authorities to trust. Default: those of the system. Set"
            " it when the broker's certificate comes from an authority of your own."
        ),
        examples=["/etc/gateway/ca.pem"],
    )
    cert_file: FilePath | None = Field(
        default=None,
        description="PEM file of the client certificate, where the broker asks for one.",
        examples=["/etc/gateway/client.pem"],
    )
    key_file: FilePath | None = Field(
        default=None,
        description="PEM file of the certificate's key, without a password. Needs `cert_file`.",
        examples=["/etc/gateway/client.key"],
    )


class SaslConfig(Model):
    """How to log in to Kafka."""

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        description="The SASL mechanism that the cluster offers. PLAIN needs `tls` to be safe.",
        examples=["SCRAM-SHA-512"],
    )
    username: NonEmpty = Field(description="The user, or the API key.", examples=["gateway"])
    password: Password = Field(
        description="The password, or the API secret. Take it from the environment or a file.",
        examples=["${KAFKA_PASSWORD}", "${file:/run/secrets/kafka}"],
    )


class TopicsConfig(Model):
    """Whether missing topics are created at start, and how."""

    create: bool = Field(
        default=False,
        description=(
            "Create the topics that the routes and the dead letter name, where they are missing."
            " Only literal names: a topic with a placeholder is not known before an event comes."
            " Leave it false where topics are made by somebody else."
        ),
        examples=[True],
    )
    partitions: int = Field(
        default=6,
        ge=1,
        le=10_000,
        description="Partitions of a created topic: how many consumers can share the work.",
        examples=[12],
    )
    replication_factor: int = Field(
        default=3,
        ge=1,
        le=32_767,
        description=(
            "Copies of a created topic. 3 survives the loss of a machine; use 1 on a laptop with"
            " one broker."
        ),
        examples=[1],
    )


class KafkaConfig(Model):
    """An Apache Kafka cluster, or anything that speaks its protocol."""

    kind: Literal["kafka"] = Field(
        description="Kafka, or anything that speaks its protocol.", examples=["kafka"]
    )
    servers: tuple[NonEmpty, ...] = Field(
        default=(),
        description="Bootstrap addresses, `host:port`. Two or three of the cluster are enough.",
        examples=[["kafka-1:9092", "kafka-2:9092"]],
    )
    tls: TlsConfig | None = Field(
        default=None, description=_TLS, examples=[{"ca_file": "/etc/gateway/ca.pem"}]
    )
    sasl: SaslConfig | None = Field(
        default=None,
        description="How to log in. Left out, the gateway connects without.",
        examples=[
            {
                "mechanism": "SCRAM-SHA-512",
                "username": "gateway",
                "password": "${KAFKA_PASSWORD}",
            }
        ],
    )
    topics: TopicsConfig = Field(
        default=TopicsConfig(),
        description="Whether missing topics are created at start, and how.",
        examples=[{"create": True, "partitions": 12}],
    )
    linger: Duration = Field(
        default=0.0,
        description=(
            "How long a record waits for others to share its batch. 0s is fastest; 1ms to 5ms"
            " saves work under heavy load."
        ),
        examples=["2ms"],
    )
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = Field(
        default="none",
        description="How batches are compressed. zstd or lz4 save network and disk, cost CPU.",
        examples=["zstd"],
    )
    request_timeout: PositiveDuration = Field(
        default=30.0, description=_REQUEST_TIMEOUT, examples=["30s"]
    )
    max_in_flight: int = Field(
        default=1_000, ge=1, le=1_000_000, description=_MAX_IN_FLIGHT, examples=[1_000]
    )
    max_in_flight_bytes: Size = Field(
        default=64 * 1024 * 1024, description=_MAX_IN_FLIGHT_BYTES, examples=["64MiB"]
    )


class StreamConfig(Model):
    """A JetStream stream to create when it is missing. One that exists is left as it is."""

    name: StreamName = Field(
        description="The stream's name, without dots and spaces.", examples=["CLERK"]
    )
    subjects: tuple[NonEmpty, ...] = Field(
        min_length=1,
        description="The subjects that it stores; `*` stands for one token, `>` for the rest.",
        examples=[["clerk.>"]],
    )
    storage: Literal["file", "memory"] = Field(
        default="file",
        description="Where messages are kept. `memory` loses them when the server stops.",
        examples=["memory"],
    )
    replicas: int = Field(
        default=1,
        ge=1,
        le=5,
        description="Copies in the cluster. 3 survives the loss of a machine; 1 on one server.",
        examples=[3],
    )
    max_age: PositiveDuration | None = Field(
        default=None, description="How long messages are kept. Default: for ever.", examples=["7d"]
    )
    max_bytes: Size | None = Field(
        default=None,
        description="How large the stream may grow; then the oldest go. Default: no bound.",
        examples=["10GiB"],
    )
    duplicate_window: PositiveDuration = Field(
        default=120.0,
        description=(
            "How long JetStream remembers a message's id and drops a second copy. Not longer than"
            " `max_age`."
        ),
        examples=["2m"],
    )


class NatsConfig(Model):
    """A NATS server or cluster, through JetStream unless told otherwise."""

    kind: Literal["nats"] = Field(description="NATS.", examples=["nats"])
    servers: tuple[NonEmpty, ...] = Field(
        default=(),
        description="Addresses, `nats://host:port` or `tls://host:port`; no password in them.",
        examples=[["nats://nats-1:4222", "nats://nats-2:4222"]],
    )
    jetstream: bool = Field(
        default=True,
        description=(
            "Publish through JetStream and wait until the message is stored. false is core NATS:"
            " at most once, whoever does not listen at that moment misses it."
        ),
        examples=[False],
    )
    streams: tuple[StreamConfig, ...] = Field(
        default=(),
        description=(
            "Streams to create at start when they are missing. Leave it out where streams are made"
            " by somebody else."
        ),
        examples=[[{"name": "CLERK", "subjects": ["clerk.>"]}]],
    )
    credentials_file: FilePath | None = Field(
        default=None,
        description="A `.creds` file: JWT and seed, for servers with operator accounts.",
        examples=["/run/secrets/gateway.creds"],
    )
    nkey_seed_file: FilePath | None = Field(
        default=None,
        description="A file that holds an NKey seed.",
        examples=["/run/secrets/gateway.nk"],
    )
    token: Password | None = Field(
        default=None,
        description="The server's token. Take it from the environment or a file.",
        examples=["${NATS_TOKEN}"],
    )
    username: NonEmpty | None = Field(
        default=None, description="The user. Needs `password`.", examples=["gateway"]
    )
    password: Password | None = Field(
        default=None,
        description="The password of `username`. Take it from the environment or a file.",
        examples=["${NATS_PASSWORD}"],
    )
    tls: TlsConfig | None = Field(
        default=None, description=_TLS, examples=[{"ca_file": "/etc/gateway/ca.pem"}]
    )
    request_timeout: PositiveDuration = Field(
        default=30.0, description=_REQUEST_TIMEOUT, examples=["30s"]
    )
    max_in_flight: int = Field(
        default=1_000, ge=1, le=1_000_000, description=_MAX_IN_FLIGHT, examples=[1_000]
    )
    max_in_flight_bytes: Size = Field(
        default=64 * 1024 * 1024, description=_MAX_IN_FLIGHT_BYTES, examples=["64MiB"]
    )


BrokerConfig = Annotated[KafkaConfig | NatsConfig, Field(discriminator="kind")]
