"""No secret, and nothing from the environment, is ever printed."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway.config import ConfigError, load_config_text
from gateway.config.models import SaslConfig, SourceConfig
from tests.canaries import CONFIG_CANARY as CANARY
from tests.canaries import SECRET
from tests.config.conftest import complete


def everything_said(text: str, env: dict[str, str] | None = None) -> str:
    """All that a caller could print of a text: errors, tracebacks, or the loaded config."""
    try:
        loaded = load_config_text(complete(text), "f.yaml", env or {})
    except ConfigError as error:
        return f"{error!s} {error!r} {''.join(traceback.format_exception(error))}"
    return f"{loaded!r} {loaded.config!s} {loaded.warnings!r} {loaded.positions!r}"


NATS = 'routes: [{name: a, events: ["*"], targets: [{broker: b, subject: x}]}]\n'

BAD_VALUES = [
    CANARY,
    f'"{CANARY}!"',
    f"[{CANARY}]",
    f'["", {CANARY}]',
    f"{{x: {CANARY}}}",
    f'"{CANARY}${{NONE}}"',
    f"*{CANARY}",
    f"!{CANARY} x",
    f"!{CANARY}!x x",
    f"@{CANARY}",
    f'"{CANARY}',
    f"{CANARY}: {CANARY}: x",
    f"&{CANARY} &{CANARY} x",
]


@pytest.mark.parametrize("value", BAD_VALUES)
@pytest.mark.parametrize(
    "text",
    [
        "sources: {clerk: {secrets: [@@]}}",
        "sources: {clerk: {secrets: @@}}",
        "sources:\n  clerk:\n    secrets:\n      - @@",
        "admin: {host: 0.0.0.0, port: x, token: @@}",
        "brokers: {b: {kind: kafka, sasl: {mechanism: PLAIN, username: u, password: @@}}}",
        "brokers: {b: {kind: kafka, sasl: @@}}",
        NATS + "brokers: {b: {kind: nats, servers: [a], token: @@, password: x}}",
        NATS + "brokers: {b: {kind: nats, servers: [a], password: @@}}",
        NATS + 'brokers: {b: {kind: nats, servers: ["nats://u:@@@h:1"]}}',
    ],
)
def test_a_wrong_secret_is_not_repeated(text: str, value: str) -> None:
    assert CANARY not in everything_said(text.replace("@@", value))


@pytest.mark.parametrize(
    "text",
    [
        'server: {port: "${X}"}',
        'server: {deadline: "${X}"}',
        'server: {max_body: "${X}"}',
        'server: {trusted_proxies: ["${X}"]}',
        f'sources: {{clerk: {{secrets: [{SECRET}], allow_from: ["${{X}}"]}}}}',
        'server: "${X}"',
        'server: {port: "${file:${X}}"}',
        'log: {level: "${X}"}',
        'log: {sample: "${X}"}',
        'headers: {signature: "${X}"}',
        'unmatched: "${X}"',
        'sources: "${X}"',
        'sources: {clerk: {secrets: ["${X}"]}}',
        'sources: {clerk: {secrets: "${X},${X}"}}',
        f'sources: {{clerk: {{secrets: [{SECRET}], path: "${{X}}", uri: "${{X}} "}}}}',
        'brokers: {b: {kind: "${X}"}}',
        'brokers: {b: {kind: kafka, compression: "${X}"}}',
        'routes: "${X}"',
        'routes: [{name: "${X}!", events: ["${X}*"], targets: [{broker: "${X}", topic: "${X} "}]}]',
        'routes: [{name: a, events: ["*"], sources: ["${X}"], when: "!a.${X}", targets: []}]',
        'routes: [{name: a, events: ["*"], targets: [{broker: events, payload: "${X}"}]}]',
        'routes: [{name: "${X}", events: [a], targets: []},'
        ' {name: "${X}", events: [a], targets: []}]',
        NATS + 'brokers: {b: {kind: nats, servers: ["x"], streams: [{name: "${X}", subjects: [x]},'
        ' {name: "${X}", subjects: [x]}]}}',
        'delivery: {mode: "${X}", dead_letter: {broker: "${X}", topic: "${X} "}}',
    ],
)
def test_a_wrong_value_of_the_environment_is_not_repeated(text: str) -> None:
    said = everything_said(text, {"X": CANARY})
    assert "f.yaml:" in said, "the text was meant to be wrong"
    assert CANARY not in said


def test_a_wrong_value_of_a_file_is_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(CANARY + "!\n")
    said = everything_said(f'sources: {{clerk: {{secrets: ["${{file:{path}}}"]}}}}')
    assert "f.yaml:1:" in said
    assert CANARY not in said


def test_a_default_that_is_wrong_is_not_repeated() -> None:
    said = everything_said(f'sources: {{clerk: {{secrets: ["${{NONE:-{CANARY}!}}"]}}}}')
    assert "f.yaml:1:" in said
    assert CANARY not in said


def test_right_secrets_are_hidden_in_what_is_loaded() -> None:
    text = (
        f"sources: {{clerk: {{secrets: [{SECRET}]}}}}\nadmin: {{token: {CANARY}}}\n"
        f"{NATS}brokers:\n"
        "  k: {kind: kafka, servers: [a], sasl: {mechanism: PLAIN, username: u,"
        f" password: {CANARY}}}}}\n"
        f"  b: {{kind: nats, servers: [a], username: u, password: {CANARY}}}\n"
        f"  t: {{kind: nats, servers: [a], token: {CANARY}}}\n"
    )
    said = everything_said(text)
    assert "LoadedConfig" in said
    assert CANARY not in said
    assert SECRET.removeprefix("whsec_") not in said


def test_models_that_code_builds_hide_what_they_refuse() -> None:
    with pytest.raises(ValidationError) as sasl:
        SaslConfig.model_validate({"mechanism": CANARY, "username": 1, "password": [CANARY]})
    with pytest.raises(ValidationError) as source:
        SourceConfig.model_validate({"secrets": [f"{CANARY}!"]})
    assert CANARY not in f"{sasl.value} {source.value}"
