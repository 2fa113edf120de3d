"""HTTP/1.1 heads that the server makes by itself: bytes out, no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from gateway.answer import failure_body, rejection_body
from gateway.ingress import RETRY_AFTER, Fault

__all__ = ["Headers", "refusal", "size_of", "without_upgrade"]

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case, and values."""


def size_of(target: bytes, headers: Headers) -> int:
    """Give the bytes of a request's target, header names and values."""
    return len(target) + sum(len(name) + len(value) for name, value in headers)


def without_upgrade(request_line: bytes, headers: Headers) -> bytes:
    """Give a request's head without its wish for another protocol (RFC 9110, section 7.8).

    `headers` are those that the parser has taken.
    """
    lines = [request_line]
    for name, value in headers:
        if name == b"connection":
            tokens = (token.strip() for token in value.split(b","))
            kept = b", ".join(token for token in tokens if token.lower() != b"upgrade")
            lines.append(b"connection: " + kept)
        elif name != b"upgrade":
            lines.append(b"%b: %b" % (name, value))
    return b"\r\n".join((*lines, b"", b""))


def refusal(fault: Fault, headers: Headers) -> bytes:
    """Give the whole answer to what never became a request; it ends the connection."""
    failed = fault.status == HTTPStatus.SERVICE_UNAVAILABLE
    body = failure_body(fault.reason) if failed else rejection_body(fault.reason)
    lines = [b"HTTP/1.1 %d %b" % (fault.status, HTTPStatus(fault.status).phrase.encode())]
    lines += [b"content-type: application/json", b"content-length: %d" % len(body)]
    lines += [b"%b: %b" % header for header in (*(RETRY_AFTER if failed else ()), *headers)]
    return b"\r\n".join((*lines, b"connection: close", b"", body))
