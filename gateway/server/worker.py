"""A worker process: `python -m gateway.server.worker FD`, started by the supervisor only.

It gets its orders on the channel FD, serves on the socket it inherited, and reports its health
there. When the channel closes the supervisor is gone, and the worker drains as if told to.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys

import msgspec
import uvloop

from gateway import GatewayError
from gateway.app import draw
from gateway.config import load_config_text
from gateway.observability.logs import configure
from gateway.server.process import ServingProcess, stop_event
from gateway.server.supervisor import Orders

__all__ = ["main"]

_REPORT = 0.25
"""Seconds between looks at the own health; only changes, and a sign of life, are sent."""
_SIGN_OF_LIFE = 20
"""Looks between reports without a change."""
_MAX_LINE = 2 * 1024 * 1024


def main() -> int:
    """Run one worker to its end."""
    # The terminal's Ctrl-C goes to the whole group; the supervisor decides when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return uvloop.run(_work(int(sys.argv[1])))
    except GatewayError as error:
        sys.stderr.write(f"{error}\n")
        return 2


async def _work(channel_fd: int) -> int:
    channel = socket.socket(fileno=channel_fd)
    reader, writer = await asyncio.open_unix_connection(sock=channel, limit=_MAX_LINE)
    orders = Orders.decode(await reader.readline())
    loaded = load_config_text(orders.config_text, orders.config_name, os.environ)
    configure(loaded.config.log.level, loaded.config.log.format)
    bound = socket.socket(fileno=orders.listen_fd)
    bound.setblocking(False)
    process = ServingProcess(draw(loaded), bound)
    stop = stop_event(signal.SIGTERM)
    await process.start()
    reports = asyncio.create_task(_report(process, writer))
    orphaned = asyncio.create_task(reader.read())
    orphaned.add_done_callback(lambda _: stop.set())
    await stop.wait()
    await process.stop()
    reports.cancel()
    orphaned.cancel()
    writer.close()
    return 0


async def _report(process: ServingProcess, writer: asyncio.StreamWriter) -> None:
    last, quiet = None, 0
    while True:
        health = process.gateway.health()
        quiet += 1
        if health != last or quiet >= _SIGN_OF_LIFE:
            last, quiet = health, 0
            writer.write(msgspec.json.encode(health) + b"\n")
            await writer.drain()
        await asyncio.sleep(_REPORT)


if __name__ == "__main__":
    sys.exit(main())
