"""What is where in the streams of the inbox: names, subjects, settings. Pure.

Three streams, all their subjects below the first one's name:

- `<stream>`: what waits, `waiting.<partition>.<event>`. At most one message per subject, and a
  second one is refused by the server, so that a copy of what waits cannot be stored twice.
- `<stream>_PARKED`: what is set aside, `parked.<partition>.<number>.<target>`.
- `<stream>_STATE`: who does what, `session.<id>` and `lease.<partition>`; and of records with
  several targets those that are settled, `progress.<partition>.<number>.<target>`.

A record is stored once per partition that its targets' lanes fall into, whole each time; its share
there are the targets of that partition. So all of a lane is in one partition, in one order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.delivery.inbox.record import Record, Target
from gateway.delivery.inbox.store import Bounds

__all__ = [
    "PARTITIONS",
    "Layout",
    "Mark",
    "StreamSettings",
    "differing",
    "foreign",
    "header_block",
    "partitions_of",
    "stored_size",
]

PARTITIONS = 16
"""Of a stream that is created; one that exists says how many it has."""

FORM = "1"
_FORM_KEY = "clerk-event-gateway.inbox"
_PARTITIONS_KEY = "clerk-event-gateway.partitions"
_NANOSECONDS = 1_000_000_000
_SHORTEST_WINDOW = 0.1
"""Seconds: the least that a server takes as a duplicate window."""


_AROUND_MESSAGE = 30
_AROUND_HEADERS = 4


class StreamSettings(msgspec.Struct, frozen=True):
    """What a server tells of a stream's configuration, as far as the inbox depends on it."""

    name: str
    subjects: tuple[str, ...] = ()
    storage: str = "file"
    retention: str = "limits"
    discard: str = "old"
    discard_new_per_subject: bool = False
    max_msgs_per_subject: int = -1
    max_msgs: int = -1
    max_age: int = 0
    max_bytes: int = -1
    duplicate_window: int = 0
    num_replicas: int = 1
    sealed: bool = False
    no_ack: bool = False
    metadata: dict[str, str] = {}


class Mark(msgspec.Struct, frozen=True):
    """A target of a stored record, as the end of a subject tells it."""

    ref: int
    target: int


class Layout(msgspec.Struct, frozen=True):
    """The names of one inbox, and what belongs where."""

    stream: str
    partitions: int = PARTITIONS

    @property
    def parked(self) -> str:
        """The stream of what is parked."""
        return f"{self.stream}_PARKED"

    @property
    def state(self) -> str:
        """The stream of sessions, leases and progress."""
        return f"{self.stream}_STATE"

    def shares(self, record: Record, targets: tuple[Target, ...]) -> dict[str, int]:
        """The subject of each message that a record becomes, with its partition."""
        name = hashlib.blake2b(record.name.encode("utf-8", "replace"), digest_size=16).hexdigest()
        places = sorted({target.lane % self.partitions for target in targets})
        return {f"{self.stream}.waiting.{place}.{name}": place for place in places}

    def owed(self, targets: tuple[Target, ...], partition: int) -> int:
        """Bitmask of the targets that are a partition's share."""
        return sum(
            1 << at for at, one in enumerate(targets) if one.lane % self.partitions == partition
        )

    def waiting_in(self, partition: int | None = None) -> str:
        """The pattern of all that waits, in one partition or in all."""
        return f"{self.stream}.waiting.{'*' if partition is None else partition}.*"

    def progress(self, partition: int, ref: int, target: int | None = None) -> str:
        """The subject that says that a target is settled, or the pattern of all of a record."""
        return f"{self.stream}.progress.{partition}.{ref}.{'*' if target is None else target}"

    def progress_in(self, partition: int | None = None) -> str:
        """The pattern of all progress, in one partition or in all."""
        return f"{self.stream}.progress.{'*' if partition is None else partition}.>"

    def parked_as(self, partition: int, ref: int, target: int) -> str:
        """The subject of a parked target: parking it twice is refused by the server."""
        return f"{self.stream}.parked.{partition}.{ref}.{target}"

    def parked_in(self, partition: int | None = None) -> str:
        """The pattern of all that is parked, from one partition or from all."""
        return f"{self.stream}.parked.{'*' if partition is None else partition}.>"

    def session(self, session: str = "*") -> str:
        """The subject of a replica's sign of life."""
        return f"{self.stream}.session.{session}"

    def lease(self, partition: int | None = None) -> str:
        """The subject of a partition's lease, or the pattern of all."""
        return f"{self.stream}.lease.{'*' if partition is None else partition}"

    def withdraw(self, partition: int) -> str:
        """Where the holder of a partition is asked to drop a record; in no stream."""
        return f"{self.stream}.withdraw.{partition}"

    def partition_of(self, subject: str) -> int:
        """The partition that the subject of a waiting or parked message, or of a lease, names."""
        return int(subject[len(self.stream) + 1 :].split(".")[1])

    def mark_of(self, subject: str) -> Mark:
        """Read the end of a subject of progress, or of what is parked."""
        _, ref, target = subject.rsplit(".", 2)
        return Mark(int(ref), int(target))

    def settings(self, bounds: Bounds, replicas: int) -> list[dict[str, Any]]:
        """The bodies of STREAM.CREATE; the stream of what waits comes last: it makes the inbox."""
        common = {
            "storage": "file",
            "retention": "limits",
            "max_age": 0,
            "max_msgs": -1,
            "max_msgs_per_subject": 1,
            "num_replicas": replicas,
            "metadata": {_FORM_KEY: FORM, _PARTITIONS_KEY: str(self.partitions)},
        }
        refusing = common | {"discard": "new", "discard_new_per_subject": True}
        window = int(max(bounds.window, _SHORTEST_WINDOW) * _NANOSECONDS)
        return [
            common
            | {
                "name": self.state,
                "subjects": [self.session(), self.lease(), f"{self.stream}.progress.>"],
                "discard": "old",
                "max_bytes": -1,
            },
            refusing
            | {
                "name": self.parked,
                "subjects": [f"{self.stream}.parked.>"],
                "max_bytes": bounds.parked_max_bytes,
            },
            refusing
            | {
                "name": self.stream,
                "subjects": [f"{self.stream}.waiting.>"],
                "max_bytes": bounds.max_bytes,
                "duplicate_window": window,
            },
        ]


