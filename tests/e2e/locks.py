"""Brokers behind every kind of lock, and what opens each: for the gateway, and for a reader."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from aiokafka.helpers import create_ssl_context

from tests.canaries import NATS_GATEWAY_PASSWORD as PASSWORD
from tests.canaries import NATS_READER_PASSWORD
from tests.canaries import NATS_TOKEN as TOKEN
from tests.e2e.readback import create_stream, kafka_records, stream_messages
from tests.servers.certificates import Certificates
from tests.servers.kafka import SecureKafka
from tests.servers.nats import NatsServer, tls_options
from tests.servers.nats_access import creds_access, nkey_access

Config = dict[str, Any]

READER = {"user": "reader", "password": NATS_READER_PASSWORD}

KAFKA = ("scram_512", "scram_256", "plain", "mutual", "plain_in_the_clear")
NATS = ("tls", "mutual_tls", "mapped_certificate", "token", "user", "nkey", "creds", "tls_user")
LOCKS = tuple(f"kafka_{name}" for name in KAFKA) + tuple(f"nats_{name}" for name in NATS)


@dataclass(frozen=True)
class Lock:
    """One broker behind a lock. Its name is the broker's in the config."""

    name: str
    broker: Config
    """What stands below `brokers.<name>`."""
    login: Config
    """How a client that is not ours gets in."""

    @property
    def destination(self) -> str:
        """Where the gateway publishes."""
        return f"{self.name}.events"

    @property
    def address(self) -> str:
        """Where the broker listens."""
        return str(self.broker["servers"][0])

    @property
    def target(self) -> dict[str, str]:
        """The target of a route."""
        place = "topic" if self.broker["kind"] == "kafka" else "subject"
        return {"broker": self.name, place: self.destination}

    async def prepare(self) -> None:
        """Make the stream; the topic is made elsewhere."""
        if self.broker["kind"] == "nats":
            await create_stream(self.address, self.name, self.destination, login=self.login)

    async def values(self) -> list[bytes]:
        """Read what is stored, with the reader's own client and login."""
        if self.broker["kind"] == "kafka":
            records = await kafka_records(self.address, self.destination, **self.login)
            return [record.value for record in records]
        return [one.data for one in await stream_messages(self.address, self.name, **self.login)]


@dataclass
class Doors:
    """All locks, the servers behind them, and every secret that opens one."""

    certificates: Certificates
    kafka: SecureKafka
    directory: Path
    start: Callable[..., NatsServer]
    locks: dict[str, Lock] = field(default_factory=dict)
    servers: dict[str, NatsServer] = field(default_factory=dict)
    """The nats-servers by the name of the lock."""

    def secret(self, text: str) -> str:
        """Give a reference to a file with a secret, for a config."""
        path = self.directory / f"secret-{text}"
        path.write_text(text + "\n")
        return f"${{file:{path}}}"

    def tls(self, identity: str = "", ca: str = "ca") -> Config:
        """Give `tls` of a config, with our certificate `identity` if one is named."""
        files = {"ca_file": str(getattr(self.certificates, ca))}
        if identity:
            files["cert_file"] = str(getattr(self.certificates, identity))
            files["key_file"] = str(getattr(self.certificates, f"{identity}_key"))
        return files

    def context(self, identity: str = "") -> ssl.SSLContext:
        """Give the same for a client that is not ours."""
        files = list(self.tls(identity).values())
        names = ("cafile", "certfile", "keyfile")
        made: ssl.SSLContext = create_ssl_context(**dict(zip(names, files, strict=False)))
        return made

    def changed(self, lock: str, name: str, **changes: Any) -> Lock:
        """Give a lock with another name, and other settings: None takes one away."""
        broker = {**self.locks[lock].broker, **changes}
        kept = {key: value for key, value in broker.items() if value is not None}
        return replace(self.locks[lock], name=name, broker=kept)

    def add_kafka(self, name: str, address: str, broker: Config, login: Config) -> None:
        """Add a lock of the shared Kafka."""
        settings = {"kind": "kafka", "servers": [address], **broker}
        self.locks[name] = Lock(name, settings, login)

    def add_nats(self, name: str, options: Config, broker: Config, login: Config) -> None:
        """Start a nats-server behind a lock."""
        server = self.servers[name] = self.start(options=options)
        settings = {"kind": "nats", "servers": [server.url], **broker}
        self.locks[name] = Lock(name, settings, login)


