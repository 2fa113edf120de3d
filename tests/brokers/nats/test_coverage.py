"""Which streams of a real server take what templates will give, and what their settings do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from nats.js.api import (
    DiscardPolicy,
    RePublish,
    StreamConfig,
    StreamSource,
    SubjectTransform,
)

from gateway.brokers.base import Finding, Need
from gateway.brokers.nats import NatsBroker
from gateway.brokers.nats.subjects import covers, overlaps
from gateway.config.models import NatsConfig
from tests.brokers.nats.support import client, create_stream, jetstream, said
from tests.canaries import NATS_USER_PASSWORD
from tests.servers.nats import NatsServer

Unique = Callable[[str], str]
NewNats = Callable[..., NatsServer]

USED = "(used by route all)"


async def check(url: str, *needs: Need, **settings: Any) -> list[Finding]:
    """Check without a start."""
    config = NatsConfig.model_validate({"kind": "nats", "servers": (url,), **settings})
    async with asyncio.timeout(15):
        return await NatsBroker("bus", config, lambda *_: None).check(needs)


def template(prefix: str, *names: str, later: str = "") -> Need:
    """Give the need of a template that gives these names after its prefix."""
    more = (f"{prefix}{later}",) if later else ()
    expected = tuple(prefix + name for name in names)
    return Need(prefix, True, 1000, "route all", expected=expected, later=more)


def told(findings: list[Finding], about: str) -> list[str]:
    """Give what was said of one thing: its severity, and the words."""
    return [f"{found.severity}: {found.message}" for found in findings if found.about == about]


async def test_one_stream_that_takes_all(nats_server: NatsServer, unique: Unique) -> None:
    name = unique("all")
    await create_stream(nats_server.url, name, f"{name}.>")

    findings = await check(
        nats_server.url, template(f"{name}.", "user.created", "session.ended", later="*.*")
    )

    assert told(findings, f"{name}.*") == [f"ok: stream {name} takes it"]


async def test_types_that_no_stream_takes(nats_server: NatsServer, unique: Unique) -> None:
    name = unique("part")
    await create_stream(nats_server.url, name, f"{name}.user.>")
    names = ["user.created", "session.created", "session.ended", "role.created", "sms.created"]

    findings = await check(nats_server.url, template(f"{name}.", *names, later="*.*"))

    assert told(findings, f"{name}.*") == [
        f"ok: stream {name} takes {name}.user.created",
        f"error: no stream takes {name}.session.created, {name}.session.ended, {name}.role.created"
        f" and 1 more; add {name}.session.*, {name}.role.* and {name}.sms.* to stream {name}, or"
        f" create a stream, or take the types out of the route {USED}",
    ]


async def test_several_streams_take_parts(nats_server: NatsServer, unique: Unique) -> None:
    name = unique("many")
    first, second = f"{name}-1", f"{name}-2"
    await create_stream(nats_server.url, first, f"{name}.user.*")
    await create_stream(nats_server.url, second, f"{name}.session.*")

    findings = await check(nats_server.url, template(f"{name}.", "user.created", "session.ended"))

    assert told(findings, f"{name}.*") == [
        f"ok: stream {first} takes {name}.user.created",
        f"ok: stream {second} takes {name}.session.ended",
        f"warning: streams {first} and {second} share its subjects: whoever reads one misses the"
        " others, and the order of a user's events is kept within one only; one stream with"
        f" {name}.> takes all {USED}",
    ]


async def test_none_at_all(nats_server: NatsServer, unique: Unique) -> None:
    name = unique("none")

    findings = await check(nats_server.url, template(f"{name}.", "user.created"))

    assert told(findings, f"{name}.*") == [
        f"error: no stream takes this subject; create one (nats stream add NAME"
        f" --subjects='{name}.>'), or name it in brokers.bus.streams {USED}"
    ]


async def test_values_that_only_the_event_knows(nats_server: NatsServer, unique: Unique) -> None:
    name = unique("plan")
    await create_stream(nats_server.url, name, f"{name}.x-pro", f"{name}.free")

    findings = await check(nats_server.url, template(f"{name}.", "x-*"))

    assert told(findings, f"{name}.*") == [
        f"warning: stream {name} takes only {name}.x-pro of {name}.x-*: a record for another"
        f" subject is refused (no_stream); give {name}.* to one stream {USED}"
    ]
    wide = unique("wide")
    await create_stream(nats_server.url, wide, f"{wide}.*")
    findings = await check(nats_server.url, template(f"{wide}.", "x-*"))
    assert told(findings, f"{wide}.*") == [f"ok: stream {wide} takes it"]


async def test_types_that_are_new(nats_server: NatsServer, unique: Unique) -> None:
    name = unique("new")
    await create_stream(nats_server.url, name, f"{name}.user.created")

    findings = await check(nats_server.url, template(f"{name}.", "user.created", later="user.*"))

    assert told(findings, f"{name}.*") == [
        f"ok: stream {name} takes it",
        f"warning: no stream takes all of {name}.user.*: a type that is new would be refused"
        f" (no_stream); add that to stream {name} {USED}",
    ]


async def test_a_stream_of_the_config_that_is_there_with_other_subjects(
    nats_server: NatsServer, unique: Unique
) -> None:
    name = unique("kept")
    await create_stream(nats_server.url, name, f"{name}.other")
    streams = [{"name": name, "subjects": [f"{name}.>"]}]
    literal = Need(f"{name}.users", False, 1000, "route all")

    findings = await check(nats_server.url, literal, streams=streams)

    assert told(findings, literal.destination) == [
        f"error: no stream takes this subject; stream {name} is there with other subjects than in"
        f" brokers.bus.streams, and is left as it is; add {literal.destination} to it {USED}"
    ]


async def test_a_stream_of_the_config_that_cannot_be_created(
    nats_server: NatsServer, unique: Unique
) -> None:
    name = unique("clash")
    await create_stream(nats_server.url, name, f"{name}.user.created")
    streams = [{"name": f"{name}-new", "subjects": [f"{name}.>"]}]

    findings = await check(
        nats_server.url, template(f"{name}.", "user.created", "user.deleted"), streams=streams
    )

    assert told(findings, f"stream {name}-new") == [
        f"error: it cannot be created: {name} already takes subjects of {name}.>, and no two"
        " streams may take one subject; change either"
    ]


async def test_a_stream_of_the_config_that_will_be_created(
    nats_server: NatsServer, unique: Unique
) -> None:
    name = unique("soon")
    streams = [{"name": name, "subjects": [f"{name}.>"]}]

    findings = await check(
        nats_server.url, template(f"{name}.", "user.created", later="*.*"), streams=streams
    )

    assert told(findings, f"{name}.*") == [
        f"warning: stream {name} does not exist; it is created when the gateway starts {USED}"
    ]
    assert not said(findings, "error")


SETTINGS: list[tuple[dict[str, Any], str]] = [
    (
        {"no_ack": True},
        "error: no_ack is set, so no publish is ever acknowledged: every event is answered 503 and"
        " sent again; unset it",
    ),
    (
        {"discard": DiscardPolicy.NEW, "max_msgs": 5, "max_bytes": 4096},
        "warning: discard is new: at max_msgs 5 and max_bytes 4096 it takes no more, and events are"
        " answered 503 stream_full; set discard: old, or see that somebody deletes",
    ),
    (
        {"discard": DiscardPolicy.NEW, "discard_new_per_subject": True, "max_msgs_per_subject": 2},
        "warning: discard_new_per_subject is set: a subject that has 2 records"
        " (max_msgs_per_subject) takes no more, and its events are answered 503 stream_full; set"
        " discard: old, or see that somebody deletes",
    ),
    (
        {"max_msgs_per_subject": 1},
        "warning: max_msgs_per_subject is 1: older records of a subject are dropped, read or not;"
        " raise it unless that is meant",
    ),
    (
        {"subject_transform": SubjectTransform(src="NAME.>", dest="moved.NAME.>")},
        "warning: subject_transform stores NAME.> as moved.NAME.>: consumers find the records by"
        " that subject only; let them filter by it, or take it out",
    ),
    (
        {"republish": RePublish(src="NAME.>", dest="copies.NAME.>")},
        "warning: republish sends all of NAME.> to copies.NAME.> too: whoever may subscribe there"
        " gets it; see that only those may who should",
    ),
    (
        {"republish": RePublish(src="NAME.>", dest="copies.NAME.>", headers_only=True)},
        "warning: republish sends the headers of NAME.> to copies.NAME.> too: whoever may subscribe"
        " there gets it; see that only those may who should",
    ),
    (
        {"sources": [StreamSource(name="NAME-other")]},
        "warning: it also gathers the records of NAME-other (sources): they did not come from the"
        " gateway, and nobody verified them here; publish to a stream of the gateway's own",
    ),
]


def _named(value: Any, name: str) -> Any:
    """Put a test's own name where the table has NAME."""
    if isinstance(value, str):
        return value.replace("NAME", name)
    if isinstance(value, list):
        return [_named(one, name) for one in value]
    if isinstance(value, SubjectTransform | RePublish | StreamSource):
        return value.evolve(**{key: _named(own, name) for key, own in vars(value).items()})
    return value


