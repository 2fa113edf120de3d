"""What abuse costs others: the latency of valid events, calm and beside each kind of abuse.

`make abuse` prints a row for each kind: the latencies beside it, how they compare with the calm
rounds right before, what the process grew by meanwhile and for good, and how requests ended. It
fails where the median is more than twice the calm one, measured twice, or where a valid event is
not delivered.
The abuser is a process of its own, at the rates given below; on few cores it takes time from the
gateway as well.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tests.e2e.client import Client, event, signed, until
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.readback import create_stream
from tests.e2e.wire import Wire, connected, head, request
from tests.servers.nats import NatsServer

ROOT = Path(__file__).parent.parent
SENDERS = 4
PER_SECOND = 50
"""Valid events of each sender."""
LIMIT = 2.0


class Kind(NamedTuple):
    """One kind of abuse: `at_once` loops of `one`, each at most every `every` seconds."""

    one: Callable[[int], Awaitable[None]]
    at_once: int
    every: float
    what: str
    holds: int = 0
    """Connections that stay open, and are there before anything is measured."""


class Latencies(NamedTuple):
    """Of the valid events of one round, in milliseconds."""

    p50: float
    p99: float


# --- the abuser


async def idle(port: int) -> None:
    body = event()
    forged = signed(body) | {"Content-Length": str(len(body)), "svix-id": "msg_other"}
    async with connected(port) as wire:
        await wire.send(head(forged) + body)
        await wire.reply()
        await asyncio.sleep(3600)


async def drip(wire: Wire, first: bytes) -> None:
    await wire.send(first)
    for _ in range(1000):
        await asyncio.sleep(0.5)
        await wire.send(b"x")


async def slow_head(port: int) -> None:
    async with connected(port) as wire:
        await drip(wire, head({"x-long": "y"})[:55])


async def slow_body(port: int) -> None:
    async with connected(port) as wire:
        await drip(wire, head(signed(b"x") | {"Content-Length": "100000"}) + b"x" * 10_000)


async def endless_chunks(port: int) -> None:
    chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    async with connected(port) as wire:
        await wire.send(head(signed(b"") | {"Transfer-Encoding": "chunked"}))
        for _ in range(40):
            await wire.send(chunk)
            await asyncio.sleep(0.02)


async def oversize_length(port: int) -> None:
    async with connected(port) as wire:
        await wire.send(head(signed(b"") | {"Content-Length": "100000000"}) + b"x" * 50_000)
        await wire.reply()


async def header_flood(port: int) -> None:
    async with connected(port) as wire:
        await wire.send(b"POST / HTTP/1.1\r\n" + b"a: b\r\n" * 16_000)
        await wire.reply()


async def broken_length(port: int) -> None:
    async with connected(port) as wire:
        await wire.send(b"POST / HTTP/1.1\r\nContent-Length: 1, 2\r\n\r\n")
        await wire.reply()


async def pipelined_forgeries(port: int) -> None:
    body = event()
    forged = head(signed(body) | {"Content-Length": str(len(body)), "svix-id": "msg_x"}) + body
    async with connected(port) as wire:
        await wire.send(forged * 20)
        for _ in range(20):
            await wire.reply()


async def reset_in_body(port: int) -> None:
    async with connected(port) as wire:
        await wire.send(head(signed(b"x") | {"Content-Length": "300000"}) + b"x" * 50_000)
        wire.reset()


async def large_forgery(port: int) -> None:
    async with connected(port) as wire:
        await wire.send(request(event(size=500_000)).replace(b"user_1", b"user_2"))
        await wire.reply()


KINDS = {
    "idle": Kind(idle, 2000, 0, "2,000 idle connections", 2000),
    "slow_head": Kind(slow_head, 200, 0.2, "200 heads that drip", 150),
    "slow_body": Kind(slow_body, 200, 0.2, "200 bodies that drip", 150),
    "endless_chunks": Kind(endless_chunks, 4, 0.1, "4 streams of chunks without end, 3 MB/s"),
    "oversize_length": Kind(oversize_length, 4, 0.1, "oversize by length, 40/s"),
    "header_flood": Kind(header_flood, 4, 0.2, "heads of 16,000 headers, 20/s"),
    "broken_length": Kind(broken_length, 8, 0.1, "broken lengths, 80/s"),
    "pipelined": Kind(pipelined_forgeries, 4, 0.4, "20 forgeries pipelined, 10/s"),
    "reset": Kind(reset_in_body, 8, 0.1, "resets in mid body, 80/s"),
    "large_forgery": Kind(large_forgery, 2, 0.4, "forgeries of 500 kB, 5/s"),
}


async def abuse(kind: Kind, port: int) -> None:
    """Go on until killed."""

    async def again_and_again(number: int) -> None:
        await asyncio.sleep(kind.every * number / kind.at_once)
        while True:
            began = time.monotonic()
            with suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                await kind.one(port)
            await asyncio.sleep(max(0.01, kind.every - (time.monotonic() - began)))

    await asyncio.gather(*(again_and_again(number) for number in range(kind.at_once)))


@contextmanager
def abusing(name: str, port: int) -> Iterator[None]:
    command = [sys.executable, "-m", "bench.abuse", "--abuser", name, "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait(10)


# --- the valid senders


async def measure(client: Client, seconds: float) -> Latencies:
    """Send valid events at a steady rate and give their latencies."""
    until, found = time.monotonic() + seconds, list[float]()

    async def sender() -> None:
        while (began := time.monotonic()) < until:
            answer = await client.post()
            if answer.word != (200, "delivered"):
                sys.exit(f"a valid event got {answer.word}")
            found.append(time.monotonic() - began)
            await asyncio.sleep(max(0.0, 1 / PER_SECOND - found[-1]))

    await asyncio.gather(*(sender() for _ in range(SENDERS)))
    ordered = sorted(found)
    p99 = ordered[int(len(ordered) * 0.99)]
    return Latencies(statistics.median(ordered) * 1000, p99 * 1000)


def resident(gateway: GatewayProcess) -> float:
    """Give the process's memory in MB."""
    command = ["ps", "-o", "rss=", "-p", str(gateway.pid)]
    return int(subprocess.run(command, capture_output=True, check=True).stdout) / 1000


