"""Create the topics that the config asks for when they are missing."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from aiokafka.protocol.admin import CreateTopicsRequest

from gateway.brokers.base import Need
from gateway.brokers.kafka.connection import Cluster
from gateway.brokers.kafka.errors import CLIENT_ERRORS, connection_problem, name_of

if TYPE_CHECKING:
    from gateway.config.models import TopicsConfig

log = logging.getLogger("gateway.brokers")

_WITHIN = 10.0
_DESCRIBE_WITHIN = 5.0
_UNKNOWN_TOPIC = 3
_EXISTS = 36
_INVALID_REPLICATION_FACTOR = 38
_DENIED = {29, 31}
"""TOPIC_AUTHORIZATION_FAILED, CLUSTER_AUTHORIZATION_FAILED."""


async def create_topics(
    cluster: Cluster, topics: TopicsConfig, needs: Iterable[Need]
) -> dict[str, str]:
    """Create the literal topics among `needs` that do not exist.

    Returns why each topic that could not be created could not, and logs it; the gateway goes on
    without, because an operator may still create the topic.
    """
    names = sorted({need.destination for need in needs if not need.templated})
    broker = cluster.options.broker
    if not names:
        return {}
    try:
        views = await cluster.describe(names, _DESCRIBE_WITHIN)
        missing = [view.name for view in views if view.error == _UNKNOWN_TOPIC]
        problems = await _create(cluster, topics, missing, _WITHIN) if missing else {}
    except CLIENT_ERRORS as error:
        problems = dict.fromkeys(names, connection_problem(broker, error))
    for name, problem in problems.items():
        log.warning("kafka broker %s: could not create topic %s: %s", broker, name, problem)
    return problems


async def creation_problems(
    cluster: Cluster, topics: TopicsConfig, missing: Sequence[str], timeout: float
) -> dict[str, str]:
    """Why each of the `missing` topics could not be created, without creating any.

    Raises what `errors.CLIENT_ERRORS` lists.
    """
    return await _create(cluster, topics, missing, timeout, validate_only=True)


async def _create(
    cluster: Cluster,
    topics: TopicsConfig,
    missing: Sequence[str],
    timeout: float,
    *,
    validate_only: bool = False,
) -> dict[str, str]:
    wanted: list[Any] = [
        (name, topics.partitions, topics.replication_factor, [], []) for name in missing
    ]
    return await _ask(cluster, wanted, timeout, validate_only=validate_only)


async def create_compacted(cluster: Cluster, name: str, replicas: int, timeout: float) -> str:
    """Create a topic of one partition that keeps the last record of each key.

    Returns why it could not be created, or nothing. Raises what `errors.CLIENT_ERRORS` lists.
    """
    wanted: list[Any] = [(name, 1, replicas, [], [("cleanup.policy", "compact")])]
    return (await _ask(cluster, wanted, timeout)).get(name, "")


async def _ask(
    cluster: Cluster, wanted: list[Any], timeout: float, *, validate_only: bool = False
) -> dict[str, str]:
    """Ask for topics: name, partitions, replicas, assignments, settings."""
    request = CreateTopicsRequest(wanted, timeout=int(timeout * 1000), validate_only=validate_only)
    answer = await cluster.ask_controller(request, timeout)
    problems = {}
    for topic, code, *_ in answer.topic_errors:
        if code in {0, _EXISTS}:
            continue
        problems[topic] = name_of(code)
        if code in _DENIED:
            problems[topic] += ": the login may not; grant CREATE on the topic"
        if code == _INVALID_REPLICATION_FACTOR:
            problems[topic] += (
                ": the cluster has too few nodes for so many replicas;"
                f" lower brokers.{cluster.options.broker}.topics.replication_factor"
            )
    return problems
