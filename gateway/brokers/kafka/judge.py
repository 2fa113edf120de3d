"""What is to be said of the topics that a config needs, from what a cluster has told. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from gateway.brokers.base import Finding, Need
from gateway.brokers.kafka.connection import TopicView
from gateway.brokers.kafka.errors import name_of

if TYPE_CHECKING:
    from gateway.config.models import KafkaConfig

UNKNOWN_TOPIC = 3
_DENIED = 29
_GOOD_REPLICAS = 3
_GOOD_IN_SYNC = 2
_SHOWN = 3
"""Topics that a message names; of the others it says how many."""

Views = Mapping[str, TopicView]
_Faults = list[tuple[Literal["ok", "warning", "error"], str]]


def certain_topics(need: Need) -> list[str]:
    """Give the topics of a need whose whole names are known."""
    if not need.templated:
        return [need.destination]
    return [form for form in need.expected if "*" not in form]


def topics_there(need: Need, views: Views) -> list[str]:
    """Give the topics of the cluster that a template may give, by its beginning."""
    return sorted(
        name
        for name, view in views.items()
        if name.startswith(need.destination) and view.error != UNKNOWN_TOPIC
    )


def is_missing(name: str, views: Views) -> bool:
    """Tell whether the cluster has no such topic, as far as the login sees."""
    return name not in views or views[name].error == UNKNOWN_TOPIC


class Judge:
    """Says what is wrong with topics, and what would be right."""

    def __init__(self, broker: str, config: KafkaConfig, uncreatable: Mapping[str, str]) -> None:
        """`uncreatable`: why topics that the gateway is to create could not be created."""
        self._broker = broker
        self._config = config
        self._uncreatable = uncreatable
        self._server = f"--bootstrap-server {config.servers[0]}" if config.servers else ""
        self.largest_message: int | None = None
        """`message.max.bytes` of the cluster: what a topic takes that sets nothing of its own."""

    def of_template(self, need: Need, views: Views) -> list[Finding]:
        """Say which of a template's topics are missing."""
        if not need.templated:
            return []
        about = f"{need.destination}*"
        certain = certain_topics(need)
        missing = [name for name in certain if is_missing(name, views)]
        findings = []
        if missing:
            how_many = f"{len(missing)} of {len(certain)} topics do not exist"
            message = (
                f"{how_many}: {_listed(missing)}; the gateway creates none of a template: create"
                f" each by {self._create('TOPIC', need)}, or take the types out of the route"
                f" (used by {need.used_by})"
            )
            findings.append(Finding("error", about, message))
        if none_yet := _none_yet(need, views):
            message = (
                f"no topic is called {_listed(none_yet)} yet; the gateway creates none of a"
                f" template: create each that will be published to by"
                f" {self._create('TOPIC', need)} (used by {need.used_by})"
            )
            findings.append(Finding("warning", about, message))
        return findings

    def absent(self, view: TopicView, used_by: Sequence[Need]) -> list[Finding]:
        """Say of a topic that it is not there, or cannot be seen."""
        names = _names(used_by)
        if view.error == _DENIED:
            message = f"the login may not see it; grant DESCRIBE and WRITE (used by {names})"
            return [Finding("error", view.name, message)]
        if view.error != UNKNOWN_TOPIC:
            return [Finding("error", view.name, f"{name_of(view.error)} (used by {names})")]
        if problem := self._uncreatable.get(view.name, ""):
            message = f"does not exist and cannot be created: {problem} (used by {names})"
            return [Finding("error", view.name, message)]
        if self._config.topics.create:
            message = f"does not exist; it is created when the gateway starts (used by {names})"
            return [Finding("warning", view.name, message), *self._too_small(view.name, used_by)]
        message = (
            f"does not exist; create it by {self._create(view.name, *used_by)}, or set"
            f" brokers.{self._broker}.topics.create: true (used by {names})"
        )
        return [Finding("error", view.name, message)]

    def _too_small(self, topic: str, used_by: Sequence[Need]) -> list[Finding]:
        """Say that a topic which the gateway creates would not take the largest record."""
        needed = _needed(used_by)
        if self.largest_message is None or self.largest_message >= needed:
            return []
        message = (
            f"the cluster's message.max.bytes is {self.largest_message}, and a record may have"
            f" {needed} bytes; create the topic by {self._create(topic, *used_by)}, or raise"
            " message.max.bytes, or lower server.max_body"
        )
        return [Finding("error", topic, message)]

    def _create(self, topic: str, *used_by: Need) -> str:
        topics, needed = self._config.topics, _needed(used_by)
        small = self.largest_message is not None and self.largest_message < needed
        config = f" --config max.message.bytes={needed}" if small else ""
        return (
            f"`kafka-topics.sh {self._server} --create --topic {topic}"
            f" --partitions {topics.partitions}"
            f" --replication-factor {topics.replication_factor}{config}`"
        )

    def read_only(self, topic: str, used_by: Sequence[Need]) -> Finding:
        """Say that the login may not write to a topic."""
        message = f"the login may not write to it; grant WRITE (used by {_names(used_by)})"
        return Finding("error", topic, message)

    def present(
        self, view: TopicView, used_by: Sequence[Need], settings: Mapping[str, str] | None
    ) -> list[Finding]:
        """Say what is wrong with a topic that is there; `settings` None: they may not be read."""
        faults = _replica_faults(view, settings or {})
        if settings is None:
            message = (
                "its settings may not be read; grant DESCRIBE_CONFIGS so that they are checked"
            )
            faults.append(("warning", message))
        else:
            faults += self._size_faults(view.name, used_by, settings)
            faults += _policy_faults(settings)
        if not faults:
            faults = [("ok", f"{len(view.leaders)} partitions, {view.replicas} replicas")]
        if -1 in view.leaders:
            leaderless = sum(leader < 0 for leader in view.leaders)
            faults.append(("error", f"{leaderless} of its partitions have no leader"))
        return [Finding(severity, view.name, message) for severity, message in faults]

    def _size_faults(
        self, topic: str, used_by: Sequence[Need], settings: Mapping[str, str]
    ) -> _Faults:
        needed = _needed(used_by)
        limit = int(settings.get("max.message.bytes", needed))
        if limit >= needed:
            return []
        message = (
            f"max.message.bytes is {limit}, and a record may have {needed} bytes; raise it by"
            f" `kafka-configs.sh {self._server} --alter --entity-type topics --entity-name {topic}"
            f" --add-config max.message.bytes={needed}`, or lower server.max_body"
            f" (used by {_names(used_by)})"
        )
        return [("error", message)]


def _replica_faults(view: TopicView, settings: Mapping[str, str]) -> _Faults:
    faults: _Faults = []
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


def _policy_faults(settings: Mapping[str, str]) -> _Faults:
    policy = settings.get("cleanup.policy", "delete")
    if "compact" not in policy:
        return []
    message = (
        f"cleanup.policy is {policy}: of each key only the last record is kept, read or not; set"
        " cleanup.policy=delete unless that is meant"
    )
    return [("warning", message)]


def _none_yet(need: Need, views: Views) -> list[str]:
    """Give the forms that no topic has of those that only an event completes."""
    there = topics_there(need, views)
    if not need.expected:
        return [] if there else [f"{need.destination}*"]
    return [form for form in need.expected if "*" in form and not any(_fits(form, there))]


def _fits(form: str, names: Iterable[str]) -> Iterator[bool]:
    pattern = re.compile(re.escape(form).replace(r"\*", "[A-Za-z0-9_-]+"))
    return (pattern.fullmatch(name) is not None for name in names)


def _needed(used_by: Iterable[Need]) -> int:
    return max(need.record_bytes for need in used_by)


def _names(used_by: Iterable[Need]) -> str:
    return ", ".join(dict.fromkeys(need.used_by for need in used_by))


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
