"""What stands on the field: two brokers, a gateway, and what the brokers hold in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.api import AckPolicy, ConsumerConfig

from tests.e2e.client import until
from tests.e2e.conftest import Start
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.readback import create_stream, kafka_records, nats_client
from tests.fire.load import Load, Sent
from tests.servers.kafka import KafkaServer
from tests.servers.nats import NatsServer

PARTITIONS = 3
DEADLINE = 3.0
SHUTDOWN = 8.0
_FETCH = 500
DESTINATIONS: dict[str, tuple[str, ...]] = {
    "user.updated": ("events", "bus"),
    "session.created": ("events",),
    "role.updated": ("bus",),
}
"""The brokers that an event of each type must be in."""
GATEWAY = "gateway"
_UNKNOWN = {"no_ack", "deadline", "closing"}
"""Reasons after which the record may be in the broker all the same."""


@dataclass
class Field:
    """A Kafka, a nats-server, a destination in each, and gateways between them and the load."""

    kafka: KafkaServer
    nats: NatsServer
    gateways: Start
    name: str
    """Of the topic and of the stream."""
    delivery: Mapping[str, Any]
    """The config's `delivery`, which says the mode."""
    kafka_address: str = ""
    """Where the gateway finds Kafka, when that is not its own address."""
    nats_url: str = ""
    processes: list[GatewayProcess] = field(default_factory=list)

    @property
    def is_direct(self) -> bool:
        """Whether an answer waits for the brokers."""
        return bool(self.delivery["mode"] == "direct")

    async def lay(self) -> None:
        """Make the destinations."""
        await self.kafka.create_topic(self.name, PARTITIONS)
        await create_stream(self.nats.url, self.name, f"{self.name}.>")

    def config(self, **more: Any) -> dict[str, Any]:
        """Give the gateway's config. Its ports are others when it is started again."""
        topic = {"broker": "events", "topic": self.name}
        subject = {"broker": "bus", "subject": f"{self.name}.{{type}}"}
        by_broker = {"events": topic, "bus": subject}
        server = {"deadline": f"{DEADLINE}s", "shutdown": f"{SHUTDOWN}s"}
        return {
            "brokers": {
                "events": {
                    "kind": "kafka",
                    "servers": [self.kafka_address or self.kafka.bootstrap],
                },
                "bus": {"kind": "nats", "servers": [self.nats_url or self.nats.url]},
            },
            "routes": [
                {
                    "name": event_type.partition(".")[0],
                    "events": [event_type],
                    "targets": [by_broker[broker] for broker in brokers],
                }
                for event_type, brokers in DESTINATIONS.items()
            ],
            "delivery": dict(self.delivery),
            **more,
            "server": {**server, **more.get("server", {})},
        }

    def gateway(self, workers: int = 1, **more: Any) -> GatewayProcess:
        """Prepare a gateway; it is not started."""
        process = self.gateways(self.config(**more), workers, start=False)
        self.processes.append(process)
        return process

    async def stored(self) -> dict[str, list[tuple[str, str]]]:
        """Give id and user of each record of each broker, in the order of its log."""
        records = await kafka_records(self.kafka.bootstrap, self.name)
        kafka = [(dict(one.headers)["svix-id"].decode(), one.key.decode()) for one in records]
        return {"events": kafka, "bus": await self._stream()}

    async def until_there(self, load: Load) -> dict[str, list[tuple[str, str]]]:
        """Wait until the brokers have all that was taken, and give it.

        With an inbox they get it after the answer; without one this waits for nothing.
        """
        found = await self.stored()

        async def is_there() -> bool:
            found.update(await self.stored())
            return not missing(load, found)

        if not self.is_direct:
            # What is still missing then is lost, and `judge` says so.
            with suppress(AssertionError):
                await until(is_there, "what was stored is in the brokers")
        return found

    async def _stream(self) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        async with nats_client(self.nats.url) as client:
            jetstream = client.jetstream()
            state = (await jetstream.stream_info(self.name)).state
            no_acks = ConsumerConfig(ack_policy=AckPolicy.NONE, headers_only=True)
            reader = await jetstream.pull_subscribe("", stream=self.name, config=no_acks)
            while len(found) < state.messages:
                try:
                    batch = await reader.fetch(_FETCH, timeout=10)
                except NatsTimeoutError:
                    break
                heads = [message.headers or {} for message in batch]
                found += [(head["svix-id"], head["ce-partitionkey"]) for head in heads]
        # More may have come meanwhile.
        assert len(found) >= state.messages
        return found


