"""Config files of the contract's tests, with the places that a message must name marked in them."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from tests.canaries import SECRET
from tests.commands.command import Done, gateway

Places = dict[str, tuple[int, int]]
_MARK = re.compile(r"«([a-z0-9-]+)»")


ENVIRONMENT = {
    **{
        name: value for name, value in os.environ.items() if name not in {"UNSET", "CONTRACT_EMPTY"}
    },
    "CONTRACT_SECRET": SECRET,
    "CONTRACT_SET": "set",
    "CONTRACT_EMPTY": "",
}
SOURCES = {
    "clerk": {"secrets": ["${CONTRACT_SECRET}"]},
    "other": {"kind": "svix", "path": "/other", "type": "what", "secrets": ["${CONTRACT_SECRET}"]},
}
AWAY = ("127.0.0.1:1", "nats://127.0.0.1:1")
"""Servers that no command of these tests is to reach."""


def run(directory: Path, *arguments: object, piped: str = "") -> Done:
    """Run a command in a directory, with the variables that the files name."""
    return gateway(*arguments, cwd=directory, env=ENVIRONMENT, piped=piped)


def write(directory: Path, config: dict[str, Any]) -> Path:
    """Write a config with both sources."""
    path = directory / "config.yaml"
    path.write_text(json.dumps({"sources": SOURCES, **config}, indent=1))
    return path


def unmarked(text: str) -> tuple[str, Places]:
    """Take the marks out of a text, and give line and column of what stood behind each."""
    places: Places = {}
    while mark := _MARK.search(text):
        before = text[: mark.start()]
        line = before.count("\n") + 1
        assert mark[1] not in places, mark[1]
        places[mark[1]] = (line, mark.start() - (before.rfind("\n") + 1) + 1)
        text = before + text[mark.end() :]
    return text, places


FAULTY = """\
server: {port: 8080, «unknown-key»prot: 1}
log: {format: «on»on, level: «yes»yes}
sources:
  clerk:
    secrets: ["${CONTRACT_SECRET}", "«unset»${UNSET}", "«demanded»${UNSET:?ask the platform team}"]
  other:
    kind: svix
    path: /other
    «duplicate-key»path: /again
    secrets: ["«no-file»${file:/nowhere/secret}"]
brokers:
  events: {kind: kafka, servers: ["localhost:9092"]}
  bus: {kind: nats, servers: ["nats://localhost:4222"]}
unmatched: «no-policy»maybe
delivery: {dedupe: {window: «no-unit»120}}
routes:
  - name: users
    events: ["user.*"]
    sources: [clerk]
    targets:
      - {broker: events, topic: clerk.users}
      - «other-key»{broker: events, topic: clerk.users, key: "{data.id}"}
      - {broker: bus, subject: clerk.users}
      - «other-payload»{broker: bus, subject: clerk.users, payload: data}
      - {broker: bus, subject: clerk.data, payload: data}
      - «other-headers»{broker: bus, subject: clerk.data, payload: data, headers: {x-a: b}}
      - {broker: bus, subject: clerk.less, payload: data}
      - «other-redact»{broker: bus, subject: clerk.less, payload: data, redact: [data.id]}
  - name: faults
    events: [«no-pattern»"*.created"]
    sources: [«no-source»nobody]
    when: "data.[«no-expression»"
    targets:
      - {broker: «no-broker»evnts, topic: clerk.a}
      - {broker: events, topic: «bare»"{data.id}"}
      - {broker: events, topic: «no-end»"clerk{data.id}"}
      - {broker: bus, subject: «dollar»"$JS.clerk"}
      - {broker: bus, subject: «inbox»"_INBOX.{type}"}
      - {broker: bus, topic: «topic-of-nats»clerk.b}
      - {broker: events, subject: «subject-of-kafka»clerk.c}
      - {broker: events, topic: clerk.d, redact: «redact»[data.private_metadata]}
      - {broker: events, topic: clerk.e, «misspelt-key»paylod: data}
  - name: «same-name»users
    events: ["role.*"]
    sources: [clerk]
    targets: [{broker: events, topic: clerk.f}]
