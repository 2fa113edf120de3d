"""Clerk and Svix under load: 64 senders, and for each event retries until it is taken.

The senders speak HTTP by hand: they take little of the processors that the processes under test
need, and they know how far a request had come when its connection broke.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from tests.e2e.client import event, new_id, signed, until
from tests.e2e.gateway_process import PATH, assert_clean
from tests.e2e.wire import Reply, Wire, head
from tests.outputs import OUTPUTS

SENDERS = 64
AHEAD = 4
"""Events that a sender has open at a time; one in four has one, and sends in strict order."""
PACE = 0.05
"""Seconds between two requests of one sender: a load, and not a contest for two processors."""
_RETRY_FIRST = 0.05
_RETRY_MOST = 0.8
_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 40.0
"""Beyond every deadline: an answer that takes so long will not come."""
_FINISH_SECONDS = 90.0
NO_ANSWER = "no answer"
CUT = "half an answer"
ROUTED: tuple[str, ...] = ("user.updated", "user.updated", "session.created", "role.updated")
"""Types that senders take in turn: to both brokers, to Kafka, to NATS."""


@dataclass(frozen=True)
class Attempt:
    """One post of one event."""

    at: float
    """Event-loop time at which it began, and `ended`."""
    ended: float
    word: tuple[int, str] | None
    """The answer's status and its body's own; None where the connection broke before it."""
    targets: tuple[dict[str, Any], ...] = ()


@dataclass
class Sent:
    """One event, and what became of each post of it."""

    id: str
    type: str
    user: str
    body: bytes
    attempts: list[Attempt] = field(default_factory=list)
    taken_at: int = -1
    """Its place in the order of 2xx answers, or -1."""

    @property
    def is_taken(self) -> bool:
        """Whether it was answered 2xx."""
        return self.taken_at >= 0

    def pause(self) -> float:
        """Seconds until the next attempt."""
        return min(_RETRY_MOST, _RETRY_FIRST * 2.0 ** (len(self.attempts) - 1))


class Load:
    """All senders. Use it as an async context manager: its end lets every event be taken."""

    def __init__(
        self,
        port: Callable[[], int],
        *,
        senders: int = SENDERS,
        routed: tuple[str, ...] = ROUTED,
        size: int = 0,
        pace: float = PACE,
    ) -> None:
        """`port` gives the gateway's, and `size` pads the bodies, in bytes."""
        self._pace = pace
        self._port = port
        self._senders = senders
        self.strict = frozenset(f"user_{number}" for number in range(0, senders, AHEAD))
        """Users whose sender waits for a 2xx before it sends the next event."""
        self._routed = routed
        self._size = size
        self.events: dict[str, Sent] = {}
        """By id, in the order of their first post."""
        self.taken = 0
        self.words: Counter[str] = Counter()
        """How posts were answered: `200 delivered`, `503 broker_down`, `no answer`."""
        self._over = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._send(number)) for number in range(self._senders)]
        return self

    async def __aexit__(self, failed: object, *_: object) -> None:
        self._over = True
        if failed is not None:
            for task in self._tasks:
                task.cancel()
        async with asyncio.timeout(_FINISH_SECONDS):
            await asyncio.gather(*self._tasks, return_exceptions=failed is not None)

    @property
    def posts(self) -> int:
        """How many answers there were, and broken connections."""
        return self.words.total()

    async def until_taken(self, more: int = 4 * SENDERS) -> None:
        """Wait until so many more events are answered 2xx."""
        await self._until(lambda: self.taken, more, "events are taken")

    async def until_failed(self, more: int = 1) -> None:
        """Wait until so many more posts are not answered 2xx."""
        await self._until(lambda: self.posts - self.taken, more, "posts fail")

    async def _until(self, count: Callable[[], int], more: int, what: str) -> None:
        goal = count() + more

        async def is_reached() -> bool:
            assert not any(task.done() for task in self._tasks), "a sender has ended"
            return count() >= goal

        await until(is_reached, f"{more} more {what}: {dict(self.words)}")

    async def _send(self, number: int) -> None:
        """Post new events, and old ones when their retry is due, one request at a time."""
        sender = _Sender(self._port)
        ahead = 1 if f"user_{number}" in self.strict else AHEAD
        due: list[tuple[float, int, Sent]] = []
        made, clock = 0, asyncio.get_running_loop().time
        try:
            while due or not self._over:
                if due and (due[0][0] <= clock() or len(due) >= ahead or self._over):
                    when, _, sent = heapq.heappop(due)
                    await asyncio.sleep(max(0.0, when - clock()))
                else:
                    made += 1
                    sent = self._new(number, made)
                await self._post(sender, sent)
                if not sent.is_taken:
                    heapq.heappush(due, (clock() + sent.pause(), len(self.events), sent))
                await asyncio.sleep(self._pace)
        finally:
            await sender.hang_up()

    def _new(self, number: int, made: int) -> Sent:
        # Strict senders get every route, too.
        event_type = self._routed[(number + number // AHEAD) % len(self._routed)]
        user = f"user_{number}"
        body = event(event_type, self._size, id=user, made=made)
        sent = Sent(new_id(), event_type, user, body)
        self.events[sent.id] = sent
        return sent

    async def _post(self, sender: _Sender, sent: Sent) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        reply = await sender.post(sent.body, signed(sent.body, sent.id))
        if isinstance(reply, str):
            self.words[reply] += 1
            sent.attempts.append(Attempt(began, clock(), None))
            return
        OUTPUTS.gather("the answer to a POST", reply.raw)
        assert_clean(reply.raw.decode())
        body = reply.body
        sent.attempts.append(Attempt(began, clock(), reply.word, tuple(body.get("targets", ()))))
        self.words[f"{reply.status} {body.get('reason') or body['status']}"] += 1
        if reply.status == 200:
            self.taken += 1
            sent.taken_at = self.taken
            return
        assert reply.word == (503, "failed"), reply.raw
        assert int(reply.headers["retry-after"]) > 0


class _Sender:
    """One connection at a time, opened anew when it has broken."""

    def __init__(self, port: Callable[[], int]) -> None:
        self._port = port
        self._wire: Wire | None = None

    async def post(self, body: bytes, headers: dict[str, str]) -> Reply | str:
        """Give the answer, or in words how the connection broke."""
        message = head({**headers, "Content-Length": str(len(body))}, target=PATH) + body
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                wire = self._wire or Wire(*await asyncio.open_connection("127.0.0.1", self._port()))
            self._wire = wire
            await wire.send(message)
            async with asyncio.timeout(_ANSWER_SECONDS):
                reply = await wire.reply()
        except asyncio.IncompleteReadError as broken:
            await self.hang_up()
            return CUT if broken.partial else NO_ANSWER
        except ConnectionError:
            await self.hang_up()
            return NO_ANSWER
        if reply.headers.get("connection") == "close":
            await self.hang_up()
        return reply

    async def hang_up(self) -> None:
        """Close the connection, if there is one."""
        wire, self._wire = self._wire, None
        if wire is not None:
            await wire.close()
