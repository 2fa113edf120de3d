"""TLS to a broker of any kind: from the config's files to a context, and what a fault means."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.brokers.base import BrokerOptionsError

if TYPE_CHECKING:
    from gateway.config.models import TlsConfig

__all__ = ["client_certificate_problem", "tls_context", "tls_problem"]

# The reasons of X509_V_ERR_*: docs.openssl.org/master/man3/X509_STORE_CTX_get_error
_NOT_THIS_HOST = "its certificate is for another host; check {0}.servers"
_CERTIFICATE_PROBLEMS = {
    9: "its certificate is not valid yet; check the clocks",
    10: "its certificate has expired; renew it there",
    62: _NOT_THIS_HOST,
    64: _NOT_THIS_HOST,  # an IP address
}
_UNTRUSTED = "its certificate is not trusted; check {0}.tls.ca_file"
_CLIENT_CERTIFICATE = (
    "it wants a client certificate that it trusts; check {0}.tls.cert_file and {0}.tls.key_file"
)
# What a server says of our certificate (RFC 8446, section 6.2), by OpenSSL's names.
_ABOUT_US = ("CERTIFICATE", "UNKNOWN_CA", "DECRYPT_ERROR", "ALERT_HANDSHAKE_FAILURE")
_HANDSHAKE = "the TLS handshake failed; check {0}.tls and the port"


def tls_context(broker: str, tls: TlsConfig) -> ssl.SSLContext:
    """Read what the config's `tls` names; without a `ca_file` the system's authorities count.

    Raises `BrokerOptionsError`, which names the setting, for a file that cannot be used.
    """
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


def tls_problem(broker: str, error: ssl.SSLError) -> str:
    """Why TLS with a server failed, in words that name the setting to look at."""
    if isinstance(error, ssl.SSLCertVerificationError):
        words = _CERTIFICATE_PROBLEMS.get(error.verify_code, _UNTRUSTED)
        return words.format(f"brokers.{broker}")
    reason = error.reason or ""
    if "ALERT" in reason and any(name in reason for name in _ABOUT_US):
        return client_certificate_problem(broker)
    return _HANDSHAKE.format(f"brokers.{broker}")


def client_certificate_problem(broker: str) -> str:
    """What to do when a server asks for a client certificate and does not get a good one."""
    return _CLIENT_CERTIFICATE.format(f"brokers.{broker}")


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
