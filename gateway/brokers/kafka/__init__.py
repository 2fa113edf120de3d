"""Apache Kafka, and what speaks its protocol, on aiokafka's connections and record format."""

from gateway.brokers.kafka.broker import KafkaBroker

__all__ = ["KafkaBroker"]
