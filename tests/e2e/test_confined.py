"""The gateway as the container runs it: read-only root, no capability, not root, no way up.

Where there is no container engine the kernel does the same by hand: a mount namespace in which
everything is read-only but one tmpfs, and in it a user namespace in which the process is the
user of the Dockerfile and holds no capability.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.client import Client
from tests.e2e.gateway_process import GatewayProcess, children
from tests.e2e.readback import create_stream
from tests.servers.nats import NatsServer

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="namespaces are Linux's; so is the container"
)

ROOT = Path(__file__).parents[2]
USER = re.findall(r"^USER (\d+):", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[-1]
_READ_ONLY = """
set -e
writable=$1 user=$2
shift 2
mount --make-rprivate /
mount -t tmpfs -o size=16m,mode=1777 tmpfs "$writable"
findmnt -rno TARGET | while read -r place; do
  case "$place" in
    "$writable" | /proc*) ;;
    *) mount -o remount,bind,ro "$place" 2>/dev/null || true ;;
  esac
done
exec setpriv --no-new-privs unshare --user --map-user="$user" --map-group="$user" "$@"
"""
"""Arguments: what stays writable, the user, and the command."""
_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")


def confined(writable: Path, command: Sequence[str]) -> list[str]:
    """Give the command that runs `command` in the confinement."""
    shell = ("sh", "-c", _READ_ONLY, "confined", str(writable), USER)
    return [*_NAMESPACE, *shell, *command]


@pytest.fixture(scope="module", autouse=True)
def _namespaces() -> None:
    """Fail where the build runs, and skip elsewhere, if the kernel gives no namespaces."""
    tried = subprocess.run([*_NAMESPACE, "true"], capture_output=True, text=True, check=False)
    if tried.returncode == 0:
        return
    why = f"unprivileged user namespaces are not allowed here: {tried.stderr.strip()}"
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


class ConfinedGateway(GatewayProcess):
    """`gateway serve` in the confinement; only its temporary directory can be written to."""

    def __init__(self, directory: Path, config: dict[str, Any], workers: int) -> None:
        super().__init__(directory, config, workers)
        self.writable = directory / "tmp"
        self.writable.mkdir()

    def _command(self) -> Sequence[str]:
        environment = ("env", f"TMPDIR={self.writable}", "PYTHONDONTWRITEBYTECODE=1")
        return ["/usr/bin/env", *confined(self.writable, [*environment, *super()._command()])]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., ConfinedGateway]]:
    started: list[ConfinedGateway] = []

    def prepare(config: dict[str, Any], workers: int) -> ConfinedGateway:
        gateway = ConfinedGateway(tmp_path / f"confined-{workers}", config, workers)
        started.append(gateway)
        gateway.start()
        return gateway

    yield prepare
    for gateway in started:
        gateway.end()


def status(pid: int) -> dict[str, str]:
    """What Linux says of a process (proc(5))."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_the_confinement_is_one(tmp_path: Path) -> None:
    """What follows shows something only if the process really may do nothing."""
    (tmp_path / "tmp").mkdir()
    tries = [tmp_path, ROOT, Path.home(), Path("/"), Path("/var"), Path("/dev/shm")]  # noqa: S108 - must fail
    script = "; ".join(
        [
            f"id -u; touch {shlex.quote(str(tmp_path / 'tmp' / 'x'))} && echo may",
            *(
                f"touch {shlex.quote(str(place / 'x'))} 2>/dev/null && echo {place}"
                for place in tries
            ),
            "chown 1 . 2>/dev/null && echo chown; hostname x 2>/dev/null && echo hostname",
        ]
    )
    done = subprocess.run(
        confined(tmp_path / "tmp", ["sh", "-c", script]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == [USER, "may"], done.stderr


@pytest.mark.parametrize("workers", [1, 2])
async def test_it_needs_no_right_and_writes_nowhere(
    start: Callable[..., ConfinedGateway], nats_server: NatsServer, workers: int
) -> None:
    stream = f"confined-{workers}"
    await create_stream(nats_server.url, stream, f"{stream}.>")
    config = {
        "brokers": {"bus": {"kind": "nats", "servers": [nats_server.url]}},
        "routes": [
            {
                "name": "all",
                "events": ["*"],
                "targets": [{"broker": "bus", "subject": f"{stream}.{{type}}"}],
            }
        ],
    }
    gateway = await asyncio.to_thread(start, config, workers)
    async with Client(gateway) as client:
        await client.until_ready()
        assert (await client.post()).word == (200, "delivered")
    for pid in {gateway.pid, *children(gateway.pid)}:
        found = status(pid)
        assert found["NoNewPrivs"] == "1"
        for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(found[kind], 16) == 0, f"{kind} of {pid}"
    kept = [path.name for path in gateway.writable.iterdir()]
    assert kept == [], "the tmpfs is the namespace's own: nothing of it is seen from outside"
