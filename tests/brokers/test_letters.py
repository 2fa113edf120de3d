"""The contract of letters, on every kind of broker that keeps them."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import pytest

from gateway.brokers.base import BrokerOptionsError, Message
from gateway.brokers.kafka.letters import KafkaLetters
from gateway.brokers.letters import (
    Letter,
    Letters,
    LettersError,
    LettersUnavailable,
    Progress,
)
from gateway.brokers.nats.letters import NatsLetters
from gateway.config.models import KafkaConfig, NatsConfig
from tests.brokers.kafka.support import delete_records, set_topic
from tests.commands.letters import publish_kafka, publish_nats
from tests.e2e.readback import create_stream, kafka_records
from tests.servers.kafka import KafkaAt, KafkaServer, SecureKafka
from tests.servers.nats import NatsServer
from tests.servers.process import free_port

Unique = Callable[[str], str]
HEADERS = (("svix-id", "msg_1"), ("gateway-source", "clerk"), ("empty", ""), ("x", "a: b"))


@dataclass
class Place:
    """A dead letter to test with."""

    name: str
    make: Callable[[], Letters]
    put: Callable[[Sequence[Message]], Awaitable[None]]
    deletes: bool
    """Whether a letter that is dealt with is gone."""

    async def fill(self, count: int, first: int = 0) -> None:
        """Publish letters with the values `b"0"`, `b"1"`…"""
        await self.put(
            [
                Message(self.name, str(at).encode(), HEADERS, f"id-{at}", "key")
                for at in range(first, first + count)
            ]
        )

    async def read(self, ids: Sequence[str] | None = None) -> list[Letter]:
        """Open, read, close."""
        letters = self.make()
        try:
            await letters.open()
            return [letter async for letter in letters.read(ids)]
        finally:
            await letters.close()

    async def keep(self, letter: Letter, progress: Progress) -> None:
        """Open, keep, close."""
        letters = self.make()
        try:
            await letters.open()
            await letters.prepare()
            await letters.keep(letter, progress)
        finally:
            await letters.close()


@pytest.fixture(params=["kafka", "nats"])
async def place(
    request: pytest.FixtureRequest, kafka_server: KafkaAt, nats_server: NatsServer, unique: Unique
) -> Place:
    name = unique("letters")
    if request.param == "kafka":
        await kafka_server.create_topic(name)
        config = KafkaConfig(kind="kafka", servers=(kafka_server.bootstrap,))
        return Place(
            name,
            lambda: KafkaLetters("one", config, name),
            lambda messages: publish_kafka(kafka_server.bootstrap, messages),
            deletes=False,
        )
    # A stream with other subjects than the letters' own.
    await create_stream(nats_server.url, name, f"{name}.>", name)
    bus = NatsConfig(kind="nats", servers=(nats_server.url,))
    await publish_nats(nats_server.url, [Message(f"{name}.other", b"other", (), "other")])
    return Place(
        name,
        lambda: NatsLetters("one", bus, name),
        lambda messages: publish_nats(nats_server.url, messages),
        deletes=True,
    )


async def test_letters_come_whole_and_in_order(place: Place) -> None:
    assert await place.read() == []
    await place.fill(3)
    found = await place.read()
    assert [letter.value for letter in found] == [b"0", b"1", b"2"]
    assert {letter.headers for letter in found} == {HEADERS}
    assert [letter.progress for letter in found] == [None] * 3
    assert found[0].stored_at <= found[2].stored_at
    assert abs(found[0].stored_at - found[2].stored_at) < 60
    assert len({letter.id for letter in found}) == 3


async def test_letters_among_other_records_and_gaps(place: Place) -> None:
    """Each once, wherever they stand."""
    for first in range(0, 100, 10):
        await place.fill(10, first=first)
        if place.deletes:
            other = Message(f"{place.name}.other", b"other", (), f"other-{first}")
            await place.put([other] * 3)
            for letter in (await place.read())[-7:-4]:
                await place.keep(letter, Progress("replayed", 1))
    found = [int(letter.value) for letter in await place.read()]
    gaps = {3, 4, 5} if place.deletes else set()
    assert found == [number for number in range(100) if number % 10 not in gaps]


async def test_what_comes_after_the_opening_is_left_for_the_next(place: Place) -> None:
    await place.fill(2)
    letters = place.make()
    try:
        await letters.open()
        await place.fill(2, first=2)
        assert [one.value async for one in letters.read()] == [b"0", b"1"]
    finally:
        await letters.close()
    assert len(await place.read()) == 4


async def test_letters_are_found_by_their_ids(place: Place) -> None:
    await place.fill(5)
    every = await place.read()
    wanted = [every[3].id, every[1].id]
    others = ["99999", "7-99999", "no id", "", "-1", "0--1", "1" * 40]
    assert [one.value for one in await place.read([*wanted, *others])] == [b"1", b"3"]
    assert await place.read(others) == []


@pytest.mark.parametrize("word", ["replayed", "discarded"])
async def test_what_was_dealt_with_is_remembered_or_gone(place: Place, word: str) -> None:
    await place.fill(3)
    progress = Progress(word, 1)  # type: ignore[arg-type]  # it is one of the words
    _, second, _ = await place.read()
    await place.keep(second, progress)
    left = {one.value: one.progress for one in await place.read()}
    expected = {b"0": None, b"2": None}
    assert left == (expected if place.deletes else expected | {b"1": progress})
    # Once more is no error: an answer may have been lost.
    await place.keep(second, progress)


async def test_a_part_is_remembered_where_it_can_be(place: Place) -> None:
    await place.fill(1)
    (letter,) = await place.read()
    progress = Progress("partial", 2, ("a.r2",))
    await place.keep(letter, progress)
    (kept,) = await place.read()
    assert kept.progress == (None if place.deletes else progress)


async def test_reading_holds_a_bounded_part_in_memory(place: Place) -> None:
    size, count = 256 * 1024, 240
    for first in range(0, count, 24):
        await place.put(
            [
                Message(place.name, bytes(size), HEADERS, f"large-{at}", "key")
                for at in range(first, first + 24)
            ]
        )
    letters = place.make()
    try:
        await letters.open()
        tracemalloc.start()
        read = 0
        async for letter in letters.read():
            read += len(letter.value)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        await letters.close()
    assert read == size * count
    assert peak < read // 2


async def test_many_are_kept_at_once(place: Place) -> None:
    await place.fill(200)
    letters = place.make()
    try:
        await letters.open()
        await letters.prepare()
        found = [letter async for letter in letters.read()]
        await asyncio.gather(*(letters.keep(one, Progress("replayed", 1)) for one in found))
    finally:
        await letters.close()
    assert [one for one in await place.read() if one.progress is None] == []


@pytest.mark.parametrize("kind", ["kafka", "nats"])
async def test_a_broker_that_is_away(kind: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    letters: Letters = (
        KafkaLetters("one", KafkaConfig(kind="kafka", servers=(address,)), "letters")
        if kind == "kafka"
        else NatsLetters("one", NatsConfig(kind="nats", servers=(f"nats://{address}",)), "letters")
    )
    with pytest.raises(LettersUnavailable, match="could not reach letters: broker_down"):
        await letters.open()
    await letters.close()
    await letters.close()


async def test_a_topic_that_is_missing(kafka_server: KafkaAt, unique: Unique) -> None:
    config = KafkaConfig(kind="kafka", servers=(kafka_server.bootstrap,))
    letters = KafkaLetters("one", config, unique("missing"))
    with pytest.raises(LettersError, match="the topic does not exist; create it, or correct"):
        await letters.open()
    await letters.close()


async def test_a_subject_that_no_stream_takes(nats_server: NatsServer, unique: Unique) -> None:
    config = NatsConfig(kind="nats", servers=(nats_server.url,))
    letters = NatsLetters("one", config, unique("missing"))
    with pytest.raises(LettersError, match="no stream takes it; create one"):
        await letters.open()
    await letters.close()


def test_a_core_subject_has_no_letters() -> None:
    config = NatsConfig(kind="nats", servers=("nats://one",), jetstream=False)
    with pytest.raises(BrokerOptionsError, match="a core NATS subject has no letters"):
        NatsLetters("one", config, "letters")


async def test_a_stream_that_lets_nobody_delete(nats_server: NatsServer, unique: Unique) -> None:
    name = unique("sealed")
    await create_stream(nats_server.url, name, name, deny_delete=True)
    config = NatsConfig(kind="nats", servers=(nats_server.url,))
    letters = NatsLetters("one", config, name)
    try:
        await letters.open()
        with pytest.raises(LettersError, match=f"its stream {name} lets nobody delete"):
            await letters.prepare()
    finally:
        await letters.close()


async def test_a_login_that_may_read_and_not_delete(
    new_nats: Callable[..., NatsServer], unique: Unique
) -> None:
    allowed = ["$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO.*", "$JS.API.STREAM.MSG.GET.*"]
    reader = {"user": "reader", "password": "r", "permissions": {"publish": allowed}}
    users = [{"user": "all", "password": "a"}, reader]
    server = await asyncio.to_thread(new_nats, options={"authorization": {"users": users}})
    name = unique("letters")
    login = {"user": "all", "password": "a"}
    await create_stream(server.url, name, name, login=login)
    config = NatsConfig.model_validate(
        {"kind": "nats", "servers": [server.url], "username": "reader", "password": "r"}
    )
    letters = NatsLetters("one", config, name)
    try:
        await letters.open()
        assert [one async for one in letters.read()] == []
        with pytest.raises(LettersError, match=r"may not publish to \$JS\.API\.STREAM\.MSG\.DELET"):
            await letters.prepare()
    finally:
        await letters.close()


class TestKafkaStates:
    """What only Kafka has: a topic for what was done."""

    @pytest.fixture
    async def name(self, kafka_server: KafkaAt, unique: Unique) -> str:
        return await kafka_server.create_topic(unique("letters"))

    @pytest.fixture
    def place(self, kafka_server: KafkaAt, name: str) -> Place:
        config = KafkaConfig(kind="kafka", servers=(kafka_server.bootstrap,))
        return Place(
            name,
            lambda: KafkaLetters("one", config, name),
            lambda messages: publish_kafka(kafka_server.bootstrap, messages),
            deletes=False,
        )

    async def test_the_topic_is_compacted_and_holds_no_payload(
        self, place: Place, kafka_server: KafkaAt
    ) -> None:
        await place.fill(1)
        (letter,) = await place.read()
        await place.keep(letter, Progress("replayed", 1))
        records = await kafka_records(kafka_server.bootstrap, f"{place.name}.state")
        assert {record.key for record in records} == {b"probe", letter.id.encode()}
        assert all(b"msg_1" in record.value for record in records if record.value is not None)
        # A topic that forgets by age is refused, before anything is done.
        await set_topic(kafka_server.bootstrap, f"{place.name}.state", {"cleanup.policy": "delete"})
        with pytest.raises(LettersError, match=r"cleanup\.policy is delete"):
            await place.keep(letter, Progress("replayed", 2))

    async def test_a_state_is_not_taken_for_that_of_another_letter_at_its_place(
        self, place: Place
    ) -> None:
        """As when the topic was deleted and made anew: offsets begin again."""
        await place.fill(1)
        (letter,) = await place.read()
        other = Letter(letter.id, b"", (("svix-id", "other"),), None, 0.0)
        await place.keep(other, Progress("discarded"))
        (again,) = await place.read()
        assert again.progress is None

    async def test_the_states_of_letters_that_have_left_are_forgotten(
        self, place: Place, kafka_server: KafkaAt
    ) -> None:
        await place.fill(3)
        for letter in await place.read():
            await place.keep(letter, Progress("replayed", 1))
        await delete_records(kafka_server.bootstrap, place.name, before=2)
        (left,) = await place.read()
        assert left.value == b"2"
        await place.keep(left, Progress("replayed", 2))
        records = await kafka_records(kafka_server.bootstrap, f"{place.name}.state")
        last = {record.key.decode(): record.value for record in records}
        assert (last["0-0"], last["0-1"]) == (None, None)
        assert last["0-2"] is not None

    async def test_rubbish_in_the_state_topic_is_passed_over(
        self, place: Place, kafka_server: KafkaAt
    ) -> None:
        await place.fill(1)
        (letter,) = await place.read()
        await place.keep(letter, Progress("replayed", 1))
        rubbish = [
            Message(f"{place.name}.state", value, (), "", key)
            for key, value in (("x", b"{}"), ("0-0-0", b"{}"), ("0-1", b"\xff"), ("1-1", b"[]"))
        ]
        await publish_kafka(kafka_server.bootstrap, rubbish)
        (kept,) = await place.read()
        assert kept.progress == Progress("replayed", 1)


@pytest.mark.parametrize("missing", ["letters", "see", "read", "create", "write"])
async def test_a_login_that_lacks_a_right(
    secured_kafka: SecureKafka, unique: Unique, missing: str
) -> None:
    """Each right that the login lacks is named, and nothing is done before that."""
    name = unique("letters")
    state = f"{name}.state"
    await secured_kafka.server.create_topic(name)
    if missing != "letters":
        await secured_kafka.allow("READ", name)
    if missing in {"see", "read", "write"}:
        await secured_kafka.server.create_topic(state, 1, {"cleanup.policy": "compact"})
    if missing == "read":
        await secured_kafka.allow("DESCRIBE", state)
        kept = Message(state, b"{}", (), "", "0-0")
        await publish_kafka(secured_kafka.bootstrap, [kept])
    if missing in {"write", "create"}:
        await secured_kafka.allow("READ", state)
    config = KafkaConfig.model_validate(
        {
            "kind": "kafka",
            "servers": [secured_kafka.sasl],
            "tls": {"ca_file": str(secured_kafka.certificates.ca)},
            "sasl": {
                "mechanism": "SCRAM-SHA-512",
                "username": secured_kafka.restricted_username,
                "password": secured_kafka.password,
            },
        }
    )
    expected = {
        "letters": f"{name}: the login may not read the topic; grant DESCRIBE and READ on it",
        "see": f"{state}: the login may not read the topic .* grant DESCRIBE and READ on it",
        "read": f"{state}: the login may not read the topic .* grant READ on it",
        "create": f"{state}: .* could not be created: TOPIC_AUTHORIZATION_FAILED.*grant CREATE",
        "write": f"{state}: the login may not write the topic .* grant WRITE on it",
    }
    letters = KafkaLetters("one", config, name)

    async def begin() -> None:
        await letters.open()
        await letters.prepare()

    try:
        with pytest.raises(LettersError, match=expected[missing]):
            await begin()
    finally:
        await letters.close()


async def test_a_kafka_that_falls_silent_is_told(own_kafka: KafkaServer, unique: Unique) -> None:
    name = await own_kafka.create_topic(unique("letters"))
    letter = Message(name, b"0", HEADERS, "id", "key")
    await publish_kafka(own_kafka.bootstrap, [letter])
    config = KafkaConfig(kind="kafka", servers=(own_kafka.bootstrap,))
    letters = KafkaLetters("one", config, name)
    try:
        await letters.open()
        own_kafka.pause()
        with pytest.raises(LettersUnavailable):
            [one async for one in letters.read()]
    finally:
        own_kafka.resume()
        await letters.close()
