"""A process that owns a file and serves it on its socket, until it is told to end or is killed.

    python -m tests.inbox.owner_process PATH

It says `ready` and its process id once it listens.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from gateway.delivery.inbox.owner import Owner, socket_path
from gateway.delivery.inbox.sqlite import SqliteStore
from tests.inbox.harness import ROOMY, FeedLog


async def own(path: Path) -> None:
    """Own the file until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    store = SqliteStore(path, ROOMY, patience=10.0)
    await store.start(FeedLog())
    owner = Owner(store, socket_path(path), "tree")
    await owner.start()
    os.write(1, f"ready {os.getpid()}\n".encode())
    await stop.wait()
    await owner.close(5)
    await store.close(5)


if __name__ == "__main__":
    asyncio.run(own(Path(sys.argv[1])))
