"""One row: a gateway under load, what is done to it, and the reckoning."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.e2e.client import Client
from tests.e2e.gateway_process import GatewayProcess
from tests.fire.field import GATEWAY, Field, Result, assert_in_order, judge
from tests.fire.load import PACE, SENDERS, Load
from tests.servers.process import ServerProcess


@dataclass
class Fight:
    """What a row may use and do; `result` is there when its load has ended."""

    ground: Field
    gateway: GatewayProcess
    load: Load
    port: int
    """Where the senders find the gateway: where it was last, while it is away."""
    kills: int = 0
    breaks: dict[str, list[float]] = field(default_factory=dict)
    """What `judge` takes."""
    result: Result | None = None

    def kill(self, server: ServerProcess) -> None:
        """Kill a broker or the gateway (SIGKILL)."""
        server.kill()
        self.kills += 1
        names = {self.ground.kafka: "events", self.ground.nats: "bus"}
        self.broke(names.get(server, GATEWAY))

    def kill_worker(self, pid: int) -> None:
        """Kill one of the gateway's workers."""
        os.kill(pid, signal.SIGKILL)
        self.kills += 1
        self.broke(GATEWAY)

    def broke(self, what: str, *times: float) -> None:
        """Note that connections to a broker broke, or that a gateway ended: now, or when."""
        self.breaks.setdefault(what, []).extend(times or [asyncio.get_running_loop().time()])

    async def start(self, server: ServerProcess) -> None:
        """Start what was killed, while the load goes on."""
        await asyncio.to_thread(server.start)
        self.port = self.gateway.port

    @asynccontextmanager
    async def frozen(self, *servers: ServerProcess, seconds: float) -> AsyncIterator[None]:
        """Freeze servers for so long, and do the block meanwhile."""
        until = asyncio.get_running_loop().time() + seconds
        for server in servers:
            server.pause()
        try:
            yield
            await asyncio.sleep(until - asyncio.get_running_loop().time())
        finally:
            for server in servers:
                server.resume()

    async def until_felt(self) -> None:
        """Wait until all senders have noticed the outage, or with an inbox that they do not."""
        if self.ground.is_direct:
            await self.load.until_failed(SENDERS)
        else:
            await self.load.until_taken()

    @property
    def came_to(self) -> Result:
        """What the row has come to."""
        assert self.result is not None, "the load has not ended"
        return self.result


@asynccontextmanager
async def fight(
    ground: Field, workers: int = 1, *, ready: str = "ready", **config: object
) -> AsyncIterator[Fight]:
    """Start a gateway and the load; the block breaks things; then every event is taken.

    The load begins when `/readyz` says `ready`.

    What was answered 2xx is then in the brokers, and nothing is there twice without a reason.
    """
    gateway = ground.gateway(workers, **config)
    await asyncio.to_thread(gateway.start)
    async with Client(gateway) as client:
        await client.until_ready(ready)
    # An outage does not slow down those who are answered from an inbox: it is to hold some
    # thousand events, and not to take minutes to deliver them.
    load = Load(lambda: row.port, pace=PACE if ground.is_direct else 4 * PACE)
    row = Fight(ground, gateway, load, gateway.port)
    async with load:
        await load.until_taken()
        yield row
    stored = await ground.until_there(load)
    row.result = judge(load, stored, row.breaks, is_direct=ground.is_direct)
    if not ground.is_direct:
        assert_in_order(load, stored)
    print(row.result.line("this row", row.kills), dict(load.words))
