"""A load generator: signed user.created events over N keep-alive connections, one at a time each.

`python bench/load.py URL SECRET CONNECTIONS SECONDS SIZE EVENTS` prints one JSON line. It signs
EVENTS requests beforehand, so that what it measures is the server; a server that takes more gets
some again, and says `duplicate`, which is counted.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import sys
import time
from collections import Counter
from functools import partial
from typing import cast
from urllib.parse import urlsplit

import uvloop
from pydantic import SecretStr

from gateway.clerk.samples import sample
from gateway.signature import decode_secret

_WORD = b'{"status":"'
"""How an answer of the gateway begins; its word follows."""


def requests(url: str, secret: str, size: int, events: int) -> list[bytes]:
    """Sign `events` requests of about `size` bytes of body each, every id and key its own."""
    key, parts = decode_secret(SecretStr(secret)).get_secret_value(), urlsplit(url)
    prepared, run = [], time.time_ns()
    for number in range(events):
        overrides = {"data.id": f"user_{number:08d}"}
        body = sample("user.created", int(time.time() * 1000), overrides)
        body += b" " * max(0, size - len(body))
        message_id, stamp = f"msg_{run}_{number}", str(int(time.time()))
        content = b"%b.%b.%b" % (message_id.encode(), stamp.encode(), body)
        signature = base64.b64encode(hmac.digest(key, content, "sha256")).decode()
        head = (
            f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"User-Agent: Svix-Webhooks/1.0\r\nContent-Type: application/json\r\n"
            f"Svix-Id: {message_id}\r\nSvix-Timestamp: {stamp}\r\n"
            f"Svix-Signature: v1,{signature}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        prepared.append(head.encode() + body)
    return prepared


class Connection(asyncio.Protocol):
    """Sends the next request when the answer to the last is whole."""

    def __init__(self, run: Run, at: int) -> None:
        self._run = run
        self._at = at
        self._buffer = b""
        self._sent = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        self._buffer = b""
        self._run.latencies.append(time.perf_counter() - self._sent)
        word = body[len(_WORD) :].partition(b'"')[0] if body.startswith(_WORD) else b""
        self._run.statuses[f"{head[9:12].decode()} {word.decode()}".strip()] += 1
        self._send()

    def connection_lost(self, _: Exception | None) -> None:
        self._run.lost += 1

    def _send(self) -> None:
        assert self._transport is not None
        if time.perf_counter() >= self._run.until:
            self._run.finished()
            return
        self._sent = time.perf_counter()
        self._transport.write(self._run.prepared[self._at % len(self._run.prepared)])
        self._at += self._run.connections


class Run:
    """One measurement."""

    def __init__(self, prepared: list[bytes], connections: int, seconds: float) -> None:
        self.prepared = prepared
        self.connections = connections
        self.until = time.perf_counter() + seconds
        self.latencies: list[float] = []
        self.statuses: Counter[str] = Counter()
        self.lost = 0
        self._open = connections
        self.done = asyncio.Event()

    def finished(self) -> None:
        self._open -= 1
        if self._open == 0:
            self.done.set()


async def main(
    url: str, secret: str, connections: int, seconds: float, size: int, events: int
) -> None:
    parts = urlsplit(url)
    run = Run(requests(url, secret, size, events), connections, seconds)
    run.until = time.perf_counter() + seconds
    began = time.perf_counter()
    loop = asyncio.get_running_loop()
    for at in range(connections):
        await loop.create_connection(
            partial(Connection, run, at), parts.hostname or "", parts.port or 80
        )
    async with asyncio.timeout(seconds + 30):
        await run.done.wait()
    elapsed = time.perf_counter() - began
    ordered = sorted(run.latencies)
    print(
        json.dumps(
            {
                "requests": len(ordered),
                "per_second": round(len(ordered) / elapsed),
                "statuses": run.statuses,
                "lost": run.lost,
                "p50_ms": round(ordered[len(ordered) // 2] * 1000, 2),
                "p99_ms": round(ordered[int(len(ordered) * 0.99)] * 1000, 2),
            }
        )
    )


if __name__ == "__main__":
    address, key, *numbers = sys.argv[1:]
    count, duration, body_size, total = numbers
    uvloop.run(main(address, key, int(count), float(duration), int(body_size), int(total)))