@pytest.mark.parametrize(("settings", "expected"), SETTINGS, ids=lambda value: str(value)[:40])
async def test_settings_of_a_stream_that_matter(
    nats_server: NatsServer, unique: Unique, settings: dict[str, Any], expected: str
) -> None:
    name = unique("set")
    own = {key: _named(value, name) for key, value in settings.items()}
    for other in own.get("sources", []):
        await create_stream(nats_server.url, other.name, f"{other.name}.>")
    await create_stream(nats_server.url, name, f"{name}.>", **own)

    findings = await check(nats_server.url, Need(f"{name}.users", False, 1000, "route all"))

    thin = "warning: one replica: 3 survive the loss of a server; set num_replicas"
    assert sorted(told(findings, f"stream {name}")) == sorted([thin, _named(expected, name)])


async def test_a_sealed_stream(nats_server: NatsServer, unique: Unique) -> None:
    name = unique("sealed")
    await create_stream(nats_server.url, name, f"{name}.>")
    async with jetstream(nats_server) as manager:
        await manager.update_stream(StreamConfig(name=name, subjects=[f"{name}.>"], sealed=True))

    findings = await check(nats_server.url, Need(f"{name}.users", False, 1000, "route all"))

    message = "error: it is sealed and takes no more records; use another stream"
    assert message in told(findings, f"stream {name}")


