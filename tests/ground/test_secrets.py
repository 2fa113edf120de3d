"""Secrets are typed: no way of looking at an object that holds one shows it.

What a secret is taken out for (`get_secret_value`) is its place of use, and nothing else.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import pprint
import re
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args

import click
import msgspec
import nkeys
import pytest
from pydantic import BaseModel, SecretBytes, SecretStr

from gateway.app import Blueprint, create_app, draw, make_broker
from gateway.brokers.base import BrokerOptionsError
from gateway.brokers.kafka.options import client_options as kafka_options
from gateway.brokers.nats.connection import Connection
from gateway.brokers.nats.options import client_options as nats_options
from gateway.brokers.nats.options import parse_server
from gateway.commands.posting import Poster
from gateway.commands.send import SendOptions, send_command
from gateway.config import ConfigError, FileContent, LoadedConfig, load_config_text
from gateway.config.document import read_document
from gateway.config.interpolation import Interpolator
from gateway.config.models import GatewayConfig, NatsConfig
from gateway.delivery.inbox.member import Member
from gateway.server.admin import AdminSource
from gateway.server.contents import Contents
from gateway.server.supervisor import Changed, Orders
from gateway.signature import SecretError, Verifier, decode_secret
from tests.canaries import (
    KAFKA_PASSWORD,
    NATS_SECRET,
    NATS_USER_PASSWORD,
    OTHER_SECRET,
    SECRET,
    TOKEN,
    URL_PASSWORD,
    Canary,
    canaries,
    remember,
)
from tests.servers.nats_access import creds_access, nkey_access

ENV = {"ADMIN_TOKEN": TOKEN, "SIGNING": OTHER_SECRET}
TEXT = f"""
admin: {{token: "${{ADMIN_TOKEN}}"}}
sources: {{clerk: {{secrets: [{SECRET}, "${{SIGNING}}"]}}}}
brokers:
  events:
    kind: kafka
    servers: ["localhost:9092"]
    sasl: {{mechanism: PLAIN, username: u, password: {KAFKA_PASSWORD}}}
  bus: {{kind: nats, servers: ["nats://localhost:4222"], username: u, password: {NATS_SECRET}}}
  tokens: {{kind: nats, servers: ["nats://localhost:4222"], token: {NATS_USER_PASSWORD}}}
