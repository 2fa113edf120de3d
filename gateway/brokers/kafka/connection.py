"""Connections to the nodes of one cluster, and what the cluster last said about itself.

Metadata has a connection of its own: a node handles the requests of one connection one after
another, so a question behind a produce request that waits for replicas would look like a dead
cluster. aiokafka's own client is not used, because it opens connections under one lock and asks
nodes one by one for the whole request timeout, so one stalled node holds up all the others.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from aiokafka.conn import AIOKafkaConnection, CloseReason, create_conn
from aiokafka.errors import KafkaConnectionError, StaleMetadata
from aiokafka.protocol.admin import DescribeConfigsRequest
from aiokafka.protocol.metadata import MetadataRequest

from gateway.brokers.kafka.errors import CLIENT_ERRORS, NotProven, most_telling
from gateway.brokers.kafka.options import CLIENT_ID, ClientOptions

Address = tuple[str, int]

_NODES_ASKED = 5
"""At most so many nodes are tried at once when any node will do."""
_MAX_IDLE_MS = 540_000
"""Below the 10 minutes after which a broker drops an idle connection."""
_CANCEL_WITHIN = 1.0
_TOPIC_RESOURCE = 2
_NODE_RESOURCE = 4


class TopicView(msgspec.Struct, frozen=True):
    """One topic as the cluster describes it."""

    name: str
    error: int
    """0, or a Kafka error code."""
    leaders: tuple[int, ...] = ()
    """Node id per partition; -1 where there is no leader."""
    replicas: int = 0
    """The smallest replica count of its partitions."""
    internal: bool = False


class Cluster:
    """A cluster's nodes: one connection to ask, one per node to produce to.

    Every wait is bounded by the caller's timeout, in seconds. Methods raise what
    `errors.CLIENT_ERRORS` lists.
    """

    def __init__(self, options: ClientOptions, on_lost: Callable[[], None]) -> None:
        self.options = options
        self._on_lost = on_lost
        self._nodes: dict[int, Address] = {}
        self._controller = -1
        self._asking: AIOKafkaConnection | None = None
        self._producing: dict[int, AIOKafkaConnection] = {}
        self._closing: set[asyncio.Future[None]] = set()

    async def connect(self, timeout: float) -> None:
        """Connect to any node at the address that the cluster itself advertises.

        A bootstrap address that answers is not enough: producers use the advertised ones.
        """
        async with asyncio.timeout(timeout):
            known = list(self._nodes.values())
            random.shuffle(known)
            first = await self._any(_unique([*known[:_NODES_ASKED], *self.options.servers]))
            try:
                await self._learn(first)
                advertised = list(self._nodes.values())
                if (first.host, first.port) not in advertised:
                    random.shuffle(advertised)
                    second = await self._any(advertised[:_NODES_ASKED])
                    first.close()
                    first = second
            except BaseException:
                first.close()
                raise
        if self._asking is not None:
            self._asking.close()
        self._asking = first

    async def probe(self, timeout: float) -> None:
        """Make sure that the cluster answers."""
        async with asyncio.timeout(timeout):
            await self._learn(self._ask_through())

    async def describe(self, topics: Sequence[str] | None, timeout: float) -> list[TopicView]:
        """Describe `topics`, or all with None. Creates none."""
        asked = None if topics is None else list(topics)
        async with asyncio.timeout(timeout):
            connection = self._ask_through()
            answer = await connection.send(MetadataRequest(asked, allow_auto_topic_creation=False))
        self._note_nodes(answer)
        return [_view(*topic) for topic in answer.topics]

    async def topic_settings(
        self, topics: Iterable[str], names: Sequence[str], timeout: float
    ) -> dict[str, dict[str, str]]:
        """The named settings of `topics`; a topic whose settings may not be read is left out."""
        resources = [(_TOPIC_RESOURCE, topic, list(names)) for topic in topics]
        answer = await self.request(DescribeConfigsRequest(resources), timeout)
        return {
            topic: {entry[0]: entry[1] for entry in entries}
            for error, _, _, topic, entries in answer.resources
            if error == 0
        }

    async def node_setting(self, name: str, timeout: float) -> int | None:
        """A number among the settings of one of the nodes; None where it may not be read."""
        try:
            node = min(self._nodes)
            connection = await self.to_node(node, timeout)
            request = DescribeConfigsRequest([(_NODE_RESOURCE, str(node), [name])])
            async with asyncio.timeout(timeout):
                answer = await connection.send(request)
        except (*CLIENT_ERRORS, ValueError):
            return None
        for error, _, _, _, entries in answer.resources:
            for entry in entries if error == 0 else ():
                if entry[0] == name and str(entry[1]).isdigit():
                    return int(entry[1])
        return None

    async def request(self, request: Any, timeout: float) -> Any:
        """Send `request` on the metadata connection and return the decoded response."""
        async with asyncio.timeout(timeout):
            return await self._ask_through().send(request)

    async def ask_controller(self, request: Any, timeout: float) -> Any:
        """Send `request` to the node that is the controller, which older clusters insist on."""
        async with asyncio.timeout(timeout):
            address = self._nodes.get(self._controller)
            if address is None:
                return await self._ask_through().send(request)
            connection = await self._open(address)
            try:
                return await connection.send(request)
            finally:
                connection.close(CloseReason.SHUTDOWN)

    async def to_node(self, node: int, timeout: float) -> AIOKafkaConnection:
        """The connection for producing to `node`, opened when there is none."""
        connection = self._producing.get(node)
        if connection is not None and connection.connected():
            return connection
        # The library closes a socket whose peer has gone only while somebody holds the connection.
        self.drop(node)
        address = self._nodes.get(node)
        if address is None:
            raise StaleMetadata(f"node {node} is not in the cluster")
        async with asyncio.timeout(timeout):
            connection = await self._open(address)
        self._producing[node] = connection
        return connection

    def drop(self, node: int) -> None:
        """Close the connection to `node`: what is unanswered on it fails."""
        connection = self._producing.pop(node, None)
        if connection is not None:
            connection.close(CloseReason.CONNECTION_TIMEOUT)

    async def close(self, timeout: float) -> None:
        """Close every connection."""
        connections = [*self._producing.values()]
        if self._asking is not None:
            connections.append(self._asking)
        self._producing.clear()
        self._asking = None
        for connection in connections:
            connection.close(CloseReason.SHUTDOWN)
        # A TLS connection is closed only once the node has said goodbye as well.
        if self._closing:
            await asyncio.wait(self._closing, timeout=timeout)

    def _ask_through(self) -> AIOKafkaConnection:
        if self._asking is None or not self._asking.connected():
            raise KafkaConnectionError("not connected")
        return self._asking

    async def _learn(self, connection: AIOKafkaConnection) -> None:
        self._note_nodes(
            await connection.send(MetadataRequest([], allow_auto_topic_creation=False))
        )

    def _note_nodes(self, answer: Any) -> None:
        nodes = {node: (host, port) for node, host, port, _ in answer.brokers}
        if nodes:
            self._nodes = nodes
            self._controller = answer.controller_id

    async def _any(self, addresses: Sequence[Address]) -> AIOKafkaConnection:
        """The first connection that comes up; all addresses are tried at the same time."""
        tasks = {asyncio.ensure_future(self._open(address)) for address in addresses}
        pending = tasks
        errors: list[BaseException] = []
        try:
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    error = task.exception()
                    if error is None:
                        tasks.remove(task)
                        return task.result()
                    if not isinstance(error, CLIENT_ERRORS):
                        raise error
                    errors.append(error)
        finally:
            for task in tasks:
                task.cancel()
                task.add_done_callback(_close_spare)
            if tasks:
                await asyncio.wait(tasks, timeout=_CANCEL_WITHIN)
        raise most_telling(errors)

    async def _open(self, address: Address) -> AIOKafkaConnection:
        host, port = address
        try:
            return await create_conn(
                host,
                port,
                client_id=CLIENT_ID,
                request_timeout_ms=int(self.options.request_timeout * 1000),
                max_idle_ms=_MAX_IDLE_MS,
                on_close=self._closed,
                **self.options.login(),
            )
        except (ValueError, LookupError) as error:
            # The library lets these escape where the other side's SCRAM messages prove nothing.
            raise NotProven from error

    def _closed(self, connection: AIOKafkaConnection, reason: CloseReason | None) -> None:
        """Called by a connection that begins to close, also by one that never came up whole."""
        closing: asyncio.Future[None] = connection.close()
        if not closing.done():
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        if reason is CloseReason.CONNECTION_BROKEN:
            self._on_lost()


def _close_spare(task: asyncio.Task[AIOKafkaConnection]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


def _unique(addresses: Sequence[Address]) -> list[Address]:
    return list(dict.fromkeys(addresses))


def _view(error: int, name: str, internal: bool, partitions: Sequence[Any]) -> TopicView:
    leaders = [-1] * len(partitions)
    replicas = [0]
    for _, partition, leader, nodes, *_ in partitions:
        if partition < len(leaders):
            leaders[partition] = leader
        replicas.append(len(nodes))
    smallest = min(replicas[1:], default=0)
    return TopicView(name, error, tuple(leaders), smallest, internal)