def kafka_doors(doors: Doors) -> None:
    """Add the locks of Kafka."""
    kafka, trusted = doors.kafka, {"tls": doors.tls()}
    for name, mechanism in (
        ("kafka_scram_512", "SCRAM-SHA-512"),
        ("kafka_scram_256", "SCRAM-SHA-256"),
        ("kafka_plain", "PLAIN"),
    ):
        sasl, login = sasl_of(doors, mechanism)
        encrypted = {"security_protocol": "SASL_SSL", "ssl_context": doors.context()}
        doors.add_kafka(name, kafka.sasl, {**trusted, "sasl": sasl}, {**login, **encrypted})
    sasl, login = sasl_of(doors, "PLAIN")
    clear = {**login, "security_protocol": "SASL_PLAINTEXT"}
    doors.add_kafka("kafka_plain_in_the_clear", kafka.clear, {"sasl": sasl}, clear)
    mutual = {"security_protocol": "SSL", "ssl_context": doors.context("client")}
    doors.add_kafka("kafka_mutual", kafka.mtls, {"tls": doors.tls("client")}, mutual)


def sasl_of(
    doors: Doors, mechanism: str, username: str = "", password: str = ""
) -> tuple[Config, Config]:
    """Give `sasl` of a config, and the same for aiokafka."""
    username, password = username or doors.kafka.username, password or doors.kafka.password
    ours = {"mechanism": mechanism, "username": username, "password": doors.secret(password)}
    login = {
        "sasl_mechanism": mechanism,
        "sasl_plain_username": username,
        "sasl_plain_password": password,
    }
    return ours, login


def nats_doors(doors: Doors) -> None:
    """Add the locks of NATS, each with a server."""
    trusted = {"tls": doors.tls()}
    tls, mutual = tls_options(doors.certificates), tls_options(doors.certificates, mutual=True)
    users = {"authorization": {"users": [{"user": "gateway", "password": PASSWORD}, READER]}}
    user = {"username": "gateway", "password": doors.secret(PASSWORD)}
    encrypted = {"tls": doors.context()}
    doors.add_nats("nats_tls", tls, trusted, encrypted)
    doors.add_nats(
        "nats_mutual_tls", mutual, {"tls": doors.tls("client")}, {"tls": doors.context("client")}
    )
    mapping = tls_options(doors.certificates, mapped=True)
    doors.add_nats(
        "nats_mapped_certificate",
        {**mapping, "authorization": {"users": [{"user": "CN=client"}]}},
        {"tls": doors.tls("client")},
        {"tls": doors.context("client")},
    )
    token = {"authorization": {"token": TOKEN}}
    doors.add_nats("nats_token", token, {"token": doors.secret(TOKEN)}, {"token": TOKEN})
    doors.add_nats("nats_user", users, user, READER)
    doors.add_nats("nats_tls_user", {**tls, **users}, {**trusted, **user}, {**encrypted, **READER})
    options, seed = nkey_access(directory(doors, "nkey"))
    doors.add_nats("nats_nkey", options, {"nkey_seed_file": str(seed)}, {"nkeys_seed": str(seed)})
    options, creds = creds_access(directory(doors, "creds"))
    login = {"user_credentials": str(creds)}
    doors.add_nats("nats_creds", options, {"credentials_file": str(creds)}, login)


def directory(doors: Doors, name: str) -> Path:
    """Give a directory for one lock's files."""
    path = doors.directory / name
    path.mkdir()
    return path


def config_of(locks: Iterable[Lock], **more: Any) -> Config:
    """Give a config with a route to each lock: events `<name>.*`."""
    locks = list(locks)
    return {
        "brokers": {lock.name: lock.broker for lock in locks},
        "routes": [
            {"name": lock.name, "events": [f"{lock.name}.*"], "targets": [lock.target]}
            for lock in locks
        ],
        **more,
    }


def assert_hidden(doors: Doors, written: str) -> None:
    """Assert that no secret which opens a lock, or was meant to, stands in an output."""
    for path in doors.directory.rglob("*"):
        if path.is_file() and path.name.startswith(("secret-", "user.")):
            for line in _secret_lines(path):
                assert line not in written, f"a secret of {path.name} was written"
    for key in (doors.certificates.client_key, doors.certificates.other_client_key):
        for line in _secret_lines(key):
            assert line not in written, f"a line of {key.name} was written"


def _secret_lines(path: Path) -> list[str]:
    lines = path.read_text().splitlines()
    return [line for line in lines if line and not line.startswith("-")]


def findings(out: str) -> Mapping[str, list[tuple[str, str, str]]]:
    """Give what `gateway check --connect` printed, by broker: severity, about what, words."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    for line in out.splitlines():
        severity, gap, rest = line.strip().partition("  ")
        if gap:
            broker, about, message = rest.split(": ", 2)
            found.setdefault(broker, []).append((severity, about, message))
    return found
