"""From the broker's config model to what the client library takes: addresses, TLS, SASL."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec
from aiokafka.conn import collect_hosts
from aiokafka.record.default_records import DefaultRecordBatch
from pydantic import SecretStr

from gateway.brokers.base import BrokerOptionsError
from gateway.brokers.tls import tls_context

if TYPE_CHECKING:
    from gateway.config.models import KafkaConfig

CLIENT_ID = "clerk-event-gateway"

_CODECS = {
    "none": DefaultRecordBatch.CODEC_NONE,
    "gzip": DefaultRecordBatch.CODEC_GZIP,
    "snappy": DefaultRecordBatch.CODEC_SNAPPY,
    "lz4": DefaultRecordBatch.CODEC_LZ4,
    "zstd": DefaultRecordBatch.CODEC_ZSTD,
}


class ClientOptions(msgspec.Struct, frozen=True):
    """What every connection to one cluster needs."""

    broker: str
    """The broker's name in the config, for messages."""
    servers: tuple[tuple[str, int], ...]
    """Bootstrap addresses, in the order of the config."""
    security: dict[str, Any]
    """Keyword arguments that aiokafka's connections and consumers share, but for the password."""
    request_timeout: float
    """Seconds until an unanswered request closes its connection."""
    password: SecretStr | None = None

    def login(self) -> dict[str, Any]:
        """Give `security` with the password, for the client that sends it."""
        if self.password is None:
            return self.security
        return {**self.security, "sasl_plain_password": self.password.get_secret_value()}


class PublishOptions(msgspec.Struct, frozen=True):
    """How to publish. Times in seconds."""

    linger: float
    codec: int
    """Number of the compression in the record batch format; 0 for none."""
    request_timeout: float


def publish_options(config: KafkaConfig) -> PublishOptions:
    """Take from the config what the publish path needs."""
    return PublishOptions(
        linger=config.linger,
        codec=_CODECS[config.compression],
        request_timeout=config.request_timeout,
    )


def client_options(broker: str, config: KafkaConfig) -> ClientOptions:
    """Read the files that the config names and return what connections need.

    Raises `BrokerOptionsError` for a file that cannot be used or an address that is none.
    """
    security: dict[str, Any] = {}
    if config.tls is not None:
        security["ssl_context"] = tls_context(broker, config.tls)
    if config.sasl is not None:
        security["sasl_mechanism"] = config.sasl.mechanism
        security["sasl_plain_username"] = config.sasl.username
    security["security_protocol"] = _protocol(tls=config.tls is not None, sasl=bool(config.sasl))
    return ClientOptions(
        broker=broker,
        servers=_servers(broker, config.servers),
        security=security,
        request_timeout=config.request_timeout,
        password=None if config.sasl is None else config.sasl.password,
    )


def quiet_client_logs() -> None:
    """Silence aiokafka, which logs each failed attempt, some with a traceback.

    This package reports the same through states, errors and one warning per change of cause.
    """
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL + 1)


def _protocol(*, tls: bool, sasl: bool) -> str:
    if sasl:
        return "SASL_SSL" if tls else "SASL_PLAINTEXT"
    return "SSL" if tls else "PLAINTEXT"


def _servers(broker: str, servers: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    if not servers:
        raise BrokerOptionsError(broker, "servers", "is empty; give at least one host:port")
    found: list[tuple[str, int]] = []
    for server in servers:
        # Not repeated, nor aiokafka's error, which does: a URL may hold a login.
        if "://" in server:
            raise BrokerOptionsError(broker, "servers", "holds a URL; Kafka takes host:port")
        try:
            found += [(host, port) for host, port, _ in collect_hosts([server])]
        except ValueError:
            problem = "holds an entry that is not host:port"
            raise BrokerOptionsError(broker, "servers", problem) from None
    return tuple(found)
