"""A Kafka that asks who you are: SASL over TLS, client certificates, and an authorizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import for_code
from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest

from tests.canaries import KAFKA_PASSWORD
from tests.servers.certificates import Certificates, make_certificates
from tests.servers.kafka.server import KafkaServer

# https://github.com/apache/kafka/tree/4.1.1/clients/src/main/java/org/apache/kafka/common
# acl/AclOperation, acl/AclPermissionType, resource/ResourceType, resource/PatternType
_OPERATIONS = {"READ": 3, "WRITE": 4, "CREATE": 5, "DESCRIBE": 8, "DESCRIBE_CONFIGS": 10}
_ALLOW = 3
_TOPIC = 2
_LITERAL = 3
_JAAS = "org.apache.kafka.common.security"


@dataclass(frozen=True)
class SecureKafka:
    """A server and what clients need to get in."""

    server: KafkaServer
    certificates: Certificates
    username: str
    """May do everything; for each SASL mechanism."""
    password: str
    restricted_username: str
    """Logs in with the same password, and may do nothing until `allow` lets it."""

    @property
    def sasl(self) -> str:
        """Address that takes SCRAM-SHA-512, SCRAM-SHA-256 and PLAIN over TLS."""
        return self.server.address("SASL")

    @property
    def clear(self) -> str:
        """Address that takes PLAIN without TLS, and no other mechanism."""
        return self.server.address("CLEAR")

    @property
    def mtls(self) -> str:
        """Address that takes a client certificate; `CN=client` may do everything."""
        return self.server.address("MTLS")

    @property
    def expired(self) -> str:
        """Address with TLS whose certificate is over."""
        return self.server.address("EXPIRED")

    @property
    def misnamed(self) -> str:
        """Address with TLS whose certificate is another host's."""
        return self.server.address("MISNAMED")

    @property
    def bootstrap(self) -> str:
        """Plaintext address, for tests to read back what was stored: may do everything."""
        return self.server.bootstrap

    async def allow(self, operation: str, topic: str) -> None:
        """Let the restricted user do one thing (`WRITE`, `DESCRIBE`…) with one topic."""
        answer = await self._ask(CreateAclsRequest(**self._rule(operation, topic)))
        for code, message in answer.creation_responses:
            if code:
                raise for_code(code)(message)

    async def forbid(self, operation: str, topic: str) -> None:
        """Take back what `allow` gave."""
        answer = await self._ask(DeleteAclsRequest(**self._rule(operation, topic)))
        ((code, message, removed),) = answer.filter_responses
        if code:
            raise for_code(code)(message)
        assert len(removed) == 1, "there was no such rule"

    def _rule(self, operation: str, topic: str) -> dict[str, Any]:
        return {
            "resource_type": _TOPIC,
            "resource_name": topic,
            "resource_pattern_type_filter": _LITERAL,
            "principal": f"User:{self.restricted_username}",
            "host": "*",
            "operation": _OPERATIONS[operation],
            "permission_type": _ALLOW,
        }

    async def _ask(self, request: Any) -> Any:
        client = AIOKafkaClient(bootstrap_servers=self.bootstrap)
        await client.bootstrap()
        try:
            return await client.send(client.get_random_node(), request)
        finally:
            await client.close()


def secure_kafka(directory: Path) -> SecureKafka:
    """Prepare a secured Kafka; `.server.start()` starts it."""
    certificates = make_certificates(directory / "certificates")
    username, restricted, password = "writer", "restricted", KAFKA_PASSWORD
    users = " ".join(f'user_{name}="{password}"' for name in (username, restricted))
    plain = f"{_JAAS}.plain.PlainLoginModule required {users};"
    scram = f"{_JAAS}.scram.ScramLoginModule required;"
    server = KafkaServer(
        directory,
        listeners={
            "SASL": "SASL_SSL",
            "CLEAR": "SASL_PLAINTEXT",
            **dict.fromkeys(("MTLS", "EXPIRED", "MISNAMED"), "SSL"),
        },
        scram=dict.fromkeys((username, restricted), password),
        properties={
            **_tls(directory, certificates),
            **_keystore(directory, certificates, "expired", "listener.name.expired."),
            **_keystore(directory, certificates, "misnamed", "listener.name.misnamed."),
            "listener.name.mtls.ssl.client.auth": "required",
            "listener.name.sasl.sasl.enabled.mechanisms": "SCRAM-SHA-512,SCRAM-SHA-256,PLAIN",
            "listener.name.sasl.scram-sha-512.sasl.jaas.config": scram,
            "listener.name.sasl.scram-sha-256.sasl.jaas.config": scram,
            "listener.name.sasl.plain.sasl.jaas.config": plain,
            "listener.name.clear.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.clear.plain.sasl.jaas.config": plain,
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            # The plaintext listener is the tests' own way in, and the node's to itself.
            "super.users": f"User:ANONYMOUS;User:{username};User:CN=client",
        },
    )
    return SecureKafka(server, certificates, username, password, restricted)


def _tls(directory: Path, certificates: Certificates) -> dict[str, str]:
    return {
        **_keystore(directory, certificates, "server"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(certificates.ca),
    }


def _keystore(
    directory: Path, certificates: Certificates, identity: str, listener: str = ""
) -> dict[str, str]:
    """Kafka wants the key and its certificate chain in one PEM file."""
    keystore = directory / "certificates" / f"{identity}-keystore.pem"
    key: Path = getattr(certificates, f"{identity}_key")
    chain: Path = getattr(certificates, identity)
    keystore.write_bytes(key.read_bytes() + chain.read_bytes())
    return {
        f"{listener}ssl.keystore.type": "PEM",
        f"{listener}ssl.keystore.location": str(keystore),
    }
