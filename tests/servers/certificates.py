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
    other_client: Path
    """Signed by `other_ca`, with the same subject."""
    other_client_key: Path
    expired: Path
    """A server's, like `server` but for its last day, which is over."""
    expired_key: Path
    misnamed: Path
    """A server's for a host of another name."""
    misnamed_key: Path


def make_certificates(directory: Path) -> Certificates:
    """Make all files below `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    authority, other = _Authority("authority"), _Authority("other authority")
    server, client = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
    issued = {
        "server": authority.issue("localhost", server),
        "client": authority.issue("client", client),
        "other_client": other.issue("client", client),
        "expired": authority.issue("localhost", server, ended=True),
        "misnamed": authority.issue("elsewhere", server, hosts=("elsewhere.example",)),
    }
    contents = {"ca": authority.pem, "other_ca": other.pem}
    for name, (certificate, key) in issued.items():
        contents |= {name: certificate, f"{name}_key": key}
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

    def issue(
        self,
        name: str,
        usage: x509.ObjectIdentifier,
        *,
        hosts: tuple[str, ...] = (),
        ended: bool = False,
    ) -> tuple[bytes, bytes]:
        """Give a certificate and its key (PKCS #8), both PEM; `hosts` stand for this machine."""
        key = ec.generate_private_key(ec.SECP256R1())
        here = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(LOOPBACK))]
        names = [x509.DNSName(host) for host in hosts] or here
        certificate = (
            _builder(_name(name), self._name, key.public_key(), ended=ended)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .sign(self._key, SHA256())
        )
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return certificate.public_bytes(Encoding.PEM), private


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, *, ended: bool = False
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC) - dt.timedelta(days=2 if ended else 0)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
    )
