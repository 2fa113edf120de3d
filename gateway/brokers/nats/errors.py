"""The one mapping of what NATS and JetStream say to `Unavailable`, `Refused` and `Unknown`."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

import msgspec
from nats.errors import AuthorizationError
from nats.errors import Error as NatsError

from gateway import GatewayError
from gateway.brokers.base import BrokerError, BrokerOptionsError, Refused, Unavailable, Unknown
from gateway.brokers.nats.protocol import denied_subscribe
from gateway.brokers.tls import client_certificate_problem, tls_problem

if TYPE_CHECKING:
    from gateway.brokers.nats.options import ClientOptions

__all__ = [
    "CONNECT_ERRORS",
    "NO_ACK",
    "ApiError",
    "CertificateWanted",
    "ConnectionLost",
    "Denied",
    "ServerError",
    "Verdict",
    "connection_problem",
    "failure",
    "most_telling",
    "refusal",
    "server_problem",
    "server_text",
    "verdict_of",
]


class ConnectionLost(GatewayError):
    """A connection that ended, or a question that the server did not answer in time."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        """In words for the operator's log."""
        super().__init__(f"{self.what}: {problem}")

    what = "the connection to the NATS server ended"


class Denied(ConnectionLost):
    """The server is there and took the login, and the login may not do what is needed."""

    what = "the NATS server refused"


class CertificateWanted(ConnectionLost):
    """A server that asks for a client certificate ended the connection."""

    def __init__(self, broker: str) -> None:
        super().__init__(client_certificate_problem(broker))