"""

FAULTS = {
    "unknown-key": ('unknown key "prot"', 'did you mean "port"?'),
    "on": ("on is a boolean", 'write true, or "on" for text'),
    "yes": ("yes is a boolean", 'write true, or "yes" for text'),
    "unset": ("UNSET is not set", "set it, or write ${UNSET:-default}"),
    "demanded": ("UNSET is not set", "ask the platform team"),
    "duplicate-key": ('"path" is here twice', "first on line 8 column 5; remove one"),
    "no-file": ("/nowhere/secret cannot be read", "No such file"),
    "no-policy": ("unmatched", "expected accept, dead_letter or reject"),
    "no-unit": ("window: expected a duration with its unit", "write 10s"),
    "other-key": ("the same destination and not the same key", "make them equal, or give one"),
    "other-payload": (
        "the same destination and not the same payload",
        "make them equal, or give one",
    ),
    "other-headers": (
        "the same destination and not the same headers",
        "make them equal, or give one",
    ),
    "other-redact": (
        "the same destination and not the same redact",
        "make them equal, or give one",
    ),
    "no-pattern": ('"*.created" is no pattern', "write a whole type, prefix.*, or *"),
    "no-source": ('no source is called "nobody"', "there is clerk, other"),
    "no-expression": ("not a JMESPath expression", "ends too early"),
    "no-broker": ('no broker is called "evnts"', "did you mean events?"),
    "bare": ("before the first { must not be empty", "write clerk.{type}"),
    "no-end": ("before the first { must end in . - or _", "write clerk.{type}"),
    "dollar": ("begin with $ or _INBOX", "choose another name"),
    "inbox": ("begin with $ or _INBOX", "choose another name"),
    "topic-of-nats": ("bus is NATS, which has no topics", "write subject"),
    "subject-of-kafka": ("events is Kafka, which has no subjects", "write topic"),
    "redact": ("not with payload: original", "write payload: data"),
    "misspelt-key": ('unknown key "paylod"', 'did you mean "payload"?'),
    "same-name": ('another route is called "users"', "give each its own"),
}
"""What is wrong and what would be right, by the mark of the place."""

ODD = """\
server: {deadline: «slow»14500ms}
sources:
  clerk: {secrets: ["${CONTRACT_SECRET}"]}
  other: {kind: svix, path: /other, secrets: ["${CONTRACT_SECRET}"]}
brokers:
  events: {kind: kafka, servers: ["localhost:9092"]}
routes:
  «unrouted»- name: users
    events: ["user.*"]
    sources: [clerk]
    targets: [{broker: events, topic: clerk.users}]
  - «duplicate»name: twin
    events: ["user.*"]
    sources: [clerk]
    targets: [{broker: events, topic: clerk.users}]
  - «shadowed»name: narrower
    events: ["user.created"]
    sources: [clerk]
    targets: [{broker: events, topic: clerk.users}]
  - name: never
    events: ["session.*"]
    sources: [clerk]
    when: "data.«never»status == 'actve'"
    targets: [{broker: events, topic: clerk.sessions}]
  - name: excluded
    events: ["role.*"]
    exclude: «excluded»["*"]
    sources: [clerk]
    targets: [{broker: events, topic: clerk.roles}]
  - name: unknown
    events: ["user.*"]
    sources: [clerk]
    when: "data.«unknown»emial"
    targets: [{broker: events, topic: clerk.mail}]
  - name: keys
    events: ["organizationMembership.*"]
    sources: [clerk]
    targets:
      - {broker: events, topic: clerk.members, key: "{«empty-key»data.public_user_data.user_id}"}
  - name: misspelt
    events: [«misspelt»"usr.created", "nobody.knows"]
    sources: [clerk]
    targets: [{broker: events, topic: clerk.misspelt}]
  - name: not
    events: ["user.*"]
    sources: [clerk]
    when: «not»"!data.banned || data.locked"
    targets: [{broker: events, topic: «unsafe»"clerk.{data.unsafe_metadata.x || 'none'}"}]
  - «every-source»name: anybody
    events: ["permission.*"]
    targets:
      - {broker: events, topic: clerk.permissions, payload: data, redact: «unredacted»[data.name]}
delivery:
  dead_letter: {broker: events, topic: clerk.dead}
