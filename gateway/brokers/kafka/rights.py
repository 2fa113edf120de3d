"""What a login may do with topics, as the cluster tells it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiokafka.protocol.api import RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Int16, Int32, Schema, String

from gateway.brokers.kafka.connection import Cluster
from gateway.brokers.kafka.errors import CLIENT_ERRORS

_MAY_WRITE = 1 << 4
"""The bit of `AclOperation.WRITE` in a topic's authorised operations."""


async def writable(cluster: Cluster, topics: Sequence[str], timeout: float) -> dict[str, bool]:
    """Whether this login may write to each of `topics`; empty where the cluster cannot say."""
    if not topics:
        return {}
    try:
        answer = await cluster.request(_PermissionRequest(topics), timeout)
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