async def test_a_stream_of_counters(nats_server: NatsServer, unique: Unique) -> None:
    name = unique("counters")
    wanted = {"name": name, "subjects": [f"{name}.>"], "allow_msg_counter": True}
    async with client(nats_server.url) as connected:
        # nats-py has no such setting.
        answer = await connected.request(
            f"$JS.API.STREAM.CREATE.{name}", json.dumps(wanted).encode()
        )
    assert json.loads(answer.data)["config"]["allow_msg_counter"] is True

    findings = await check(nats_server.url, Need(f"{name}.users", False, 1000, "route all"))

    message = "error: allow_msg_counter is set, so it takes counters only; use another stream"
    assert message in told(findings, f"stream {name}")


async def test_a_dead_letter_that_cannot_be_taken_out(
    nats_server: NatsServer, unique: Unique
) -> None:
    name = unique("letters")
    await create_stream(nats_server.url, name, f"{name}.>", deny_delete=True)
    users = Need(f"{name}.users", False, 1000, "route all")
    letter = Need(f"{name}.letters", False, 1000, "the dead letter", keeps_letters=True)
    message = (
        "warning: deny_delete is set, so that `gateway inbox discard` and `replay` cannot take a"
        " dead letter out; use a stream without it for delivery.dead_letter"
    )

    assert message in told(await check(nats_server.url, users, letter), f"stream {name}")
    assert message not in told(await check(nats_server.url, users), f"stream {name}")


async def test_a_mirror_takes_nothing(nats_server: NatsServer, unique: Unique) -> None:
    name = unique("origin")
    await create_stream(nats_server.url, name, f"{name}.>")
    await create_stream(nats_server.url, f"{name}-copy", mirror=StreamSource(name=name))

    findings = await check(nats_server.url, template(f"{name}.", "user.created"))

    assert told(findings, f"{name}.*") == [f"ok: stream {name} takes it"]


async def test_each_type_must_be_permitted(new_nats: NewNats) -> None:
    permissions = {"publish": {"allow": ["c.user.>", "$SYS.REQ.USER.INFO"], "deny": ["c.user.x"]}}
    users = [{"user": "u", "password": NATS_USER_PASSWORD, "permissions": permissions}]
    server = await asyncio.to_thread(
        new_nats, jetstream=False, options={"authorization": {"users": users}}
    )

    findings = await check(
        server.url,
        template("c.", "user.a", "user.x", "role.a", "user.*"),
        jetstream=False,
        username="u",
        password=NATS_USER_PASSWORD,
    )

    assert told(findings, "c.*") == [
        f"error: the login may not publish to c.user.x and c.role.a; allow it on the server {USED}"
    ]


@pytest.mark.parametrize(
    ("pattern", "form", "covered", "overlapping"),
    [
        ("a.*", "a.*", True, True),
        ("a.>", "a.*.b", True, True),
        ("a.b", "a.*", False, True),
        ("a.x-1", "a.x-*", False, True),
        ("a.y-1", "a.x-*", False, False),
        ("a.*", "a.x-*", True, True),
        ("a.b.c", "a.*", False, False),
        ("a", "a.*", False, False),
        ("a.*.c", "a.b", False, False),
    ],
)
def test_patterns_and_forms(pattern: str, form: str, covered: bool, overlapping: bool) -> None:
    assert covers(pattern, form) is covered
    assert overlaps(pattern, form) is overlapping
