"""A real Apache Kafka in one JVM, from Maven's jars: no container, up in a few seconds."""

from tests.servers.kafka.secure import SecureKafka, secure_kafka
from tests.servers.kafka.server import KafkaAt, KafkaServer

__all__ = ["KafkaAt", "KafkaServer", "SecureKafka", "secure_kafka"]