def missing(load: Load, stored: Mapping[str, list[tuple[str, str]]]) -> list[str]:
    """Give in words where events are not that were answered 2xx."""
    ids = {broker: {one for one, _ in records} for broker, records in stored.items()}
    return [
        f"{sent.id} in {broker}"
        for sent in load.events.values()
        for broker in DESTINATIONS[sent.type]
        if sent.is_taken and sent.id not in ids[broker]
    ]


@dataclass(frozen=True)
class Result:
    """What a row has come to."""

    events: int
    answered: int
    failed: int
    """Posts that were not answered 2xx."""
    stored: int
    """Records, over all brokers."""
    lost: list[str]
    """Where an event that was answered 2xx is not, in words."""
    duplicates: int
    """Places in which an event stands more than once."""
    unexplained: list[str]
    """Of these, where no connection broke, every ack came, and no process died."""

    def line(self, what: str, kills: int) -> str:
        """Tell it in one line."""
        return (
            f"{what}: {kills} kills, {self.events:,} events, {self.answered:,} answered 2xx,"
            f" {self.failed:,} posts failed, {self.stored:,} records, {len(self.lost)} lost,"
            f" {self.duplicates} duplicates ({len(self.unexplained)} unexplained)"
        )


def judge(
    load: Load,
    stored: Mapping[str, list[tuple[str, str]]],
    breaks: Mapping[str, list[float]],
    *,
    is_direct: bool = True,
) -> Result:
    """Compare what was answered with what is there.

    `breaks` are the event-loop times at which connections to a broker broke, by its name: what was
    on its way had no ack, and was published again. At those of `GATEWAY` a gateway or a worker
    ended: it forgot its ledger, and its successor may repeat what it had done. An inbox publishes
    after the answer, so there a break at any later time may have had its part.
    """
    counts = {broker: Counter(one for one, _ in records) for broker, records in stored.items()}
    strangers = {one for count in counts.values() for one in count} - set(load.events)
    assert not strangers, "the brokers hold what nobody sent"
    repeated, unexplained = 0, []
    for sent in load.events.values():
        for broker in DESTINATIONS[sent.type]:
            if counts[broker][sent.id] > 1:
                repeated += 1
                may_be = _may_be_twice if is_direct else _may_be_twice_from_an_inbox
                if not may_be(sent, broker, breaks):
                    unexplained.append(f"{sent.id} in {broker}: {sent.attempts}")
    return Result(
        events=len(load.events),
        answered=load.taken,
        failed=load.posts - load.taken,
        stored=sum(count.total() for count in counts.values()),
        lost=missing(load, stored),
        duplicates=repeated,
        unexplained=unexplained,
    )


def _may_be_twice(sent: Sent, broker: str, breaks: Mapping[str, list[float]]) -> bool:
    """Tell whether an ack was lost, or with the process what it knew."""
    tries = sent.attempts
    if any(tries[0].at <= at <= tries[-1].ended for at in breaks.get(GATEWAY, ())):
        return True
    for attempt in tries:
        reasons = {one.get("reason") for one in attempt.targets if one["broker"] == broker}
        if attempt.word is None or reasons & _UNKNOWN:
            return True
        if any(attempt.at <= at <= attempt.ended for at in breaks.get(broker, ())):
            return True
    return False


def _may_be_twice_from_an_inbox(sent: Sent, broker: str, breaks: Mapping[str, list[float]]) -> bool:
    since = sent.attempts[0].at
    return any(at >= since for what in (GATEWAY, broker) for at in breaks.get(what, ()))


def assert_in_order(load: Load, stored: Mapping[str, list[tuple[str, str]]]) -> int:
    """Assert that events first appear in the order of their answers; give how many are looked at.

    Those of senders that wait for each answer before they send the next event of their user.
    """
    checked = 0
    for broker, records in stored.items():
        first: dict[str, list[str]] = {}
        for one, user in dict.fromkeys(records):
            first.setdefault(user, []).append(one)
        for user, ids in first.items():
            if user not in load.strict:
                continue
            answered = sorted(ids, key=lambda one: load.events[one].taken_at)
            assert ids == answered, f"{user} in {broker}"
            checked += len(ids)
    return checked
