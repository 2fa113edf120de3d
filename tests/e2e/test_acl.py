"""Kafka's access rules: a topic that the login may not write to is refused for good, and told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.commands.command import Done, gateway, write_config
from tests.e2e.client import Answer, Client, event, signed, until
from tests.e2e.conftest import Start
from tests.e2e.locks import findings
from tests.e2e.readback import kafka_records
from tests.servers.kafka import SecureKafka

Unique = Callable[[str], str]

SEE = "the login may not see it; grant DESCRIBE and WRITE (used by route all)"
WRITE = "the login may not write to it; grant WRITE (used by route all)"
DETAIL = (
    "TOPIC_AUTHORIZATION_FAILED: the login may not write to the topic; grant DESCRIBE and WRITE"
)


@dataclass
class Rules:
    """A Kafka whose restricted user publishes, one topic of the route, and one for letters."""

    kafka: SecureKafka
    topic: str
    letters: str
    password_file: Path

    def config(self, *, letters: bool = True, **topics: Any) -> dict[str, Any]:
        """Give the config of a gateway that logs in as the restricted user."""
        sasl = {
            "mechanism": "SCRAM-SHA-512",
            "username": self.kafka.restricted_username,
            "password": f"${{file:{self.password_file}}}",
        }
        events = {
            "kind": "kafka",
            "servers": [self.kafka.sasl],
            "tls": {"ca_file": str(self.kafka.certificates.ca)},
            "sasl": sasl,
            **({"topics": topics} if topics else {}),
        }
        letter = {"dead_letter": {"broker": "events", "topic": self.letters}}
        target = {"broker": "events", "topic": self.topic}
        return {
            "brokers": {"events": events},
            "routes": [{"name": "all", "events": ["*"], "targets": [target]}],
            **({"delivery": letter} if letters else {}),
        }

    async def stored(self, topic: str) -> list[Any]:
        """Read a topic with a client that may do everything."""
        return await kafka_records(self.kafka.bootstrap, topic)


@pytest.fixture
async def rules(secured_kafka: SecureKafka, unique: Unique, tmp_path: Path) -> Rules:
    """Make two topics; only letters may be written."""
    create = secured_kafka.server.create_topic
    topic, letters = await create(unique("events")), await create(unique("letters"))
    await secured_kafka.allow("WRITE", letters)
    password_file = tmp_path / "kafka-password"
    password_file.write_text(secured_kafka.password)
    return Rules(secured_kafka, topic, letters, password_file)


async def check(rules: Rules, place: Path, config: dict[str, Any]) -> tuple[Done, list[str]]:
    """Run `gateway check --connect`; give what it printed, and its errors about the topic."""
    path = write_config(place, config)
    done = await asyncio.to_thread(gateway, "check", "--config", path, "--connect", cwd=place)
    assert rules.kafka.password not in done.out + done.err
    found = findings(done.out)["events"]
    return done, [words for severity, _, words in found if severity == "error"]


async def until_status(client: Client, status: str) -> Answer:
    """Post new events until one is answered so."""
    answers: list[Answer] = []

    async def is_so() -> bool:
        answers.append(await client.post(event()))
        return bool(answers[-1].body["status"] == status)

    await until(is_so, f"an event is {status}")
    return answers[-1]


async def test_a_forbidden_topic_is_dead_lettered_until_it_is_granted(
    rules: Rules, gateways: Start, tmp_path: Path
) -> None:
    serving = await asyncio.to_thread(gateways, rules.config())
    done, errors = await check(rules, tmp_path, rules.config())
    assert (done.code, errors) == (1, [SEE])

    bodies = [event(name=str(number)) for number in range(3)]
    async with Client(serving) as client:
        await client.until_ready()
        async with client.counting(*[("clerk", "dead_lettered", "not_authorized")] * 3):
            for body in bodies:
                answer = await client.post(body)
                assert answer.word == (200, "dead_lettered"), answer.raw
                (target,) = answer.body["targets"]
                assert (target["topic"], target["reason"]) == (rules.topic, "not_authorized")
        assert (await client.ready())[1]["status"] == "ready"

        letters = await rules.stored(rules.letters)
        assert [letter.value for letter in letters] == bodies
        for letter in letters:
            headers = {name: value.decode() for name, value in letter.headers}
            assert headers["gateway-dead-letter-reason"] == "not_authorized"
            assert headers["gateway-dead-letter-detail"] == DETAIL
            assert headers["gateway-dead-letter-target"] == f"events/{rules.topic}"

        await rules.kafka.allow("WRITE", rules.topic)
        answer = await until_status(client, "delivered")
    assert len(await rules.stored(rules.topic)) == 1
    done, errors = await check(rules, tmp_path, rules.config())
    assert (done.code, errors) == (0, [])
    assert rules.kafka.password not in serving.log.read_text()


async def test_without_a_dead_letter_the_retry_delivers_once_it_is_granted(
    rules: Rules, gateways: Start
) -> None:
    serving = await asyncio.to_thread(gateways, rules.config(letters=False))
    body = event()
    async with Client(serving) as client:
        await client.until_ready()
        async with client.counting(("clerk", "failed", "not_authorized")):
            answer = await client.post(body, signed(body, "msg_denied"))
        assert answer.word == (503, "failed")
        assert (answer.body["reason"], "retry-after" in answer.headers) == ("not_authorized", True)
        await rules.kafka.allow("WRITE", rules.topic)

        async def is_delivered() -> bool:
            return (await client.post(body, signed(body, "msg_denied"))).status == 200

        await until(is_delivered, "the retry is delivered")
    assert [record.value for record in await rules.stored(rules.topic)] == [body]


async def test_a_right_that_goes_while_events_flow(
    rules: Rules, gateways: Start, tmp_path: Path
) -> None:
    """Without WRITE the refusal comes from the produce request, and not from metadata."""
    await rules.kafka.allow("WRITE", rules.topic)
    serving = await asyncio.to_thread(gateways, rules.config())
    async with Client(serving) as client:
        await client.until_ready()
        # WRITE alone is enough: it implies DESCRIBE.
        assert (await client.post(event())).word == (200, "delivered")
        await rules.kafka.allow("DESCRIBE", rules.topic)
        await rules.kafka.forbid("WRITE", rules.topic)
        answer = await until_status(client, "dead_lettered")
        assert answer.body["targets"][0]["reason"] == "not_authorized"
        done, errors = await check(rules, tmp_path, rules.config())
        assert (done.code, errors) == (1, [WRITE])
        await rules.kafka.allow("WRITE", rules.topic)
        await until_status(client, "delivered")


async def test_a_dead_letter_that_is_forbidden_itself(
    rules: Rules, gateways: Start, tmp_path: Path
) -> None:
    await rules.kafka.forbid("WRITE", rules.letters)
    serving = await asyncio.to_thread(gateways, rules.config())
    async with Client(serving) as client:
        await client.until_ready()
        async with client.counting(("clerk", "failed", "dead_letter_refused")):
            answer = await client.post(event())
    assert answer.word == (503, "failed")
    assert answer.body["reason"] == "dead_letter_refused"
    assert await rules.stored(rules.letters) == []
    done, errors = await check(rules, tmp_path, rules.config())
    assert done.code == 1
    assert sorted(errors) == sorted([SEE, SEE.replace("route all", "the dead letter")])


async def test_a_topic_that_the_login_may_not_create(
    rules: Rules, gateways: Start, unique: Unique, tmp_path: Path
) -> None:
    rules.topic = unique("missing")
    await rules.kafka.allow("WRITE", rules.topic)
    config = rules.config(create=True, partitions=1, replication_factor=1)
    denied = "TOPIC_AUTHORIZATION_FAILED: the login may not; grant CREATE on the topic"
    done, errors = await check(rules, tmp_path, config)
    told = f"does not exist and cannot be created: {denied} (used by route all)"
    assert (done.code, errors) == (1, [told])

    serving = await asyncio.to_thread(gateways, config)
    async with Client(serving) as client:
        await client.until_ready()
        warning = f"kafka broker events: could not create topic {rules.topic}: {denied}"
        assert [line["event"] for line in serving.lines()].count(warning) == 1
        answer = await client.post(event())
    assert answer.word == (503, "failed")
    assert answer.body["targets"][0]["reason"] == "no_topic"

    await rules.kafka.allow("CREATE", rules.topic)
    done, errors = await check(rules, tmp_path, config)
    assert (done.code, errors) == (0, []), done.out
    assert "does not exist; it is created when the gateway starts" in done.out
    serving = await asyncio.to_thread(gateways, config)
    async with Client(serving) as client:
        await client.until_delivered()
