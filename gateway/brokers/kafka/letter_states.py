"""What became of dead letters: one small record a letter, in a compacted topic beside theirs.

Kafka cannot delete a record from the middle of a topic: letters leave by retention, and what was
done with one is kept here under its id. No payload is in it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from gateway.brokers.kafka.connection import Cluster
from gateway.brokers.kafka.errors import name_of
from gateway.brokers.kafka.options import CLIENT_ID, ClientOptions
from gateway.brokers.kafka.provision import create_compacted
from gateway.brokers.letters import LettersError, LettersUnavailable, Progress

__all__ = ["StateTopic", "States"]

_FORM = 1
_DESCRIBE_WITHIN = 5.0
_CREATE_WITHIN = 10.0
_LEADER_WITHIN = 10.0
_LOOK_AGAIN = 0.05
_WRITE_WITHIN = 15.0
_REQUEST_TIMEOUT_MS = 10_000
_MOST_FORGOTTEN = 10_000
"""Letters that have left the topic, forgotten in one run."""
_PROBE = "probe"
_UNKNOWN_TOPIC = 3
_DENIED = 29


class _Kept(msgspec.Struct, frozen=True, gc=False):
    """The value of a record."""

    form: int
    event: str
    """Whose letter it is. A topic that was made anew has the same offsets for other letters."""
    progress: Progress
    at: float
    """Unix seconds."""


class _Place(NamedTuple):
    partition: int
    offset: int


class States:
    """What the topic says, by letter."""

    def __init__(self) -> None:
        self._kept: dict[_Place, _Kept] = {}

    def take(self, key: bytes | None, value: bytes | None) -> None:
        """Take a record of the topic; a later one stands for the one before.

        What is none of ours is passed over.
        """
        with suppress(ValueError, msgspec.MsgspecError):
            partition, offset = (key or b"").split(b"-")
            place = _Place(int(partition), int(offset))
            if value is None:
                self._kept.pop(place, None)
                return
            kept = msgspec.json.decode(value, type=_Kept)
            if kept.form == _FORM:
                self._kept[place] = kept

    def of(self, partition: int, offset: int, event: str) -> Progress | None:
        """Give what was done with the letter of this event at this place."""
        kept = self._kept.get(_Place(partition, offset))
        return kept.progress if kept is not None and kept.event == event else None

    def before(self, firsts: Mapping[int, int]) -> list[str]:
        """Give the ids of letters that have left: they stood before a partition's first offset."""
        return [
            f"{place.partition}-{place.offset}"
            for place in self._kept
            if place.offset < firsts.get(place.partition, 0)
        ]


class StateTopic:
    """The topic: looked for, created, written. Methods also raise `errors.CLIENT_ERRORS`."""

    def __init__(self, options: ClientOptions, cluster: Cluster, name: str) -> None:
        self.name = name
        self.partitions = 0
        """0 while it does not exist."""
        self._options = options
        self._cluster = cluster
        self._replicas = 1
        self._producer: AIOKafkaProducer | None = None

    async def look(self, replicas: int) -> None:
        """See whether it is there; `replicas` is what it will have. Raises `LettersError`."""
        self._replicas = max(replicas, 1)
        (view,) = await self._cluster.describe([self.name], _DESCRIBE_WITHIN)
        if view.error == _DENIED:
            raise self.denied("read", "DESCRIBE and READ")
        if view.error not in {0, _UNKNOWN_TOPIC}:
            broker = self._options.broker
            raise LettersUnavailable(broker, self.name, "broker_error", name_of(view.error))
        self.partitions = len(view.leaders)

    async def prepare(self, gone: Sequence[str]) -> None:
        """Create it when it is missing, prove that it can be written, and forget `gone` letters.

        Raises `LettersError`.
        """
        if not self.partitions:
            await self._create()
        await self._check_policy()
        self._producer = AIOKafkaProducer(
            bootstrap_servers=[f"{host}:{port}" for host, port in self._options.servers],
            client_id=CLIENT_ID,
            acks="all",
            request_timeout_ms=_REQUEST_TIMEOUT_MS,
            **self._options.login(),
        )
        async with asyncio.timeout(_WRITE_WITHIN):
            await self._producer.start()
        # A record without a value leaves nothing behind: the one of no letter proves the right to
        # write while nothing is published yet.
        keys = (_PROBE, *gone[:_MOST_FORGOTTEN])
        await asyncio.gather(*(self._send(key, None) for key in keys))

    async def write(self, letter: str, event: str, progress: Progress) -> None:
        """Keep what was done with a letter, by its id; durable on return. Raises `LettersError`."""
        await self._send(letter, msgspec.json.encode(_Kept(_FORM, event, progress, time.time())))

    async def close(self, timeout: float) -> None:
        """Disconnect."""
        producer, self._producer = self._producer, None
        if producer is not None:
            stopping = asyncio.ensure_future(producer.stop())
            await asyncio.wait([stopping], timeout=timeout)
            stopping.cancel()

    def denied(self, verb: str, rights: str) -> LettersError:
        """Say which right the login lacks."""
        problem = f"the login may not {verb} the topic that keeps what was replayed and discarded"
        return LettersError(
            self._options.broker, self.name, problem, f"grant {rights} on it; nothing was done"
        )

    async def _send(self, key: str, value: bytes | None) -> None:
        producer = self._producer
        if producer is None:
            raise RuntimeError("prepare comes first")
        try:
            async with asyncio.timeout(_WRITE_WITHIN):
                await producer.send_and_wait(self.name, value, key=key.encode())
        except TopicAuthorizationFailedError as error:
            raise self.denied("write", "WRITE") from error
        except KafkaError as error:
            if error.retriable:
                raise
            problem = f"it takes no record: {type(error).__name__}"
            remedy = "mend the topic, then run the command again"
            raise LettersError(self._options.broker, self.name, problem, remedy) from error

    async def _create(self) -> None:
        problem = await create_compacted(self._cluster, self.name, self._replicas, _CREATE_WITHIN)
        if problem:
            raise LettersError(
                self._options.broker,
                self.name,
                f"the topic that keeps what was replayed and discarded is missing, and could not"
                f" be created: {problem}",
                "create it with cleanup.policy=compact, one partition is enough; nothing was done",
            )
        async with asyncio.timeout(_LEADER_WITHIN):
            while True:
                (view,) = await self._cluster.describe([self.name], _DESCRIBE_WITHIN)
                if view.leaders and -1 not in view.leaders:
                    break
                await asyncio.sleep(_LOOK_AGAIN)
        self.partitions = len(view.leaders)

    async def _check_policy(self) -> None:
        """Refuse a topic that forgets by age; one whose settings may not be read is trusted."""
        name = "cleanup.policy"
        settings = await self._cluster.topic_settings([self.name], [name], _DESCRIBE_WITHIN)
        policy = settings.get(self.name, {}).get(name, "compact")
        if "compact" not in policy:
            raise LettersError(
                self._options.broker,
                self.name,
                f"its cleanup.policy is {policy}: what was replayed would be forgotten",
                "set cleanup.policy=compact on it; nothing was done",
            )
