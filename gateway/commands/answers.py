"""What came back for a posted webhook, and how it is shown on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

__all__ = ["Answer", "answer_line", "plain"]

_STATUSES: Final = frozenset(
    {"delivered", "stored", "duplicate", "unmatched", "dead_lettered", "rejected", "failed"}
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one message."""

    svix_id: str
    status: int | None
    """The HTTP status, or None when no answer came."""
    body: bytes = b""
    """The first 64 KiB of it."""
    problem: str = ""
    """Why no answer came."""
    unreachable: bool = False
    """No connection could be made, so nothing was sent."""

    @property
    def outcome(self) -> tuple[str, str]:
        """The HTTP status and the body's `status`, of few different values, to count by.

        A body that is not the contract's gives `-`.
        """
        if self.status is None:
            return "no answer", ""
        status = (_decode(self.body) or {}).get("status")
        if isinstance(status, str) and status in _STATUSES:
            return str(self.status), status
        return str(self.status), "-"


def answer_line(event_type: str, answer: Answer) -> str:
    """One line: `200 delivered user.created msg_… -> clerk.users (partition 1 offset 12)`."""
    head = f"{plain(event_type)} {answer.svix_id}"
    if answer.status is None:
        return f"--- {head}: {plain(answer.problem)}"
    body = _decode(answer.body)
    if body is None:
        return f"{answer.status} {head}: {plain(answer.body.decode(errors='replace'))}"
    line = f"{answer.status} {plain(body.get('status', '-'))} {head}"
    targets = body.get("targets")
    if isinstance(targets, list) and targets:
        line += " -> " + ", ".join(_target(t) for t in targets if isinstance(t, dict))
    if left_out := body.get("targets_left_out"):
        line += f" and {plain(left_out)} more"
    why = body.get("error") or body.get("reason")
    is_told = not why or line.endswith(f" {plain(why)}")
    return line if is_told else f"{line}: {plain(why)}"


def plain(value: object) -> str:
    """One short line without control characters: an answer must not steer the terminal."""
    text = str(value)[:200]
    return "".join(char if char.isprintable() else " " for char in text).strip()


def _target(target: Mapping[str, Any]) -> str:
    name = plain(target.get("topic") or target.get("subject") or target.get("route") or "-")
    pairs = ((label, target.get(label)) for label in ("partition", "offset", "stream", "seq"))
    place = " ".join(f"{label} {plain(value)}" for label, value in pairs if value is not None)
    if place:
        name += f" ({place})"
    status = target.get("status", "delivered")
    if status == "delivered":
        return name
    words = (status, target.get("reason") or target.get("error"))
    return f"{name} {' '.join(plain(word) for word in words if word)}"


def _decode(body: bytes) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
