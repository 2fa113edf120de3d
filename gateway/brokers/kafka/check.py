"""What `gateway check --connect` says of a Kafka cluster and of each topic on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from aiokafka.protocol.api import RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Int16, Int32, Schema, String

from gateway.brokers.base import BrokerOptionsError, Finding, Need
from gateway.brokers.kafka.connection import Cluster, TopicView
from gateway.brokers.kafka.errors import CLIENT_ERRORS, connection_problem, name_of
from gateway.brokers.kafka.options import client_options, quiet_client_logs
from gateway.brokers.kafka.provision import creation_problems

if TYPE_CHECKING:
    from gateway.config.models import KafkaConfig

_CONNECT_WITHIN = 5.0
_ANSWER_WITHIN = 2.0
_CLOSE_WITHIN = 0.5
_GOOD_REPLICAS = 3
_GOOD_IN_SYNC = 2
_UNKNOWN_TOPIC = 3
_DENIED = 29
_SETTINGS = ("max.message.bytes", "min.insync.replicas")
_MAY_WRITE = 1 << 4
"""The bit of `AclOperation.WRITE` in a topic's authorised operations."""

Severity = Literal["ok", "warning", "error", "unreachable"]


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
    literal = list(dict.fromkeys(need.destination for need in needs if not need.templated))
    views = {view.name: view for view in await _describe(cluster, literal)}
    if any(need.templated for need in needs):
        every = await cluster.describe(None, _ANSWER_WITHIN)
        views |= {view.name: view for view in every if not view.internal}
    wanted = _wanted(needs, views)
    present = [name for name in wanted if name in views and views[name].error == 0]
    settings = await cluster.topic_settings(present, _SETTINGS, _ANSWER_WITHIN) if present else {}
    writable = await _writable(cluster, present)
    missing = [name for name in literal if _is_missing(name, views)]
    uncreatable = await _uncreatable(cluster, config, missing)
    findings = [_no_topic_yet(need) for need in needs if need.templated and not _fits(need, views)]
    for name, used_by in wanted.items():
        view = views.get(name, TopicView(name, _UNKNOWN_TOPIC))
        if view.error:
            findings.append(_absent(config, view, used_by, uncreatable.get(name, "")))
            continue
        if name in writable and not writable[name]:
            message = f"the login may not write to it; grant WRITE (used by {_names(used_by)})"
            findings.append(Finding("error", name, message))
        findings += _present(broker, view, used_by, settings.get(name))
    return findings


async def _describe(cluster: Cluster, topics: Sequence[str]) -> list[TopicView]:
    # An empty list would be fine for the cluster; not asking is quicker.
    return await cluster.describe(topics, _ANSWER_WITHIN) if topics else []


def _wanted(needs: Iterable[Need], views: dict[str, TopicView]) -> dict[str, list[Need]]:
    wanted: dict[str, list[Need]] = {}
    for need in needs:
        for name in _fits(need, views) if need.templated else [need.destination]:
            wanted.setdefault(name, []).append(need)
    return wanted


def _fits(need: Need, views: dict[str, TopicView]) -> list[str]:
    return sorted(name for name in views if name.startswith(need.destination))


def _no_topic_yet(need: Need) -> Finding:
    message = (
        f"no topic begins with {need.destination!r} yet; create those that"
        f" {need.used_by} will publish to"
    )
    return Finding("warning", f"{need.destination}*", message)


def _is_missing(name: str, views: dict[str, TopicView]) -> bool:
    return name not in views or views[name].error == _UNKNOWN_TOPIC


async def _uncreatable(
    cluster: Cluster, config: KafkaConfig, missing: Sequence[str]
) -> dict[str, str]:
    """Why topics that the gateway is to create at its start could not be created."""
    if not config.topics.create or not missing:
        return {}
    return await creation_problems(cluster, config.topics, missing, _ANSWER_WITHIN)


def _absent(config: KafkaConfig, view: TopicView, used_by: list[Need], problem: str) -> Finding:
    names = _names(used_by)
    if view.error == _DENIED:
        message = f"the login may not see it; grant DESCRIBE and WRITE (used by {names})"
        return Finding("error", view.name, message)
    if view.error != _UNKNOWN_TOPIC:
        return Finding("error", view.name, f"{name_of(view.error)} (used by {names})")
    if problem:
        message = f"does not exist and cannot be created: {problem} (used by {names})"
        return Finding("error", view.name, message)
    if config.topics.create and not any(need.templated for need in used_by):
        message = f"does not exist; it is created when the gateway starts (used by {names})"
        return Finding("warning", view.name, message)
    message = f"does not exist; create it, or set topics.create: true (used by {names})"
    return Finding("error", view.name, message)


