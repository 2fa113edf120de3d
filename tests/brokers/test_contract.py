"""The contract of a broker, on every kind that there is."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.brokers.contract import LifeContract, LimitContract, PublishContract
from tests.brokers.contract_outage import OutageContract
from tests.brokers.harness.base import Harness
from tests.brokers.harness.fake import FakeHarness
from tests.brokers.harness.kafka import KafkaHarness
from tests.brokers.harness.nats import CoreNatsHarness, JetStreamHarness
from tests.servers.kafka import KafkaAt, KafkaServer
from tests.servers.nats import NatsServer


class Contract(PublishContract, LimitContract, LifeContract, OutageContract):
    """All of it."""


class TestFake(Contract):
    """The one that is shipped for users' tests."""

    @pytest.fixture
    async def harness(self) -> AsyncIterator[Harness]:
        harness = FakeHarness()
        yield harness
        await harness.close()

    @pytest.fixture
    def own_harness(self, harness: Harness) -> Harness:
        return harness


class TestKafka(Contract):
    """Apache Kafka."""

    on_uvloop = True

    @pytest.fixture
    async def harness(self, kafka_server: KafkaAt) -> AsyncIterator[Harness]:
        harness = KafkaHarness(kafka_server)
        yield harness
        await harness.close()

    @pytest.fixture
    async def own_harness(self, own_kafka: KafkaServer) -> AsyncIterator[Harness]:
        harness = KafkaHarness(own_kafka)
        yield harness
        await harness.close()


class TestJetStream(Contract):
    """NATS with JetStream."""

    on_uvloop = True

    @pytest.fixture
    async def harness(self, nats_server: NatsServer) -> AsyncIterator[Harness]:
        harness = JetStreamHarness(nats_server)
        yield harness
        await harness.close()

    @pytest.fixture
    async def own_harness(self, own_nats: NatsServer) -> AsyncIterator[Harness]:
        harness = JetStreamHarness(own_nats)
        yield harness
        await harness.close()


class TestCoreNats(Contract):
    """NATS without JetStream."""

    on_uvloop = True

    @pytest.fixture
    async def harness(self, nats_server: NatsServer) -> AsyncIterator[Harness]:
        harness = CoreNatsHarness(nats_server)
        yield harness
        await harness.close()

    @pytest.fixture
    async def own_harness(self, own_nats: NatsServer) -> AsyncIterator[Harness]:
        harness = CoreNatsHarness(own_nats)
        yield harness
        await harness.close()
