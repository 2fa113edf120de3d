"""Certificates for the servers and clients of the tests: made anew, valid for a day."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.servers.process import LOOPBACK


@dataclass(frozen=True)
class Certificates:
    """PEM files of one authority, a server at 127.0.0.1 and localhost, and a client."""

    ca: Path
    server: Path
    server_key: Path
    client: Path
    """Its subject is `CN=client`."""
    client_key: Path
    other_ca: Path
    """An authority that signed none of these."""


def make_certificates(directory: Path) -> Certificates:
    """Make all files below `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    authority = _Authority("authority")
    server, server_key = authority.issue("localhost", ExtendedKeyUsageOID.SERVER_AUTH)
    client, client_key = authority.issue("client", ExtendedKeyUsageOID.CLIENT_AUTH)
    contents = {
        "ca": authority.pem,
        "server": server,
        "server_key": server_key,
        "client": client,
        "client_key": client_key,
        "other_ca": _Authority("other authority").pem,
    }
    paths = {name: directory / f"{name}.pem" for name in contents}
    for name, path in paths.items():
        path.write_bytes(contents[name])
    return Certificates(**paths)


class _Authority:
    """A certificate authority that signs itself."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        builder = _builder(self._name, self._name, self._key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self.pem = builder.sign(self._key, SHA256()).public_bytes(Encoding.PEM)

    def issue(self, name: str, usage: x509.ObjectIdentifier) -> tuple[bytes, bytes]:
        """Give a certificate and its key (PKCS #8), both PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        addresses = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(LOOPBACK))]
        certificate = (
            _builder(_name(name), self._name, key.public_key())
            .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .sign(self._key, SHA256())
        )
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return certificate.public_bytes(Encoding.PEM), private


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
    )