def _present(
    broker: str, view: TopicView, used_by: list[Need], settings: dict[str, str] | None
) -> list[Finding]:
    faults = [*_replica_faults(view, settings or {}), *_size_faults(broker, used_by, settings)]
    if not faults:
        faults = [("ok", f"{len(view.leaders)} partitions, {view.replicas} replicas")]
    if -1 in view.leaders:
        leaderless = sum(leader < 0 for leader in view.leaders)
        faults.append(("error", f"{leaderless} of its partitions have no leader"))
    return [Finding(severity, view.name, message) for severity, message in faults]


def _replica_faults(view: TopicView, settings: dict[str, str]) -> list[tuple[Severity, str]]:
    faults: list[tuple[Severity, str]] = []
    if view.replicas < _GOOD_REPLICAS:
        message = f"replication factor {view.replicas}; {_GOOD_REPLICAS} survives the loss of nodes"
        faults.append(("warning", message))
    in_sync = int(settings.get("min.insync.replicas", _GOOD_IN_SYNC))
    if in_sync > view.replicas:
        message = f"min.insync.replicas {in_sync} is above its {view.replicas} replicas;"
        faults.append(("warning", f"{message} some versions of Kafka then store nothing"))
    elif in_sync < _GOOD_IN_SYNC:
        message = f"min.insync.replicas {in_sync}: an acknowledged record may be on one node only;"
        faults.append(("warning", f"{message} set it to {_GOOD_IN_SYNC}"))
    return faults


def _size_faults(
    broker: str, used_by: list[Need], settings: dict[str, str] | None
) -> list[tuple[Severity, str]]:
    if settings is None:
        message = "its settings may not be read; grant DESCRIBE_CONFIGS so that they are checked"
        return [("warning", message)]
    needed = max(need.record_bytes for need in used_by)
    limit = int(settings.get("max.message.bytes", needed))
    if limit >= needed:
        return []
    message = (
        f"max.message.bytes is {limit}, and a record may have {needed} bytes; raise it on the"
        f" topic, or lower server.max_body (brokers.{broker})"
    )
    return [("error", message)]


def _names(used_by: Iterable[Need]) -> str:
    return ", ".join(dict.fromkeys(need.used_by for need in used_by))


async def _writable(cluster: Cluster, topics: Sequence[str]) -> dict[str, bool]:
    """Whether this login may write to each of `topics`; empty where the cluster cannot say."""
    if not topics:
        return {}
    try:
        answer = await cluster.request(_PermissionRequest(topics), _ANSWER_WITHIN)
    except CLIENT_ERRORS:
        return {}
    return {name: bool(allowed & _MAY_WRITE) for _, name, _, _, allowed in answer.topics}


class _PermissionRequest:
    """A metadata request, version 8: the first that tells what the login may do (KIP-430).

    aiokafka ends at version 5. https://kafka.apache.org/protocol#The_Messages_Metadata
    """

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = list(topics)

    def prepare(self, versions: dict[int, tuple[int, int]]) -> Any:
        """What aiokafka's connection calls to get the bytes to send."""
        lowest, highest = versions[_METADATA]
        if not lowest <= _WITH_PERMISSIONS <= highest:
            raise NotImplementedError
        return _MetadataRequest8(self._topics, False, False, True)


_METADATA = 3
_WITH_PERMISSIONS = 8
_TEXT = String("utf-8")
_PARTITION = (
    ("error_code", Int16),
    ("partition", Int32),
    ("leader", Int32),
    ("leader_epoch", Int32),
    ("replicas", Array(Int32)),
    ("isr", Array(Int32)),
    ("offline_replicas", Array(Int32)),
)
_TOPIC = (
    ("error_code", Int16),
    ("topic", _TEXT),
    ("is_internal", Boolean),
    ("partitions", Array(*_PARTITION)),
    ("authorized_operations", Int32),
)
# Made by a call because the library has no types, and a subclass of an untyped class is an error.
_MetadataResponse8: Any = type(
    "MetadataResponse8",
    (Response,),
    {
        "API_KEY": _METADATA,
        "API_VERSION": _WITH_PERMISSIONS,
        "SCHEMA": Schema(
            ("throttle_time_ms", Int32),
            ("brokers", Array(("id", Int32), ("host", _TEXT), ("port", Int32), ("rack", _TEXT))),
            ("cluster_id", _TEXT),
            ("controller_id", Int32),
            ("topics", Array(*_TOPIC)),
            ("cluster_authorized_operations", Int32),
        ),
    },
)
_MetadataRequest8: Any = type(
    "MetadataRequest8",
    (RequestStruct,),
    {
        "API_KEY": _METADATA,
        "API_VERSION": _WITH_PERMISSIONS,
        "RESPONSE_TYPE": _MetadataResponse8,
        "SCHEMA": Schema(
            ("topics", Array(_TEXT)),
            ("allow_auto_topic_creation", Boolean),
            ("include_cluster_authorized_operations", Boolean),
            ("include_topic_authorized_operations", Boolean),
        ),
    },
)
