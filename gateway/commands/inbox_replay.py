"""Publish dead letters to their targets, each once for each replay that was asked for."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable

import msgspec

from gateway.app import Blueprint, make_broker
from gateway.brokers.base import Broker, BrokerError, Message, Receipt, State, Unavailable
from gateway.brokers.letters import Letter, Letters, Progress
from gateway.commands.inbox_batch import NotDone
from gateway.commands.inbox_resolve import NotReplayed, Routing, resolve
from gateway.delivery.inbox.letters import Item
from gateway.delivery.plan import Assignment

__all__ = ["Publish", "Publishing", "Replay", "numbered"]

Publish = Callable[[str, Message], Awaitable[Receipt]]
"""Publishes to a broker, by its name, and waits for the ack; raises `BrokerError`."""

_CONNECT_WITHIN = 10.0
_PUBLISH_WITHIN = 10.0
"""Seconds in which a broker's client tries again by itself."""
_CLOSE_WITHIN = 5.0
_GONE = {"broker_down", "closing"}


class Publishing:
    """The brokers of a config, each connected when it is first needed."""

    def __init__(self, blueprint: Blueprint) -> None:
        self._blueprint = blueprint
        self._brokers: dict[str, asyncio.Task[Broker]] = {}

    async def publish(self, broker: str, message: Message) -> Receipt:
        """Publish, and wait for the ack. Raises `BrokerError`."""
        opening = self._brokers.get(broker)
        if opening is None:
            opening = self._brokers[broker] = asyncio.create_task(self._open(broker))
        client = await asyncio.shield(opening)
        deadline = asyncio.get_running_loop().time() + _PUBLISH_WITHIN
        return await asyncio.shield(client.publish(message, deadline))

    async def close(self) -> None:
        """Flush and disconnect."""
        for opening in self._brokers.values():
            if opening.done() and not opening.cancelled() and opening.exception() is None:
                await opening.result().close(_CLOSE_WITHIN)
            opening.cancel()

    async def _open(self, name: str) -> Broker:
        """Connect; a broker that cannot be reached says so when it is published to."""
        told = asyncio.Event()
        config = self._blueprint.config.brokers[name]
        needs = self._blueprint.needs().get(name, ())
        broker = make_broker(name, config, needs, lambda _name, _state: told.set())
        await broker.start()
        try:
            async with asyncio.timeout(_CONNECT_WITHIN):
                while broker.state is State.CONNECTING:
                    told.clear()
                    await told.wait()
        except TimeoutError:
            pass
        return broker


class Replay:
    """Replays one letter after another; see `inbox_batch.run_batch`.

    Two letters of one event to one target are one delivery in a run.
    """

    def __init__(
        self,
        letters: Letters,
        publish: Publish,
        routing: Routing,
        *,
        reroute: bool,
        again: bool,
    ) -> None:
        """`again` replays what was replayed or discarded before."""
        self._letters = letters
        self._publish = publish
        self._routing = routing
        self._reroute = reroute
        self._again = again
        self._on_their_way: dict[str, asyncio.Future[Receipt]] = {}
        self._delivered: set[int] = set()

    async def __call__(self, item: Item) -> None:
        """Publish a letter to its target, and keep that it was.

        Raises `NotDone`; `Unavailable` and `LettersError` where it makes no sense to go on.
        """
        letter = item.origin
        if not isinstance(letter, Letter):
            raise TypeError("only letters are published")
        assignments = self.planned(item)
        number = _number(letter.progress)
        known = frozenset(letter.progress.published) if letter.progress is not None else frozenset()
        messages = [(one.broker, numbered(one.message, number)) for one in assignments]
        owed = [pair for pair in messages if pair[1].dedupe_id not in known]
        results = await asyncio.gather(
            *(self._deliver(*pair) for pair in owed), return_exceptions=True
        )
        errors = [result for result in results if isinstance(result, BaseException)]
        if not errors:
            await self._letters.keep(letter, Progress("replayed", number))
            return
        done = [
            message.dedupe_id
            for (_, message), result in zip(owed, results, strict=True)
            if not isinstance(result, BaseException)
        ]
        if done:
            progress = Progress("partial", number, (*sorted(known), *done))
            await self._letters.keep(letter, progress)
        raise _told(errors[0])

    def planned(self, item: Item) -> tuple[Assignment, ...]:
        """Give what would be published. Raises `NotDone`."""
        if item.kept in {"replayed", "discarded"} and not self._again:
            raise NotDone(item.kept, "it was before; name it with --again to replay it once more")
        plan = resolve(item, self._routing, reroute=self._reroute)
        if isinstance(plan, NotReplayed):
            raise NotDone(plan.word, plan.why)
        return plan.assignments

    async def _deliver(self, broker: str, message: Message) -> None:
        name = message.dedupe_id
        digest = _hash(name)
        if digest in self._delivered:
            return
        ack = self._on_their_way.get(name)
        if ack is None:
            ack = asyncio.ensure_future(self._publish(broker, message))
            self._on_their_way[name] = ack
            ack.add_done_callback(lambda _: self._on_their_way.pop(name))
        await asyncio.shield(ack)
        self._delivered.add(digest)


def _number(progress: Progress | None) -> int:
    """The number of this replay: one that was broken off keeps its own."""
    if progress is None:
        return 1
    return progress.replays + (0 if progress.word == "partial" else 1)


def numbered(message: Message, number: int) -> Message:
    """Give a record another dedupe id, so that no broker takes it for the attempt that failed."""
    return msgspec.structs.replace(message, dedupe_id=f"{message.dedupe_id}.r{number}")


def _told(error: BaseException) -> BaseException:
    """Give what to raise: a broker that is gone ends the run, any other failure is the item's."""
    if isinstance(error, Unavailable) and error.reason in _GONE:
        return error
    if isinstance(error, BrokerError):
        return NotDone(error.reason, str(error))
    return error


def _hash(text: str) -> int:
    # A number is a third of the text; a run over a million letters is one of a million of them.
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
