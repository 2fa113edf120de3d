"""`gateway explain`, run as a command, against a gateway that runs on real brokers.

Random tables, the same ones on every run. Each is served by a gateway of its own; what the brokers
then have is what the command said of each body before it was sent.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.commands.command import GATEWAY, gathered, in_process
from tests.e2e.client import Answer, Client, signed
from tests.e2e.conftest import Start
from tests.e2e.readback import create_stream, stream_messages
from tests.explaining.tables import Config, Place, configs, requests
from tests.servers.kafka import KafkaAt
from tests.servers.nats import NatsServer

TABLES = 15
EVENTS = 10
"""For each table."""
OWN = ("svix-timestamp", "svix-signature", "gateway-received-at")
"""Headers that only a delivery has."""
Found = tuple[str, str, str | None, tuple[tuple[str, str], ...], str]
"""Kind of broker, topic or subject, key, headers, value."""
Asked = tuple[str, str, bytes]
"""Message id, source, body."""

pytestmark = pytest.mark.shows_payload("`gateway explain` shows values of the event by contract")


def random_tables() -> list[tuple[Config, list[tuple[str, bytes]]]]:
    """Draw the tables and their events: by a fixed seed, so that a failure can be repeated."""
    drawn: list[tuple[Config, list[tuple[str, bytes]]]] = []

    @given(st.data())
    @settings(
        max_examples=TABLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def draw(data: st.DataObject) -> None:
        config = data.draw(configs(Place(f"explain{len(drawn)}")))
        drawn.append((config, data.draw(requests(config, EVENTS))))

    draw()
    return drawn


def words(config: Path, directory: Path, asked: Asked) -> list[str]:
    """Give the command that explains a body, which it finds in a file."""
    svix_id, source, body = asked
    file = directory / f"{svix_id}.body"
    file.write_bytes(body)
    options = ("--config", config, "--source", source, "--id", svix_id, "--format", "json")
    return ["explain", *map(str, options), str(file)]


def by_command(arguments: list[str]) -> dict[str, Any]:
    """Run it in a process of its own."""
    command = [*GATEWAY, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    gathered(done)
    return checked(done.returncode, done.stdout)


def checked(code: int, out: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(out)
    assert code == (0 if content["answer"]["http_status"] == 200 else 1)
    return content


def explained(config: Path, directory: Path, asked: list[Asked]) -> list[dict[str, Any]]:
    """Run the command for each body: once as a shell does, then without waiting for imports."""
    first, *others = [words(config, directory, one) for one in asked]
    contents = [by_command(first)]
    for arguments in others:
        done = in_process(*arguments)
        contents.append(checked(done.code, done.out))
    return contents


def told(content: dict[str, Any]) -> Counter[Found]:
    """The records that an explanation promises."""
    return Counter(
        (
            one["kind"],
            one["topic"] or one["subject"],
            one["key"] if one["kind"] == "kafka" else None,
            _shared(one["headers"]),
            one["value"],
        )
        for one in (*content["records"], *content["letters"])
    )


def _shared(headers: Any) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, "…" if name in OWN else value) for name, value in headers))


async def read_back(bootstrap: str, topics: list[str], url: str, stream: str) -> Counter[Found]:
    """Read all that the brokers have, by their own clients."""
    found: list[Found] = [
        (
            "nats",
            one.subject,
            None,
            _shared(one.headers.items()),
            one.data.decode(),
        )
        for one in await stream_messages(url, stream)
    ]
    for record in await _records(bootstrap, topics) if topics else []:
        headers = [(name, value.decode()) for name, value in record.headers]
        found.append(
            ("kafka", record.topic, record.key.decode(), _shared(headers), record.value.decode())
        )
    return Counter(found)


async def _records(bootstrap: str, topics: list[str]) -> list[Any]:
    consumer = AIOKafkaConsumer(
        *topics,
        bootstrap_servers=bootstrap,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    records: list[Any] = []
    await consumer.start()
    try:
        async with asyncio.timeout(40):
            for partition, end in (await consumer.end_offsets(list(consumer.assignment()))).items():
                while await consumer.position(partition) < end:
                    for batch in (await consumer.getmany(timeout_ms=100)).values():
                        records += batch
    finally:
        await consumer.stop()
    return records


def placed(config: Config, kafka: KafkaAt, nats: NatsServer) -> Config:
    """Give the config with the brokers that there are."""
    brokers = {
        name: {**broker, "servers": [kafka.bootstrap if broker["kind"] == "kafka" else nats.url]}
        for name, broker in config["brokers"].items()
    }
    return {**config, "brokers": brokers}


async def post(client: Client, config: Config, asked: Asked) -> Answer:
    svix_id, source, body = asked
    path = config["sources"][source]["path"]
    return await client.post(body, signed(body, svix_id), path=path)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_what_is_explained_is_what_arrives(
    gateways: Start, kafka_server: KafkaAt, nats_server: NatsServer, tmp_path: Path
) -> None:
    arrived = 0
    tables = random_tables()
    assert len(tables) == TABLES
    for number, (config, requests_) in enumerate(tables):
        gateway = gateways(placed(config, kafka_server, nats_server), start=False)
        asked = [
            (f"msg_{number}_{at}", source, body) for at, (source, body) in enumerate(requests_)
        ]
        _, contents = await asyncio.gather(
            asyncio.to_thread(gateway.start),
            asyncio.to_thread(explained, gateway.config, tmp_path, asked),
        )
        promised = sum(map(told, contents), Counter[Found]())
        topics = sorted({place for kind, place, *_ in promised if kind == "kafka"})
        for topic in topics:
            await kafka_server.create_topic(topic)
        stream = await create_stream(nats_server.url, f"explain{number}", f"explain{number}.>")
        async with Client(gateway) as client:
            await client.until_ready()
            for one, content in zip(asked, contents, strict=True):
                answer = await post(client, config, one)
                promise = content["answer"]
                assert answer.word == (promise["http_status"], promise["status"]), (one, answer.raw)
        gateway.end()
        found = await read_back(kafka_server.bootstrap, topics, nats_server.url, stream)
        assert found == promised, f"table {number} of random_tables()"
        arrived += found.total()
    assert arrived > EVENTS * TABLES / 2
