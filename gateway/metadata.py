"""The headers that travel with an event: CloudEvents, the signature, the gateway's own.

Kafka: `ce_*` and `content-type`, CloudEvents 1.0.2 Kafka binding, binary mode
(https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md).
NATS: `ce-*` with percent-encoded values, as in the working draft of the NATS binding, section
3.1 "Binary Content Mode", version 1.0.3-wip as of commit
83a8bd9150de032b4788be72341c5f5f767df92e of cloudevents/spec. Pure: values in, pairs out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

__all__ = [
    "Headers",
    "Metadata",
    "clean_header",
    "cloudevent",
    "kafka_headers",
    "nats_headers",
    "percent_encode",
    "rfc3339",
    "structured_headers",
]

Headers = tuple[tuple[str, str], ...]

_CONTENT_TYPE = "application/json"
_STRUCTURED = "application/cloudevents+json"
_NO_TYPE = "unknown"
"""CloudEvents requires a type; an event of a non-Clerk source may have none."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_TO_ENCODE = re.compile(r"[^\x21\x23\x24\x26-\x7e]")


class Metadata(msgspec.Struct, frozen=True, gc=False):
    """What is sent about an event, apart from what depends on the target."""

    id: str
    """The svix-id, also the CloudEvents id."""
    type: str | None
    source: str
    """URI-reference."""
    time: str | None
    subject: str | None
    timestamp: str
    """`svix-timestamp`, verbatim."""
    signature: str | None
    """`svix-signature`, verbatim; None leaves it out."""
    gateway_source: str
    received_at: str


class _Names(msgspec.Struct, frozen=True):
    """The attributes' names as one binding writes them."""

    specversion: str
    id: str
    type: str
    source: str
    time: str
    subject: str
    partitionkey: str


def _names(prefix: str) -> _Names:
    return _Names(*(prefix + name for name in _Names.__struct_fields__))


_KAFKA_NAMES = _names("ce_")
_NATS_NAMES = _names("ce-")


def kafka_headers(metadata: Metadata, key: str, routes: str) -> Headers:
    """Give the headers of a Kafka record in binary mode; `routes` is comma-separated."""
    pairs = _attributes(metadata, key, _KAFKA_NAMES, clean_header)
    pairs.append(("content-type", _CONTENT_TYPE))
    return _with_unprefixed(pairs, metadata, routes)


def nats_headers(metadata: Metadata, key: str, routes: str) -> Headers:
    """Give the headers of a NATS message in binary mode."""
    pairs = _attributes(metadata, key, _NATS_NAMES, percent_encode)
    pairs.append(("ce-datacontenttype", _CONTENT_TYPE))
    return _with_unprefixed(pairs, metadata, routes)


def structured_headers(metadata: Metadata, routes: str) -> Headers:
    """Give the headers of either broker in structured mode: the attributes are in the value."""
    return _with_unprefixed([("content-type", _STRUCTURED)], metadata, routes)


def cloudevent(metadata: Metadata, key: str, data: Mapping[str, Any]) -> bytes:
    """Give the event in the CloudEvents 1.0.2 JSON format, `data` being the sender's body."""
    attributes = dict(_attributes(metadata, key, _names(""), str))
    return msgspec.json.encode(
        {**attributes, "datacontenttype": _CONTENT_TYPE, "data": data}, order=None
    )


def percent_encode(value: str) -> str:
    """Encode all but visible ASCII, and `"` and `%`, as UTF-8 in percent form.

    The rule of CloudEvents' HTTP binding 1.0.2, section 3.1.3.2, which the NATS draft repeats.
    """
    if not _TO_ENCODE.search(value):
        return value
    return _TO_ENCODE.sub(_percent, value)


def clean_header(value: str) -> str:
    """Drop what could end a header or hide in it: controls, line and paragraph separators."""
    return value if value.isascii() and value.isprintable() else _CONTROL.sub("", value)


def rfc3339(seconds: float) -> str:
    """Format Unix seconds as RFC 3339 in UTC with milliseconds."""
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"{_second(whole)}.{milliseconds:03d}Z"


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    # Events of one second share this; formatting a date costs more than the rest of the parsing.
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "replace"))


def _attributes(
    metadata: Metadata, key: str, names: _Names, encode: Callable[[str], str]
) -> list[tuple[str, str]]:
    pairs = [
        (names.specversion, "1.0"),
        (names.id, encode(metadata.id)),
        (names.type, encode(metadata.type or _NO_TYPE)),
        (names.source, encode(metadata.source)),
    ]
    if metadata.time is not None:
        pairs.append((names.time, metadata.time))
    if metadata.subject is not None:
        pairs.append((names.subject, encode(metadata.subject)))
    pairs.append((names.partitionkey, encode(key)))
    return pairs


def _with_unprefixed(pairs: list[tuple[str, str]], metadata: Metadata, routes: str) -> Headers:
    pairs.append(("svix-id", metadata.id))
    pairs.append(("svix-timestamp", metadata.timestamp))
    if metadata.signature is not None:
        pairs.append(("svix-signature", metadata.signature))
    pairs.append(("gateway-route", routes))
    pairs.append(("gateway-source", metadata.gateway_source))
    pairs.append(("gateway-received-at", metadata.received_at))
    return tuple(pairs)
