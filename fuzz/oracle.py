"""What is true of a request, found out by code that shares nothing with the gateway's.

The signature by the standard library's HMAC; JSON by the standard library's parser; patterns by
string comparison; conditions by the jmespath library itself.
"""

from __future__ import annotations

import base64
import hmac
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import jmespath
import msgspec
from jmespath.exceptions import JMESPathError

from virtual.loop import EPOCH

__all__ = ["Verdict", "could_be_genuine", "sign", "verdict", "without"]

TOLERANCE = 300
_DIGITS = re.compile(rb"[0-9]{300}")
_DEEP = 200


def sign(key: bytes, svix_id: bytes, timestamp: bytes, body: bytes) -> bytes:
    """Give the base64 of the signature, without its version."""
    return base64.b64encode(hmac.digest(key, b".".join((svix_id, timestamp, body)), "sha256"))


def could_be_genuine(
    keys: Iterable[bytes], headers: Sequence[tuple[bytes, bytes]], body: bytes
) -> bool:
    """Whether whoever sent this may hold a secret: some signature in it is right for some id and
    timestamp in it, and the timestamp is of now."""
    sent: dict[bytes, set[bytes]] = {b"id": set(), b"timestamp": set(), b"signature": set()}
    for name, value in headers:
        family, _, field = name.lower().partition(b"-")
        if family in {b"svix", b"webhook"} and field in sent:
            sent[field] |= {value, value.strip(b" \t")}
    listed = {entry for value in sent[b"signature"] for entry in value.split()}
    for key, svix_id, stamp in itertools.product(keys, sent[b"id"], sent[b"timestamp"]):
        if not stamp.isdigit() or len(stamp) > 15 or abs(int(stamp) - EPOCH) > TOLERANCE:
            continue
        if b"v1," + sign(key, svix_id, stamp, body) in listed:
            return True
    return False


class _UnsureError(Exception):
    """JSON where parsers differ in good faith."""


class Verdict(msgspec.Struct, frozen=True):
    """What a genuine body must come to."""

    kind: Literal["event", "no_event", "unsure"]
    document: dict[str, Any] = {}
    type: str = ""
    taken: frozenset[str] = frozenset()
    """Routes that match."""
    failing: frozenset[str] = frozenset()
    """Routes whose condition fails to evaluate, which is a refusal and no mismatch."""


ROUTES: dict[str, tuple[tuple[str, ...], tuple[str, ...], str]] = {
    "users": (("user.",), (), ""),
    "enterprise": (
        ("organization.", "organizationMembership."),
        (),
        "data.public_metadata.tier == 'enterprise'",
    ),
    "tenants": (("",), ("session.",), "length(data.public_metadata.tenant || '') > `0`"),
    "ranked": (
        ("email.created", "waitlistEntry."),
        (),
        "sort_by(data.members, &rank)[-1].rank > `1`",
    ),
}
"""The table of `fuzz.service` in other words: what a type begins with, what not, a condition."""


def verdict(body: bytes, svix_id: str) -> Verdict:
    """Say what the gateway must make of a body whose signature is right."""
    try:
        document = _parse(body)
    except _UnsureError:
        return Verdict("unsure")
    except ValueError:
        return Verdict("no_event")
    kind = document.get("type") if isinstance(document, dict) else None
    if not isinstance(kind, str) or not 0 < len(kind) <= 256:
        return Verdict("no_event")
    taken, failing = set(), set()
    for name, (begins, excluded, condition) in ROUTES.items():
        if not _begins(kind, begins) or (excluded and _begins(kind, excluded)):
            continue
        scope = {**document, "source": "clerk", "route": name, "svix_id": svix_id}
        try:
            if not condition or _holds(jmespath.search(condition, scope)):
                taken.add(name)
        except (JMESPathError, TypeError, ValueError, KeyError):
            failing.add(name)
    return Verdict("event", document, kind, frozenset(taken), frozenset(failing))


def without(value: Any, paths: Sequence[str]) -> Any:
    """Give a copy of a JSON value without the fields at these dotted paths, inside lists too."""
    for path in paths:
        value = _drop(value, path.split("."))
    return value


def _drop(value: Any, steps: Sequence[str]) -> Any:
    if isinstance(value, list):
        return [_drop(item, steps) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {name: item for name, item in value.items() if len(steps) > 1 or name != steps[0]}
    if len(steps) > 1 and steps[0] in kept:
        kept[steps[0]] = _drop(kept[steps[0]], steps[1:])
    return kept


def _begins(kind: str, beginnings: Sequence[str]) -> bool:
    return any(
        kind.startswith(one) if one.endswith(".") or not one else kind == one for one in beginnings
    )


def _holds(value: Any) -> bool:
    return not (value is None or value is False or (value != 0 and not value))


def _parse(body: bytes) -> Any:
    if _DIGITS.search(body) or body.count(b"[") + body.count(b"{") > _DEEP:
        raise _UnsureError
    document = json.loads(body.decode("utf-8"), parse_constant=_refuse, parse_float=_finite)
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half a surrogate pair, in the form of an escape
        raise _UnsureError from None
    return document


def _refuse(constant: str) -> float:
    raise ValueError(constant)


def _finite(text: str) -> float:
    number = float(text)
    if number in {float("inf"), float("-inf")}:
        raise _UnsureError
    return number
