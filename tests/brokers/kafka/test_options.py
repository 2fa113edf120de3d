"""From the config to what the client takes: what is read, and what is refused by its name."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from gateway.brokers.base import BrokerOptionsError
from gateway.brokers.kafka import KafkaBroker
from gateway.brokers.kafka.options import client_options
from gateway.config.models import KafkaConfig, SaslConfig, TlsConfig
from tests.canaries import KAFKA_OTHER_PASSWORD
from tests.servers.certificates import Certificates, make_certificates

SASL = SaslConfig(
    mechanism="SCRAM-SHA-256", username="writer", password=SecretStr(KAFKA_OTHER_PASSWORD)
)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Give real PEM files."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def kafka(**config: Any) -> KafkaConfig:
    """Give a config that works, but for what is given."""
    return KafkaConfig.model_construct(
        **{**dict(KafkaConfig(kind="kafka", servers=("a:1",))), **config}
    )


def test_addresses() -> None:
    options = client_options("events", kafka(servers=("a:1", "b", "[::1]:9", "10.0.0.1:2")))
    assert options.servers == (("a", 1), ("b", 9092), ("::1", 9), ("10.0.0.1", 2))


@pytest.mark.parametrize(
    ("tls", "sasl", "protocol"),
    [
        (None, None, "PLAINTEXT"),
        (TlsConfig(), None, "SSL"),
        (None, SASL, "SASL_PLAINTEXT"),
        (TlsConfig(), SASL, "SASL_SSL"),
    ],
)
def test_security_protocol(tls: TlsConfig | None, sasl: SaslConfig | None, protocol: str) -> None:
    options = client_options("events", kafka(tls=tls, sasl=sasl))
    security = options.security
    assert security["security_protocol"] == protocol
    assert ("ssl_context" in security) is (tls is not None)
    if sasl is not None:
        assert "sasl_plain_password" not in security
        assert options.login() == {**security, "sasl_plain_password": KAFKA_OTHER_PASSWORD}
        assert security["sasl_mechanism"] == "SCRAM-SHA-256"


def test_the_password_is_in_no_repr() -> None:
    assert KAFKA_OTHER_PASSWORD not in repr(client_options("events", kafka(sasl=SASL)))


def test_certificates_are_verified(certificates: Certificates) -> None:
    tls = TlsConfig(
        ca_file=str(certificates.ca),
        cert_file=str(certificates.client),
        key_file=str(certificates.client_key),
    )
    context = client_options("events", kafka(tls=tls)).security["ssl_context"]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert len(context.get_ca_certs()) == 1


def bad_tls(certificates: Certificates, tmp_path: Path) -> dict[str, tuple[TlsConfig, str]]:
    """Give TLS settings that cannot work, each with the setting to blame."""
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    good, key = str(certificates.client), str(certificates.client_key)
    return {
        "no ca": (TlsConfig(ca_file="/nowhere/ca.pem"), "tls.ca_file"),
        "junk ca": (TlsConfig(ca_file=str(junk)), "tls.ca_file"),
        "no cert": (TlsConfig(cert_file="/nowhere/cert.pem", key_file=key), "tls.cert_file"),
        "no key": (TlsConfig(cert_file=good, key_file="/nowhere/key.pem"), "tls.key_file"),
        "key alone": (TlsConfig(key_file=key), "tls.cert_file"),
        "other key": (
            TlsConfig(cert_file=good, key_file=str(certificates.server_key)),
            "tls.key_file",
        ),
        "key left out": (TlsConfig(cert_file=good), "tls.cert_file"),
    }


CASES = ["no ca", "junk ca", "no cert", "no key", "key alone", "other key", "key left out"]


@pytest.mark.parametrize("case", CASES)
async def test_files_that_cannot_be_used_are_told_by_their_setting(
    certificates: Certificates, tmp_path: Path, case: str
) -> None:
    tls, setting = bad_tls(certificates, tmp_path)[case]
    broker = KafkaBroker("events", kafka(tls=tls), lambda _, __: None)
    with pytest.raises(BrokerOptionsError) as raised:
        await broker.start()
    assert (raised.value.broker, raised.value.setting) == ("events", setting)
    await broker.close(1)


@pytest.mark.parametrize("servers", [(), ("kafka://a:1",), ("a:b",)])
def test_servers_that_are_none(servers: tuple[str, ...]) -> None:
    with pytest.raises(BrokerOptionsError, match=r"brokers\.events\.servers"):
        client_options("events", kafka(servers=servers))
