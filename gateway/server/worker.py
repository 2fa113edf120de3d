"""A worker process: `python -m gateway.server.worker FD [FD]`, started by the supervisor only.

It gets its orders on the first channel, serves on the socket it inherited, and reports its health
there; on the second, where there is one, it shares the ledger of the tree. When the first closes
the supervisor is gone, and the worker drains as if told to. A changed config comes on it too. It
was checked; a worker that still cannot serve by it ends, and the one that is started in its place
begins with it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import suppress

import msgspec
import structlog
import uvloop

from gateway import GatewayError
from gateway.app import Blueprint, draw
from gateway.observability.logs import configure
from gateway.server.ledger_channel import BookClient
from gateway.server.process import ServingProcess, stop_event
from gateway.server.redraw import loader, redraw
from gateway.server.supervisor import MAX_LINE, Changed, Orders

__all__ = ["main"]

_REPORT = 0.25
"""Seconds between looks at the own health; only changes, and a sign of life, are sent."""
_SIGN_OF_LIFE = 20
"""Looks between reports without a change."""


def main() -> int:
    """Run one worker to its end."""
    # The terminal's Ctrl-C goes to the whole group; the supervisor decides when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # So may a hangup; the supervisor is told by it to look at the files.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        return uvloop.run(_work(*map(int, sys.argv[1:])))
    except GatewayError as error:
        sys.stderr.write(f"{error}\n")
        return 2


async def _work(channel_fd: int, ledger_fd: int | None = None) -> int:
    channel = socket.socket(fileno=channel_fd)
    reader, writer = await asyncio.open_unix_connection(sock=channel, limit=MAX_LINE)
    orders = Orders.decode(await reader.readline())
    blueprint = _blueprint(orders)
    configure(blueprint.config.log.level, blueprint.config.log.format)
    bound = socket.socket(fileno=orders.listen_fd)
    bound.setblocking(False)
    claims = None if ledger_fd is None else BookClient(socket.socket(fileno=ledger_fd))
    process = ServingProcess(blueprint, bound, orders.member, claims)
    stop = stop_event(signal.SIGTERM)
    await process.start()
    reports = asyncio.create_task(_report(process, writer))
    following = asyncio.create_task(_follow(process, blueprint, reader))
    following.add_done_callback(lambda _: stop.set())
    await stop.wait()
    reports.cancel()
    following.cancel()
    await asyncio.wait((following,))
    await process.stop()
    writer.close()
    return 0 if following.cancelled() else following.result()


def _blueprint(orders: Orders) -> Blueprint:
    """Make what the supervisor has made, by the same steps."""
    blueprint = draw(loader(orders.config_name, os.environ)(orders.started_with))
    return blueprint if orders.changed is None else _redrawn(blueprint, orders.changed)


def _redrawn(current: Blueprint, changed: Changed) -> Blueprint:
    load = loader(current.loaded.path, os.environ)
    return redraw(current, changed.contents, load, changed.generation).blueprint


async def _follow(
    process: ServingProcess, blueprint: Blueprint, reader: asyncio.StreamReader
) -> int:
    """Serve by each config that comes, until the supervisor is gone; give the exit code."""
    while line := await _line(reader):
        changed = Changed.decode(line)
        try:
            blueprint = await asyncio.to_thread(_redrawn, blueprint, changed)
            await process.apply(blueprint)
        except GatewayError as error:
            structlog.get_logger().error("config not applied", error=str(error)[:500])
            return 1
    return 0


async def _line(reader: asyncio.StreamReader) -> bytes:
    """Give the next line; nothing where the supervisor is gone, also with a report unread."""
    try:
        return await reader.readline()
    except ConnectionError:
        return b""


async def _report(process: ServingProcess, writer: asyncio.StreamWriter) -> None:
    last, quiet = None, 0
    while True:
        health = process.gateway.health()
        quiet += 1
        if health != last or quiet >= _SIGN_OF_LIFE:
            last, quiet = health, 0
            writer.write(msgspec.json.encode(health) + b"\n")
            # That the supervisor is gone is told by what it says.
            with suppress(ConnectionError):
                await writer.drain()
        await asyncio.sleep(_REPORT)


if __name__ == "__main__":
    sys.exit(main())
