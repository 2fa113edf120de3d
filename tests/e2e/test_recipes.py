"""Each recipe of `examples/`, served between real brokers: what its tests expect is what arrives.

The events are those of the tests file beside the config, signed and posted; the records are read
back by the brokers' own clients, and compared by code that shares nothing with `gateway test`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from gateway.testing.models import Case, Expectation
from tests.canaries import TOKEN
from tests.commands.command import gateway as command
from tests.e2e.client import PATIENCE, Answer, Client, new_id, signed, until
from tests.e2e.gateway_process import PATH, GatewayProcess
from tests.e2e.readback import kafka_records, nats_client, stream_messages
from tests.examples import EXAMPLES, SECRETS, Example
from tests.servers.kafka import KafkaAt
from tests.servers.nats import NatsServer

PORTS = f"""
server: {{host: 127.0.0.1, port: 0}}
admin: {{port: 0, token: {TOKEN}}}
"""


class Recipe(GatewayProcess):
    """A gateway that serves an example as it stands; what it says of no port is added."""

    def __init__(self, directory: Path, example: Example) -> None:
        """Prepare it; the environment gives the secrets and where the brokers are."""
        super().__init__(directory, {})
        self.config.write_text(example.config.read_text() + PORTS)


@dataclass(frozen=True)
class Record:
    """What a broker has stored."""

    broker: str
    destination: str
    key: str | None
    headers: Mapping[str, str]
    value: bytes

    @property
    def svix_id(self) -> str:
        return self.headers["svix-id"]


class Site:
    """One example with the brokers that it is served between."""

    def __init__(self, example: Example, kafka: KafkaAt, nats: NatsServer) -> None:
        self.example = example
        self.content = example.content()
        self.kafka = kafka
        self.nats = nats
        self.cases = {new_id(): (case, body) for case, body in example.cases()}
        """By the svix-id that each one's event is posted with."""
        letter = self.content.get("delivery", {}).get("dead_letter")
        self.letters = None if letter is None else (letter["broker"], place_of(letter))

    @property
    def keeps_unmatched(self) -> bool:
        return self.content.get("unmatched") == "dead_letter"

    @property
    def is_stored_first(self) -> bool:
        """Whether events are answered before they are delivered."""
        return bool(self.content.get("delivery", {}).get("mode") == "inbox")

    def topics(self) -> set[str]:
        """Give every topic that the config names or a test expects."""
        targets = [target for route in self.content["routes"] for target in route["targets"]]
        named = {target["topic"] for target in targets if "{" not in target.get("topic", "{")}
        letter = self.content.get("delivery", {}).get("dead_letter", {})
        return named | self.rendered() | ({letter["topic"]} if "topic" in letter else set())

    def rendered(self) -> set[str]:
        """Give the topics that the gateway creates not: those of templates."""
        literal = {t.get("topic") for route in self.content["routes"] for t in route["targets"]}
        expected = {one.topic for case, _ in self.cases.values() for one in case.expect}
        return {topic for topic in expected - literal if topic is not None}

    def wanted(self) -> list[tuple[str, str, str, Expectation | None]]:
        """Give for each record svix-id, broker, destination, and more that is expected of it."""
        found: list[tuple[str, str, str, Expectation | None]] = []
        for svix_id, (case, _) in self.cases.items():
            records = [one for one in case.expect if one.refused is None]
            refused = len(case.expect) - len(records)
            found += [(svix_id, one.broker or "", place_of(one), one) for one in records]
            if refused or (not case.expect and self.keeps_unmatched):
                assert self.letters is not None
                found += [(svix_id, *self.letters, None)] * max(refused, 1)
        return found

    async def records(self) -> list[Record]:
        """Give all records of this test's events, from all topics and streams."""
        found = [
            Record(
                self._broker("kafka"),
                record.topic,
                None if record.key is None else record.key.decode(),
                {name: value.decode() for name, value in record.headers},
                record.value,
            )
            for record in await kafka_records(self.kafka.bootstrap, *self.topics())
        ]
        async with nats_client(self.nats.url) as client:
            streams = [stream.config.name for stream in await client.jetstream().streams_info()]
        for stream in streams:
            for message in await stream_messages(self.nats.url, stream or ""):
                headers = {name: unquote(value) for name, value in message.headers.items()}
                key = headers.get("ce-partitionkey")
                broker = self._broker("nats")
                found.append(Record(broker, message.subject, key, headers, message.data))
        return [record for record in found if record.svix_id in self.cases]

    async def all_arrived(self) -> bool:
        """Tell whether as many records are there as the tests expect."""
        return len(await self.records()) >= len(self.wanted())

    def _broker(self, kind: str) -> str:
        brokers: dict[str, dict[str, Any]] = self.content["brokers"]
        return next(name for name, one in brokers.items() if one["kind"] == kind)


