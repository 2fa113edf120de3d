"""JSON bodies built of choices: near enough to Clerk's that routing and metadata are reached.

A mutation of bytes seldom leaves JSON whole; here every input is a body that can be read, and
what is fuzzed is its values, where they stand and how they are spelt.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from fuzz.choices import Choices

__all__ = ["TYPES", "build_body"]

TYPES = (
    "user.created",
    "user.deleted",
    "organization.updated",
    "organizationMembership.created",
    "session.created",
    "email.created",
    "waitlistEntry.created",
    "sms.created",
)
NAMES = ("id", "rank", "email", "tenant", "tier", "updated_at", "created_at", "type", "source", "")
_DEPTH = 4
_ITEMS = 4


def build_body(choices: Choices) -> bytes:
    """Build the body of an event; at the end of the input every further value is null."""
    how = choices.byte()
    document: dict[str, Any] = {"type": _type(choices), "data": _data(choices)}
    for name in ("timestamp", "object", "source", "route", "svix_id"):
        if choices.byte() % 4 == 1:
            document[name] = _value(choices, 1)
    if how & 1:
        document = dict(reversed(document.items()))
    spaces = (", ", ": ") if how & 2 else (",", ":")
    text = json.dumps(document, separators=spaces, ensure_ascii=how & 4 == 0)
    return text.encode("utf-8", "surrogatepass")


def _type(choices: Choices) -> Any:
    at = choices.byte()
    if at < 128:
        return TYPES[at % len(TYPES)]
    return "user." + _text(choices) if at < 192 else _value(choices, 2)


def _data(choices: Choices) -> Any:
    kind = choices.byte()
    if kind >= 240:
        return _value(choices, 0)
    tier = "enterprise" if kind & 1 else _value(choices, 3)
    members = [{"rank": _value(choices, 3), "email": _value(choices, 3)} for _ in range(kind & 3)]
    return {
        "id": _value(choices, 2),
        "organization": {"id": _value(choices, 3)} if kind & 4 else _value(choices, 3),
        "public_metadata": {"tenant": _value(choices, 2), "tier": tier},
        "private_metadata": _value(choices, 3),
        "members": members if kind & 8 else _value(choices, 2),
        "updated_at": _value(choices, 3),
    }


def _value(choices: Choices, depth: int) -> Any:
    kind = choices.byte()
    if kind % 16 < 4:
        return _text(choices)
    return _KINDS[kind % 16](choices, depth)


def _text(choices: Choices) -> str:
    # Bytes that are no UTF-8 become lone surrogates, and those are sent as escapes or as they are.
    return choices.text().decode("utf-8", "surrogateescape")


def _number(choices: Choices, _: int) -> int:
    return int.from_bytes(choices.text()[:40], "big", signed=True)


def _float(choices: Choices, _: int) -> float:
    return (choices.byte() - 128) * 10.0 ** (choices.byte() * 2 - 256)


def _time(choices: Choices, _: int) -> int:
    return int(1_800_000_000 * 1000 ** (choices.byte() % 3)) + choices.byte()


def _list(choices: Choices, depth: int) -> Any:
    return [_value(choices, depth + 1) for _ in range(_size(choices, depth))]


def _object(choices: Choices, depth: int) -> Any:
    return {
        choices.pick(NAMES) or _text(choices): _value(choices, depth + 1)
        for _ in range(_size(choices, depth))
    }


def _long(choices: Choices, _: int) -> str:
    return _text(choices) * choices.byte()


def _size(choices: Choices, depth: int) -> int:
    return choices.byte() % (_ITEMS + 1) if depth < _DEPTH else 0


def _constant(value: Any) -> Callable[[Choices, int], Any]:
    return lambda _choices, _depth: value


_KINDS: dict[int, Callable[[Choices, int], Any]] = {
    **dict.fromkeys((4, 5), _number),
    6: _float,
    7: _time,
    **dict.fromkeys((8, 9), _list),
    **dict.fromkeys((10, 11), _object),
    12: _long,
    13: _constant(True),
    14: _constant(""),
    15: _constant(None),
}
"""By the low four bits of a byte; below 4 it is a text."""
