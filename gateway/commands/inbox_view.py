"""How items look: a table for people, JSON lines for machines.

Headers and types are written by a sender and by whoever may write to the dead letter, so all that
is no printable character is escaped: it must not steer the terminal. The body holds personal data
and is shown on demand only.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from gateway.delivery.inbox.letters import Item
from gateway.metadata import rfc3339

__all__ = ["Row", "age", "escaped", "item_json", "row", "show_json", "show_text", "table"]

Row = tuple[str, ...]
"""The cells of a table's row: text that is fit for a terminal."""

_COLUMNS = ("ID", "STATE", "AGE", "TYPE", "ROUTES", "TARGET", "REASON", "SVIX-ID", "DETAIL")
_WIDEST = 60
"""Characters of a cell, but for the last one."""
_MAX_DETAIL = 200


def table(rows: Sequence[Row]) -> list[str]:
    """Give the lines of a table with a head."""
    lines = [_COLUMNS, *rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(_COLUMNS))]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]


def row(item: Item, now: float) -> Row:
    """Give the cells of one item; `now` is Unix seconds."""
    metadata = item.metadata
    state = f"{item.state} {item.kept}".rstrip()
    cells = (
        item.id,
        state,
        age(now - item.since),
        (metadata and metadata.type) or "-",
        ",".join(item.routes) or "-",
        ",".join(item.targets) or "-",
        item.reason or "-",
        metadata.id if metadata is not None else "-",
    )
    short = tuple(escaped(cell, _WIDEST) for cell in cells)
    return (*short, escaped(item.detail, _MAX_DETAIL) or "-")


def item_json(item: Item, now: float) -> str:
    """Give one line of JSON, ASCII only, without the body and without headers."""
    return _json(_summary(item, now))


def show_json(item: Item, now: float, *, body: bool) -> str:
    """Give all about an item as one line of JSON; a body that is no UTF-8 is `body_base64`."""
    content = _summary(item, now)
    content["headers"] = [
        {"target": target, "headers": [list(pair) for pair in headers]}
        for target, headers in item.headers
    ]
    if body:
        try:
            content["body"] = item.body.decode()
        except UnicodeDecodeError:
            content["body_base64"] = base64.b64encode(item.body).decode()
    return _json(content)


def show_text(item: Item, now: float, *, body: bool) -> list[str]:
    """Give the lines that tell all about an item."""
    summary = _summary(item, now)
    summary["age"] = age(now - item.since)
    summary["size"] = f"{item.size} bytes"
    width = max(map(len, summary))
    lines = [f"{name.ljust(width)}  {_text(value)}".rstrip() for name, value in summary.items()]
    for target, headers in item.headers:
        lines += ["", f"headers for {escaped(target)}" if len(item.headers) > 1 else "headers"]
        widest = max((len(escaped(name)) for name, _ in headers), default=0)
        lines += [f"  {escaped(name).ljust(widest)}  {escaped(value)}" for name, value in headers]
    if body:
        shown = item.body.decode(errors="backslashreplace").splitlines()
        lines += ["", "body", *(escaped(line, keep="\t") for line in shown)]
    else:
        lines += ["", "the body holds personal data; --body shows it"]
    return lines


def age(seconds: float) -> str:
    """Write a time span in one unit, cut: `59s`, `12m`, `3h`, `9d`."""
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= unit:
            return f"{int(seconds // unit)}{name}"
    return f"{max(0, int(seconds))}s"


def escaped(text: str, limit: int | None = None, keep: str = "") -> str:
    """Give a text in which nothing steers a terminal: ESC becomes `\\x1b`; cut to `limit`."""
    if not text.isprintable():
        text = "".join(
            char if char.isprintable() or char in keep else char.encode("unicode_escape").decode()
            for char in text.encode("utf-8", "backslashreplace").decode()
        )
    if limit is not None and len(text) > limit:
        return text[: limit - 1] + "…"
    return text


def _summary(item: Item, now: float) -> dict[str, Any]:
    metadata = item.metadata
    return {
        "id": item.id,
        "state": item.state,
        "kept": item.kept,
        "svix_id": metadata.id if metadata is not None else "",
        "type": (metadata and metadata.type) or "",
        "source": metadata.gateway_source if metadata is not None else "",
        "routes": list(item.routes),
        "targets": list(item.targets),
        "reason": item.reason,
        "detail": item.detail,
        "since": rfc3339(item.since),
        "age": max(0, int(now - item.since)),
        "size": item.size,
    }


def _text(value: object) -> str:
    if isinstance(value, list):
        return escaped(", ".join(value)) or "-"
    return escaped(str(value)) or "-"


def _json(content: dict[str, Any]) -> str:
    # ASCII, for the controls beyond it steer terminals too; JSON itself leaves DEL as it is.
    return json.dumps(content, ensure_ascii=True, separators=(",", ":")).replace("\x7f", "\\u007f")
