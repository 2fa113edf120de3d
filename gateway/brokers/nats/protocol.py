"""The NATS client protocol as text: pure functions from values to bytes and back.

https://docs.nats.io/reference/reference-protocols/nats-protocol
"""

from __future__ import annotations

import re

import msgspec

from gateway.brokers.base import Headers

CRLF = b"\r\n"
PING = b"PING\r\n"
PONG = b"PONG\r\n"

MAX_SUBJECT = 900
"""Characters, of up to 4 bytes. A control line above 4096 bytes closes the connection."""

NO_RESPONDERS = 503

_HEADER_LINE = b"NATS/1.0"
_DEDUPE_HEADER = "Nats-Msg-Id"
# No wildcards, no empty token, nothing that a server or a terminal takes as a separator.
_PART = r"[^\s.*>\x00-\x20\x7f\ud800-\udfff]+"
_SUBJECT = re.compile(rf"{_PART}(?:\.{_PART})*\Z")
_DENIED_PUBLISH = re.compile(r"permissions violation for publish to \"(.+)\"", re.IGNORECASE)
_DENIED_SUBSCRIBE = re.compile(
    r"permissions violation for subscription to \"([^\"]+)\"", re.IGNORECASE
)


class ServerInfo(msgspec.Struct, frozen=True):
    """What a server says of itself in INFO; fields that do not matter here are left out."""

    version: str = ""
    max_payload: int = 1_048_576
    """Bytes of header block and value together."""
    headers: bool = False
    tls_required: bool = False
    tls_available: bool = False
    nonce: str = ""
    connect_urls: tuple[str, ...] = ()
    """Addresses of the cluster's servers, `host:port`."""


_info_decoder = msgspec.json.Decoder(ServerInfo)


def decode_info(line: bytes) -> ServerInfo:
    """Decode the JSON of an INFO line. Raises `msgspec.MsgspecError`."""
    return _info_decoder.decode(line)


def is_publishable(subject: str) -> bool:
    """Whether a record can be published to `subject`: whole tokens, no wildcard, no blank."""
    return len(subject) <= MAX_SUBJECT and _SUBJECT.match(subject) is not None


def encode_head(headers: Headers, dedupe_id: str) -> bytes | None:
    """The header block of a record, `Nats-Msg-Id` included; None if a value would break it.

    https://docs.nats.io/reference/reference-protocols/nats-protocol#hpub
    """
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
    block = f"NATS/1.0\r\n{lines}{_DEDUPE_HEADER}: {dedupe_id}\r\n\r\n"
    if block.count("\n") != len(headers) + 3 or block.count("\r") != len(headers) + 3:
        return None
    try:
        return block.encode()
    except UnicodeEncodeError:
        return None


def decode_head(block: bytes) -> tuple[int, Headers]:
    """Split a header block into its inline status, 0 where it has none, and its headers."""
    first, _, rest = block.partition(CRLF)
    code = first[len(_HEADER_LINE) :].strip()[:3]
    status = int(code) if code.isdigit() else 0
    headers = []
    for line in rest.split(CRLF):
        name, colon, value = line.partition(b":")
        if colon:
            pair = (name.decode("ascii", "replace"), value.strip().decode("utf-8", "replace"))
            headers.append(pair)
    return status, tuple(headers)


def encode_publish(subject: str, reply: str, head: bytes, value: bytes) -> bytes:
    """HPUB with the header block `head`, or PUB where that is empty."""
    if not head:
        line = f"PUB {subject} {reply} {len(value)}\r\n".encode()
        return b"".join((line, value, CRLF))
    line = f"HPUB {subject} {reply} {len(head)} {len(head) + len(value)}\r\n".encode()
    return b"".join((line, head, value, CRLF))


def denied_publish(error: str) -> str | None:
    """The subject that an `-ERR` says may not be published to, or None for another error."""
    found = _DENIED_PUBLISH.search(error)
    return found.group(1) if found else None


def denied_subscribe(error: str) -> str | None:
    """The subject that an `-ERR` says may not be subscribed to, or None for another error."""
    found = _DENIED_SUBSCRIBE.search(error)
    return found.group(1) if found else None
