"""`gateway serve`: what stops the start, in words that name the setting to change."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.commands.command import gateway, write_config
from tests.servers.process import LOOPBACK, free_port


@pytest.fixture
def taken_port() -> Iterator[int]:
    """Give a port that something else listens on."""
    with socket.socket() as other:
        other.bind((LOOPBACK, 0))
        other.listen()
        yield other.getsockname()[1]


def config(**more: Any) -> dict[str, Any]:
    target = {"broker": "bus", "subject": "clerk.{type}"}
    return {
        "server": {"host": LOOPBACK, "port": 0},
        "admin": {"port": 0},
        "brokers": {"bus": {"kind": "nats", "servers": [f"nats://{LOOPBACK}:{free_port()}"]}},
        "routes": [{"name": "all", "events": ["*"], "targets": [target]}],
        **more,
    }


@pytest.mark.parametrize("section", ["server", "admin"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_port_in_use(tmp_path: Path, taken_port: int, section: str, workers: int) -> None:
    taken = {"host": LOOPBACK, "port": taken_port}
    path = write_config(tmp_path, config(**{section: taken}))
    done = gateway("serve", "--config", path, "--workers", workers, cwd=tmp_path)
    assert done.code == 2
    assert f"{LOOPBACK}:{taken_port}" in done.err
    assert "in use" in done.err
    assert f"{section}.port" in done.err


@pytest.mark.parametrize("host", ["203.0.113.7", "no-such-host.invalid"])
def test_an_address_of_somebody_else(tmp_path: Path, host: str) -> None:
    path = write_config(tmp_path, config(server={"host": host, "port": free_port()}))
    done = gateway("serve", "--config", path, cwd=tmp_path)
    assert done.code == 2
    assert "server.host" in done.err


@pytest.mark.parametrize("workers", [1, 2])
def test_broker_options_that_cannot_work(tmp_path: Path, workers: int) -> None:
    bus = {"kind": "nats", "servers": ["tls://127.0.0.1:1"], "tls": {"ca_file": "missing.pem"}}
    path = write_config(tmp_path, config(brokers={"bus": bus}))
    done = gateway("serve", "--config", path, "--workers", workers, cwd=tmp_path)
    assert done.code == 2
    assert "brokers.bus.tls.ca_file" in done.err


@pytest.mark.parametrize("command", ["serve", "check"])
@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("0.0.0.0", "set admin.token"),
        ("::", "set admin.token"),
        ("203.0.113.7", "set admin.token"),
        ("gateway.internal", "set admin.token"),
        ("127.1", "set admin.token"),
        ("", "must not be empty"),
    ],
)
def test_an_open_admin_port_without_a_token(
    tmp_path: Path, command: str, host: str, words: str
) -> None:
    path = write_config(tmp_path, config(admin={"host": host, "port": 0}))
    done = gateway(command, "--config", path, cwd=tmp_path)
    assert done.code == 2
    ((line, column, message),) = done.messages(path)
    assert words in message
    at = path.read_text().splitlines()[line - 1]
    assert at[column - 1 :].startswith(f'"{host}"')


@pytest.mark.parametrize("token", ["short", "fifteen-letters", "   ", "sixteen letters and spaces"])
def test_an_admin_token_that_could_be_guessed_or_not_be_sent(tmp_path: Path, token: str) -> None:
    admin = {"host": "0.0.0.0", "port": 0, "token": token}
    path = write_config(tmp_path, config(admin=admin))
    done = gateway("serve", "--config", path, cwd=tmp_path)
    assert done.code == 2
    ((line, column, message),) = done.messages(path)
    assert message == (
        "token: admin.token has at least 16 characters, visible ASCII without spaces; make one"
        " with: openssl rand -hex 32"
    )
    assert token not in message
    assert path.read_text().splitlines()[line - 1][column - 1 :].startswith(f'"{token}"')


def test_a_config_without_secrets(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(config(sources={"clerk": {}})))
    done = gateway("serve", "--config", path, cwd=tmp_path)
    assert done.code == 2
    assert "secrets" in done.err