routes: [{{name: all, events: ["*"], targets: [{{broker: bus, subject: clerk.all}}]}}]
"""


def shown(text: str) -> list[str]:
    """Name the canaries that are in a text, in any encoding."""
    raw = text.encode(errors="replace")
    return [one.name for one in canaries() if any(form in raw for form in one.forms())]


def loaded() -> LoadedConfig:
    return load_config_text(TEXT, "c.yaml", ENV)


def blueprint() -> Blueprint:
    return draw(loaded())


def seed_login(directory: Path) -> object:
    _, seed = nkey_access(directory)
    config = NatsConfig(kind="nats", servers=("nats://h",), nkey_seed_file=str(seed))
    options = nats_options("bus", config)
    return options, options.login(options.servers[0])


def creds_login(directory: Path) -> object:
    _, creds = creds_access(directory)
    config = NatsConfig(kind="nats", servers=("nats://h",), credentials_file=str(creds))
    options = nats_options("bus", config)
    return options, options.login(options.servers[0])


def broker(name: str) -> object:
    config = loaded().config.brokers[name]
    return make_broker(name, config, (), lambda _name, _state: None)


def orders() -> Orders:
    files = {"/run/secrets/clerk": FileContent(SecretStr(SECRET))}
    contents = Contents(FileContent(SecretStr(TEXT)), files)
    return Orders("c.yaml", contents, Changed(contents, 2), 3, Member(1, "tree"))


def nats_broker_options(name: str) -> object:
    config = loaded().config.brokers[name]
    assert isinstance(config, NatsConfig)
    options = nats_options(name, config)
    return options, options.servers, options.login(options.servers[0])


def kafka_client_options() -> object:
    config = loaded().config.brokers["events"]
    assert config.kind == "kafka"
    return kafka_options("events", config)


HOLDERS: dict[str, Callable[[Path], object]] = {
    "the loaded config": lambda _: loaded(),
    "the config": lambda _: loaded().config,
    "the document": lambda _: read_document(TEXT, "c.yaml", Interpolator(ENV)),
    "the interpolator": lambda _: Interpolator(ENV),
    "an expansion": lambda _: Interpolator(ENV).expand("${SIGNING}"),
    "what an expansion holds": lambda _: [Interpolator(ENV).expand("${SIGNING}").text],
    "the blueprint": lambda _: blueprint(),
    "the endpoints": lambda _: blueprint().endpoints,
    "the verifier": lambda _: Verifier([SecretStr(SECRET)], 300.0),
    "the key": lambda _: decode_secret(SecretStr(SECRET)),
    "the orders": lambda _: orders(),
    "a changed config": lambda _: orders().changed,
    "what a file holds": lambda _: FileContent(SecretStr(SECRET)),
    "the admin port's source": lambda _: AdminSource(
        readiness=lambda: (200, {}),
        metrics=lambda: b"",
        token=lambda: SecretStr(TOKEN),
        metrics_public=False,
    ),
    "the options for Kafka": lambda _: kafka_client_options(),
    "the options for NATS with a password": lambda _: nats_broker_options("bus"),
    "the options for NATS with a token": lambda _: nats_broker_options("tokens"),
    "a server with a login": lambda _: parse_server("bus", f"nats://u:{URL_PASSWORD}@h"),
    "a server with a token": lambda _: parse_server("bus", f"nats://{URL_PASSWORD}@h"),
    "an nkey login": seed_login,
    "a credentials login": creds_login,
    "the Kafka broker": lambda _: broker("events"),
    "the NATS broker": lambda _: broker("bus"),
    "the options of send": lambda _: SendOptions("user.created", SecretStr(SECRET)),
    "a poster": lambda _: Poster("http://127.0.0.1/", SecretStr(SECRET)),
}


def reachable(value: object, seen: dict[int, object] | None = None) -> Iterator[object]:
    """Give an object of ours and all that it holds, as a debugger's tree would."""
    seen = {} if seen is None else seen
    if id(value) in seen:
        return
    seen[id(value)] = value
    yield value
    if isinstance(value, SecretStr | SecretBytes | str | bytes):
        return
    inner: list[object] = []
    if isinstance(value, dict):
        inner += [*value.keys(), *value.values()]
    elif isinstance(value, list | tuple | set | frozenset):
        inner += value
    elif isinstance(value, partial):
        inner += [*value.args, *value.keywords.values()]
    elif type(value).__module__.startswith("gateway"):
        names = [*getattr(value, "__dict__", {})]
        names += [n for kind in type(value).__mro__ for n in getattr(kind, "__slots__", ())]
        inner += [getattr(value, name) for name in names if hasattr(value, name)]
    for one in inner:
        yield from reachable(one, seen)


def dumps(value: object) -> Iterator[str]:
    """Give what each usual way of dumping an object makes of it, where it makes anything."""
    ways: list[Callable[[Any], Any]] = [
        repr, str, format, pprint.pformat, ascii, msgspec.json.encode, msgspec.to_builtins,
        json.dumps, partial(json.dumps, default=str),
        partial(msgspec.json.encode, enc_hook=repr), msgspec.structs.asdict, dataclasses.asdict,
        lambda one: one.model_dump(), lambda one: one.model_dump_json(), vars,
    ]  # fmt: skip
    for way in ways:
        try:
            found = way(value)
        except Exception:  # noqa: BLE001, S112 - whatever cannot be dumped shows nothing
            continue
        yield found if isinstance(found, str) else repr(found)


TRANSIENT = {"the document", "the interpolator", "an expansion", "what an expansion holds"}
"""These live while a file is read and hold what the parser needs; only their repr is typed."""
LASTING = [name for name in HOLDERS if name not in TRANSIENT]


@pytest.mark.parametrize("name", sorted(TRANSIENT))
def test_the_repr_of_what_the_parser_holds_shows_no_secret(name: str, tmp_path: Path) -> None:
    holder = HOLDERS[name](tmp_path)
    assert shown(f"{holder!r} {pprint.pformat(holder)} {[holder]}") == []


@pytest.mark.parametrize("name", [name for name in LASTING if name != "the key"])
def test_no_dump_of_an_object_shows_its_secret(name: str, tmp_path: Path) -> None:
    holder = HOLDERS[name](tmp_path)
    assert [shown(text) for text in dumps(holder) if shown(text)] == []


