"""Files, all stages at once, and places for other packages."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway import GatewayError
from gateway.config import (
    ConfigError,
    FileContent,
    GatewayConfig,
    Problem,
    load_config,
    load_config_text,
    repair,
)
from gateway.config.load import MAX_FILE
from gateway.config.problems import DocumentPath
from tests.canaries import SECRET
from tests.config.conftest import Load, complete


def errors(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config_text(text, "f.yaml", {})
    return str(caught.value).splitlines()


def test_a_file_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "\ufeff" + complete("server: {port: ${PORT}}".replace("${", '"${').replace("}}", '}"}'))
    )
    loaded = load_config(path, {"PORT": "81"})
    assert loaded.path == str(path)
    assert loaded.config.server.port == 81
    assert loaded.warnings == ()
    assert loaded.positions.value(("server", "port")).line == 1


def test_the_environment_of_the_process_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(complete('server: {host: "${GATEWAY_TEST_HOST}"}'))
    monkeypatch.setenv("GATEWAY_TEST_HOST", "192.0.2.1")
    assert load_config(str(path)).config.server.host == "192.0.2.1"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "{path}: cannot be read: No such file or directory"),
        (b"x" * (MAX_FILE + 1), "{path}: is larger than 1 MiB; this is not a config file"),
        (b"a: 1\nb: \xff", "{path}:2:4: not UTF-8 text; save the file as UTF-8"),
        (b"", "{path}:1:1: the file is empty; `gateway init` writes one"),
        (b"\xef\xbb\xbf", "{path}:1:1: the file is empty; `gateway init` writes one"),
        (b"- a\n", "{path}:1:1: the file: expected a mapping (keys and values), got a list"),
        (b"text", "{path}:1:1: the file: expected a mapping (keys and values), got text"),
    ],
)
def test_a_file_that_cannot_be_used_is_told(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(path, {})
    assert str(caught.value) == message.format(path=path)
    assert caught.value.path == str(path)
    assert isinstance(caught.value, GatewayError)


def test_a_directory_and_an_impossible_name_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path, {})
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config("a\0b", {})


def test_faults_of_all_stages_are_told_together_and_in_order() -> None:
    text = f"""\
server: {{prot: 1, port: x, deadline: 20s}}
log: {{format: yes}}
sources:
  clerk: {{secrets: [{SECRET}], tolerance: "${{NONE}}"}}
brokers:
  events: {{kind: kafka, servers: [a], tls: {{cert_file: x}}}}
  bus: {{kind: nats, servers: [a], linger: 1s}}
routes:
  - name: a
    events: [user*, user.craeted]
    targets:
      - {{broker: evnts, topic: x}}
      - {{broker: events, subject: x}}
      - {{broker: bus, subject: x, payload: dta, redact: [data.x]}}
    targets: []