"""

WARNINGS = {
    "slow": ("longer than Svix waits", "write at most 14s"),
    "duplicate": ('the same as the route "users" (line 8 column 5)', "remove one"),
    "shadowed": ("this route adds nothing", "remove it, or give it another destination"),
    "never": ("data.status is never 'actve'", "did you mean 'active'?"),
    "excluded": ("the route never matches", "take the entry out"),
    "unknown": ("have no data.emial", "did you mean data.email_addresses?"),
    "empty-key": ("may be null or empty", "write {data.public_user_data.user_id || data.id}"),
    "unsafe": ("end users write unsafe_metadata", "use public_metadata"),
    "misspelt": ('is not known to send "usr.created"', "did you mean user.created?"),
    "not": ("`!data.banned` means `(!data).banned`", "write `!(data.banned)`"),
    "every-source": ("takes the events of every source", "write sources: [clerk, other]"),
    "unredacted": ("holds the whole body", "write delivery.dead_letter.unredacted: true"),
}


def table(kafka: str, nats: str, name: str) -> dict[str, Any]:
    """Give a table in which one event meets every rule of the contract about destinations."""

    def route(name: str, *targets: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {
            "name": name,
            "events": ["user.*"],
            "sources": ["clerk"],
            **more,
            "targets": targets,
        }

    def bus(subject: str, **more: Any) -> dict[str, Any]:
        return {"broker": "bus", "subject": f"{name}.{subject}", **more}

    def events(**more: Any) -> dict[str, Any]:
        return {"broker": "events", "topic": name, **more}

    odd = {
        "x-line": "{data.line}",
        "x-names": "{source}/{route}/{svix_id}",
        "x-type": "{type}",
        "x-set": "${CONTRACT_SET}",
        "x-default": "${CONTRACT_EMPTY:-else}",
        "x-demanded": "${CONTRACT_SET:?no}",
        "x-dollar": "$$5",
    }
    return {
        "brokers": {
            "events": {"kind": "kafka", "servers": [kafka]},
            "bus": {"kind": "nats", "servers": [nats]},
        },
        "routes": [
            route("first", bus("shared"), events=["*"]),
            route("second", bus("shared")),
            route("third", bus("shared"), events=["user.created"]),
            route("type", bus("{type}")),
            route("odd", events(key="{data.odd}", headers=odd)),
            route("empty-key", bus("empty-key", key="{data.empty}")),
            route("one", bus("run.{data.same}", headers={"x-of": "one"})),
            route("two", bus("run.{data.twin}", headers={"x-of": "two"})),
            route("data", bus("data", payload="data", redact=["data.line", "data.list.secret"])),
            route("structured", bus("structured", payload="cloudevents", redact=["data.line"])),
            route("true", bus("true"), when="data.number > `1`"),
            route("false", bus("false"), when="data.number > `9`"),
            route("excluded", bus("excluded"), exclude=["user.created"]),
            route("sessions", bus("sessions"), events=["session.*"]),
            route("others", bus("others"), sources=["other"]),
            route("raises", bus("raises"), when="length(data.number) > `1`"),
            route("null", bus("not.{data.missing}")),
            route("empty", bus("not.{data.empty}")),
            route("list", bus("not.{data.list}")),
            route("object", bus("not.{data.object}")),
            route("literal", bus("{data.shared}")),
            route("letter", bus("{data.letter}")),
            *(route(f"value-{at}", bus(f"value-{at}.{{data.values[{at}]}}")) for at in range(7)),
        ],
        "delivery": {
            "dead_letter": {"broker": "bus", "subject": f"{name}.dead", "unredacted": True}
        },
    }


LONG = "l" * 200
BODY: dict[str, Any] = {
    "type": "user.created",
    "object": "event",
    "timestamp": 1_700_000_000_123,
    "source": "forged",
    "route": "forged",
    "svix_id": "forged",
    "data": {
        "id": "user_1",
        "odd": "ü */ .\n",
        "line": "a\r\nb\u0000c",
        "number": 7,
        "empty": "",
        "list": [{"secret": 1, "open": 2}],
        "object": {"a": 1},
        "same": "same",
        "twin": "same",
        "shared": "shared",
        "letter": "dead",
        "values": ["user_29w83", "pro.plus", "pro_plus", "*", 7, LONG, LONG + "l"],
    },
}
