"""The one mapping of what Kafka and its client say to `Unavailable`, `Refused` and `Unknown`."""

from __future__ import annotations

import asyncio
import socket
import ssl

import msgspec
from aiokafka.errors import (
    IllegalSaslStateError,
    IncompatibleBrokerVersion,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
    for_code,
)

from gateway import GatewayError
from gateway.brokers.base import BrokerError, Refused, Unavailable, Unknown
from gateway.brokers.tls import tls_problem


class NotProven(GatewayError):
    """What answered did not show that it knows the password (RFC 5802, section 3)."""


CLIENT_ERRORS = (KafkaError, OSError, asyncio.TimeoutError, NotImplementedError, NotProven)
"""Everything that a request or a connection can fail with."""


class Verdict(msgspec.Struct, frozen=True):
    """What an error code means for the records of a batch."""

    outcome: type[BrokerError]
    reason: str
    retry: bool = False
    """A later attempt of the same batch may succeed."""
    refresh: bool = False
    """The error says that our metadata is old."""
    split: bool = False
    """One record may have failed its neighbours: try them in smaller batches."""
    twice: bool = False
    """Final only when it outlasts a refresh of the metadata."""


_NO_LEADER = Verdict(Unavailable, "no_leader", retry=True, refresh=True)
_TOO_LARGE = Verdict(Refused, "too_large", split=True)
_DENIED = Verdict(Refused, "not_authorized", refresh=True, twice=True)
_NO_ACK = Verdict(Unknown, "no_ack")

# https://kafka.apache.org/protocol#protocol_error_codes. By number, because the client library
# does not know the newer ones.
_BY_CODE = {
    2: Verdict(Unavailable, "broker_error", retry=True),  # CORRUPT_MESSAGE: damaged on the way
    3: Verdict(Unavailable, "no_topic", retry=True, refresh=True),
    5: _NO_LEADER,  # LEADER_NOT_AVAILABLE
    6: _NO_LEADER,  # NOT_LEADER_OR_FOLLOWER
    7: _NO_ACK,  # REQUEST_TIMED_OUT: in the leader's log, the replicas did not follow in time
    8: _NO_LEADER,  # BROKER_NOT_AVAILABLE
    9: _NO_LEADER,  # REPLICA_NOT_AVAILABLE
    10: _TOO_LARGE,  # MESSAGE_TOO_LARGE: the batch against max.message.bytes
    13: _NO_LEADER,  # NETWORK_EXCEPTION
    17: Verdict(Refused, "invalid_destination"),
    18: _TOO_LARGE,  # RECORD_LIST_TOO_LARGE: the batch against segment.bytes
    19: Verdict(Unavailable, "not_enough_replicas", retry=True),
    # NOT_ENOUGH_REPLICAS_AFTER_APPEND: already in the leader's log, so a retry here would double
    # it and "nothing was stored" would not be true.
    20: _NO_ACK,
    29: _DENIED,  # TOPIC_AUTHORIZATION_FAILED
    31: _DENIED,  # CLUSTER_AUTHORIZATION_FAILED
    32: Verdict(Refused, "invalid_record", split=True),  # INVALID_TIMESTAMP
    56: _NO_LEADER,  # KAFKA_STORAGE_ERROR
    74: _NO_LEADER,  # FENCED_LEADER_EPOCH
    75: _NO_LEADER,  # UNKNOWN_LEADER_EPOCH
    87: Verdict(Refused, "invalid_record", split=True),  # INVALID_RECORD: no key, compacted topic
}
_OTHER = Verdict(Unavailable, "broker_error")

_ADVICE = {
    29: "the login may not write to the topic; grant DESCRIBE and WRITE",
    31: "the login lacks a right on the cluster",
}


def verdict_of(code: int) -> Verdict:
    """What the error `code` of a produce or metadata response means."""
    return _BY_CODE.get(code, _OTHER)


def name_of(code: int) -> str:
    """The name of an error code, for the operator's log."""
    kind = for_code(code)
    return str(kind.message) if kind.errno == code else f"error code {code}"


def detail_of(code: int) -> str:
    """The name of an error code and, where an operator can do something about it, what."""
    name, advice = name_of(code), _ADVICE.get(code)
    return f"{name}: {advice}" if advice else name


def failure(
    outcome: type[BrokerError],
    broker: str,
    destination: str,
    reason: str,
    cause: BaseException | str = "",
) -> BrokerError:
    """One typed error for one record; an exception as `cause` is kept as its `__cause__`."""
    if isinstance(cause, str):
        return outcome(broker, destination, reason, cause)
    error = outcome(broker, destination, reason, type(cause).__name__)
    error.__cause__ = cause
    return error


_CLOSED = (
    "it closed the connection; if always, check brokers.{0}.tls, with cert_file and key_file if"
    " the port wants them, and brokers.{0}.sasl"
)
# The first kind that fits, so a special error stands before its base.
_CONNECTION_PROBLEMS: tuple[tuple[type[BaseException], str], ...] = (
    (
        SaslAuthenticationFailed,
        "the login was refused; check brokers.{0}.sasl.username and brokers.{0}.sasl.password",
    ),
    (
        UnsupportedSaslMechanismError,
        "the cluster does not take this login; check brokers.{0}.sasl.mechanism",
    ),
    (IllegalSaslStateError, "this port takes no login; check brokers.{0}.sasl and the port"),
    (socket.gaierror, "the host name is not known; check brokers.{0}.servers"),
    (ConnectionRefusedError, "nothing listens there; check brokers.{0}.servers"),
    (TimeoutError, "no answer in time"),
    (asyncio.TimeoutError, "no answer in time"),
    (IncompatibleBrokerVersion, "its protocol is too old; Kafka 1.0 or newer is needed"),
    (NotImplementedError, "its protocol is too new for this client"),
    (
        NotProven,
        "what answers there does not know the password; check brokers.{0}.servers and"
        " brokers.{0}.tls",
    ),
    (KafkaConnectionError, _CLOSED),
    (ConnectionError, "it closed the connection at once; check brokers.{0}.tls and the port"),
)


def connection_problem(broker: str, error: BaseException) -> str:
    """Why a connection failed, in words that name the setting to look at. Never a secret."""
    refused = _tls_error(error)
    if refused is not None:
        return tls_problem(broker, refused)
    for kind, words in _CONNECTION_PROBLEMS:
        if isinstance(error, kind):
            return words.format(broker)
    return type(error).__name__


def most_telling(errors: list[BaseException]) -> BaseException:
    """The error to report when several servers failed: a wrong login before a dead host."""
    telling: list[BaseException] = [
        *(error for error in errors if isinstance(error, SaslAuthenticationFailed)),
        *(error for error in errors if isinstance(error, UnsupportedSaslMechanismError)),
        *(error for error in errors if _tls_error(error) is not None),
        *errors,
        TimeoutError(),
    ]
    return telling[0]


def _tls_error(error: BaseException) -> ssl.SSLError | None:
    """The fault of TLS behind `error`: with TLS 1.3 a server that misses our certificate says so
    only after the handshake, and aiokafka tells of a lost connection."""
    for candidate in (error, error.__cause__):
        if isinstance(candidate, ssl.SSLError):
            return candidate
    return None
