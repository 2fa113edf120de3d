"""What the ledger costs in direct mode: CPU per event with it, and without it, in one run.

`make bench-ledger` takes a routed event through the fan-out and two brokers that ack at the next
turn of the loop: with a ledger, with one that remembers nothing, and with one that a worker shares
through a supervisor, which is another process. Rounds alternate, and medians count. `--whole` takes
what an event costs in all, which `bench.run` measures, and relates them.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import multiprocessing
import socket
import statistics
import time
from collections.abc import Callable
from typing import Any

import structlog
import uvloop

from gateway.brokers.base import Message, Receipt
from gateway.delivery.fanout import FanOut, Outlets
from gateway.delivery.ledger import Entry, Ledger
from gateway.delivery.memory import Retention
from gateway.delivery.plan import Assignment, Plan
from gateway.delivery.settlement import Settlement
from gateway.delivery.shared import SharedLedger
from gateway.metadata import Metadata
from gateway.server.ledger_channel import BookClient, BookKeeper

RETENTION = Retention(window=120.0, incomplete_for=108_000.0, max_bytes=64 * 1024 * 1024)
CONCURRENT = 64
GC_THRESHOLD = 20_000
"""As a process that serves has it."""


class Forgetful(Ledger):
    """Gives every attempt an entry of its own, and keeps none."""

    def open(self, _source: str, svix_id: str, now: float) -> Entry:
        return Entry(svix_id, now, 0, "forgotten")

    def embark(self, entry: Entry, target: str) -> None:
        """Need no note."""

    def land(self, entry: Entry, target: str, settlement: Settlement | None) -> None:
        """Need no note."""

    def close(self, entry: Entry, now: float, *, answered: bool) -> None:
        """Need no note."""


class Prompt:
    """A broker that acks at the next turn of the loop."""

    def __init__(self, name: str) -> None:
        self._receipt = Receipt(name, partition=0, offset=1)

    def publish(self, _message: Message, _deadline: float) -> asyncio.Future[Receipt]:
        loop = asyncio.get_running_loop()
        ack: asyncio.Future[Receipt] = loop.create_future()
        loop.call_soon(ack.set_result, self._receipt)
        return ack


class Deaf:
    """A listener that keeps nothing."""

    def settled(self, settlement: Settlement) -> None:
        """Need no note."""

    def acked_late(self, settlement: Settlement) -> None:
        """Need no note."""

    def unshared(self, reason: str) -> None:
        raise RuntimeError(reason)


def plan(at: int) -> Plan:
    svix_id = f"msg_{at:024}"
    metadata = Metadata(
        id=svix_id,
        type="user.created",
        source="clerk/clerk",
        time=None,
        subject="user_1",
        timestamp="1700000000",
        signature=None,
        gateway_source="clerk",
        received_at="2026-01-01T00:00:00.000Z",
    )
    assignments = tuple(
        Assignment(("users",), name, Message(name, b"{}", (), f"{svix_id}.{name}", "k"))
        for name in ("events", "bus")
    )
    return Plan("k", b"{}", metadata, assignments, ())


async def measure(fan_out: FanOut, first: int, events: int) -> float:
    """Deliver, and give microseconds of this process's CPU per event."""
    brokers: Any = {name: Prompt(name) for name in ("events", "bus")}
    outlets = Outlets(brokers, None)
    plans = iter([plan(at) for at in range(first, first + events)])
    deadline = asyncio.get_running_loop().time() + 600

    async def sender() -> None:
        for one in plans:
            delivery = await fan_out.deliver(one, outlets, deadline)
            if delivery.status != "delivered":
                raise RuntimeError(delivery.status)

    gc.collect()
    before = time.process_time()
    await asyncio.gather(*(sender() for _ in range(CONCURRENT)))
    return (time.process_time() - before) / events * 1e6


async def alone(make: Callable[..., Ledger], first: int, events: int) -> float:
    return await measure(FanOut(Deaf(), make(RETENTION, lambda _: None)), first, events)


async def shared(first: int, events: int) -> tuple[float, float]:
    """Give microseconds per event of the worker, and of the supervisor."""
    ours, theirs = socket.socketpair()
    spent = multiprocessing.get_context("fork").Queue()
    keeper = multiprocessing.get_context("fork").Process(target=keep, args=(ours, theirs, spent))
    keeper.start()
    ours.close()
    ledger = Ledger(RETENTION, lambda _: None)
    claims = BookClient(theirs)
    over = SharedLedger(ledger, claims, Deaf(), counts_claimed=False)
    await over.connect()
    cost = await measure(FanOut(Deaf(), ledger, over), first, events)
    await over.disconnect()
    return cost, await asyncio.to_thread(spent.get) / events * 1e6


def keep(ours: socket.socket, theirs: socket.socket, spent: Any) -> None:
    """Be the supervisor of one worker, until that ends."""
    theirs.close()

    async def serve() -> None:
        keeper = BookKeeper(RETENTION)
        keeper.start()
        await keeper.serve(ours, 0)
        while keeper.workers:  # noqa: ASYNC110 - nobody else waits for this
            await asyncio.sleep(0.05)
        keeper.stop()

    before = time.process_time()
    uvloop.run(serve())
    spent.put(time.process_time() - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--whole", type=float, default=0.0, help="CPU of one event in us")
    options = parser.parse_args()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    with_it, without, workers, supervisor = [], [], [], []
    for at in range(options.rounds):
        first = at * options.events
        without.append(uvloop.run(alone(Forgetful, first, options.events)))
        with_it.append(uvloop.run(alone(Ledger, first, options.events)))
        cost, beside = uvloop.run(shared(first, options.events))
        workers.append(cost)
        supervisor.append(beside)
    print(f"{options.rounds} rounds of {options.events} events with two targets, us of CPU each")
    floor = statistics.median(without)
    print(f"no ledger              {floor:6.1f}")
    for name, costs in (("its ledger", with_it), ("a worker's, shared", workers)):
        cost = statistics.median(costs)
        whole = f", {(cost - floor) / options.whole:.1%} of an event" if options.whole else ""
        print(f"{name:<22} {cost:6.1f}  {cost - floor:+.1f}{whole}")
    print(f"its supervisor         {statistics.median(supervisor):6.1f}")


if __name__ == "__main__":
    main()