def place_of(one: Any) -> str:
    """Give the topic or subject of an expectation, or of a target in the config."""
    get = one.get if isinstance(one, dict) else lambda name: getattr(one, name)
    return str(get("topic") or get("subject"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
async def test_what_its_tests_expect_is_what_arrives(
    example: Example,
    tmp_path: Path,
    kafka_server: KafkaAt,
    new_nats: Callable[..., NatsServer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = Site(example, kafka_server, await asyncio.to_thread(new_nats))
    places = {"KAFKA": kafka_server.bootstrap, "NATS": site.nats.url, "REPLICAS": "1"}
    for name, value in {**SECRETS, **places, "INBOX": str(tmp_path / "inbox.db")}.items():
        monkeypatch.setenv(name, value)
    for topic in site.rendered():
        await kafka_server.create_topic(topic)
    gateway = Recipe(tmp_path / "gateway", example)
    try:
        await asyncio.to_thread(gateway.start)
        async with Client(gateway) as client:
            await client.until_ready()
            for svix_id, (case, body) in site.cases.items():
                answer = await post(client, site, svix_id, case, body)
                assert answer.word == expected_answer(site, case), case.name
        if site.is_stored_first:
            await until(site.all_arrived, "all records arrived")
        await asyncio.to_thread(gateway.end)
    finally:
        gateway.kill()
    # Nothing more can come now.
    compare(site, await site.records())
    told = await asyncio.to_thread(
        command, "check", "--config", example.config, "--connect", cwd=tmp_path
    )
    assert told.code == 0, told.out


async def post(client: Client, site: Site, svix_id: str, case: Case, body: bytes) -> Answer:
    """Post an event as its source would, again while topics and streams are being created."""
    sources = site.content["sources"]
    source = sources[case.source] if case.source else next(iter(sources.values()))
    variable = source["secrets"][0].strip("${}")
    path = source.get("path", PATH)
    deadline = time.monotonic() + PATIENCE
    while True:
        headers = signed(body, svix_id, secret=SECRETS[variable])
        answer = await client.post(body, headers, path=path)
        if answer.status != 503:
            return answer
        assert time.monotonic() < deadline, answer.raw
        await asyncio.sleep(0.1)


def expected_answer(site: Site, case: Case) -> tuple[int, str]:
    """Say what an event is answered, by what its test expects."""
    if not case.expect:
        return 200, "dead_lettered" if site.keeps_unmatched else "unmatched"
    if site.is_stored_first:
        return 200, "stored"
    refused = any(one.refused for one in case.expect)
    return 200, "dead_lettered" if refused else "delivered"


def compare(site: Site, records: list[Record]) -> None:
    """Assert that the brokers have exactly what the tests expect."""
    wanted = site.wanted()
    assert sorted((r.svix_id, r.broker, r.destination) for r in records) == sorted(
        (svix_id, broker, destination) for svix_id, broker, destination, _ in wanted
    )
    for record in records:
        case, body = site.cases[record.svix_id]
        if (record.broker, record.destination) == site.letters:
            assert_letter(record, case, body)
            continue
        (expectation,) = (
            one
            for svix_id, broker, destination, one in wanted
            if (svix_id, broker, destination) == (record.svix_id, record.broker, record.destination)
        )
        assert expectation is not None
        assert_as_expected(record, expectation, case.name)


def assert_letter(record: Record, case: Case, body: bytes) -> None:
    """Assert that a dead letter has the body as it came, and says why it is there."""
    assert record.value == body
    reason = record.headers["gateway-dead-letter-reason"]
    if not case.expect:
        assert reason == "unmatched"
        return
    refused = {f"{one.broker}/{place_of(one)}": one.refused for one in case.expect if one.refused}
    assert refused[record.headers["gateway-dead-letter-target"]] == reason


def assert_as_expected(record: Record, expectation: Expectation, name: str) -> None:
    """Assert that a record has all that is named: routes, key, headers, and fields of its value."""
    if expectation.key is not None:
        assert record.key == expectation.key, name
    if expectation.routes is not None:
        assert record.headers["gateway-route"].split(",") == list(expectation.routes), name
    for header, value in expectation.headers.items():
        assert record.headers.get(header) == value, name
    content = json.loads(record.value)
    for path, value in expectation.value.items():
        found = content
        for step in path.split("."):
            found = found.get(step) if isinstance(found, dict) else None
        assert found == value, f"{name}: {path}"
