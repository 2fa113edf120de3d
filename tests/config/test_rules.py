"""Cross checks: one row for each rule, with the place and the first words."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.destinations import literal_beginning, subject_problem, topic_problem
from tests.canaries import SECRET
from tests.config.conftest import Load, Problems

S = SECRET
NATS_ONLY = 'routes: [{name: a, events: ["*"], targets: [{broker: bus, subject: x}]}]\n'


def target(body: str) -> str:
    return f'routes: [{{name: a, events: ["*"], targets: [{body}]}}]'


def route(body: str) -> str:
    return f"routes: [{{name: a, {body}, targets: [{{broker: events, topic: x}}]}}]"


def bus(body: str) -> str:
    return f"{NATS_ONLY}brokers: {{bus: {{kind: nats, servers: [a], {body}}}}}"


def allow_from(entries: str) -> str:
    return f"sources: {{clerk: {{secrets: [{S}], allow_from: [{entries}]}}}}"


ERRORS = [
    # Targets and their brokers.
    (target("{broker: ‸evnts, topic: x}"), 'broker: no broker is called "evnts"; did you mean ev'),
    (target("{broker: ‸zzz, topic: x}"), 'broker: no broker is called "zzz"; there is events, bus'),
    (target("‸{broker: events}"), "topic is missing: events is Kafka; add topic"),
    (target("‸{broker: bus}"), "subject is missing: bus is NATS; add subject"),
    (
        target("{broker: events, subject: ‸x}"),
        "subject: events is Kafka, which has no subjects; write topic",
    ),
    (target("{broker: bus, topic: ‸x}"), "topic: bus is NATS, which has no topics; write subject"),
    (
        target("{broker: bus, topic: ‸x, subject: x}"),
        "topic: bus is NATS, which has no topics; remove it",
    ),
    (
        target("{broker: events, topic: x, redact: ‸[data.x]}"),
        "redact: not with payload: original",
    ),
    # Destinations.
    (target("{broker: events, topic: ‸a b}"), "topic: a topic is made of letters, digits, dots"),
    (target("{broker: events, topic: ‸.}"), "topic: a topic cannot be called . or .."),
    (target("{broker: events, topic: ‸..}"), "topic: a topic cannot be called . or .."),
    (target("{broker: events, topic: ‸__x}"), "topic: topics that begin with __ are Kafka's own"),
    (target(f"{{broker: events, topic: ‸{'x' * 250}}}"), "topic: a topic has at most 249 char"),
    (target('{broker: events, topic: ‸"a.b}}"}'), "topic: a topic is made of letters"),
    (target('{broker: events, topic: ‸"{type}"}'), "topic: what stands before the first { must no"),
    (target('{broker: events, topic: ‸"a{type}"}'), "topic: what stands before the first { must e"),
    (target('{broker: events, topic: ‸"__a.{x}"}'), "topic: topics that begin with __"),
    (target('{broker: events, topic: ‸"a b.{x}"}'), "topic: a topic is made of letters"),
    (target('{broker: bus, subject: ‸"a b"}'), "subject: a subject has no spaces"),
    (target("{broker: bus, subject: ‸a..b}"), "subject: a subject has no empty token"),
    (target("{broker: bus, subject: ‸.a}"), "subject: a subject has no empty token"),
    (target("{broker: bus, subject: ‸a.}"), "subject: a subject cannot end in a dot"),
    (target("{broker: bus, subject: ‸a.*}"), "subject: * and > are for those who subscribe"),
    (target('{broker: bus, subject: ‸"a.>"}'), "subject: * and > are for those who subscribe"),
    (target("{broker: bus, subject: ‸$JS.x}"), "subject: subjects that begin with $ or _INBOX"),
    (target("{broker: bus, subject: ‸_INBOX.x}"), "subject: subjects that begin with $ or _INBOX"),
    (target(f"{{broker: bus, subject: ‸{'x' * 901}}}"), "subject: a subject has at most 900"),
    (target('{broker: bus, subject: ‸"{type}"}'), "subject: what stands before the first { must n"),
    (target('{broker: bus, subject: ‸"a.*.{x}"}'), "subject: * and > are for those"),
    (target('{broker: bus, subject: ‸"_INBOX.{x}"}'), "subject: subjects that begin with $"),
    # Extra headers.
    *(
        (
            target(f"{{broker: events, topic: x, headers: {{{name}: ‸x}}}}"),
            f'headers: "{name}" is set by the gateway itself',
        )
        for name in (
            "ce_id",
            "CE-type",
            "Svix-Id",
            "webhook-id",
            "Gateway-x",
            "Content-Type",
            "traceparent",
            "TraceState",
            "Nats-Msg-Id",
        )
    ),
    (
        target("{broker: events, topic: x, headers: {a b: ‸x}}"),
        'headers: "a b" is no header name',
    ),
    # Routes.
    (
        "routes:\n"
        "  - {name: a, events: [user.created], targets: [{broker: events, topic: x}]}\n"
        "  - {name: ‸a, events: [user.deleted], targets: [{broker: events, topic: x}]}",
        'name: another route is called "a" (line 2 column 12); give each its own',
    ),
    (
        route('events: ["*"], sources: [‸clrk]'),
        'sources[0]: no source is called "clrk"; did you mean clerk?',
    ),
    (route('events: ["*"], sources: [‸zzz]'), 'sources[0]: no source is called "zzz"; there is cl'),
    (route('events: ["*"], sources: ‸[]'), "sources: the list is empty, so the route takes noth"),
    (route('events: [‸"user*"]'), 'events[0]: "user*" is no pattern; write a whole type, prefix.*'),
    (route('events: [‸"*.created"]'), 'events[0]: "*.created" is no pattern'),
    (route('events: [‸"**"]'), 'events[0]: "**" is no pattern'),
    (route('events: [‸".*"]'), 'events[0]: ".*" is no pattern'),
    (route('events: [a, ‸"a.*.*"]'), 'events[1]: "a.*.*" is no pattern'),
    (route('events: ["*"], exclude: [‸"a*"]'), 'exclude[0]: "a*" is no pattern'),
    ("routes: [{name: a, events: [user.created], targets: ‸[]}]", "targets: none; add a broker"),
    # Sources.
    (
        f"sources:\n  a: {{path: /x, secrets: [{S}]}}\n  b: {{path: ‸/x, secrets: [{S}]}}\n"
        + route('events: ["*"], sources: [a]'),
        "path: the source a has the same one (line 2 column 13); give each its own",
    ),
    ("sources: ‸{}", "no source; add one"),
    # Brokers.
    (
        "brokers: {events: ‸{kind: kafka}}",
        'servers: none; write servers: ["localhost:9092"]',
    ),
    ("brokers: {events: {kind: kafka, servers: ‸[]}}", "servers: none; write servers:"),
    (
        f"{NATS_ONLY}brokers: {{bus: ‸{{kind: nats}}}}",
        'servers: none; write servers: ["nats://localhost:4222"]',
    ),
    (
        'brokers: {events: {kind: kafka, servers: [a, ‸"kafka://b:1"]}}',
        "servers[1]: Kafka takes host:port, without a scheme",
    ),
    (
        "brokers: {events: {kind: kafka, servers: [‸'a:1,b:1']}}",
        "servers[0]: Kafka takes host:port",
    ),
    ("brokers: {events: {kind: kafka, servers: [‸a:x]}}", "servers[0]: Kafka takes host:port"),
    (
        f"{NATS_ONLY}brokers: {{bus: {{kind: nats, servers: [‸http://h]}}}}",
        "servers[0]: NATS takes nats://host:port, tls://, ws:// or wss://",
    ),
    (
        "brokers: {events: {kind: kafka, servers: [a], tls: {cert_file: ‸x}}}",
        "cert_file: needs its key; add key_file",
    ),
    (
        "brokers: {events: {kind: kafka, servers: [a], tls: {key_file: ‸x}}}",
        "key_file: needs its certificate; add cert_file",
    ),
    (bus("tls: {cert_file: ‸x}"), "cert_file: needs its key"),
    (
        bus("credentials_file: x, token: ‸yy"),
        "token: credentials_file is set as well; log in one w",
    ),
    (
        bus("nkey_seed_file: x, username: ‸yy, password: z"),
        "username: nkey_seed_file is set as wel",
    ),
    (bus("username: ‸yy"), "username: needs its password; add password"),
    (bus("password: ‸yy"), "password: needs its user; add username"),
    (bus("jetstream: false, streams: ‸[{name: A, subjects: [x]}]"), "streams: need jetstream: tru"),
    (
        bus("streams: [{name: A, subjects: [x]}, {name: ‸A, subjects: [yy]}]"),
        'name: another stream is called "A" (line 2 column',
    ),
    (
        bus("streams: [{name: A, subjects: [x], max_age: ‸1m}]"),
        "max_age: shorter than duplicate_window (2m), which NATS refuses; set duplicate_window: 1m",
    ),
    (
        f'{NATS_ONLY}brokers: {{bus: {{kind: nats, servers: [‸"nats://u:p@h:1"]}}}}',
        "servers[0]: a login in a URL ends up in logs; use username and password",
    ),
    # Addresses.
    (
        'server: {trusted_proxies: [192.0.2.1, ‸"10.0.0.1/8"]}',
        'trusted_proxies[1]: "10.0.0.1/8" is an address with the prefix of a network; write'
        " 10.0.0.0/8 for the network, or 10.0.0.1 for the one address",
    ),
    (
        allow_from('svix, ‸"2001:db8::1/32"'),
        'allow_from[1]: "2001:db8::1/32" is an address with the prefix of a network; write'
        " 2001:db8::/32 for the network, or 2001:db8::1 for the one address",
    ),
    ("server: {trusted_proxies: [‸svix]}", "trusted_proxies[0]: expected a CIDR such as 10.0.0.0"),
    (
        'server: {trusted_proxies: [‸"fe80::%eth0/10"]}',
        "trusted_proxies[0]: expected a CIDR such as 10.0.0.0",
    ),
    *(
        (
            allow_from(f'‸"{entry}"'),
            "allow_from[0]: expected a CIDR such as 10.0.0.0/8, one IP address, or a name for"
            f" the addresses of Svix; {words}",
        )
        for entry, words in (
            ("svix:us-eest", "did you mean svix:us-east?"),
            ("SVIX:EU", "did you mean svix:eu?"),
            ("svx", "did you mean svix?"),
            ("svix:", "did you mean svix"),
            ("example.com", "names are svix, svix:us, svix:us-east, svix:eu, svix:au, svix:ca"),
        )
    ),
    # Server and admin.
    ("admin: {host: ‸0.0.0.0}", "host: the admin port is open to other machines only with a token"),
    ('admin: {host: ‸"::"}', "host: the admin port is open to other machines"),
    ("admin: {host: ‸example.com}", "host: the admin port is open to other machines"),
    ('admin: {host: ‸"::ffff:0.0.0.0"}', "host: the admin port is open to other machines"),
    ('admin: {host: ‸"127.1"}', "host: the admin port is open to other machines"),
    ('admin: {host: ‸""}', "host: must not be empty"),
    *(
        (f"admin: {{token: ‸{token}}}", "token: admin.token has at least 16 characters, visible")
        for token in ("abc", "x" * 15, '"            16  "', "é" * 20, '"x\\ny0123456789abcdef"')
    ),
    ("admin: {port: ‸8080}", "port: server.port is the same"),
    # Delivery.
    ("unmatched: ‸dead_letter", "unmatched: dead_letter needs a place to put them; add delivery.d"),
    (
        "delivery: {ledger: {store: ‸nats-kv}}",
        "store: nats-kv needs a NATS broker; add broker",
    ),
    (
        "delivery: {ledger: {store: nats-kv, broker: ‸evnts}}",
        'broker: no broker is called "evnts"; did you mean events?',
    ),
    (
        "delivery: {ledger: {store: nats-kv, broker: ‸events}}",
        "broker: the ledger needs one of kind nats with jetstream: true",
    ),
    (
        f"delivery: {{mode: inbox, inbox: {{path: ‸{'x' * 96}}}}}",
        "path: 101 bytes with .sock behind it",
    ),
    (
        "delivery: {mode: inbox, inbox: ‸{store: jetstream}}",
        "inbox: store: jetstream needs broker, a NATS broker; there is bus",
    ),
    (
        "delivery: {mode: inbox, inbox: {store: jetstream, broker: ‸bsu}}",
        'broker: no broker is called "bsu"; did you mean bus?',
    ),
    (
        "delivery: {mode: inbox, inbox: {store: jetstream, broker: ‸zzz}}",
        'broker: no broker is called "zzz"; there is bus',
    ),
    (
        "delivery: {mode: inbox, inbox: {store: jetstream, broker: ‸events}}",
        "broker: events is Kafka; store: jetstream needs a NATS broker, there is bus",
    ),
    (
        bus("jetstream: false")
        + "\ndelivery: {mode: inbox, inbox: {store: jetstream, broker: ‸bus}}",
        "broker: bus is core NATS; write jetstream: true there",
    ),
    *(
        (
            target(f"{{broker: bus, subject: ‸'{subject}'}}")
            + "\ndelivery: {mode: inbox, inbox: {store: jetstream, broker: bus}}",
            "subject: GATEWAY_INBOX and all below it is the inbox's own; write another",
        )
        for subject in ("GATEWAY_INBOX", "GATEWAY_INBOX.x", "GATEWAY_INBOX.{type}")
    ),
    (
        "delivery: {mode: inbox, inbox: {store: jetstream, broker: bus, stream: MINE},"
        " dead_letter: {broker: bus, subject: ‸MINE.a}}",
        "subject: MINE and all below it is the inbox's own",
    ),
    (
        "delivery: {dead_letter: {broker: ‸evnts, topic: x}}",
        'broker: no broker is called "evnts"; did you mean events?',
    ),
    (
        "delivery: {dead_letter: ‸{broker: events}}",
        "topic is missing: events is Kafka; add topic",
    ),
    (
        "delivery: {dead_letter: {broker: bus, topic: ‸x}}",
        "topic: bus is NATS, which has no topics",
    ),
    ("delivery: {dead_letter: {broker: events, topic: ‸a b}}", "topic: a topic is made of letters"),
    ("delivery: {dead_letter: {broker: bus, subject: ‸a.*}}", "subject: * and > are for those"),
    (
        'delivery: {dead_letter: {broker: events, topic: ‸"a.{type}"}}',
        "topic: must be a literal name, without placeholders",
    ),
    (
        "delivery: {dead_letter: {broker: events, topic: dl}}\n"
        + target("{broker: events, topic: ‸dl}"),
        "topic: this is the dead letter's own; write another",
    ),
    (
        "delivery: {dead_letter: {broker: events, topic: dl}}\n"
        + target("{broker: events, topic: ‸dl.state}"),
        "topic: this is the dead letter's own; write another",
    ),
    # Equal destinations.
    *(
        (
            "routes:\n"
            "  - {name: a, events: [user.created], targets: [{broker: events, topic: x}]}\n"
            "  - {name: b, events: [user.deleted], targets:"
            f" [‸{{broker: events, topic: x, {difference}}}]}}",
            "this target (line 3 column 49) and the one at line 2 column 49 have the same"
            f" destination and not the same {words};",
        )
        for difference, words in (
            ("payload: data", "payload"),
            ("payload: data, redact: [data.x]", "payload, redact"),
            ('key: "{data.id}"', "key"),
            ("headers: {x-a: b}", "headers"),
        )
    ),
]

TWO_SOURCES = f"sources:\n  a: {{path: /a, secrets: [{S}]}}\n  b: {{path: /b, secrets: [{S}]}}\n"

WARNINGS = [
    (
        NATS_ONLY + "brokers: {bus: {kind: nats, servers: [a], max_in_flight: ‸4096}}",
        "max_in_flight: 4096 events that wait for a slow broker would hold every connection",
    ),
    (
        TWO_SOURCES
        + 'routes:\n  - ‸{name: r, events: ["*"], targets: [{broker: bus, subject: x}]}',
        'the route "r" takes the events of every source; write sources: [a, b] with those you mean',
    ),
    (
        route("events: [‸user.craeted]"),
        'events[0]: Clerk is not known to send "user.craeted", did you mean user.created?',
    ),
    (
        route("events: [‸organisation.*]"),
        'events[0]: Clerk is not known to send "organisation.*", did you mean organization.*?',
    ),
    (route('events: ["*"], exclude: [‸user.delete]'), "exclude[0]: Clerk is not known to send"),
    (
        route("""events: ["*"], when: ‸"!data.public_metadata.x && data.id" """),
        "when: `!data.public_metadata.x` means `(!data).public_metadata.x` to JMESPath; write"
        " `!(data.public_metadata.x)`",
    ),
    (
        route("""events: ["*"], when: ‸"data.id && ! data.x" """),
        "when: `!data.x` means `(!data).x`",
    ),
    (
        target('{broker: events, topic: ‸"x.{data.unsafe_metadata.tenant}"}'),
        "topic: end users write unsafe_metadata",
    ),
    (
        target('{broker: bus, subject: ‸"x.{data.unsafe_metadata.tenant}"}'),
        "subject: end users write unsafe_metadata",
    ),
    ("routes: ‸[]", "no route: every event is unmatched; add one"),
    ("server: {deadline: ‸15s}", "deadline: 15s is longer than Svix waits (15s)"),
    ("server: {header_timeout: ‸11s}", "header_timeout: 11s is longer than the deadline of 10s"),
    ("server: {body_timeout: ‸500m}", "body_timeout: 500m is longer than the deadline of 10s"),
    (
        "delivery: {dead_letter: {broker: events, topic: dl}}\n"
        + target("{broker: events, topic: x, payload: data, redact: ‸[data.x]}"),
        "redact: a dead letter of this target holds the whole body",
    ),
    (
        'server: {trusted_proxies: ‸["0.0.0.0/0"]}',
        "trusted_proxies: every IPv4 address is believed, so whoever connects may write a sender's"
        " address of his choice; name the proxies alone",
    ),
    ('server: {trusted_proxies: ‸["::ffff:0:0/96"]}', "trusted_proxies: every IPv4 address is bel"),
    (
        'server: {trusted_proxies: ‸["0.0.0.0/1", "128.0.0.0/1", "::/0"]}',
        "trusted_proxies: every IPv4 and IPv6 address is believed",
    ),
    (
        "server: {trusted_proxies: [10.0.0.0/8]}\n" + allow_from("svix, ‸10.1.0.0/16"),
        "allow_from[1]: these are trusted proxies, which are never the sender",
    ),
    (
        "server: {host: 127.0.0.1}\n" + allow_from("").replace("[]", "‸[svix]"),
        "allow_from: the server listens on this machine only",
    ),
    ("delivery: {ledger: {broker: ‸bus}}", "broker: has no effect with store: memory; remove it"),
    ("delivery: {ledger: {store: memory, bucket: ‸B}}", "bucket: has no effect with store: memory"),
    ("delivery: {inbox: ‸{store: sqlite}}", "inbox: has no effect with mode: direct"),
    (
        "delivery: {mode: inbox, ledger: ‸{incomplete_for: 1h}}",
        "ledger: has no effect with mode: inbox",
    ),
    (
        "delivery: {mode: inbox, inbox: {max_bytes: ‸519KiB}}",
        "max_bytes: an event of server.max_body with its headers (520KiB) would never fit",
    ),
    (
        "delivery: {mode: inbox, inbox: {broker: ‸bus}}",
        "broker: has no effect with store: sqlite; remove it",
    ),
    (
        "delivery: {mode: inbox, inbox: {stream: ‸MINE}}",
        "stream: has no effect with store: sqlite; remove it",
    ),
    (
        "delivery: {mode: inbox, inbox: {store: jetstream, broker: bus, path: ‸./x}}",
        "path: has no effect with store: jetstream; remove it",
    ),
]


@pytest.mark.parametrize(("text", "begins"), ERRORS, ids=[begins for _, begins in ERRORS])
def test_an_error_is_told_once_and_at_its_place(
    text: str, begins: str, assert_told: Callable[..., None]
) -> None:
    assert_told(text, begins)


@pytest.mark.parametrize(("text", "begins"), WARNINGS, ids=[begins for _, begins in WARNINGS])
def test_a_warning_is_told_once_and_at_its_place(
    text: str, begins: str, assert_told: Callable[..., None]
) -> None:
    assert_told(text, begins, "warning")


RIGHT = [
    target('{broker: bus, subject: "x.{type}", key: "{data.id}"}'),
    target("{broker: events, topic: x, payload: cloudevents, redact: [data.private_metadata]}"),
    target('{broker: events, topic: "a-{type}"}, {broker: events, topic: "a_{data.id}.x"}'),
    # Equal renderings of one destination, and different ones of templates, are both fine.
    target("{broker: events, topic: x}, {broker: events, topic: x}"),
    target('{broker: events, topic: "x.{y}"}, {broker: events, topic: "x.{y}", payload: data}'),
    target("{broker: events, topic: x}, {broker: bus, subject: x, payload: data}"),
    target("{broker: events, topic: x, headers: {x-tenant: a, cell: b, service: c}}"),
    route('events: [something.new, user.created, "tomorrow.*", "*"], exclude: ["user.*"]'),
    route("""events: ["*"], when: "!(data.x) && data.y != 'z' && !data" """),
    TWO_SOURCES + route('events: ["*"], sources: [a, b]'),
    "admin: {host: 0.0.0.0, token: 0123456789abcdef}",
    'admin: {token: ""}',
    'admin: {host: "::ffff:127.0.0.1"}',
    'admin: {host: "::1"}',
    "admin: {host: 127.0.0.2}",
    "admin: {host: localhost}",
    "server: {port: 0}\nadmin: {port: 0}",
    "server: {deadline: 14s}",
    f"sources: {{clerk: {{secrets: [{S}], allow_from: [10.0.0.0/8]}}}}",
    allow_from('svix, "svix:us-east", 192.0.2.7, "::ffff:10.0.0.0/104", "fe80::/10"'),
    "server: {trusted_proxies: [10.0.0.0/8, 192.0.2.1]}\n" + allow_from("10.0.0.0/7, svix"),
    "server: {host: 127.0.0.1, trusted_proxies: [127.0.0.1]}\n" + allow_from("svix"),
    "server: {host: localhost}\n" + allow_from("127.0.0.0/8"),
    'server: {host: "::1"}\n' + allow_from('"::1"'),
    bus("username: u, password: p"),
    "brokers: {events: {kind: kafka, servers: [a, b_c:9092, 'my-host.example:1', '[::1]:9092']}}",
    f"{NATS_ONLY}brokers: {{bus: {{kind: nats, servers: [a, 'tls://b:4222', 'ws://[::1]:80/x']}}}}",
    bus("credentials_file: x, tls: {ca_file: a, cert_file: b, key_file: c}"),
    bus("streams: [{name: A, subjects: [x], max_age: 1m, duplicate_window: 1m}]"),
    "unmatched: dead_letter\ndelivery: {dead_letter: {broker: bus, subject: dl}}",
    "delivery: {dead_letter: {broker: events, topic: dl, unredacted: true}}\n"
    + target("{broker: events, topic: x, payload: data, redact: [data.x]}"),
    "delivery: {mode: direct}",
    bus("max_in_flight: 4095"),
    "server: {max_connections: 1001}",
]


@pytest.mark.parametrize("text", RIGHT)
def test_what_is_right_is_left_alone(text: str, problems: Problems) -> None:
    assert problems(text) == ()


def test_a_broker_may_be_without_servers_when_the_embedded_one_stands_in(load: Load) -> None:
    text = f"{NATS_ONLY}brokers: {{bus: {{kind: nats}}}}"
    assert load(text, allow_missing_servers=True).config.brokers["bus"].servers == ()


def test_no_broker_at_all_is_told_beside_the_targets_that_want_one(problems: Problems) -> None:
    messages = [problem.message for problem in problems("brokers: {}")]
    assert messages == [
        "no broker; add one of kind kafka or nats",
        'broker: no broker is called "events"; there is none',
    ]


@pytest.mark.parametrize(
    ("template", "beginning", "whole"),
    [
        ("a.b", "a.b", True),
        ("", "", True),
        ("a.{x}.b", "a.", False),
        ("{x}", "", False),
        ("a{{b}}c", "a{b}c", True),
        ("a{{{x}", "a{", False),
        ("a}b", "a}b", True),
    ],
)
def test_the_literal_beginning_ends_at_the_first_placeholder(
    template: str, beginning: str, whole: bool
) -> None:
    assert literal_beginning(template) == (beginning, whole)


def test_the_longest_legal_names_are_taken() -> None:
    assert topic_problem("x" * 249) is None
    assert subject_problem("x" * 900) is None
    assert topic_problem("a.B_9-") is None
    assert subject_problem("a.B_9-.é") is None