@pytest.mark.parametrize("name", LASTING)
def test_whatever_is_looked_at_inside_it_is_typed(name: str, tmp_path: Path) -> None:
    found = [
        (type(one).__name__, shown(text))
        for one in reachable(HOLDERS[name](tmp_path))
        for text in (repr(one), str(one))
        if shown(text)
    ]
    assert found == []


def test_a_bare_secret_would_be_found(tmp_path: Path) -> None:
    assert shown(f"x {SECRET} y") == ["SECRET"]
    assert any(shown(repr(one)) for one in reachable({"a": [SECRET]}))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_the_key_of_a_verifier_cannot_be_had_back(copied: Callable[[object], object]) -> None:
    verifier = Verifier([SecretStr(SECRET)], 300.0)
    if copied is copy.copy:
        assert shown(repr(vars(type(verifier))) + repr(verifier._keyed)) == []
        return
    with pytest.raises(TypeError):
        copied(verifier)


def test_only_the_channel_of_a_worker_carries_the_text() -> None:
    for told in (orders(), orders().changed):
        assert told is not None
        with pytest.raises((TypeError, NotImplementedError)):
            msgspec.json.encode(told)
        assert type(told).decode(told.encode()) == told
    told_text = Orders.decode(orders().encode()).started_with.text.text
    assert told_text.get_secret_value() == TEXT


def reported(error: BaseException) -> str:
    """Give what an error reporter sends: the chain of errors, each frame with its locals.

    Only our frames: what the test wrote into its own is its own affair.
    """
    said = [repr(error), str(error), repr(error.args), repr(vars(error))]
    seen: BaseException | None = error
    while seen is not None:
        said += [repr(seen), str(seen), repr(seen.args)]
        full = traceback.TracebackException.from_exception(seen, capture_locals=True, compact=True)
        said += [
            f"{frame.name} {frame.locals}" for frame in full.stack if "/gateway/" in frame.filename
        ]
        hidden = seen.__suppress_context__
        seen = seen.__cause__ or (None if hidden else seen.__context__)
    return "\n".join(said)


BAD_SEED = "SUAJUNKJUNKJUNKJUNKJUNKJUNK"


def _file(directory: Path, content: bytes) -> str:
    path = directory / "login"
    path.write_bytes(content)
    return str(path)


def nats_fails(directory: Path, content: bytes, setting: str) -> None:
    settings = {"kind": "nats", "servers": ["nats://h"], setting: _file(directory, content)}
    nats_options("bus", NatsConfig.model_validate(settings))


def app_fails(directory: Path, content: bytes) -> None:
    path = directory / "c.yaml"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GATEWAY_CONFIG", str(path))
        create_app()


