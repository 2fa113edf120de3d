"""The servers the other tests stand on: they survive a kill, and they end with the run."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nats
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import TopicAlreadyExistsError, TopicAuthorizationFailedError
from aiokafka.helpers import create_ssl_context

from tests.servers.kafka import KafkaAt, KafkaServer, SecureKafka
from tests.servers.kafka.jars import java, maven
from tests.servers.nats import NatsServer
from tests.servers.nats_access import creds_access, nkey_access
from tests.servers.process import ServerError

ROOT = Path(__file__).parents[2]
ORPHAN = """
import os, sys, time
from pathlib import Path
from tests.servers.kafka.jars import java, maven
from tests.servers.nats import NatsServer
server = NatsServer(Path(sys.argv[1]))
server.start()
print(server.pid, flush=True)
time.sleep(60)
"""


async def store(bootstrap: str, topic: str, **options: object) -> int:
    """Write one record with a client of its own and give its offset."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, **options)
    await producer.start()
    try:
        return int((await producer.send_and_wait(topic, b"x")).offset)
    finally:
        await producer.stop()


async def answer_without_login(port: int) -> bytes:
    """Speak to a nats-server by hand: its client leaves a socket behind when it is refused."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(10):
        await reader.readline()
        writer.write(b"CONNECT {}\r\nPING\r\n")
        answer = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_kafka_keeps_what_it_acknowledged_through_a_kill(
    own_kafka: KafkaServer, unique: Callable[[str], str]
) -> None:
    topic = await own_kafka.create_topic(unique("topic"))
    assert await store(own_kafka.bootstrap, topic) == 0
    own_kafka.kill()
    await asyncio.to_thread(own_kafka.start)
    assert await store(own_kafka.bootstrap, topic) == 1


async def test_a_topic_that_exists_is_not_created_twice(
    kafka_server: KafkaAt, unique: Callable[[str], str]
) -> None:
    topic = await kafka_server.create_topic(unique("topic"), 3, {"max.message.bytes": "4096"})
    with pytest.raises(TopicAlreadyExistsError):
        await kafka_server.create_topic(topic)


async def test_secured_kafka_lets_in_whom_it_should(
    secured_kafka: SecureKafka, unique: Callable[[str], str]
) -> None:
    topic = await secured_kafka.server.create_topic(unique("topic"))
    files = secured_kafka.certificates
    login = {
        "security_protocol": "SASL_SSL",
        "ssl_context": create_ssl_context(cafile=str(files.ca)),
        "sasl_plain_password": secured_kafka.password,
        "sasl_plain_username": secured_kafka.username,
    }
    for mechanism in ("PLAIN", "SCRAM-SHA-512"):
        await store(secured_kafka.sasl, topic, **login, sasl_mechanism=mechanism)
    certificate = create_ssl_context(
        cafile=str(files.ca), certfile=str(files.client), keyfile=str(files.client_key)
    )
    mtls = {"security_protocol": "SSL", "ssl_context": certificate}
    assert await store(secured_kafka.mtls, topic, **mtls) == 2


async def test_restricted_user_may_do_what_it_is_allowed(
    secured_kafka: SecureKafka, unique: Callable[[str], str]
) -> None:
    topic = await secured_kafka.server.create_topic(unique("topic"))
    login = {
        "security_protocol": "SASL_SSL",
        "ssl_context": create_ssl_context(cafile=str(secured_kafka.certificates.ca)),
        "sasl_mechanism": "PLAIN",
        "sasl_plain_password": secured_kafka.password,
        "sasl_plain_username": secured_kafka.restricted_username,
    }
    with pytest.raises(TopicAuthorizationFailedError):
        await store(secured_kafka.sasl, topic, **login)
    await secured_kafka.allow("WRITE", topic)
    assert await store(secured_kafka.sasl, topic, **login) == 0


async def test_nats_keeps_what_it_acknowledged_through_a_kill(own_nats: NatsServer) -> None:
    for expected in (1, 2):
        client = await nats.connect(own_nats.url)
        stream = client.jetstream()
        await stream.add_stream(name="S", subjects=["s"])
        assert (await stream.publish("s", b"x")).seq == expected
        await client.close()
        own_nats.kill()
        own_nats.start()


@pytest.mark.parametrize(
    ("access", "option"), [(nkey_access, "nkeys_seed"), (creds_access, "user_credentials")]
)
async def test_nats_lets_in_whom_it_should(
    access: Callable[[Path], tuple[dict[str, object], Path]],
    option: str,
    tmp_path: Path,
    new_nats: Callable[..., NatsServer],
) -> None:
    settings, secret = access(tmp_path)
    server = new_nats(options=settings)
    client = await nats.connect(server.url, **{option: str(secret)})
    stream = client.jetstream()
    await stream.add_stream(name="S", subjects=["s"])
    assert (await stream.publish("s", b"x")).seq == 1
    await client.close()
    assert await answer_without_login(server.port) == b"-ERR 'Authorization Violation'\r\n"


def test_settings_that_cannot_work_show_the_log(new_nats: Callable[..., NatsServer]) -> None:
    with pytest.raises(ServerError, match="no_such_setting"):
        new_nats(options={"no_such_setting": 1})


@pytest.mark.parametrize("program", [java, maven])
def test_a_missing_program_is_told_with_its_remedy(
    program: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ServerError, match=r"apt-get install .* GATEWAY_TEST_KAFKA=host:port"):
        program()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_server_ends_when_its_run_is_killed(tmp_path: Path) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", ORPHAN, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    with run.stdout:
        server = int(run.stdout.readline())
    run.kill()
    run.wait()
    deadline = time.monotonic() + 10
    while exists(server) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not exists(server)


def exists(process: int) -> bool:
    """Tell whether a process exists and has not ended; nobody may have collected it yet."""
    try:
        os.kill(process, signal.SIG_DFL)
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state != "Z"
