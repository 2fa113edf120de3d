"""How much one core does: the gateway with Kafka `acks=all`, against bare uvicorn, in one run.

`make bench` prints throughput and CPU per event of both. The server under test is pinned to one
core; the load generator and Kafka share the others. Rounds alternate, and the median counts,
because machines are noisy. `--target nats` measures JetStream instead. `--inbox` adds rounds of
inbox mode, with its file on the disk of the working directory: how many events are stored per
second, how many are both stored and delivered, and how often the kernel was asked to sync.
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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.inbox.syncs import SyncNotes
from tests.servers.kafka.server import KafkaServer
from tests.servers.nats import NatsServer
from tests.servers.process import ServerError, free_port

ROOT = Path(__file__).parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
DRAIN_WITHIN = 120.0
"""Seconds in which the inbox must be empty after the load."""

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
delivery: {delivery}
"""


class Round(NamedTuple):
    """One measurement of one server."""

    per_second: float
    user_us: float
    system_us: float
    p50_ms: float
    p99_ms: float


class Inbox(NamedTuple):
    """What inbox mode did beyond answering."""

    delivered_per_second: float
    """Of the events, until the last one was delivered."""
    commits: int
    """By the gateway's own count."""
    syncs: int | None
    """Of the file's log, as the kernel was asked for them; None where they could not be counted."""
    events: int


@contextmanager
def pinned(
    command: list[str], ready: str, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server on core 0 until its URL answers; its log is thrown away."""
    process = subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
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


@contextmanager
def gateway(
    directory: Path,
    broker: str,
    secret: str,
    options: argparse.Namespace,
    delivery: str,
    env: Mapping[str, str] | None = None,
) -> Iterator[tuple[int, str, str]]:
    """Run a gateway; give its process, the URL of its webhooks and that of its metrics."""
    port, admin = free_port(), free_port()
    config = directory / "config.yaml"
    field = "topic" if options.target == "kafka" else "subject"
    values = {"port": port, "admin": admin, "secret": secret, "broker": broker, "field": field}
    config.write_text(CONFIG.format(**values, delivery=delivery))
    command = [sys.executable, "-m", "gateway", "serve", "--config", str(config)]
    with pinned(command, f"http://127.0.0.1:{admin}/readyz", env) as process:
        url = f"http://127.0.0.1:{port}/webhooks/clerk"
        yield process.pid, url, f"http://127.0.0.1:{admin}/metrics"


def gateway_round(directory: Path, broker: str, secret: str, options: argparse.Namespace) -> Round:
    with gateway(directory, broker, secret, options, "{}") as (pid, url, _):
        return measure(pid, url, secret, options)


def inbox_round(
    directory: Path, broker: str, secret: str, options: argparse.Namespace
) -> tuple[Round, Inbox]:
    # A directory for temporary files is often in memory, where a sync costs nothing.
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as disk:
        path = Path(disk) / "inbox.db"
        notes = sync_notes(Path(disk))
        delivery = f'{{mode: inbox, inbox: {{path: "{path}"}}}}'
        env = notes.environment() if notes else None
        with gateway(directory, broker, secret, options, delivery, env) as (pid, url, metrics):
            before = sample(metrics, "gateway_inbox_commits_total")
            synced = notes.count()[f"{path.name}-wal"] if notes else 0
            round_ = measure(pid, url, secret, options, "200 stored")
            began, events = time.monotonic(), round(round_.per_second * options.seconds)
            while sample(metrics, "gateway_inbox_events") > 0:
                if time.monotonic() - began > DRAIN_WITHIN:
                    sys.exit(f"the inbox was not empty {DRAIN_WITHIN:g} s after the load")
                time.sleep(0.05)
            seconds = options.seconds + time.monotonic() - began
            commits = round(sample(metrics, "gateway_inbox_commits_total") - before)
            syncs = notes.count()[f"{path.name}-wal"] - synced if notes else None
        return round_, Inbox(events / seconds, commits, syncs, events)


def sync_notes(directory: Path) -> SyncNotes | None:
    try:
        return SyncNotes(directory)
    except ServerError as error:
        print(error)
        return None


def sample(url: str, name: str) -> float:
    """Read one metric."""
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - an address on loopback
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))


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
    parser.add_argument("--inbox", action="store_true", help="measure inbox mode too")
    options = parser.parse_args()
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
    bare: list[Round] = []
    ours: list[Round] = []
    inbox: list[tuple[Round, Inbox]] = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with running_broker(directory, options.target) as broker:
            gateway_round(directory, broker, secret, options)  # warms up the broker's JVM
            for _ in range(options.rounds):
                bare.append(bare_round(secret, options))
                ours.append(gateway_round(directory, broker, secret, options))
                if options.inbox:
                    inbox.append(inbox_round(directory, broker, secret, options))
    print(f"{options.connections} connections, {options.rounds} rounds of {options.seconds:g} s")
    floor, direct = show("bare uvicorn", bare), show(f"gateway, {options.target}", ours)
    cpu = (floor.user_us + floor.system_us) / (direct.user_us + direct.system_us)
    print(
        f"the gateway does {direct.per_second / floor.per_second:.0%} of bare uvicorn's events "
        f"per second, and {cpu:.0%} by CPU time per event"
    )
    if inbox:
        show_inbox(inbox, direct, options)


def show_inbox(
    rounds: list[tuple[Round, Inbox]], direct: Round, options: argparse.Namespace
) -> None:
    stored = show(f"inbox, {options.target}", [one for one, _ in rounds])
    beyond = [one for _, one in rounds]
    delivered = statistics.median(one.delivered_per_second for one in beyond)
    events, commits = sum(one.events for one in beyond), sum(one.commits for one in beyond)
    syncs = sum(one.syncs or 0 for one in beyond)
    counted = f"{syncs:,} syncs of its log by the kernel" if syncs else "syncs not counted"
    print(
        f"inbox mode stores {stored.per_second / direct.per_second:.0%} of direct mode's events"
        f" per second, and stores and delivers {delivered / direct.per_second:.0%}"
        f" ({delivered:.0f}/s); {events:,} events in {commits:,} commits, {counted}"
    )


if __name__ == "__main__":
    main()
