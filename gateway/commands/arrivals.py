"""One readable line, or one JSON object, per record that arrived in a broker."""

from __future__ import annotations

import base64

import msgspec
from rich.text import Text

from gateway.brokers.base import Arrival
from gateway.commands.answers import plain

__all__ = ["arrival_json", "arrival_line"]


def arrival_line(arrival: Arrival) -> Text:
    """Give time, type, place and key; the value stays hidden, for it holds personal data."""
    headers = {name.lower().replace("ce-", "ce_"): value for name, value in arrival.headers}
    received = headers.get("gateway-received-at", "")[11:23]
    line = Text(overflow="ignore", no_wrap=True)
    line.append(f"{received or '--:--:--.---'} ", style="dim")
    line.append(f"{plain(headers.get('ce_type', 'unknown')):<32} ", style="bold green")
    line.append(f"{arrival.broker}/{plain(arrival.destination)}", style="cyan")
    line.append(f" {_place(arrival)}", style="dim")
    line.append(f"  key {plain(arrival.key or headers.get('ce_partitionkey', '-'))}")
    line.append(f"  {len(arrival.value)} B", style="dim")
    if reason := headers.get("gateway-dead-letter-reason"):
        line.append(f"  dead letter: {plain(reason)}", style="bold red")
    line.append(f"  {plain(headers.get('svix-id', ''))}", style="dim")
    return line


def arrival_json(arrival: Arrival) -> str:
    """Give everything about a record; a value that is no UTF-8 becomes `value_base64`."""
    content: dict[str, object] = {
        "broker": arrival.broker,
        "destination": arrival.destination,
        "partition": arrival.partition,
        "offset": arrival.offset,
        "stream": arrival.stream,
        "seq": arrival.seq,
        "key": arrival.key,
        "headers": [list(pair) for pair in arrival.headers],
    }
    try:
        content["value"] = arrival.value.decode()
    except UnicodeDecodeError:
        content["value_base64"] = base64.b64encode(arrival.value).decode()
    return msgspec.json.encode(content).decode()


def _place(arrival: Arrival) -> str:
    if arrival.offset is not None:
        return f"partition {arrival.partition} offset {arrival.offset}"
    if arrival.seq is not None:
        return f"stream {arrival.stream} seq {arrival.seq}"
    return ""
