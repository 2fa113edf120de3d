"""One Kafka node, broker and controller in one (KRaft)."""

from __future__ import annotations

import asyncio
import base64
import re
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import for_code

from tests.servers.kafka.jars import jars, java
from tests.servers.process import LOOPBACK, ServerError, ServerProcess, free_port

# The heap is small and the compiler quick: what counts here is how soon the server is up.
_JVM = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true")
_FORMAT_SECONDS = 60
_CREATE_SECONDS = 30
_STARTED = re.compile(rb"Kafka Server started")
_LOGGING = """\
status = warn
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{HH:mm:ss.SSS} %p %m (%c{1})%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = info
"""


@dataclass(frozen=True)
class KafkaAt:
    """A Kafka that somebody else runs."""

    bootstrap: str
    """Its plaintext address, `host:port`."""

    async def create_topic(
        self, name: str, partitions: int = 1, configs: Mapping[str, str] | None = None
    ) -> str:
        """Create a topic and give its name back."""
        return await create_topic(self.bootstrap, name, partitions, configs)


class KafkaServer(ServerProcess):
    """A Kafka of the tests' own, with a plaintext listener and any others that are asked for."""

    def __init__(
        self,
        directory: Path,
        *,
        listeners: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
        scram: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare a server; `start` starts it.

        `listeners` gives more listeners by name and security protocol (`{"TLS": "SSL"}`),
        `properties` adds to or replaces lines of `server.properties`, and `scram` makes
        SCRAM users (SHA-256 and SHA-512) with their passwords.
        """
        super().__init__(directory)
        self._protocols = {"PLAINTEXT": "PLAINTEXT", **(listeners or {})}
        self._ports = {name: free_port() for name in (*self._protocols, "CONTROLLER")}
        self._properties = dict(properties or {})
        self._scram = dict(scram or {})

    @property
    def bootstrap(self) -> str:
        """Address of the plaintext listener, `host:port`."""
        return self.address("PLAINTEXT")

    def address(self, listener: str) -> str:
        """Address of a listener, `host:port`."""
        return f"{LOOPBACK}:{self._ports[listener]}"

    def set_property(self, key: str, value: str) -> None:
        """Set a line of `server.properties`, for the next start."""
        self._properties[key] = value

    async def create_topic(
        self, name: str, partitions: int = 1, configs: Mapping[str, str] | None = None
    ) -> str:
        """Create a topic and give its name back."""
        return await create_topic(self.bootstrap, name, partitions, configs)

    def _command(self) -> Sequence[str]:
        logging = self.directory / "log4j2.properties"
        logging.write_text(_LOGGING)
        settings = self.directory / "server.properties"
        settings.write_text("".join(f"{key}={value}\n" for key, value in self._settings().items()))
        run = (java(), *_JVM, f"-Dlog4j2.configurationFile={logging}", "-cp", f"{jars()}/*")
        if not (self.directory / "data" / "meta.properties").exists():
            self._format([*run, "kafka.tools.StorageTool"], settings)
        return [*run, "kafka.Kafka", str(settings)]

    def _format(self, tool: Sequence[str], settings: Path) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").lstrip("-")
        users = [
            part
            for name, password in self._scram.items()
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            for part in ("--add-scram", f"{mechanism}=[name={name},password={password}]")
        ]
        formatted = subprocess.run(
            [*tool, "format", "--standalone", f"--cluster-id={cluster}", *users, "-c", settings],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_FORMAT_SECONDS,
            check=False,
        )
        if formatted.returncode != 0:
            raise ServerError(
                f"Kafka's storage could not be made:\n{formatted.stdout}{formatted.stderr}"
            )

    def _settings(self) -> dict[str, str]:
        addresses = ",".join(f"{name}://{LOOPBACK}:{port}" for name, port in self._ports.items())
        protocols = {**self._protocols, "CONTROLLER": "PLAINTEXT"}
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.bootstrap.servers": f"{LOOPBACK}:{self._ports['CONTROLLER']}",
            "listeners": addresses,
            "listener.security.protocol.map": ",".join(f"{k}:{v}" for k, v in protocols.items()),
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": str(self.directory / "data"),
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": "0",
            "offsets.topic.num.partitions": "1",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            **self._properties,
        }

    def _is_ready(self) -> bool:
        return _STARTED.search(self.log.read_bytes()) is not None


async def create_topic(
    bootstrap: str, name: str, partitions: int = 1, configs: Mapping[str, str] | None = None
) -> str:
    """Create a topic with one replica on the Kafka at `bootstrap` and give its name back.

    Returns once every partition has a leader, which is a moment after the controller's answer.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        async with asyncio.timeout(_CREATE_SECONDS):
            await _brokers(admin)
        topic = NewTopic(name, partitions, 1, topic_configs=dict(configs or {}))
        answer = await admin.create_topics([topic])
        for _, code, *message in answer.topic_errors:
            if code:
                raise for_code(code)(*message)
        async with asyncio.timeout(_CREATE_SECONDS):
            await _leaders(admin, name)
    finally:
        await admin.close()
    return name


async def _brokers(admin: AIOKafkaAdminClient) -> None:
    """Poll until the controller has the node: after a freeze it takes it back in its own time."""
    while True:
        if (await admin.describe_cluster())["brokers"]:
            return
        await asyncio.sleep(0.05)


async def _leaders(admin: AIOKafkaAdminClient, topic: str) -> None:
    """Poll until every partition has a leader: nobody tells when it is so."""
    while True:
        (found,) = await admin.describe_topics([topic])
        if found["partitions"] and all(one["leader"] >= 0 for one in found["partitions"]):
            return
        await asyncio.sleep(0.02)
