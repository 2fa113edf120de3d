"""From the broker's config model to what the client library takes: addresses, TLS, SASL."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from aiokafka.conn import collect_hosts
from aiokafka.record.default_records import DefaultRecordBatch

from gateway.brokers.base import BrokerOptionsError

if TYPE_CHECKING:
    from gateway.config.models import KafkaConfig, TlsConfig

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
    """Keyword arguments that aiokafka's connections and consumers share. Holds the password."""
    request_timeout: float
    """Seconds until an unanswered request closes its connection."""

    def __repr__(self) -> str:
        return f"ClientOptions(broker={self.broker!r}, servers={self.servers!r})"


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
        security["ssl_context"] = _ssl_context(broker, config.tls)
    if config.sasl is not None:
        security["sasl_mechanism"] = config.sasl.mechanism
        security["sasl_plain_username"] = config.sasl.username
        security["sasl_plain_password"] = config.sasl.password.get_secret_value()
    security["security_protocol"] = _protocol(tls=config.tls is not None, sasl=bool(config.sasl))
    return ClientOptions(
        broker=broker,
        servers=_servers(broker, config.servers),
        security=security,
        request_timeout=config.request_timeout,
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
        if "://" in server:
            problem = f"{server!r} is a URL; Kafka takes host:port"
            raise BrokerOptionsError(broker, "servers", problem)
        try:
            found += [(host, port) for host, port, _ in collect_hosts([server])]
        except ValueError as error:
            problem = f"{server!r} is not host:port"
            raise BrokerOptionsError(broker, "servers", problem) from error
    return tuple(found)


def _ssl_context(broker: str, tls: TlsConfig) -> ssl.SSLContext:
    if tls.ca_file is not None:
        _readable(broker, "tls.ca_file", tls.ca_file)
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
    except ssl.SSLError as error:
        problem = f"{tls.ca_file} is not a PEM file of certificates"
        raise BrokerOptionsError(broker, "tls.ca_file", problem) from error
    if tls.cert_file is None and tls.key_file is None:
        return context
    if tls.cert_file is None:
        problem = "is missing; tls.key_file is of no use without it"
        raise BrokerOptionsError(broker, "tls.cert_file", problem)
    _load_identity(broker, context, tls.cert_file, tls.key_file)
    return context


def _load_identity(
    broker: str, context: ssl.SSLContext, cert_file: str, key_file: str | None
) -> None:
    _readable(broker, "tls.cert_file", cert_file)
    if key_file is not None:
        _readable(broker, "tls.key_file", key_file)
    try:
        # The empty password keeps OpenSSL from asking for one on the terminal.
        context.load_cert_chain(cert_file, key_file, password="")
    except (ssl.SSLError, ValueError) as error:
        setting = "tls.key_file" if key_file is not None else "tls.cert_file"
        problem = (
            f"{key_file or cert_file} is not the unencrypted PEM key of the certificate"
            f" in {cert_file}"
        )
        raise BrokerOptionsError(broker, setting, problem) from error


def _readable(broker: str, setting: str, path: str) -> None:
    try:
        with Path(path).open("rb"):
            return
    except OSError as error:
        problem = f"{path} cannot be read: {error.strerror}"
        raise BrokerOptionsError(broker, setting, problem) from error