_BOUNDS = ("max_bytes", "duplicate_window")
_FIXED = (
    *("subjects", "storage", "retention", "discard", "discard_new_per_subject"),
    *("max_msgs_per_subject", "max_msgs", "max_age"),
)


def foreign(there: StreamSettings, wanted: dict[str, Any]) -> str:
    """Why a stream that exists cannot be the inbox's, in words; empty when it is."""
    form = there.metadata.get(_FORM_KEY)
    if form is None:
        return "a stream of this name exists, and it is not an inbox"
    if form != FORM:
        return f"it has form {form}, and this version of the gateway reads form {FORM}"
    wanted = {"discard_new_per_subject": False} | wanted
    for name in _FIXED:
        value, right = getattr(there, name), wanted[name]
        if value != (tuple(right) if name == "subjects" else right):
            told = " ".join(value) if name == "subjects" else value
            return f"its {name} was changed to {told}"
    if there.sealed or there.no_ack:
        return "it is sealed" if there.sealed else "its no_ack was set"
    if not there.metadata.get(_PARTITIONS_KEY, "").isdigit():
        return "it does not say how many partitions it has"
    return ""


def partitions_of(there: StreamSettings) -> int:
    """How many partitions a stream has that is not foreign."""
    return int(there.metadata[_PARTITIONS_KEY])


def differing(there: StreamSettings, wanted: dict[str, Any]) -> dict[str, Any]:
    """The bounds of a stream that are other than the config's, which may be changed."""
    return {
        name: wanted[name]
        for name in _BOUNDS
        if name in wanted and getattr(there, name) != wanted[name]
    }


def header_block(headers: Mapping[str, str]) -> bytes:
    """The headers of a message as they are sent, and stored; nothing where there are none."""
    if not headers:
        return b""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"NATS/1.0\r\n{lines}\r\n".encode()


def stored_size(subject: str, block: bytes, data: bytes) -> int:
    """Bytes that a message takes in a stream of files, as the server counts them.

    https://github.com/nats-io/nats-server/blob/main/server/filestore.go, `fileStoreMsgSizeRaw`
    """
    size = _AROUND_MESSAGE + len(subject.encode()) + len(data)
    return size + _AROUND_HEADERS + len(block) if block else size
