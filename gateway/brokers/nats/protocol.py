"""What the NATS protocol demands of a record, and how a server says no: pure functions.

https://docs.nats.io/reference/reference-protocols/nats-protocol
"""

from __future__ import annotations

import re
from functools import lru_cache

from gateway.brokers.base import Headers, Message

MAX_SUBJECT = 900
"""Characters, of up to 4 bytes. A control line above 4096 bytes closes the connection."""

NO_RESPONDERS = "503"

_DEDUPE_HEADER = "Nats-Msg-Id"
_AROUND_BLOCK = len("NATS/1.0\r\n" + "\r\n")
_AROUND_HEADER = len(": \r\n")
# No wildcards, no empty token, nothing that a server or a terminal takes as a separator.
_PART = r"[^\s.*>\x00-\x20\x7f\ud800-\udfff]+"
_SUBJECT = re.compile(rf"{_PART}(?:\.{_PART})*\Z")
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_DENIAL = "permissions violation"
_DENIED_PUBLISH = re.compile(rf"{_DENIAL} for publish to \"(.+)\"", re.IGNORECASE)
_DENIED_SUBSCRIBE = re.compile(rf"{_DENIAL} for subscription to \"([^\"]+)\"", re.IGNORECASE)


def is_publishable(subject: str) -> bool:
    """Whether a record can be published to `subject`: whole tokens, no wildcard, no blank."""
    return len(subject) <= MAX_SUBJECT and _SUBJECT.match(subject) is not None


def header_block(headers: Headers, dedupe_id: str) -> tuple[dict[str, str], int] | None:
    """The headers of a record, `Nats-Msg-Id` included, and the bytes that they take.

    None where nats-py could not send them as they are: a name that is no token or comes twice, a
    line break. The bytes are counted before it takes blanks from the ends of values.
    https://docs.nats.io/reference/reference-protocols/nats-protocol#hpub
    """
    block = dict(headers)
    if len(block) != len(headers):
        return None
    block[_DEDUPE_HEADER] = dedupe_id
    text = "".join(block) + "".join(block.values())
    if "\n" in text or "\r" in text or not all(map(_is_name, block)):
        return None
    try:
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:
        return None
    return block, size + len(block) * _AROUND_HEADER + _AROUND_BLOCK


def sent_headers(message: Message) -> Headers:
    """The headers as they arrive: nats-py takes blanks from the ends of values."""
    pairs = (*message.headers, (_DEDUPE_HEADER, message.dedupe_id))
    return tuple((name, value.strip()) for name, value in pairs)


@lru_cache(maxsize=1024)
def _is_name(name: str) -> bool:
    return _HEADER_NAME.fullmatch(name) is not None


def is_denial(error: str) -> bool:
    """Whether an `-ERR` is about permissions; every other one ends the connection."""
    return _DENIAL in error.lower()


def denied_publish(error: str) -> str | None:
    """The subject that an `-ERR` says may not be published to, or None for another error."""
    found = _DENIED_PUBLISH.search(error)
    return found.group(1) if found else None


def denied_subscribe(error: str) -> str | None:
    """The subject that an `-ERR` says may not be subscribed to, or None for another error."""
    found = _DENIED_SUBSCRIBE.search(error)
    return found.group(1) if found else None
