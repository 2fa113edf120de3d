"""`gateway check --connect`: what templates will give is compared with what real brokers have."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.clerk.catalogue import ALSO_SEEN, CATALOGUE
from tests.commands.command import Done, in_process, write_config
from tests.e2e.readback import create_stream
from tests.servers.kafka import KafkaAt
from tests.servers.nats import NatsServer

Unique = Callable[[str], str]

RECORD = 512 * 1024 + 8 * 1024
THIN = "one replica: 3 survive the loss of a server; set num_replicas"
SYNC = (
    "JetStream acknowledges before it syncs to disk (every 2 minutes unless the server sets"
    " jetstream.sync_interval): a power loss of all replicas at once can lose what came last"
)


def check(
    directory: Path,
    broker: dict[str, Any],
    destination: str,
    events: tuple[str, ...] = ("*",),
    **more: Any,
) -> Done:
    """Check a config with one broker, and one route to one destination."""
    place = "topic" if broker["kind"] == "kafka" else "subject"
    targets = [{"broker": "one", place: destination}]
    route = {"name": "all", "events": list(events), "targets": targets}
    config = {"brokers": {"one": broker}, "routes": [route], **more}
    return in_process("check", "--config", write_config(directory, config), "--connect")


def findings(done: Done, about: str) -> list[str]:
    """Give severity and words of what was said of one thing."""
    lines = (line.strip().partition("  one: ") for line in done.out.splitlines())
    return [
        f"{severity}: {rest.removeprefix(f'{about}: ')}"
        for severity, _, rest in lines
        if rest.startswith(f"{about}: ")
    ]


def at_nats(server: NatsServer, **more: Any) -> dict[str, Any]:
    return {"kind": "nats", "servers": [server.url], **more}


def at_kafka(server: KafkaAt, **topics: Any) -> dict[str, Any]:
    settings = {"partitions": 1, "replication_factor": 1, **topics}
    return {"kind": "kafka", "servers": [server.bootstrap], "topics": settings}


def test_a_stream_for_every_type_of_the_catalogue(
    tmp_path: Path, nats_server: NatsServer, unique: Unique
) -> None:
    name = unique("every")
    asyncio.run(create_stream(nats_server.url, name, f"{name}.>"))
    done = check(tmp_path, at_nats(nats_server), f"{name}.{{type}}")
    assert done.code == 0
    assert findings(done, f"{name}.*") == [f"ok: stream {name} takes it"]
    assert findings(done, f"stream {name}") == [f"warning: {THIN}"]
    assert findings(done, "one")[1:] == [f"warning: {SYNC}"]


def test_a_stream_for_a_part_of_the_catalogue(
    tmp_path: Path, nats_server: NatsServer, unique: Unique
) -> None:
    name = unique("users")
    asyncio.run(create_stream(nats_server.url, name, f"{name}.user.>"))
    done = check(tmp_path, at_nats(nats_server), f"{name}.{{type}}", ("user.*", "session.ended"))
    assert done.code == 1
    assert findings(done, f"{name}.*") == [
        f"ok: stream {name} takes {name}.user.created, {name}.user.updated and {name}.user.deleted",
        f"error: no stream takes {name}.session.ended; add {name}.session.* to stream {name}, or"
        " create a stream, or take the types out of the route (used by route all)",
    ]


def test_all_of_a_routes_types_and_none_that_is_new(
    tmp_path: Path, nats_server: NatsServer, unique: Unique
) -> None:
    name = unique("exact")
    verbs = ("created", "updated", "deleted")
    asyncio.run(create_stream(nats_server.url, name, *(f"{name}.user.{verb}" for verb in verbs)))
    done = check(tmp_path, at_nats(nats_server), f"{name}.{{type}}", ("user.*",))
    assert done.code == 0
    assert findings(done, f"{name}.*") == [
        f"ok: stream {name} takes it",
        f"warning: no stream takes all of {name}.user.*: a type that is new would be refused"
        f" (no_stream); add that to stream {name} (used by route all)",
    ]
    done = check(tmp_path, at_nats(nats_server), f"{name}.{{type}}", ("user.created",))
    assert findings(done, f"{name}.*") == [f"ok: stream {name} takes it"]


def test_a_stream_that_never_acknowledges(
    tmp_path: Path, nats_server: NatsServer, unique: Unique
) -> None:
    name = unique("mute")
    asyncio.run(create_stream(nats_server.url, name, f"{name}.>", no_ack=True))
    done = check(tmp_path, at_nats(nats_server), f"{name}.{{type}}")
    assert done.code == 1
    assert findings(done, f"stream {name}")[0] == (
        "error: no_ack is set, so no publish is ever acknowledged: every event is answered 503 and"
        " sent again; unset it"
    )


def test_a_stream_that_takes_too_little(
    tmp_path: Path, nats_server: NatsServer, unique: Unique
) -> None:
    name = unique("small")
    asyncio.run(create_stream(nats_server.url, name, f"{name}.>", max_msg_size=1000))
    letter = {"dead_letter": {"broker": "one", "subject": f"{name}.letters"}}
    done = check(tmp_path, at_nats(nats_server), f"{name}.a.{{type}}", delivery=letter)
    assert done.code == 1
    message = (
        f"error: max_msg_size of stream {name} is 1000, and a record may have {RECORD} bytes; raise"
        f" it (nats stream edit {name} --max-msg-size={RECORD}), or lower server.max_body (used by"
    )
    assert findings(done, f"{name}.a.*")[1] == f"{message} route all)"
    assert findings(done, f"{name}.letters")[1] == f"{message} the dead letter)"


def test_the_topics_of_every_type(tmp_path: Path, kafka_server: KafkaAt, unique: Unique) -> None:
    name = unique("every")
    asyncio.run(kafka_server.create_topic(f"{name}.user.created"))
    asyncio.run(kafka_server.create_topic(f"{name}.other", 1, {"max.message.bytes": "1000"}))
    done = check(tmp_path, at_kafka(kafka_server), f"{name}.{{type}}")
    assert done.code == 1
    count = len(CATALOGUE) + len(ALSO_SEEN)
    assert findings(done, f"{name}.*") == [
        f"error: {count - 1} of {count} topics do not exist: {name}.email.created,"
        f" {name}.organization.created, {name}.organization.updated and {count - 4} more; the"
        " gateway creates none of a template: create each by `kafka-topics.sh --bootstrap-server"
        f" {kafka_server.bootstrap} --create --topic TOPIC --partitions 1 --replication-factor 1`,"
        " or take the types out of the route (used by route all)"
    ]
    assert [line.partition(":")[0] for line in findings(done, f"{name}.user.created")] == [
        "warning",
        "warning",
    ]
    # Not one that is expected, but one that the template could give.
    assert findings(done, f"{name}.other")[-1] == (
        f"error: max.message.bytes is 1000, and a record may have {RECORD} bytes; raise it by"
        f" `kafka-configs.sh --bootstrap-server {kafka_server.bootstrap} --alter --entity-type"
        f" topics --entity-name {name}.other --add-config max.message.bytes={RECORD}`, or lower"
        " server.max_body (used by route all)"
    )


def test_a_template_whose_topics_are_all_there(
    tmp_path: Path, kafka_server: KafkaAt, unique: Unique
) -> None:
    name = unique("all")
    for verb in ("created", "updated", "deleted"):
        asyncio.run(kafka_server.create_topic(f"{name}.user.{verb}"))
    done = check(tmp_path, at_kafka(kafka_server), f"{name}.{{type}}", ("user.*",))
    assert done.code == 0
    assert findings(done, f"{name}.*") == []


@pytest.mark.parametrize("create", [False, True])
def test_a_dead_letter_that_is_missing_or_too_small(
    tmp_path: Path, kafka_server: KafkaAt, unique: Unique, create: bool
) -> None:
    topic = asyncio.run(
        kafka_server.create_topic(unique("fine"), 1, {"max.message.bytes": "3000000"})
    )
    letters = unique("letters")
    more: dict[str, Any] = {
        "server": {"max_body": "2MiB"},
        "delivery": {"dead_letter": {"broker": "one", "topic": letters}},
    }
    done = check(tmp_path, at_kafka(kafka_server, create=create), topic, **more)
    needed = 2 * 1024 * 1024 + 8 * 1024
    command = (
        f"`kafka-topics.sh --bootstrap-server {kafka_server.bootstrap} --create --topic {letters}"
        f" --partitions 1 --replication-factor 1 --config max.message.bytes={needed}`"
    )
    assert done.code == 1
    if create:
        expected = [
            "warning: does not exist; it is created when the gateway starts (used by the dead"
            " letter)",
            f"error: the cluster's message.max.bytes is 1048588, and a record may have {needed}"
            f" bytes; create the topic by {command}, or raise message.max.bytes, or lower"
            " server.max_body",
        ]
    else:
        expected = [
            f"error: does not exist; create it by {command}, or set brokers.one.topics.create:"
            " true (used by the dead letter)"
        ]
    assert findings(done, letters) == expected
