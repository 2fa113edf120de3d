"""The config that the tests of tests run by: two brokers, one source, four routes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gateway.app import Blueprint, draw, load, sent_headers
from gateway.testing.load import Suite, load_tests
from gateway.testing.rules import Setting
from tests.canaries import SECRET

CONFIG: dict[str, Any] = {
    "sources": {"clerk": {"secrets": [SECRET]}},
    "brokers": {
        "events": {"kind": "kafka", "servers": ["localhost:9092"]},
        "bus": {"kind": "nats", "servers": ["nats://localhost:4222"]},
    },
    "routes": [
        {
            "name": "users",
            "events": ["user.*"],
            "targets": [
                {"broker": "events", "topic": "clerk.users"},
                {"broker": "bus", "subject": "clerk.{type}"},
            ],
        },
        {
            "name": "pro",
            "events": ["organization.*"],
            "when": "data.public_metadata.tier == 'pro'",
            "targets": [
                {
                    "broker": "events",
                    "topic": "clerk.orgs.{data.public_metadata.plan}",
                    "payload": "data",
                    "redact": ["data.private_metadata"],
                    "headers": {"x-tenant": "{data.slug}"},
                }
            ],
        },
    ],
}


def blueprint(directory: Path, **changes: Any) -> Blueprint:
    """Write the config, with changes of its top level, and draw it."""
    path = directory / "config.yaml"
    path.write_text(json.dumps(CONFIG | changes))
    return draw(load(path, {}))


def setting(directory: Path, **changes: Any) -> Setting:
    """Give what the config says to its tests."""
    drawn = blueprint(directory, **changes)
    return Setting(
        table=drawn.table,
        senders={one.sender.name: one.sender for one in drawn.endpoints.values()},
        brokers={name: broker.kind for name, broker in drawn.config.brokers.items()},
        clerk=frozenset(
            name for name, source in drawn.config.sources.items() if source.kind == "clerk"
        ),
        sent=sent_headers,
        positions=drawn.loaded.positions,
    )


def suite(directory: Path, text: str, **changes: Any) -> Suite:
    """Load a tests file. Raises `ConfigError`."""
    path = directory / "config.tests.yaml"
    path.write_text(text)
    return load_tests(str(path), setting(directory, **changes))
