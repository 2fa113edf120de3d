"""Builders of what the core's tests need, apart from what they test."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

from gateway.config.models import GatewayConfig
from gateway.event import Event
from gateway.metadata import Metadata
from gateway.routing.compile import compile_table
from gateway.routing.table import Table
from tests.canaries import SECRET

NOW = 1_800_000_000
SVIX_ID = "msg_2b"
BODY = b'{"data":{"id":"user_1"},"object":"event","type":"user.created"}'

RequestHeaders = list[tuple[bytes, bytes]]


def signature(
    body: bytes = BODY,
    *,
    secret: str = SECRET,
    svix_id: str = SVIX_ID,
    timestamp: int | str = NOW,
) -> str:
    """Sign as Svix does, in code that shares nothing with the gateway's."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    mac = hmac.new(key, f"{svix_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(mac.digest()).decode()


def signed(
    body: bytes = BODY,
    *,
    secret: str = SECRET,
    svix_id: str = SVIX_ID,
    timestamp: int | str = NOW,
    family: str = "svix",
) -> RequestHeaders:
    """The three signature headers of a genuine request."""
    entry = signature(body, secret=secret, svix_id=svix_id, timestamp=timestamp)
    values = {"id": svix_id, "timestamp": str(timestamp), "signature": entry}
    return [(f"{family}-{name}".encode(), value.encode()) for name, value in values.items()]


def metadata(**changes: Any) -> Metadata:
    """Complete metadata with every optional value there."""
    fields: dict[str, Any] = {
        "id": SVIX_ID,
        "type": "user.created",
        "source": "clerk/clerk",
        "time": "2026-11-24T01:02:03.004Z",
        "subject": "user_1",
        "timestamp": str(NOW),
        "signature": "v1,c2ln",
        "gateway_source": "clerk",
        "received_at": "2027-01-15T08:00:00.000Z",
    }
    return Metadata(**(fields | changes))


def event(
    document: dict[str, Any] | None = None,
    *,
    source: str = "clerk",
    key: str = "user_1",
    svix_id: str = SVIX_ID,
    **changes: Any,
) -> Event:
    """An event as `read_event` gives it; `changes` are of its metadata."""
    shown: dict[str, Any] = (
        {"type": "user.created", "data": {"id": "user_1"}} if document is None else document
    )
    event_type: str | None = shown.get("type")
    about = metadata(
        **{"id": svix_id, "type": event_type, "gateway_source": source, "subject": None} | changes
    )
    body = json.dumps(shown, ensure_ascii=False).encode()
    return Event(source, svix_id, event_type, key, about, body, shown)


def target(broker: str = "events", destination: str = "clerk.users", **more: Any) -> dict[str, Any]:
    """A target as the config has it: broker `events` is Kafka, `bus` is NATS."""
    field = "topic" if broker == "events" else "subject"
    return {"broker": broker, field: destination, **more}


def route(*targets: dict[str, Any], name: str = "users", **more: Any) -> dict[str, Any]:
    """A route as the config has it; takes every type unless told otherwise."""
    return {"name": name, "events": ["*"], "targets": list(targets or (target(),)), **more}


def config(*routes: dict[str, Any], **more: Any) -> GatewayConfig:
    """A loaded config of these routes."""
    content = {
        "sources": {"clerk": {"secrets": [SECRET]}},
        "brokers": {
            "events": {"kind": "kafka", "servers": ["localhost:9092"]},
            "bus": {"kind": "nats", "servers": ["nats://localhost:4222"]},
        },
        "routes": list(routes or (route(),)),
    }
    return GatewayConfig.model_validate_json(json.dumps(content | more))


def table(*routes: dict[str, Any], **more: Any) -> Table:
    """The compiled table of these routes."""
    return compile_table(config(*routes, **more))
