"""`gateway check` never repeats a secret, however wrong the place or the form it is in."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from tests.canaries import CONFIG_CANARY, KAFKA_PASSWORD, NATS_SECRET, OTHER_SECRET, URL_PASSWORD
from tests.commands.command import gateway

SHORT = "whsec_" + base64.b64encode(b"short-3f9a1c").decode()
JUNK = OTHER_SECRET[:-4] + "!?!?"

SOURCES = f"sources: {{clerk: {{secrets: [{OTHER_SECRET}]}}}}"
BROKERS = "brokers: {events: {kind: kafka, servers: [localhost:9092]}}"
ROUTES = "routes: [{name: all, events: ['*'], targets: [{broker: events, topic: clerk.all}]}]"


def source(text: str) -> str:
    return f"sources:\n  clerk: {{{text}}}\n{BROKERS}\n{ROUTES}\n"


def sasl(text: str) -> str:
    broker = f"{{kind: kafka, servers: [localhost:9092], sasl: {text}}}"
    return f"{SOURCES}\nbrokers: {{events: {broker}}}\n{ROUTES}\n"


def kafka(text: str) -> str:
    return f"{SOURCES}\nbrokers: {{events: {{kind: kafka, {text}}}}}\n{ROUTES}\n"


def admin(text: str) -> str:
    return f"admin: {text}\n{SOURCES}\n{BROKERS}\n{ROUTES}\n"


def nats(text: str) -> str:
    routes = "routes: [{name: all, events: ['*'], targets: [{broker: bus, subject: clerk.all}]}]"
    return f"{SOURCES}\nbrokers: {{bus: {{kind: nats, {text}}}}}\n{routes}\n"


def route(text: str) -> str:
    return f"{SOURCES}\n{BROKERS}\nroutes: [{text}]\n"


TARGET = "targets: [{broker: events, topic: clerk.all}]"
KEYED = "targets: [{broker: events, topic: clerk.all, key: '%s'}]"
SERVER = "servers: ['nats://h:4222']"

CASES = {
    "bad base64": (source(f"secrets: ['{JUNK}']"), JUNK),
    "too short": (source(f"secrets: ['{SHORT}']"), SHORT),
    "a list in its place": (source(f"secrets: [['{OTHER_SECRET}']]"), OTHER_SECRET),
    "text for the list": (source(f"secrets: '{OTHER_SECRET}'"), OTHER_SECRET),
    "a mapping in its place": (source(f"secrets: [{{a: '{OTHER_SECRET}'}}]"), OTHER_SECRET),
    "a mapping key": (source(f"secrets: {{'{OTHER_SECRET}': 1}}"), OTHER_SECRET),
    "an unknown key beside it": (source(f"secrets: [{OTHER_SECRET}], zzz: 1"), OTHER_SECRET),
    "a duplicate key": (source(f"secrets: [{OTHER_SECRET}], secrets: [{JUNK}]"), OTHER_SECRET),
    "under a wrong key": (source(f"secret: {OTHER_SECRET}"), OTHER_SECRET),
    "as a key": (source(f"secrets: [{SHORT}], {OTHER_SECRET}: 1"), OTHER_SECRET),
    "as a key twice": (
        source(f"secrets: [{SHORT}], {OTHER_SECRET}: 1, {OTHER_SECRET}: 2"), OTHER_SECRET
    ),
    "as a key without a value": (source(f"secrets: [{SHORT}], {OTHER_SECRET}"), OTHER_SECRET),
    "as the name of a source": (
        f"sources: {{'{OTHER_SECRET}': {{secrets: [{OTHER_SECRET}]}}}}\n{BROKERS}\n{ROUTES}\n",
        OTHER_SECRET,
    ),
    "as a section's name": (f"{SOURCES}\n{BROKERS}\n{ROUTES}\n{OTHER_SECRET}: 1\n", OTHER_SECRET),
    "text after a quote": (source(f"secrets: ['{OTHER_SECRET}' x]"), OTHER_SECRET),
    "an open quote": (source(f"secrets: ['{OTHER_SECRET}]"), OTHER_SECRET),
    "an open bracket": (f"sources:\n  clerk:\n    secrets: [{OTHER_SECRET}\n", OTHER_SECRET),
    "a colon too many": (f"sources:\n  clerk:\n    secrets: a: {OTHER_SECRET}\n", OTHER_SECRET),
    "a tag": (source(f"secrets: [!{OTHER_SECRET} x]"), OTHER_SECRET),
    "an alias": (source(f"secrets: [*{OTHER_SECRET}]"), OTHER_SECRET),
    "a tab": (f"sources:\n  clerk:\n\t  secrets: [{OTHER_SECRET}]\n", OTHER_SECRET),
    "in a path": (source(f"secrets: [{OTHER_SECRET}], path: /{OTHER_SECRET}"), OTHER_SECRET),
    "in a uri": (source(f"secrets: [{OTHER_SECRET}], uri: '{OTHER_SECRET}'"), OTHER_SECRET),
    "in a name": (route(f"{{name: {OTHER_SECRET}, events: ['*'], {TARGET}}}"), OTHER_SECRET),
    "in a type": (route(f"{{name: a, events: ['{OTHER_SECRET}'], {TARGET}}}"), OTHER_SECRET),
    "in a condition": (
        route(f"{{name: a, events: ['*'], when: 'a == {OTHER_SECRET}', {TARGET}}}"), OTHER_SECRET
    ),
    "in a key": (
        route(f"{{name: a, events: ['*'], {KEYED.replace('%s', OTHER_SECRET)}}}"), OTHER_SECRET
    ),
    "in a key that is no template": (
        route(f"{{name: a, events: ['*'], {KEYED.replace('%s', OTHER_SECRET + '{')}}}"),
        OTHER_SECRET,
    ),
    "in the name of a broker": (
        route(f"{{name: a, events: ['*'], targets: [{{broker: {OTHER_SECRET}, topic: x}}]}}"),
        OTHER_SECRET,
    ),
    "a password that is a list": (
        sasl(f"{{mechanism: PLAIN, username: u, password: [{KAFKA_PASSWORD}]}}"), KAFKA_PASSWORD
    ),
    "a password that is a number": (
        sasl("{mechanism: PLAIN, username: u, password: 8154711042}"), "8154711042"
    ),
    "a password that is a key": (
        sasl("{mechanism: PLAIN, username: u, password: {8154711042: x}}"), "8154711042"
    ),
    "a password that is a boolean": (
        sasl("{mechanism: PLAIN, username: u, password: true}"), CONFIG_CANARY
    ),
    "a password with a comma": (
        sasl(f"{{mechanism: PLAIN, username: u, password: a,{KAFKA_PASSWORD}}}"), KAFKA_PASSWORD
    ),
    "a password of words with a comma": (
        sasl("{mechanism: PLAIN, username: u, password: a,batterystaple}"), "batterystaple"
    ),
    "a password for the section": (sasl(CONFIG_CANARY), CONFIG_CANARY),
    "a mechanism that is the password": (
        sasl(f"{{mechanism: {KAFKA_PASSWORD}, username: u, password: x}}"), KAFKA_PASSWORD
    ),
    "a login in a Kafka address": (
        kafka(f"servers: ['u:{URL_PASSWORD}@h:1']"), URL_PASSWORD
    ),
    "a login in a Kafka URL": (kafka(f"servers: ['kafka://u:{URL_PASSWORD}@h:1']"), URL_PASSWORD),
    "a login in a NATS URL": (nats(f"servers: ['nats://u:{URL_PASSWORD}@h']"), URL_PASSWORD),
    "a token in a NATS URL": (nats(f"servers: ['nats://{URL_PASSWORD}@h']"), URL_PASSWORD),
    "a token that is a number": (nats(f"{SERVER}, token: 8154711042"), "8154711042"),
    "a token beside a login": (
        nats(f"{SERVER}, token: {NATS_SECRET}, username: u, password: {NATS_SECRET}"), NATS_SECRET
    ),
    "a password alone": (nats(f"{SERVER}, password: {NATS_SECRET}"), NATS_SECRET),
    "a password under a wrong key": (nats(f"{SERVER}, passwort: {NATS_SECRET}"), NATS_SECRET),
    "a token open to others": (
        admin(f"{{host: 0.0.0.0, port: x, token: {CONFIG_CANARY}}}"), CONFIG_CANARY
    ),
    "a token that is a mapping": (
        admin(f"{{token: {{{CONFIG_CANARY}: 1}}}}"), CONFIG_CANARY
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_faulty_secret_is_not_repeated(case: str, tmp_path: Path) -> None:
    text, secret = CASES[case]
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert secret in text or case == "a password that is a boolean"
    done = gateway("check", "--config", path, cwd=tmp_path)
    said = done.out + done.err
    assert done.code == 2, said
    assert str(path) in said
    bare = secret.removeprefix("whsec_")
    assert bare not in said
    # Nor a part of it that would be of use.
    assert not any(bare[at : at + 8] in said for at in range(len(bare) - 7)), said


@pytest.mark.parametrize("place", ["name", "path", "key"])
def test_a_signing_secret_in_the_wrong_place_is_an_error_that_says_where(
    place: str, tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(CASES[f"in a {place}"][0])
    done = gateway("check", "--config", path, cwd=tmp_path)
    ((_, _, message),) = done.messages(path)
    assert message == (
        f"{place}: a signing secret stands here, from where it would be logged or sent on;"
        " move it to the secrets of its source"
    )
