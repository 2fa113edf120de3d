"""What does not fit its field: each with its place, and words that help."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.config import validation
from gateway.config.names import Suggester, name_of
from tests.canaries import SECRET
from tests.config.conftest import Load, Problems

S = SECRET

CASES = [
    # Unknown keys.
    ("server: {‸prot: 1}", 'unknown key "prot", did you mean "port"?'),
    ("server: {‸max-body: 1KiB}", 'unknown key "max-body", did you mean "max_body"?'),
    ("‸sever: {port: 1}", 'unknown key "sever", did you mean "server"?'),
    (
        "headers: {‸zzz: 1}",
        'unknown key "zzz"; here can be signature',
    ),
    (
        "brokers: {events: {kind: kafka, servers: [a], ‸jetstream: true}}",
        'unknown key "jetstream"; here can be kind, servers, tls',
    ),
    (
        "brokers:\n  events: {kind: kafka, servers: [a], tls: {‸ca_fil: x}}",
        'unknown key "ca_fil", did you mean "ca_file"?',
    ),
    # Missing keys: where the mapping is that should have them.
    ("sources: {clerk: ‸{path: /x}}", "secrets is missing; add it: the signing secrets"),
    ("sources:\n  clerk:\n    ‸path: /x", "secrets is missing"),
    ("brokers: {events: ‸{servers: [a]}}", "events: kind is missing; write kind: kafka or kind:"),
    (
        "brokers: {events: {kind: kafka, servers: [a], sasl: ‸{mechanism: PLAIN, username: x}}}",
        "password is missing; add it: the password, or the API secret",
    ),
    (
        "routes:\n  - ‸name: a\n    targets: [{broker: events, topic: x}]",
        "events is missing; add it: the event types",
    ),
    # Wrong kinds of values.
    ("server: {port: ‸x}", "port: expected a whole number, got text"),
    (
        'server: {port: ‸"8080"}',
        "port: expected a whole number, got text; write it without quotes and leading zeros",
    ),
    ("server: {port: ‸010}", "port: expected a whole number, got text; write it without"),
    ("server: {port: ‸1.5}", "port: expected a whole number, got a number"),
    ("server: {port: ‸true}", "port: expected a whole number, got true or false"),
    ("server: {port:‸ }", "port: expected a whole number, got nothing"),
    ("server: {port: ‸[1]}", "port: expected a whole number, got a list"),
    ("server: {host: ‸1}", "host: expected text, got a number; put it in quotes"),
    ("server: {host: ‸{}}", "host: expected text, got a mapping"),
    ("log: {sample: ‸x}", "sample: expected a number, got text"),
    (
        'headers: {signature: ‸"false"}',
        "signature: expected true or false, got text; write it without quotes",
    ),
    ("headers: {signature: ‸0}", "signature: expected true or false, got a number"),
    ("server: ‸[]", "server: expected a mapping (keys and values), got a list"),
    ("brokers: ‸[]", "brokers: expected a mapping (keys and values), got a list"),
    ("brokers: {events: ‸kafka}", "events: expected a mapping (keys and values), got text"),
    (
        "routes: [{name: a, events: ‸user.*, targets: [{broker: events, topic: x}]}]",
        "events: expected a list, got text; put it in [ ]",
    ),
    ("server: {trusted_proxies:‸ }", "trusted_proxies: expected a list, got nothing; write []"),
    ("sources: {clerk: {secrets: ‸[]}}", "secrets: the list is empty; add at least one entry"),
    # Bounds.
    ("server: {port: ‸-1}", "port: must be at least 0"),
    ("server: {port: ‸65536}", "port: must be at most 65535"),
    ("log: {sample: ‸1.5}", "sample: must be at most 1"),
    ("server: {deadline: ‸0s}", "deadline: must be more than 0"),
    ("server: {deadline: ‸10}", "deadline: expected a duration with its unit; write 10s"),
    ("server: {deadline: ‸true}", "deadline: expected a duration such as 10s"),
    ("server: {deadline: ‸10 s}", "deadline: expected a duration: a number and ms, s, m, h or d"),
    ("server: {deadline: ‸5000d}", "deadline: must be at most 3650d"),
    ("server: {max_body: ‸0}", "max_body: must be more than 0"),
    ("server: {max_body: ‸5 KB}", "max_body: expected a size: a number and kB"),
    ("server: {max_body: ‸1.5}", "max_body: expected a size such as 512KiB"),
    ("server: {max_body: ‸9007199254740993}", "max_body: must be at most 8388608GiB"),
    # Words from a list.
    ("log: {level: ‸warn}", "level: expected debug, info, warning or error, did you mean warning?"),
    ("unmatched: ‸zzz", "unmatched: expected accept, dead_letter or reject"),
    ("unmatched: ‸1", "unmatched: expected accept, dead_letter or reject"),
    (
        "brokers: {events: {kind: ‸kafak, servers: [a]}}",
        "kind: expected kafka or nats, did you mean kafka?",
    ),
    # Names, paths, addresses.
    (
        "brokers: {events: {kind: kafka, servers: [a]}, ‸my bus: {kind: nats, servers: [a]}}",
        "this key: expected a name of letters, digits, _ and -",
    ),
    (
        'routes: [{name: ‸-x, events: ["*"], targets: [{broker: events, topic: x}]}]',
        "name: expected a name of letters",
    ),
    (f"sources: {{c: {{secrets: [{S}], path: ‸x}}}}", "path: expected a path that begins with /"),
    (f'sources: {{c: {{secrets: [{S}], path: ‸"/x?y"}}}}', "path: expected a path without ? and #"),
    (f"sources: {{c: {{secrets: [{S}], path: ‸/x#y}}}}", "path: expected a path without ? and #"),
    (f"sources: {{c: {{secrets: [{S}], path: ‸/%41}}}}", "path: expected a path of visible ASCII"),
    (f"sources: {{c: {{secrets: [{S}], path: ‸/a b}}}}", "path: expected a path of visible ASCII"),
    ("server: {trusted_proxies: [‸10.0.0.0/33]}", "trusted_proxies[0]: expected a CIDR"),
    (
        f"sources: {{c: {{secrets: [{S}], allow_from: [10.0.0.1, ‸x]}}}}",
        "allow_from[1]: expected a CIDR such as 10.0.0.0/8, one IP address, or",
    ),
    (f'sources: {{c: {{secrets: [{S}], uri: ‸"a b"}}}}', "uri: expected a URI or a relative ref"),
    (f'sources: {{c: {{secrets: [{S}], uri: ‸""}}}}', "uri: expected a URI or a relative ref"),
    (f"sources: {{c: {{secrets: [{S}], uri: ‸1a:b}}}}", "uri: what stands before the first colon"),
    (f'sources: {{c: {{secrets: [{S}], uri: ‸"http://[x"}}}}', "uri: expected a URI; the part"),
    (f'sources: {{c: {{secrets: [{S}], type: ‸" "}}}}', "type: must not be empty"),
    ("server: {host: ‸''}", "host: must not be empty"),
    # Secrets.
    ("sources: {c: {secrets: [‸whsec_]}}", "secrets[0]: this signing secret is empty; copy it"),
    ("sources: {c: {secrets: [‸whsec_@@@@]}}", "secrets[0]: this signing secret is not base64"),
    ("sources: {c: {secrets: [‸whsec_MTIz]}}", "secrets[0]: this signing secret is shorter than"),
    ("sources: {c: {secrets: [‸12]}}", "secrets[0]: expected text, got a number; put it in quotes"),
    (
        "brokers: {events: {kind: nats, servers: [a], token: ‸''}}\n"
        'routes: [{name: a, events: ["*"], targets: [{broker: events, subject: x}]}]',
        "token: must not be empty",
    ),
    # Names inside brokers.
    (
        "brokers: {events: {kind: kafka, servers: [a]},"
        " bus: {kind: nats, servers: [a], streams: [{name: ‸a.b, subjects: [x]}]}}",
        "name: expected a stream name without spaces, dots",
    ),
    (
        'routes: [{name: a, events: ["*"], targets: [{broker: events, topic: x, payload: data,'
        " redact: [‸a..b]}]}]",
        "redact[0]: expected a dotted path into the event",
    ),
    (
        'routes: [{name: a, events: ["*"], targets: [{broker: events, topic: x,'
        " headers: {x-a: ‸1}}]}]",
        "x-a: expected text, got a number; put it in quotes",
    ),
]


@pytest.mark.parametrize(("text", "begins"), CASES, ids=[begins for _, begins in CASES])
def test_a_fault_is_told_once_and_at_its_place(
    text: str, begins: str, assert_told: Callable[..., None]
) -> None:
    assert_told(text, begins)


@pytest.mark.parametrize("missing", ["sources", "brokers", "routes"])
def test_a_missing_section_is_told_at_the_beginning(missing: str, problems: Problems) -> None:
    found = problems(f"unmatched: accept\n{missing}_: 1")
    assert f'unknown key "{missing}_", did you mean "{missing}"?' in {p.message for p in found}


@pytest.mark.parametrize(
    "secret",
    [
        S,
        S.removeprefix("whsec_"),
        f"v1,{S}",
        f"  {S} ",
        "whsec_c3RhbmQtaW4gc3RhbmQtaW4",
    ],
)
def test_a_signing_secret_may_be_written_in_each_of_its_ways(secret: str, load: Load) -> None:
    config = load(f'sources: {{clerk: {{secrets: ["{secret}"]}}}}').config
    (kept,) = config.sources["clerk"].secrets
    assert kept.get_secret_value() == secret.strip().removeprefix("v1,")


@pytest.mark.parametrize(
    "uri", ["clerk/clerk", "https://example.com/a?b#c", "urn:example:x", "//host/a", "%41", "a/b:c"]
)
def test_a_uri_reference_is_taken(uri: str, load: Load) -> None:
    config = load(f'sources: {{c: {{secrets: [{S}], uri: "{uri}"}}}}').config
    assert config.sources["c"].uri == uri


@pytest.mark.parametrize("cidr", ["10.0.0.0/8", "10.0.0.1", "::1", "2001:db8::/32"])
def test_a_cidr_is_taken(cidr: str, load: Load) -> None:
    assert load(f'server: {{trusted_proxies: ["{cidr}"]}}').config.server.trusted_proxies == (cidr,)


def test_a_section_whose_keys_are_commented_out_has_its_defaults(load: Load) -> None:
    config = load("server:\n  # port: 1\nadmin:\nlog:\ndelivery:\n  dead_letter:\n").config
    assert config.server.port == 8080
    assert config.delivery.dead_letter is None


@pytest.mark.parametrize(
    ("text", "env", "path", "value"),
    [
        ('server: {port: "${X}"}', "8443", ("server", "port"), 8443),
        ("server:\n  port: ${X}", " 8443 ", ("server", "port"), 8443),
        ('server: {port: "${X:-1}"}', "", ("server", "port"), 1),
        ('server: {port: "8${X}"}', "0", ("server", "port"), 80),
        ('server: {deadline: "${X:-12s}"}', "", ("server", "deadline"), 12.0),
        ('server: {deadline: "${X}"}', "1m", ("server", "deadline"), 60.0),
        ('server: {max_body: "${X}"}', "64KiB", ("server", "max_body"), 65_536),
        ('server: {max_body: "${X}"}', "4096", ("server", "max_body"), 4096),
        ('headers: {signature: "${X}"}', "False", ("headers", "signature"), False),
        ('log: {sample: "${X}"}', "0.5", ("log", "sample"), 0.5),
        ('log: {sample: "${X}"}', "1", ("log", "sample"), 1.0),
        ('log: {level: "${X}"}', "debug", ("log", "level"), "debug"),
        (
            'server: {trusted_proxies: "${X}"}',
            "::1, 10.0.0.0/8",
            ("server", "trusted_proxies"),
            ("::1", "10.0.0.0/8"),
        ),
        ('server: {trusted_proxies: "${X}"}', "", ("server", "trusted_proxies"), ()),
        ('server: {trusted_proxies: ["${X}"]}', "::1", ("server", "trusted_proxies"), ("::1",)),
        ('server: {host: "${X}"}', "12", ("server", "host"), "12"),
    ],
)
def test_interpolated_text_is_read_as_its_field_wants_it(
    text: str, env: str, path: tuple[str, ...], value: object, load: Load
) -> None:
    found: object = load(text, {"X": env}).config
    for name in path:
        found = getattr(found, name)
    assert found == value
    assert type(found) is type(value)


def test_an_interpolated_kind_chooses_the_model(load: Load) -> None:
    text = 'brokers: {events: {kind: "${K}", servers: "${S}", tls: "${T:-}"}}'
    broker = load(text, {"K": "kafka", "S": "a:1,b:2"}).config.brokers["events"]
    assert (broker.kind, broker.servers, broker.tls) == ("kafka", ("a:1", "b:2"), None)


def test_a_list_of_secrets_may_be_one_variable(load: Load) -> None:
    config = load('sources: {clerk: {secrets: "${X}"}}', {"X": f"v1,{S},{S}"}).config
    assert [secret.get_secret_value() for secret in config.sources["clerk"].secrets] == [S, S]


def test_an_optional_value_that_is_interpolated_empty_is_not_there(load: Load) -> None:
    text = (
        "brokers: {events: {kind: kafka, servers: [a]}, bus: {kind: nats, servers: [a],"
        ' token: "${T:-}", username: "${U:-}"}}'
    )
    broker = load(text).config.brokers["bus"]
    assert broker.kind == "nats"
    assert (broker.token, broker.username) == (None, None)


def test_interpolated_text_that_does_not_fit_is_told_without_it(
    assert_told: Callable[..., None],
) -> None:
    for text, begins in (
        ('server: {port: ‸"${X}"}', "port: expected a whole number, got text"),
        ('headers: {signature: ‸"${X}"}', "signature: expected true or false, got text"),
        ('log: {level: ‸"${X}"}', "level: expected debug, info, warning or error"),
        ('server: {trusted_proxies: ‸"${X}"}', "trusted_proxies[0]: expected a CIDR"),
        ('server: ‸"${X}"', "server: expected a mapping"),
    ):
        assert_told(text, begins, env={"X": "xyzzy"})


def test_a_duration_without_unit_is_refused_from_a_variable_too(
    assert_told: Callable[..., None],
) -> None:
    assert_told('server: {deadline: ‸"${X}"}', "deadline: expected a duration with", env={"X": "9"})


def test_values_are_called_by_key_and_number() -> None:
    assert name_of(("routes", 0, "targets", 1)) == "targets[1]"
    assert name_of(("server", "port")) == "port"
    assert name_of(()) == "the file"


def test_a_very_long_name_is_not_compared() -> None:
    assert Suggester().closest("port" * 100, ["port"]) is None


def test_an_error_that_nobody_foresaw_is_named_without_its_value() -> None:
    assert validation._problem("brand_new", {}, "hunter2") == "is not valid (brand_new)"
