"""Getting into a real Kafka with TLS, client certificates, SASL and an authorizer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka.conn import ScramAuthenticator
from pydantic import SecretStr

from gateway.brokers.base import Finding, Need, State
from gateway.brokers.kafka import KafkaBroker
from gateway.config.models import KafkaConfig, SaslConfig, TlsConfig
from tests.brokers.kafka.conftest import Starter
from tests.brokers.kafka.support import eventually, wait_for
from tests.servers.kafka import SecureKafka

Unique = Callable[[str], str]


def login(secured: SecureKafka, mechanism: Any = "SCRAM-SHA-512", **changes: str) -> dict[str, Any]:
    """Give the config of a login that works, but for `changes`."""
    username = changes.get("username", secured.username)
    password = SecretStr(changes.get("password", secured.password))
    return {
        "tls": TlsConfig(ca_file=changes.get("ca_file", str(secured.certificates.ca))),
        "sasl": SaslConfig(mechanism=mechanism, username=username, password=password),
    }


async def check(bootstrap: str, topics: list[str], **config: Any) -> list[Finding]:
    """Check with a broker that was never started."""
    options = KafkaConfig(kind="kafka", servers=(bootstrap,), **config)
    needs = [
        Need(topic, templated=False, record_bytes=1000, used_by="route users") for topic in topics
    ]
    return await KafkaBroker("events", options, lambda _, __: None).check(needs)


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"])
async def test_sasl_over_tls(
    start: Starter, secured_kafka: SecureKafka, unique: Unique, mechanism: str
) -> None:
    topic = await secured_kafka.server.create_topic(unique("users"))
    started = await start(secured_kafka.sasl, **login(secured_kafka, mechanism))
    assert await started.outcome(topic) == "Receipt"


async def test_a_client_certificate(
    start: Starter, secured_kafka: SecureKafka, unique: Unique
) -> None:
    topic = await secured_kafka.server.create_topic(unique("users"))
    files = secured_kafka.certificates
    tls = TlsConfig(
        ca_file=str(files.ca), cert_file=str(files.client), key_file=str(files.client_key)
    )
    started = await start(secured_kafka.mtls, tls=tls)
    assert await started.outcome(topic) == "Receipt"


REFUSED = [
    ({"password": "wrong"}, "brokers.events.sasl.password"),
    ({"username": "nobody"}, "brokers.events.sasl.username"),
]


@pytest.mark.parametrize(("changes", "setting"), REFUSED)
async def test_a_wrong_login_is_down_and_told_by_its_setting(
    start: Starter,
    secured_kafka: SecureKafka,
    caplog: pytest.LogCaptureFixture,
    changes: dict[str, str],
    setting: str,
) -> None:
    config = login(secured_kafka, **changes)
    with caplog.at_level(logging.INFO):
        started = await start(secured_kafka.sasl, until=State.DOWN, **config)
        await asyncio.sleep(0.7)
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.name for record in told] == ["gateway.brokers"]
    assert setting in told[0].getMessage()
    assert await started.outcome("users") == "Unavailable(broker_down)"

    (finding,) = await check(secured_kafka.sasl, ["users"], **config)
    assert finding.severity == "unreachable"
    assert setting in finding.message
    for text in [caplog.text, finding.message]:
        assert changes.get("password", secured_kafka.password) not in text


async def test_a_certificate_of_an_unknown_authority(secured_kafka: SecureKafka) -> None:
    config = login(secured_kafka, ca_file=str(secured_kafka.certificates.other_ca))
    (finding,) = await check(secured_kafka.sasl, ["users"], **config)
    assert finding.severity == "unreachable"
    assert "brokers.events.tls.ca_file" in finding.message


async def test_a_mechanism_that_the_cluster_does_not_take(secured_kafka: SecureKafka) -> None:
    config = login(secured_kafka, "SCRAM-SHA-256")
    (finding,) = await check(secured_kafka.clear, ["users"], sasl=config["sasl"])
    assert finding.severity == "unreachable"
    assert "brokers.events.sasl.mechanism" in finding.message


@pytest.mark.parametrize("sent", ["v=AAAA", "e=other-error", "junk"])
async def test_a_cluster_that_does_not_know_the_password(
    secured_kafka: SecureKafka, monkeypatch: pytest.MonkeyPatch, sent: str
) -> None:
    """Whoever stands in for the cluster cannot prove itself, whatever it sends at the end."""
    genuine = ScramAuthenticator.process_server_final_message
    monkeypatch.setattr(
        ScramAuthenticator, "process_server_final_message", lambda self, _: genuine(self, sent)
    )
    (finding,) = await check(secured_kafka.sasl, ["users"], **login(secured_kafka))
    assert finding.severity == "unreachable"
    assert "does not know the password; check brokers.events.servers" in finding.message


async def test_no_tls_where_the_port_wants_it(secured_kafka: SecureKafka) -> None:
    (finding,) = await check(secured_kafka.sasl, ["users"])
    assert finding.severity == "unreachable"
    assert "brokers.events.tls" in finding.message


async def test_tls_where_the_port_has_none(secured_kafka: SecureKafka) -> None:
    tls = TlsConfig(ca_file=str(secured_kafka.certificates.ca))
    (finding,) = await check(secured_kafka.bootstrap, ["users"], tls=tls)
    assert finding.severity == "unreachable"
    assert "brokers.events.tls" in finding.message


async def test_a_topic_that_the_login_may_not_write_to(
    start: Starter, secured_kafka: SecureKafka, unique: Unique
) -> None:
    topic = await secured_kafka.server.create_topic(unique("users"))
    config = login(secured_kafka, username=secured_kafka.restricted_username)
    started = await start(secured_kafka.sasl, **config)
    assert await started.outcome(topic) == "Refused(not_authorized)"
    _, finding = await check(secured_kafka.sasl, [topic], **config)
    assert finding.severity == "error"
    assert "grant DESCRIBE and WRITE" in finding.message

    await secured_kafka.allow("DESCRIBE", topic)
    await asyncio.sleep(1)
    assert await started.outcome(topic) == "Refused(not_authorized)"
    findings = await check(secured_kafka.sasl, [topic], **config)
    severities = {finding.message: finding.severity for finding in findings}
    assert severities["the login may not write to it; grant WRITE (used by route users)"] == "error"
    unread = "its settings may not be read; grant DESCRIBE_CONFIGS so that they are checked"
    assert severities[unread] == "warning"

    await secured_kafka.allow("WRITE", topic)
    await eventually(lambda: started.outcome(topic), "Receipt")
    findings = await check(secured_kafka.sasl, [topic], **config)
    assert [finding.severity for finding in findings if "may not write" in finding.message] == []
    await wait_for(lambda: started.broker.in_flight == (0, 0))
