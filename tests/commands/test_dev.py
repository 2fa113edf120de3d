"""`gateway dev`: the newcomer's first minute, in an empty directory, with nothing prepared."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.canaries import SHOWN_BY_DEV
from tests.commands.command import GATEWAY, Done, Running, gateway, gathered
from tests.e2e.gateway_process import children, is_running
from tests.e2e.readback import create_stream, stream_messages
from tests.servers.nats import NatsServer
from tests.servers.process import LOOPBACK

READY = "events as they arrive in the broker"
FIRST_TYPES = ("user.created", "organization.created", "session.created", "user.updated")
FIRST_SECONDS = 15.0
ARRIVAL = re.compile(
    r"^\d\d:\d\d:\d\d\.\d{3} (\S+) +\S+/(\S+) stream (\S+) seq (\d+)", re.MULTILINE
)

Dev = Callable[..., Running]


@pytest.fixture(autouse=True)
def no_secret_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLERK_WEBHOOK_SIGNING_SECRET", raising=False)


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    """Start `gateway dev` in a directory of the test, on a free port: `dev("--config", path)`."""
    started: list[Running] = []

    def start(*options: object) -> Running:
        running = Running(tmp_path, READY, "dev", "--port", 0, *options)
        started.append(running)
        running.start()
        return running

    yield start
    for running in started:
        running.kill()
        assert "Traceback" not in running.written


def arrivals(written: str) -> list[tuple[str, str, str, int]]:
    """Give type, subject, stream and sequence of each event that was shown."""
    return [(kind, to, at, int(seq)) for kind, to, at, seq in ARRIVAL.findall(written)]


def line(written: str, name: str) -> str:
    """Give what is shown beside a name of the introduction."""
    found = re.search(rf"^ *{name}  (.*)$", written, re.MULTILINE)
    assert found, written
    return found[1]


def type_line(written: str, *options: str, cwd: Path) -> Done:
    """Do as a newcomer does: paste the line that was shown, with options if there are any."""
    words = shlex.split(line(written, "try"))
    assert words[words.index("send") + 1] == "user.created"
    done = subprocess.run(
        [*words, *options], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )
    gathered(done)
    return Done(done.returncode, done.stdout, done.stderr)


def nats_pid(running: Running) -> int:
    (pid,) = children(running.pid)
    return pid


def test_the_first_minute(dev: Dev, tmp_path: Path) -> None:
    began = time.monotonic()
    running = dev()
    for event_type in FIRST_TYPES:
        running.until_written(f"clerk.{event_type} stream CLERK")
    assert time.monotonic() - began < FIRST_SECONDS
    written = running.until_written(" stream CLERK seq ", times=5)
    shown = arrivals(written)
    assert [seq for *_, seq in shown] == [1, 2, 3, 4, 5]
    assert {stream for _, _, stream, _ in shown} == {"CLERK"}
    assert all(subject == f"clerk.{kind}" for kind, subject, _, _ in shown)

    sent = type_line(written, cwd=tmp_path)
    assert (sent.code, sent.err) == (0, "")
    assert re.fullmatch(
        r"200 delivered user\.created msg_\w+ -> clerk\.user\.created \(stream CLERK seq 6\)\n",
        sent.out,
    )
    svix_id = sent.out.split()[3]
    assert svix_id in running.until_written(svix_id)

    forged = type_line(written, "--forge", cwd=tmp_path)
    assert forged.code == 0
    assert forged.out.startswith("401 rejected user.created")
    last = type_line(written, cwd=tmp_path)
    assert "seq 7" in last.out
    written = running.until_written("seq 7")
    assert [seq for *_, seq in arrivals(written)] == [1, 2, 3, 4, 5, 6, 7]
    assert forged.out.split()[3] not in written


def test_what_it_shows_works(dev: Dev, tmp_path: Path) -> None:
    running = dev()
    written = running.until_written("seq 5")
    health = line(written, "health").split()[0]
    assert httpx.get(health, trust_env=False).json()["status"] == "ready"
    assert line(written, "webhooks").startswith(f"http://{LOOPBACK}:")
    assert line(written, "secret") == (tmp_path / ".gateway/secret").read_text().strip()
    assert "--forge" in written
    # Whoever may read the secret may forge events.
    assert stat.S_IMODE((tmp_path / ".gateway/secret").stat().st_mode) == 0o600


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_end_takes_all_with_it(dev: Dev, number: signal.Signals) -> None:
    running = dev()
    running.until_written("seq 5")
    nats = nats_pid(running)
    assert is_running(nats)
    assert running.end(number) == 0
    assert not is_running(nats)
    assert running.written.rstrip().endswith("stopped")


def test_sigint_before_anything_is_ready(tmp_path: Path) -> None:
    running = Running(tmp_path, "", "dev", "--port", 0)
    running.start()
    deadline = time.monotonic() + 20
    while not (found := children(running.pid)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert running.end() == 0
    assert not any(is_running(pid) for pid in found)
    assert "Traceback" not in running.written


def test_a_second_run_goes_on_where_the_first_ended(dev: Dev, tmp_path: Path) -> None:
    first = dev()
    secret = line(first.until_written("seq 5"), "secret")
    assert first.end() == 0
    second = dev()
    written = second.until_written("seq 10")
    assert line(written, "secret") == secret
    # What was stored is kept, and only what is new is shown.
    assert [seq for *_, seq in arrivals(written)] == [6, 7, 8, 9, 10]
    assert "seq 11" in type_line(written, cwd=tmp_path).out


def test_the_secret_of_the_environment_is_used(
    dev: Dev, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = SHOWN_BY_DEV
    monkeypatch.setenv("CLERK_WEBHOOK_SIGNING_SECRET", secret)
    written = dev().until_written("seq 5")
    assert line(written, "secret") == secret
    assert not (tmp_path / ".gateway/secret").exists()
    assert "seq 6" in type_line(written, cwd=tmp_path).out


def config(tmp_path: Path, brokers: dict[str, Any], *targets: dict[str, Any]) -> Path:
    path = tmp_path / "mine.yaml"
    secrets = {"secrets": ["${CLERK_WEBHOOK_SIGNING_SECRET}"]}
    routes = [{"name": "all", "events": ["*"], "targets": list(targets)}]
    content = {"sources": {"clerk": secrets}, "brokers": brokers, "routes": routes}
    path.write_text(json.dumps(content, indent=1))
    return path


def test_a_kafka_broker_without_servers_is_stood_in_for(dev: Dev, tmp_path: Path) -> None:
    path = config(
        tmp_path,
        {"events": {"kind": "kafka"}, "bus": {"kind": "nats"}, "second": {"kind": "nats"}},
        # Each alone would be fine; together they must not want overlapping streams.
        {"broker": "events", "topic": "clerk.users"},
        {"broker": "events", "topic": "clerk-{type}"},
        {"broker": "bus", "subject": "clerk.{type}"},
        {"broker": "bus", "subject": "clerk-{type}"},
        {"broker": "second", "subject": "clerk.{type}"},
        {"broker": "second", "subject": "copy-{data.id}"},
    )
    running = dev("--config", path)
    running.until_written("user.updated ", times=6)
    sent = type_line(running.written, cwd=tmp_path)
    assert sent.code == 0, sent.out + sent.err
    assert sent.out.startswith("200 delivered user.created")
    shown = {(kind, to) for kind, to, _, _ in arrivals(running.written)}
    for subject in (
        "kafka.events.clerk.users",
        "kafka.events.clerk-user.created",
        "clerk.user.created",
        "clerk-user.created",
        "copy-user_2Sample00000000000000000001",
    ):
        assert ("user.created", subject) in shown


def test_the_broker_of_the_config_is_used_where_it_has_servers(
    dev: Dev, tmp_path: Path, nats_server: NatsServer, unique: Callable[[str], str]
) -> None:
    name = unique("own")
    asyncio.run(create_stream(nats_server.url, name, f"{name}.>"))
    path = config(
        tmp_path,
        {"own": {"kind": "nats", "servers": [nats_server.url]}, "events": {"kind": "kafka"}},
        {"broker": "own", "subject": f"{name}.{{type}}"},
        {"broker": "events", "topic": "users"},
    )
    dev("--config", path).until_written(f"own/{name}.user.updated")
    assert len(asyncio.run(stream_messages(nats_server.url, name))) == 5


def test_a_changed_table_counts_and_is_shown(dev: Dev, tmp_path: Path) -> None:
    """Also where it wants other streams than the one before, and another path and secret."""
    brokers: dict[str, Any] = {"bus": {"kind": "nats"}, "events": {"kind": "kafka"}}
    path = config(tmp_path, brokers, {"broker": "bus", "subject": "one.{type}"})
    running = dev("--config", path)
    running.until_written("bus/one.user.updated ")
    renamed = {"other": {"kind": "nats"}, "events": {"kind": "kafka"}}
    for times, (changed, *targets) in enumerate(
        [
            (brokers, {"broker": "bus", "subject": "two.{type}"}),
            (renamed, {"broker": "other", "subject": "one.{type}"}),
            (renamed, {"broker": "events", "topic": "three"}),
        ],
        1,
    ):
        config(tmp_path, changed, *targets)
        running.until_written("config reloaded", times)
        sent = type_line(running.written, cwd=tmp_path)
        assert (sent.code, sent.err) == (0, ""), sent.out
        svix_id = sent.out.split()[3]
        (target,) = targets
        wanted = target.get("subject", "kafka.events.three").replace("{type}", "user.created")
        written = running.until_written(svix_id)
        (shown,) = [one for one in written.splitlines() if svix_id in one]
        assert f"/{wanted} " in shown
    content = json.loads(path.read_text())
    content["sources"]["clerk"] |= {"path": "/elsewhere", "secrets": [SHOWN_BY_DEV]}
    path.write_text(json.dumps(content))
    written = running.until_written("config reloaded", 4)
    assert written.count(SHOWN_BY_DEV) == 1
    last = written[written.rindex("webhooks  ") :]
    assert line(last, "webhooks").endswith("/elsewhere")
    path.write_text("routes: [")
    assert "mine.yaml:1:" in running.until_written("config not reloaded")


def test_a_second_run_takes_a_changed_table(dev: Dev, tmp_path: Path) -> None:
    """The streams of the first run are there, and take what the second one wants."""
    path = config(tmp_path, {"bus": {"kind": "nats"}}, {"broker": "bus", "subject": "one.{type}"})
    first = dev("--config", path)
    first.until_written("bus/one.user.updated ")
    assert first.end() == 0
    config(tmp_path, {"new": {"kind": "nats"}}, {"broker": "new", "subject": "one.two.{type}"})
    dev("--config", path).until_written("new/one.two.user.updated ")


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind((LOOPBACK, 0))
        other.listen()
        port = other.getsockname()[1]
        done = gateway("dev", "--port", port, cwd=tmp_path)
    assert done.code == 2
    assert f"port {port}" in done.err
    assert "in use" in done.err
    assert "--port" in done.err


def test_port_8080_is_the_default_and_may_be_in_use(tmp_path: Path) -> None:
    with socket.socket() as other:
        # Where somebody else has it already, that is as good.
        with suppress(OSError):
            other.bind((LOOPBACK, 8080))
            other.listen()
        done = gateway("dev", cwd=tmp_path)
    assert done.code == 2
    assert "8080" in done.err
    assert "--port" in done.err


def test_two_at_once_each_have_a_broker_of_their_own(dev: Dev, tmp_path: Path) -> None:
    first = dev()
    (tmp_path / "other").mkdir()
    second = Running(tmp_path / "other", READY, "dev", "--port", 0)
    with second:
        written = second.until_written("seq 5")
        brokers = {line(one, "broker").split()[0] for one in (written, first.written)}
        assert len(brokers) == 2
        assert second.end() == 0


def test_a_nats_server_that_dies_is_told(dev: Dev, tmp_path: Path) -> None:
    running = dev()
    written = running.until_written("seq 5")
    nats = nats_pid(running)
    os.kill(nats, signal.SIGKILL)
    assert running.exit_code() != 0
    assert "the embedded nats-server ended; see .gateway" in running.written
    assert type_line(written, cwd=tmp_path).code == 3


def test_a_killed_dev_leaves_no_server_behind(dev: Dev) -> None:
    running = dev()
    running.until_written("seq 5")
    nats = nats_pid(running)
    os.kill(running.pid, signal.SIGKILL)
    running.exit_code()
    deadline = time.monotonic() + 20
    while is_running(nats):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_no_nats_server_is_told_with_a_remedy(tmp_path: Path) -> None:
    bare = tmp_path / "bin"
    bare.mkdir()
    (bare / "python").symlink_to(GATEWAY[0])
    env = {**os.environ, "PATH": str(bare)}
    script = "import sys; sys.executable = sys.argv.pop(1); from gateway.cli import main; main()"
    done = subprocess.run(
        [GATEWAY[0], "-c", script, str(bare / "python"), "dev", "--port", "0"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    gathered(done)
    assert done.returncode == 2
    assert "pip install 'clerk-event-gateway[dev]'" in done.stderr
    assert "Traceback" not in done.stderr