unmatched: dead_letter
"""
    assert errors(text) == [
        'f.yaml:1:10: unknown key "prot", did you mean "port"?',
        "f.yaml:1:25: port: expected a whole number, got text",
        "f.yaml:1:38: warning: deadline: 20s is longer than Svix waits (15s), so it would retry"
        " what is still being delivered; write at most 14s",
        'f.yaml:2:15: yes is a boolean in one YAML and text in another; write true, or "yes" for'
        " text",
        "f.yaml:4:74: the variable NONE is not set; set it, or write ${NONE:-default}",
        "f.yaml:6:56: cert_file: needs its key; add key_file",
        'f.yaml:7:35: unknown key "linger"; here can be kind, servers, jetstream, streams,'
        " credentials_file, nkey_seed_file, token, username, password, tls, request_timeout,"
        " max_in_flight, max_in_flight_bytes",
        'f.yaml:10:14: events[0]: "user*" is no pattern; write a whole type, prefix.*, or * for'
        " all",
        'f.yaml:10:21: warning: events[1]: Clerk is not known to send "user.craeted", did you mean'
        " user.created?",
        'f.yaml:12:18: broker: no broker is called "evnts"; did you mean events?',
        "f.yaml:13:35: subject: events is Kafka, which has no subjects; write topic",
        "f.yaml:14:44: payload: expected original, data or cloudevents, did you mean data?",
        'f.yaml:15:5: "targets" is here twice, first on line 11 column 5; remove one',
        "f.yaml:16:12: unmatched: dead_letter needs a place to put them; add delivery.dead_letter",
    ]


def test_a_broker_that_is_faulty_itself_is_no_unknown_broker() -> None:
    text = complete("brokers: {events: {knd: kafka}, bus: 5}").replace(
        "[{broker: events, topic: clerk.all}]", "[{broker: events, topic: x}, {broker: bus}]"
    )
    assert errors(text) == [
        "f.yaml:1:19: events: kind is missing; write kind: kafka or kind: nats",
        "f.yaml:1:38: bus: expected a mapping (keys and values), got a number",
    ]


def test_what_cannot_be_repaired_is_told_without_the_cross_checks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(repair, "_MAX_ROUNDS", 0)
    text = complete("server: {port: x, deadline: 20s}")
    assert errors(text) == ["f.yaml:1:16: port: expected a whole number, got text"]


@pytest.mark.parametrize(
    "text",
    [
        "sources: 5\nbrokers: 5\nroutes: 5",
        "sources: {'': 5, '!': {path: 5, secrets: [5]}}\nbrokers: {'': {servers: 5}}",
        "brokers: {'!': {kind: kafka, servers: [5], tls: {ca_file: 5}, sasl: {}}}",
        "sources: {a: 5}\nbrokers: {a: 5}\nroutes: [5, {}]",
        "sources: {a: {secrets: 5}}\nbrokers: {a: {kind: 5}}\nroutes: [{targets: [5, {}]}]",
        "brokers: {a: {kind: kafka, sasl: {}, tls: 5, topics: 5}, b: {kind: nats, streams: [5]}}",
        "server: 5\nadmin: {token: 5}\nlog: []\nheaders: x\ndelivery: {dead_letter: {}, inbox: 5}",
        "routes: [{targets: [{headers: 5, redact: 5, key: 5}], when: 5, sources: 5, exclude: [5]}]",
        "{}",
    ],
)
def test_wrong_shapes_at_every_level_are_told_at_places_in_the_file(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config_text(text, "f.yaml", {})
    problems = caught.value.problems
    assert problems
    assert all(p.line >= 1 and p.col >= 1 and "is not valid" not in p.message for p in problems)
    assert list(problems) == sorted(problems, key=lambda p: (p.line, p.col))


def test_one_place_that_aliases_repeat_is_told_once() -> None:
    text = complete("server: {trusted_proxies: [&x wrong, *x]}")
    assert [line.partition(": ")[0] for line in errors(text)] == ["f.yaml:1:28"] * 2
    text = complete("server: &s {prot: 1}\nadmin: *s")
    assert errors(text)[0].startswith('f.yaml:1:13: unknown key "prot"')
    assert len(errors(text)) == 1


def test_warnings_are_given_with_a_config_that_may_run(load: Load) -> None:
    loaded = load("server: {deadline: 20s}")
    (warning,) = loaded.warnings
    assert (warning.severity, warning.path) == ("warning", ("server", "deadline"))
    assert warning.render("f.yaml").startswith("f.yaml:1:20: warning: deadline: 20s")


@pytest.mark.parametrize(
    ("path", "offset", "place"),
    [
        (("routes", 0, "when"), 0, (3, 11)),
        (("routes", 0, "when"), 4, (3, 16)),
        (("routes", 0, "targets", 0, "topic"), 6, (4, 41)),
        # Not in the file: what would hold it. An offset into it means nothing.
        (("routes", 0, "targets", 0, "key"), 3, (4, 15)),
        (("sources", "clerk", "type"), 0, (5, 18)),
        (("routes", 0, "targets", 0, "headers", "x-a"), 2, (4, 59)),
    ],
)
def test_other_packages_place_what_they_find(
    path: DocumentPath, offset: int, place: tuple[int, int], load: Load
) -> None:
    loaded = load(
        "routes:\n"
        '- {name: a, events: ["*"],\n'
        '    when: "a == b",\n'
        '    targets: [{broker: events, topic: "x.{y", headers: {x-a: "it\\ts {"}}]}\n'
    )
    problem = loaded.locate(path, "wrong", offset=offset)
    line, col = place
    if path[-1] == "topic":
        col = 40 + 6
    if path[-1] == "x-a":
        col = 62
    assert problem == Problem("error", path, line, col, "wrong")
    assert loaded.locate(path, "odd", "warning").severity == "warning"


@dataclass(frozen=True)
class _Fault:
    path: DocumentPath
    message: str
    offset: int = 0


def test_checks_of_other_packages_are_told_beside_ours() -> None:
    def check(config: GatewayConfig) -> Iterable[_Fault]:
        for at, route in enumerate(config.routes):
            if route.when is not None:
                yield _Fault(("routes", at, "when"), "when: not JMESPath", 2)
        yield _Fault(("server", "port"), "said of a repaired place")

    text = complete(
        "server: {port: x}\n"
        "routes: [{name: a, events: [x], when: a &, targets: [{broker: nope, topic: x}]}]"
    )
    with pytest.raises(ConfigError) as caught:
        load_config_text(text, "f.yaml", {}, checks=[check])
    assert [problem.render("f") for problem in caught.value.problems] == [
        "f:1:16: port: expected a whole number, got text",
        "f:2:41: when: not JMESPath",
        'f:2:63: broker: no broker is called "nope"; there is events, bus',
    ]


def test_what_others_say_of_an_interpolated_value_is_cut_before_its_quote() -> None:
    def check(_: GatewayConfig) -> Iterable[_Fault]:
        yield _Fault(("routes", 0, "when"), "not JMESPath: unexpected 'hunter2'", 3)

    text = complete(
        'routes: [{name: a, events: [x], when: "${W}", targets: [{broker: bus, subject: x}]}]'
    )
    with pytest.raises(ConfigError) as caught:
        load_config_text(text, "f", {"W": "hunter2"}, checks=[check])
    assert str(caught.value) == "f:1:39: not JMESPath (its value came from ${…} and is not shown)"


def test_config_errors_sort_what_they_are_given() -> None:
    later, earlier = Problem("error", (), 2, 1, "b"), Problem("error", (), 1, 5, "a")
    error = ConfigError("f", [later, earlier])
    assert str(error) == "f:1:5: a\nf:2:1: b"
    assert error.problems == (earlier, later)


@pytest.mark.parametrize("in_main_thread", [True, False])
def test_only_the_main_thread_keeps_the_garbage_collector_out(*, in_main_thread: bool) -> None:
    """It is one for all threads, and a reload loads beside what serves."""
    collects: list[bool] = []

    def read(_: str) -> FileContent:
        collects.append(gc.isenabled())
        return FileContent(problem="seen")

    def load() -> None:
        with pytest.raises(ConfigError):
            load_config_text("sources: ${file:seen}", "c.yaml", {}, read=read)

    if in_main_thread:
        load()
    else:
        with ThreadPoolExecutor(1) as thread:
            thread.submit(load).result()
    assert collects == [not in_main_thread]
    assert gc.isenabled()