FAILURES: dict[str, tuple[type[Exception], Callable[[Path], object]]] = {
    "a secret that is not base64": (
        SecretError, lambda _: Verifier([SecretStr(SECRET), SecretStr(SECRET + "!")], 1.0)
    ),
    "a secret that is short": (SecretError, lambda _: decode_secret(SecretStr(SECRET[:14]))),
    "a poster's secret": (
        SecretError, lambda _: Poster("http://127.0.0.1/", SecretStr(SECRET + "!"))
    ),
    "a seed that is none": (
        BrokerOptionsError, lambda at: nats_fails(at, BAD_SEED.encode(), "nkey_seed_file")
    ),
    "a seed that is not text": (
        BrokerOptionsError, lambda at: nats_fails(at, BAD_SEED.encode() + b"\xff", "nkey_seed_file")
    ),
    "credentials that are none": (
        BrokerOptionsError, lambda at: nats_fails(at, BAD_SEED.encode(), "credentials_file")
    ),
    "a URL of no use": (
        BrokerOptionsError, lambda _: parse_server("bus", f"nats://u:{URL_PASSWORD}@h:port")
    ),
    "a faulty config": (ConfigError, lambda at: app_fails(at, b"sever: {}" + TEXT.encode())),
    "a config that is not YAML": (ConfigError, lambda at: app_fails(at, TEXT.encode() + b" x: [")),
    "a config that is not text": (
        ConfigError, lambda at: app_fails(at, TEXT.encode() + b"\xff")
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_what_an_error_reporter_sends_shows_no_secret(name: str, tmp_path: Path) -> None:
    kind, fail = FAILURES[name]
    with pytest.raises(kind) as caught:
        fail(tmp_path)
    said = reported(caught.value)
    # `parse_server` is given the URL bare, as the config's `servers` are: no secret belongs there.
    allowed = {"URL_PASSWORD"} if name == "a URL of no use" else set()
    assert set(shown(said)) - allowed == set()
    assert shown(f"{caught.value} {caught.value!r}") == []
    assert BAD_SEED not in said


async def test_what_nats_py_is_given_shows_no_login() -> None:
    config = loaded().config.brokers["bus"]
    assert isinstance(config, NatsConfig)
    options = nats_options("bus", config)
    connection = Connection(options, options.servers[0])
    assert shown(repr(connection._settings())) == []
    await connection.close()


def test_click_keeps_the_option_typed() -> None:
    with click.Context(send_command) as context:
        send_command.parse_args(context, ["user.created", "--secret", SECRET])
    assert shown(repr(context.params)) == []
    assert context.params["secret"] == SecretStr(SECRET)


SECRET_WORDS = re.compile(r"secret|password|token|(?<![a-z])key(?!s?_file|word)|seed|credential")
NO_SECRETS = {
    ("TlsConfig", "key_file"): "a path",
    ("NatsConfig", "credentials_file"): "a path",
    ("NatsConfig", "nkey_seed_file"): "a path",
    ("NatsConfig", "servers"): "a login in one is refused",
    ("NatsConfig", "username"): "a name",
    ("SaslConfig", "username"): "a name",
    ("StreamConfig", "subjects"): "a token is a part of a subject there",
    ("LedgerConfig", "bucket"): "a name",
    ("AdminConfig", "metrics_public"): "whether the token is needed",
    ("AdminConfig", "host"): "says when the token is needed",
    ("DeliveryConfig", "mode"): "says that a key orders the inbox",
    ("LedgerConfig", "store"): "speaks of the key of an event",
    ("GatewayConfig", "admin"): "a section",
    ("GatewayConfig", "sources"): "a section",
    ("HeaderOptions", "signature"): "whether the signature is sent",
    ("TargetConfig", "key"): "the Kafka key of a record",
}
"""What is no secret although its name or description has a word of secrets in it, and why not."""


def models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Give a model and all that its fields are made of."""
    yield model
    for field in model.model_fields.values():
        for one in _types(field.annotation):
            if isinstance(one, type) and issubclass(one, BaseModel):
                yield from models(one)


def _types(annotation: Any) -> Iterator[Any]:
    yield annotation
    for inner in get_args(annotation):
        yield from _types(inner)


def test_every_field_that_sounds_like_a_secret_is_typed() -> None:
    untyped: set[tuple[str, str]] = set()
    typed: set[tuple[str, str]] = set()
    for model in set(models(GatewayConfig)):
        for name, field in model.model_fields.items():
            is_typed = SecretStr in set(_types(field.annotation))
            words = f"{name} {field.description or ''}".lower()
            (typed if is_typed else untyped).add((model.__name__, name))
            if not is_typed and SECRET_WORDS.search(words):
                assert (model.__name__, name) in NO_SECRETS, (
                    f"{model.__name__}.{name}: a SecretStr?"
                )
    assert {("SourceConfig", "secrets"), ("AdminConfig", "token"), ("SaslConfig", "password"),
            ("NatsConfig", "token"), ("NatsConfig", "password")} <= typed  # fmt: skip
    assert set(NO_SECRETS) <= untyped, "an entry that is no field any more"


def test_forms_of_a_canary() -> None:
    forms = Canary("x", SECRET.encode(), is_payload=False).forms()
    key = decode_secret(SecretStr(SECRET)).get_secret_value()
    assert {SECRET.encode(), key, key.hex().encode(), SECRET[6:].encode()} <= forms


def test_a_seed_of_this_run_is_looked_for() -> None:
    seed = nkeys.encode_seed(bytes(range(32)), nkeys.PREFIX_BYTE_USER)
    remember("a seed", seed)
    assert "a seed" in shown(f"x{bytes(seed).decode()}")
