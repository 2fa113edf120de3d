"""What `gateway check --connect` says of a Kafka cluster and of each topic on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from gateway.brokers.base import BrokerOptionsError, Finding, Need
from gateway.brokers.kafka.connection import Cluster, TopicView
from gateway.brokers.kafka.errors import CLIENT_ERRORS, connection_problem
from gateway.brokers.kafka.judge import (
    UNKNOWN_TOPIC,
    Judge,
    Views,
    certain_topics,
    is_missing,
    topics_there,
)
from gateway.brokers.kafka.options import client_options, quiet_client_logs
from gateway.brokers.kafka.provision import creation_problems
from gateway.brokers.kafka.rights import writable

if TYPE_CHECKING:
    from gateway.config.models import KafkaConfig

_CONNECT_WITHIN = 5.0
_ANSWER_WITHIN = 2.0
_CLOSE_WITHIN = 0.5
_SETTINGS = ("max.message.bytes", "min.insync.replicas", "cleanup.policy")


async def check_cluster(broker: str, config: KafkaConfig, needs: Sequence[Need]) -> list[Finding]:
    """Look at the cluster and at the topics of `needs`, within about ten seconds."""
    quiet_client_logs()
    try:
        options = client_options(broker, config)
    except BrokerOptionsError as error:
        return [Finding("error", broker, str(error))]
    cluster = Cluster(options, on_lost=lambda: None)
    try:
        await cluster.connect(_CONNECT_WITHIN)
        return [
            Finding("ok", broker, "the cluster answers"),
            *security_findings(broker, config),
            *await _topics(broker, config, cluster, needs),
        ]
    except CLIENT_ERRORS as error:
        where = ", ".join(f"{host}:{port}" for host, port in options.servers)
        problem = connection_problem(broker, error)
        return [Finding("unreachable", broker, f"cannot use the cluster at {where}: {problem}")]
    finally:
        await cluster.close(_CLOSE_WITHIN)


def security_findings(broker: str, config: KafkaConfig) -> list[Finding]:
    """What the options alone give away."""
    if config.sasl is None or config.sasl.mechanism != "PLAIN" or config.tls is not None:
        return []
    message = "sasl.mechanism PLAIN without tls sends the password in the clear; set tls"
    return [Finding("warning", broker, message)]


async def _topics(
    broker: str, config: KafkaConfig, cluster: Cluster, needs: Sequence[Need]
) -> list[Finding]:
    certain = list(dict.fromkeys(name for need in needs for name in certain_topics(need)))
    views = {view.name: view for view in await _describe(cluster, certain)}
    if any(need.templated for need in needs):
        every = await cluster.describe(None, _ANSWER_WITHIN)
        views |= {view.name: view for view in every if not view.internal}
    wanted = _wanted(needs, views)
    present = [name for name in wanted if name in views and views[name].error == 0]
    settings = await cluster.topic_settings(present, _SETTINGS, _ANSWER_WITHIN) if present else {}
    may_write = await writable(cluster, present, _ANSWER_WITHIN)
    judge = Judge(broker, config, await _uncreatable(cluster, config, needs, views))
    if any(is_missing(name, views) for name in certain):
        judge.largest_message = await cluster.node_setting("message.max.bytes", _ANSWER_WITHIN)
    findings = [finding for need in needs for finding in judge.of_template(need, views)]
    for name, used_by in wanted.items():
        view = views.get(name, TopicView(name, UNKNOWN_TOPIC))
        if view.error:
            findings += judge.absent(view, used_by)
            continue
        if not may_write.get(name, True):
            findings.append(judge.read_only(name, used_by))
        findings += judge.present(view, used_by, settings.get(name))
    return findings


async def _describe(cluster: Cluster, topics: Sequence[str]) -> list[TopicView]:
    # An empty list would be fine for the cluster; not asking is quicker.
    return await cluster.describe(topics, _ANSWER_WITHIN) if topics else []


def _wanted(needs: Iterable[Need], views: Views) -> dict[str, list[Need]]:
    """Give the topics to say something of one by one, with who uses each."""
    wanted: dict[str, list[Need]] = {}
    for need in needs:
        names = topics_there(need, views) if need.templated else [need.destination]
        for name in names:
            wanted.setdefault(name, []).append(need)
    return wanted


async def _uncreatable(
    cluster: Cluster, config: KafkaConfig, needs: Iterable[Need], views: Views
) -> dict[str, str]:
    """Why topics that the gateway is to create at its start could not be created."""
    literal = dict.fromkeys(need.destination for need in needs if not need.templated)
    missing = [name for name in literal if is_missing(name, views)]
    if not config.topics.create or not missing:
        return {}
    return await creation_problems(cluster, config.topics, missing, _ANSWER_WITHIN)