class ServerError(GatewayError):
    """What a server said (`-ERR`) instead of accepting a connection."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(f"the NATS server refused the connection: {text}")


class ApiError(msgspec.Struct, frozen=True):
    """The error object of a JetStream answer."""

    code: int = 0
    """Like an HTTP status."""
    err_code: int = 0
    """The exact error: `server/errors.json` of nats-server."""
    description: str = ""


class Verdict(msgspec.Struct, frozen=True):
    """What an answer means for a record."""

    outcome: type[BrokerError]
    reason: str


NO_ACK = Verdict(Unknown, "no_ack")
_FULL = Verdict(Unavailable, "stream_full")
_TOO_LARGE = Verdict(Refused, "too_large")
_BROKER_ERROR = Verdict(Unavailable, "broker_error")
_NO_LEADER = Verdict(Unavailable, "no_leader")

# https://github.com/nats-io/nats-server/blob/main/server/errors.json. Final ones are named here;
# anything else may pass, so it is `Unavailable`.
_STORE_FAILED = 10077
_BY_CODE = {
    10002: _FULL,  # resource limits exceeded for account
    10008: _NO_LEADER,  # JetStream system temporarily unavailable: no quorum
    10009: _NO_LEADER,  # JetStream cluster can not handle request
    10023: _FULL,  # insufficient resources
    10028: _FULL,  # insufficient memory resources available
    10047: _FULL,  # insufficient storage resources available
    10054: _TOO_LARGE,  # message size exceeds maximum allowed
    10097: _TOO_LARGE,  # header size exceeds maximum allowed of 64k
    10158: NO_ACK,  # duplicate message id is in process: another attempt of this record may land
}
_FULL_WORDS = ("maximum messages", "maximum bytes", "insufficient", "no space")
_NOT_LEADER = "not leader"


def verdict_of(error: ApiError) -> Verdict:
    """What the error of a PubAck means for its record."""
    words = error.description.lower()
    if error.err_code == _STORE_FAILED:
        # "maximum messages exceeded", "maximum bytes exceeded"; else a disk that failed.
        return _FULL if any(full in words for full in _FULL_WORDS) else _BROKER_ERROR
    if not error.err_code and _NOT_LEADER in words:
        return _NO_LEADER
    return _BY_CODE.get(error.err_code, _BROKER_ERROR)


def failure(
    broker: str, destination: str, verdict: Verdict, cause: BaseException | str = ""
) -> BrokerError:
    """One typed error for one record; an exception as `cause` is kept as its `__cause__`."""
    if isinstance(cause, str):
        return verdict.outcome(broker, destination, verdict.reason, cause)
    error = verdict.outcome(broker, destination, verdict.reason, str(cause))
    error.__cause__ = cause
    return error


CONNECT_ERRORS = (
    OSError,  # ssl.SSLError and socket.gaierror among them
    TimeoutError,
    UnicodeError,  # a host name that cannot be one
    ConnectionLost,
    ServerError,
    BrokerOptionsError,  # a credentials file that was fine at the start and is not now
)
"""Everything that connecting can fail with."""

# What a server says, in lower case, and what to do. First match.
_LOGIN_REFUSED = "authorization violation"
_SERVER_WORDS = (
    ("authentication timeout", "the login came too late for the server"),
    ("authentication expired", "the login has expired; renew {login}"),
    ("authentication revoked", "the login was revoked; renew {login}"),
    ("maximum connections", "the server has no place left (max_connections)"),
    ("tls required", "the server wants TLS; set brokers.{broker}.tls"),
)

_MAX_WORDS = 200

# nats-py's words for a server that does not greet as one.
_NO_INFO = "expecting INFO"
_BAD_INFO = "json parse"

# The first kind that fits, so a special error stands before its base.
_CONNECTION_PROBLEMS: tuple[tuple[type[BaseException], str], ...] = (
    (socket.gaierror, "the host name is not known; check brokers.{broker}.servers"),
    (UnicodeError, "the host name is not one; check brokers.{broker}.servers"),
    (ConnectionRefusedError, "nothing listens there; check brokers.{broker}.servers"),
    (TimeoutError, "no answer in time"),
    (OSError, "it closed the connection; check brokers.{broker}.servers and brokers.{broker}.tls"),
)


def connection_problem(options: ClientOptions, error: BaseException) -> str:
    """Why a connection failed, in words that name the setting to look at. Never a secret."""
    if isinstance(error, ServerError):
        return server_problem(options, error.text)
    if isinstance(error, ssl.SSLError):
        return tls_problem(options.broker, error)
    if isinstance(error, ConnectionLost):
        return error.problem
    if isinstance(error, BrokerOptionsError):
        return str(error)
    for kind, words in _CONNECTION_PROBLEMS:
        if isinstance(error, kind):
            return words.format(broker=options.broker)
    return type(error).__name__


def server_text(error: BaseException | None) -> str:
    """What the server said, from the exception that nats-py made of it."""
    if isinstance(error, AuthorizationError):
        return "Authorization Violation"
    return str(error).removeprefix("nats: ").strip("' \r\n")


def refusal(error: NatsError) -> ServerError | ConnectionLost:
    """Why nats-py could not log in: what the server said, or that it is none."""
    text = server_text(error)
    if _NO_INFO in text or _BAD_INFO in text:
        return ConnectionLost("it closed the connection, or is not a NATS server")
    return ServerError(text)


def server_problem(options: ClientOptions, text: str) -> str:
    """What an `-ERR` of the server means for the operator."""
    subject = denied_subscribe(text)
    if subject is not None:
        if subject.upper().startswith("_INBOX."):
            return "the login may not subscribe to _INBOX.>, where answers come; allow it"
        return f"the login may not subscribe to {subject}; allow it on the server"
    if _LOGIN_REFUSED in text.lower():
        return options.login_problem()
    for words, problem in _SERVER_WORDS:
        if words in text.lower():
            return problem.format(broker=options.broker, login=options.login_settings)
    return f"the server said {text[:_MAX_WORDS]!r}"


def most_telling(errors: list[BaseException]) -> BaseException:
    """The error to report when several servers failed: a wrong login before a dead host."""
    for kind in (ServerError, BrokerOptionsError, ssl.SSLError, CertificateWanted):
        for error in errors:
            if isinstance(error, kind):
                return error
    return errors[0] if errors else TimeoutError()
