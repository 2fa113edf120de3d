"""TLS to a broker of any kind: from the config's files to a context."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.brokers.base import BrokerOptionsError

if TYPE_CHECKING:
    from gateway.config.models import TlsConfig

__all__ = ["tls_context"]


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
