"""How much one core does: the gateway with Kafka `acks=all`, against bare uvicorn, in one run.

`make bench` prints throughput and CPU per event of both. The server under test is pinned to one
core; the load generator and Kafka share the others. Rounds alternate, and the median counts,
because machines are noisy. `--target nats` measures JetStream instead, `--profile FILE` nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.servers.kafka.server import KafkaServer
from tests.servers.nats import NatsServer
from tests.servers.process import free_port

ROOT = Path(__file__).parent.parent
TICKS = os.sysconf("SC_CLK_TCK")

CONFIG = """
server: {{host: 127.0.0.1, port: {port}}}
admin: {{port: {admin}}}
sources:
  clerk: {{secrets: ["{secret}"]}}
brokers:
  events: {broker}
routes:
  - name: users
    events: ["user.*"]
    targets:
      - {{broker: events, {field}: clerk.users}}
"""


class Round(NamedTuple):
    """One measurement of one server."""

    per_second: float
    user_us: float
    system_us: float
    p50_ms: float
    p99_ms: float


@contextmanager
def pinned(command: list[str], ready: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server on core 0 until its URL answers; its log is thrown away."""
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        os.sched_setaffinity(process.pid, {0})
        wait_for(ready, process)
        yield process
    finally:
        process.terminate()
        process.wait(30)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if process.poll() is not None:
            sys.exit(f"the server ended with {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=1):  # noqa: S310 - an address on loopback
                return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"{url} did not answer within 30 s")


def cpu_seconds(pid: int) -> tuple[float, float]:
    """User and system time of a process so far (Linux: proc(5), stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / TICKS, int(fields[12]) / TICKS


def measure(
    pid: int, url: str, secret: str, options: argparse.Namespace, expected: str = "200 delivered"
) -> Round:
    """Load one server and relate its CPU time to the events it answered, each as expected."""
    before = cpu_seconds(pid)
    command = [sys.executable, "bench/load.py", url, secret]
    command += [str(options.connections), str(options.seconds), str(options.size)]
    command += [str(int(options.seconds * options.most))]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    after = cpu_seconds(pid)
    result = json.loads(output)
    if set(result["statuses"]) != {expected}:
        sys.exit(f"not every answer was {expected!r}: {result['statuses']}; a duplicate: --most")
    events = result["requests"]
    user, system = (
        (late - early) / events * 1e6 for early, late in zip(before, after, strict=True)
    )
    return Round(result["per_second"], user, system, result["p50_ms"], result["p99_ms"])


def bare_round(secret: str, options: argparse.Namespace) -> Round:
    url = f"http://127.0.0.1:{(port := free_port())}/webhooks/clerk"
    command = [sys.executable, "-m", "uvicorn", "bench.bare:app", "--port", str(port)]
    command += ["--loop", "uvloop", "--http", "httptools", "--no-access-log"]
    command += ["--lifespan", "off", "--log-level", "error"]
    with pinned(command, url) as process:
        return measure(process.pid, url, secret, options)


def gateway_round(directory: Path, broker: str, secret: str, options: argparse.Namespace) -> Round:
    port, admin = free_port(), free_port()
    config = directory / "config.yaml"
    field = "topic" if options.target == "kafka" else "subject"
    config.write_text(
        CONFIG.format(port=port, admin=admin, secret=secret, broker=broker, field=field)
    )
    url = f"http://127.0.0.1:{port}/webhooks/clerk"
    command = [sys.executable, "-m", "gateway", "serve", "--config", str(config)]
    with pinned(command, f"http://127.0.0.1:{admin}/readyz") as process:
        return measure(process.pid, url, secret, options)


@contextmanager
def running_broker(directory: Path, target: str) -> Iterator[str]:
    """Run the broker off core 0 and give its entry in the config."""
    others = os.sched_getaffinity(0) - {0} or {0}
    os.sched_setaffinity(0, others)
    if target == "kafka":
        with KafkaServer(directory) as kafka:
            asyncio.run(kafka.create_topic("clerk.users", partitions=6))
            yield f'{{kind: kafka, servers: ["{kafka.bootstrap}"]}}'
    else:
        with NatsServer(directory) as nats:
            streams = "[{name: CLERK, subjects: [clerk.users]}]"
            yield f'{{kind: nats, servers: ["{nats.url}"], streams: {streams}}}'


def show(name: str, rounds: list[Round]) -> Round:
    """Print the medians of a server's rounds, and how far apart they were."""
    middle = Round(*(statistics.median(values) for values in zip(*rounds, strict=True)))
    spread = f"{min(r.per_second for r in rounds):.0f}-{max(r.per_second for r in rounds):.0f}"
    print(
        f"{name:<22} {middle.per_second:>8.0f}/s ({spread})  "
        f"{middle.user_us:6.1f} us user + {middle.system_us:5.1f} us system per event  "
        f"p50 {middle.p50_ms:.2f} ms  p99 {middle.p99_ms:.2f} ms"
    )
    return middle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", choices=["kafka", "nats"], default="kafka")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--size", type=int, default=1024, help="least bytes of a body")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--most", type=int, default=15_000, help="events per second it may reach")
    options = parser.parse_args()
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
    bare: list[Round] = []
    ours: list[Round] = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with running_broker(directory, options.target) as broker:
            gateway_round(directory, broker, secret, options)  # warms up the broker's JVM
            for _ in range(options.rounds):
                bare.append(bare_round(secret, options))
                ours.append(gateway_round(directory, broker, secret, options))
    print(f"{options.connections} connections, {options.rounds} rounds of {options.seconds:g} s")
    floor, gateway = show("bare uvicorn", bare), show(f"gateway, {options.target}", ours)
    cpu = (floor.user_us + floor.system_us) / (gateway.user_us + gateway.system_us)
    print(
        f"the gateway does {gateway.per_second / floor.per_second:.0%} of bare uvicorn's events "
        f"per second, and {cpu:.0%} by CPU time per event"
    )


if __name__ == "__main__":
    main()
