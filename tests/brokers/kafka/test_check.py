"""What `check` says of a real cluster, and creating the topics that are missing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import pytest
from pydantic import SecretStr

from gateway.brokers.base import Finding, Need
from gateway.brokers.kafka import KafkaBroker
from gateway.brokers.kafka.check import security_findings
from gateway.config.models import KafkaConfig, SaslConfig, TlsConfig, TopicsConfig
from tests.brokers.kafka.conftest import Starter
from tests.brokers.kafka.support import stored
from tests.canaries import KAFKA_OTHER_PASSWORD
from tests.servers.kafka import KafkaAt, KafkaServer
from tests.servers.process import free_port

Unique = Callable[[str], str]

LOGIN = SaslConfig(mechanism="PLAIN", username="writer", password=SecretStr(KAFKA_OTHER_PASSWORD))


def need(topic: str, *, templated: bool = False, record_bytes: int = 1000) -> Need:
    """Give a need of the route `users`."""
    return Need(topic, templated, record_bytes, "route users")


async def check(config: KafkaConfig, *needs: Need) -> list[Finding]:
    """Check with a broker that was never started."""
    return await KafkaBroker("events", config, lambda _, __: None).check(needs)


def at(bootstrap: str, *, create: bool = False, replication_factor: int = 1) -> KafkaConfig:
    """Give the config for a plain cluster."""
    topics = TopicsConfig(create=create, partitions=2, replication_factor=replication_factor)
    return KafkaConfig(kind="kafka", servers=(bootstrap,), topics=topics)


def told(findings: list[Finding], about: str) -> list[tuple[str, str]]:
    """Severity and message of what is said about one thing."""
    return [(finding.severity, finding.message) for finding in findings if finding.about == about]


def how(kafka: KafkaAt, topic: str, more: str = "") -> str:
    """Give the command that creates a topic, as the config of these tests has it."""
    return (
        f"`kafka-topics.sh --bootstrap-server {kafka.bootstrap} --create --topic {topic}"
        f" --partitions 2 --replication-factor 1{more}`"
    )


async def test_a_topic_that_is_missing(kafka_server: KafkaAt, unique: Unique) -> None:
    topic = unique("users")
    findings = await check(at(kafka_server.bootstrap), need(topic))
    assert told(findings, "events") == [("ok", "the cluster answers")]
    message = (
        f"does not exist; create it by {how(kafka_server, topic)}, or set"
        " brokers.events.topics.create: true (used by route users)"
    )
    assert told(findings, topic) == [("error", message)]
    findings = await check(at(kafka_server.bootstrap, create=True), need(topic))
    message = "does not exist; it is created when the gateway starts (used by route users)"
    assert told(findings, topic) == [("warning", message)]


async def test_a_topic_that_would_be_created_too_small(
    kafka_server: KafkaAt, unique: Unique
) -> None:
    topic, size = unique("users"), 2 * 1024 * 1024
    command = how(kafka_server, topic, f" --config max.message.bytes={size}")
    findings = await check(at(kafka_server.bootstrap), need(topic, record_bytes=size))
    ((severity, message),) = told(findings, topic)
    assert severity == "error"
    assert f"create it by {command}, or set" in message
    findings = await check(at(kafka_server.bootstrap, create=True), need(topic, record_bytes=size))
    assert told(findings, topic) == [
        (
            "warning",
            "does not exist; it is created when the gateway starts (used by route users)",
        ),
        (
            "error",
            "the cluster's message.max.bytes is 1048588, and a record may have 2097152 bytes;"
            f" create the topic by {command}, or raise message.max.bytes, or lower"
            " server.max_body",
        ),
    ]


async def test_thin_replication_is_a_warning(kafka_server: KafkaAt, unique: Unique) -> None:
    topic = await kafka_server.create_topic(unique("users"))
    findings = told(await check(at(kafka_server.bootstrap), need(topic)), topic)
    assert [severity for severity, _ in findings] == ["warning", "warning"]
    assert "replication factor 1" in findings[0][1]
    assert "min.insync.replicas 1" in findings[1][1]


async def test_a_limit_below_the_largest_record_is_an_error(
    kafka_server: KafkaAt, unique: Unique
) -> None:
    topic = await kafka_server.create_topic(unique("users"), 1, {"max.message.bytes": "5000"})
    needs = [need(topic, record_bytes=size) for size in (100, 5001)]
    findings = told(await check(at(kafka_server.bootstrap), *needs), topic)
    errors = [message for severity, message in findings if severity == "error"]
    assert errors == [
        "max.message.bytes is 5000, and a record may have 5001 bytes; raise it by"
        f" `kafka-configs.sh --bootstrap-server {kafka_server.bootstrap} --alter --entity-type"
        f" topics --entity-name {topic} --add-config max.message.bytes=5001`, or lower"
        " server.max_body (used by route users)"
    ]
    findings = told(await check(at(kafka_server.bootstrap), needs[0]), topic)
    assert "error" not in [severity for severity, _ in findings]


async def test_a_limit_that_the_topic_has_of_its_cluster(
    kafka_server: KafkaAt, unique: Unique
) -> None:
    topic = await kafka_server.create_topic(unique("users"))
    needs = need(topic, record_bytes=1_048_589)
    errors = [
        message
        for severity, message in told(await check(at(kafka_server.bootstrap), needs), topic)
        if severity == "error"
    ]
    (message,) = errors
    assert message.startswith(
        "max.message.bytes is 1048588, and a record may have 1048589 bytes; raise it by"
    )


async def test_a_compacted_topic_is_a_warning(kafka_server: KafkaAt, unique: Unique) -> None:
    topic = await kafka_server.create_topic(unique("users"), 1, {"cleanup.policy": "compact"})
    findings = told(await check(at(kafka_server.bootstrap), need(topic)), topic)
    assert (
        "warning",
        "cleanup.policy is compact: of each key only the last record is kept, read or not; set"
        " cleanup.policy=delete unless that is meant",
    ) in findings


async def test_a_template_stands_for_the_topics_that_begin_so(
    kafka_server: KafkaAt, unique: Unique
) -> None:
    prefix = unique("users") + "."
    findings = await check(at(kafka_server.bootstrap), need(prefix, templated=True))
    assert told(findings, f"{prefix}*") == [("warning", none_yet(kafka_server, f"{prefix}*"))]
    await kafka_server.create_topic(f"{prefix}created", 1, {"max.message.bytes": "500"})
    findings = await check(at(kafka_server.bootstrap), need(prefix, templated=True))
    assert told(findings, f"{prefix}*") == []
    assert "error" in [severity for severity, _ in told(findings, f"{prefix}created")]


def none_yet(kafka: KafkaAt, forms: str) -> str:
    """Give the words about what only an event completes."""
    return (
        f"no topic is called {forms} yet; the gateway creates none of a template: create each that"
        f" will be published to by {how(kafka, 'TOPIC')} (used by route users)"
    )


async def test_the_topics_that_a_template_will_give(kafka_server: KafkaAt, unique: Unique) -> None:
    prefix = unique("clerk") + "."
    types = ["user.created", "user.updated", "user.deleted", "session.created", "session.ended"]
    expected = tuple(prefix + name for name in types)
    template = Need(prefix, True, 1000, "route users", expected=expected)
    await kafka_server.create_topic(f"{prefix}user.created", 1, {"max.message.bytes": "500"})

    for create in (False, True):
        findings = await check(at(kafka_server.bootstrap, create=create), template)
        assert told(findings, f"{prefix}*") == [
            (
                "error",
                f"4 of 5 topics do not exist: {prefix}user.updated, {prefix}user.deleted,"
                f" {prefix}session.created and 1 more; the gateway creates none of a template:"
                f" create each by {how(kafka_server, 'TOPIC')}, or take the types out of the route"
                " (used by route users)",
            )
        ]
        assert "error" in [severity for severity, _ in told(findings, f"{prefix}user.created")]


async def test_topics_of_which_only_the_event_knows_the_name(
    kafka_server: KafkaAt, unique: Unique
) -> None:
    prefix = unique("clerk") + "-"
    expected = (f"{prefix}*.user", f"{prefix}*.org")
    template = Need(prefix, True, 1000, "route users", expected=expected)
    await kafka_server.create_topic(f"{prefix}acme.user")

    findings = await check(at(kafka_server.bootstrap), template)

    assert told(findings, f"{prefix}*") == [("warning", none_yet(kafka_server, f"{prefix}*.org"))]
    assert [severity for severity, _ in told(findings, f"{prefix}acme.user")] == ["warning"] * 2


async def test_a_cluster_that_cannot_be_reached() -> None:
    address = f"127.0.0.1:{free_port()}"
    (finding,) = await check(at(address), need("users"))
    assert (finding.severity, finding.about) == ("unreachable", "events")
    assert address in finding.message
    assert "nothing listens there" in finding.message


async def test_a_frozen_cluster_is_given_up_soon(own_kafka: KafkaServer) -> None:
    own_kafka.pause()
    began = time.monotonic()
    (finding,) = await check(at(own_kafka.bootstrap), need("users"))
    assert time.monotonic() - began < 10
    assert finding.severity == "unreachable"
    assert "no answer in time" in finding.message


async def test_options_that_cannot_work_are_a_finding() -> None:
    config = KafkaConfig(kind="kafka", servers=("localhost:1",), tls=TlsConfig(ca_file="/nowhere"))
    (finding,) = await check(config, need("users"))
    assert finding.severity == "error"
    assert "brokers.events.tls.ca_file" in finding.message


async def test_a_login_where_the_cluster_has_none(kafka_server: KafkaAt) -> None:
    config = KafkaConfig(kind="kafka", servers=(kafka_server.bootstrap,), sasl=LOGIN)
    (finding,) = await check(config)
    assert finding.severity == "unreachable"
    assert "brokers.events.sasl" in finding.message


def test_a_password_in_the_clear_is_a_warning() -> None:
    clear = KafkaConfig(kind="kafka", servers=("a:1",), sasl=LOGIN)
    assert [finding.severity for finding in security_findings("events", clear)] == ["warning"]
    safe = KafkaConfig(kind="kafka", servers=("a:1",), sasl=LOGIN, tls=TlsConfig())
    assert security_findings("events", safe) == []


async def test_missing_topics_are_created_at_start(
    start: Starter, kafka_server: KafkaAt, unique: Unique
) -> None:
    old, new, prefix = await kafka_server.create_topic(unique("old")), unique("new"), unique("tpl.")
    needs = (need(old), need(new), need(prefix, templated=True))
    config = at(kafka_server.bootstrap, create=True)
    started = await start(kafka_server.bootstrap, needs=needs, topics=config.topics)
    assert await started.outcome(new) == "Receipt"
    assert {(await started.publish(new)).partition for _ in range(4)} == {0, 1}
    assert {(await started.publish(old)).partition for _ in range(4)} == {0}
    assert await started.outcome(prefix) == "Unavailable(no_topic)"
    assert len(await stored(kafka_server.bootstrap, new)) == 5


async def test_a_topic_that_cannot_be_created_is_told_and_stops_nothing(
    start: Starter, kafka_server: KafkaAt, unique: Unique, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = await kafka_server.create_topic(unique("old")), unique("new")
    config = at(kafka_server.bootstrap, create=True, replication_factor=3)
    with caplog.at_level(logging.WARNING, "gateway.brokers"):
        started = await start(kafka_server.bootstrap, needs=(need(new),), topics=config.topics)
    (warning,) = caplog.messages
    assert new in warning
    assert "lower brokers.events.topics.replication_factor" in warning
    assert await started.outcome(old) == "Receipt"
    assert await started.outcome(new) == "Unavailable(no_topic)"