async def begun(client: Client, kind: Kind) -> None:
    """Wait until the abuser is there."""
    counted = (await client.counted()).total()

    async def is_there() -> bool:
        (connections,) = (await client.samples("gateway_connections")).values()
        return (
            connections >= kind.holds if kind.holds else (await client.counted()).total() > counted
        )

    await until(is_there, "the abuser's connections are open")
    await asyncio.sleep(0.5)


async def rounds(
    gateway: GatewayProcess, client: Client, name: str, options: argparse.Namespace
) -> bool:
    """Measure one kind, calm and beside it in turn; print its row and say whether it is well."""
    calm, beside = list[Latencies](), list[Latencies]()
    before, counted, peak = resident(gateway), await client.counted(), 0.0
    for _ in range(options.rounds):
        calm.append(await measure(client, options.seconds))
        with abusing(name, gateway.port):
            await begun(client, KINDS[name])
            beside.append(await measure(client, options.seconds))
            peak = max(peak, resident(gateway) - before)
        await asyncio.sleep(0.5)
    ended = Counter[str]()
    for (_, outcome, reason), count in (await client.counted() - counted).items():
        ended[reason or outcome] += count
    quiet, loud = (statistics.median(one.p50 for one in many) for many in (calm, beside))
    late_quiet, late_loud = (statistics.median(one.p99 for one in many) for many in (calm, beside))
    shown = ", ".join(f"{reason} {count}" for reason, count in ended.most_common())
    print(
        f"{KINDS[name].what:<42} p50 {loud:5.2f} ms, {loud / quiet:4.2f} x {quiet:.2f}   "
        f"p99 {late_loud:6.2f} ms, {late_loud / late_quiet:4.2f} x {late_quiet:.2f}   "
        f"{peak:+6.1f} MB, then {resident(gateway) - before:+5.1f}   {shown}",
        flush=True,
    )
    return loud / quiet <= LIMIT


async def compare(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as name, NatsServer(Path(name) / "nats") as nats:
        await create_stream(nats.url, "abuse", "abuse.>")
        target = {"broker": "bus", "subject": "abuse.{type}"}
        config = {
            "server": {"header_timeout": "2s", "body_timeout": "2s"},
            "brokers": {"bus": {"kind": "nats", "servers": [nats.url]}},
            "routes": [{"name": "all", "events": ["*"], "targets": [target]}],
        }
        with GatewayProcess(Path(name) / "gateway", config) as gateway:
            async with Client(gateway) as client:
                await client.until_ready()
                await measure(client, options.seconds)
                print(
                    f"valid events: {SENDERS} senders, {SENDERS * PER_SECOND}/s at the most, "
                    f"{options.rounds} rounds of {options.seconds:g} s each way, JetStream"
                )
                failed = [
                    kind
                    for kind in options.kinds or KINDS
                    # A second opinion, since other work on the machine counts against us.
                    if not await rounds(gateway, client, kind, options)
                    and not await rounds(gateway, client, kind, options)
                ]
    if failed:
        print(f"more than {LIMIT:g} times the calm median: {', '.join(failed)}")
    return len(failed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", help=", ".join(KINDS))
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--begin", type=float, default=1.5, help="seconds of abuse before measuring"
    )
    parser.add_argument("--abuser", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.abuser:
        asyncio.run(abuse(KINDS[options.abuser], options.port))
    return 1 if asyncio.run(compare(options)) else 0


if __name__ == "__main__":
    sys.exit(main())
