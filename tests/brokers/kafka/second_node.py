"""A second node for a test's cluster, so that leaders can move and replicas can be missing."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from aiokafka.admin import NewTopic

from tests.brokers.kafka.support import admin
from tests.servers.kafka import KafkaServer
from tests.servers.process import ServerError

NODE = 2


class SecondNode(KafkaServer):
    """A broker that joins the cluster of `first`, whose node it is beside."""

    def __init__(self, directory: Path, first: KafkaServer) -> None:
        super().__init__(directory)
        self._first = first

    def _settings(self) -> dict[str, str]:
        settings = super()._settings()
        listeners = settings["listeners"].split(",")
        settings |= {
            "process.roles": "broker",
            "node.id": str(NODE),
            "listeners": ",".join(at for at in listeners if not at.startswith("CONTROLLER")),
            "controller.quorum.bootstrap.servers": self._first.address("CONTROLLER"),
            # The controller gives the partitions of a silent node to others after this.
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
        }
        return settings

    def _format(self, tool: Sequence[str], settings: Path) -> None:
        described = (self._first.directory / "data" / "meta.properties").read_text()
        found = re.search(r"cluster\.id=(\S+)", described)
        if found is None:
            raise ServerError(f"no cluster id in {described!r}")
        cluster = f"--cluster-id={found[1]}"
        command = [*tool, "format", cluster, "--no-initial-controllers", "-c", str(settings)]
        subprocess.run(command, stdin=subprocess.DEVNULL, check=True, timeout=60)


async def create_replicated_topic(
    bootstrap: str, name: str, leaders: Sequence[int], configs: dict[str, str]
) -> None:
    """Create a topic on nodes 1 and 2 whose partitions are led as `leaders` says."""
    assignment = {number: [leader, 3 - leader] for number, leader in enumerate(leaders)}
    topic = NewTopic(name, -1, -1, replica_assignments=assignment, topic_configs=configs)
    async with admin(bootstrap) as client:
        answer = await client.create_topics([topic])
    assert [code for _, code, *_ in answer.topic_errors] == [0]
