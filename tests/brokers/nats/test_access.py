"""Ways to log in to real nats-servers, and what is said when one does not work."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from pydantic import SecretStr

from gateway.brokers.base import BrokerOptionsError, State
from gateway.brokers.nats.options import Server, client_options, parse_server
from gateway.config.models import NatsConfig
from tests.brokers.nats.conftest import Starter
from tests.brokers.nats.support import wait_for
from tests.canaries import NATS_ODD_PASSWORD
from tests.canaries import NATS_SECRET as SECRET
from tests.servers.certificates import Certificates, make_certificates
from tests.servers.nats import NatsServer, tls_options
from tests.servers.nats_access import creds_access, nkey_access

NewNats = Callable[..., NatsServer]
STREAM = [{"name": "S", "subjects": ["s"]}]
USER = {"authorization": {"users": [{"user": "u", "password": SECRET}]}}
TOKEN = {"authorization": {"token": SECRET}}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Make the files of one authority."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def config(**settings: Any) -> NatsConfig:
    """A config with one server."""
    return NatsConfig.model_validate(
        {"kind": "nats", "servers": ("nats://localhost:4222",), **settings}
    )


async def test_user_and_password(new_nats: NewNats, start: Starter) -> None:
    server = await asyncio.to_thread(new_nats, options=USER)
    under_test = await start(server.url, username="u", password=SECRET, streams=STREAM)

    assert await under_test.outcome("s") == "Receipt"


async def test_a_token_and_a_login_in_the_url(new_nats: NewNats, start: Starter) -> None:
    server = await asyncio.to_thread(new_nats, options=TOKEN)
    in_setting = await start(server.url, token=SECRET, streams=STREAM)
    in_url = await start(server.url.replace("//", f"//{SECRET}@"), streams=STREAM)

    assert await in_setting.outcome("s") == await in_url.outcome("s") == "Receipt"


async def test_marks_in_the_login_of_a_url(new_nats: NewNats, start: Starter) -> None:
    users = [{"user": "a b", "password": NATS_ODD_PASSWORD}]
    server = await asyncio.to_thread(new_nats, options={"authorization": {"users": users}})
    login = server.url.replace("//", f"//a%20b:{quote(NATS_ODD_PASSWORD, safe='')}@")

    under_test = await start(login, streams=STREAM)

    assert await under_test.outcome("s") == "Receipt"


async def test_an_nkey(new_nats: NewNats, start: Starter, tmp_path: Path) -> None:
    options, seed = nkey_access(tmp_path)
    server = await asyncio.to_thread(new_nats, options=options)
    under_test = await start(server.url, nkey_seed_file=str(seed), streams=STREAM)

    assert await under_test.outcome("s") == "Receipt"


async def test_credentials(new_nats: NewNats, start: Starter, tmp_path: Path) -> None:
    options, credentials = creds_access(tmp_path)
    server = await asyncio.to_thread(new_nats, options=options)
    under_test = await start(server.url, credentials_file=str(credentials), streams=STREAM)

    assert await under_test.outcome("s") == "Receipt"


@pytest.mark.parametrize(
    ("options", "settings", "named"),
    [
        (USER, {"username": "u", "password": "wrong"}, "check brokers.bus.username"),
        (TOKEN, {"token": "wrong"}, "check brokers.bus.token"),
        (TOKEN, {}, "set brokers.bus.credentials_file"),
    ],
)
async def test_a_wrong_login_is_told_once_with_its_setting_and_tried_on(
    new_nats: NewNats,
    start: Starter,
    caplog: pytest.LogCaptureFixture,
    options: dict[str, Any],
    settings: dict[str, Any],
    named: str,
) -> None:
    server = await asyncio.to_thread(new_nats, options=options)
    under_test = await start(server.url, until=State.DOWN, **settings)
    refusals = "authentication error"
    await wait_for(lambda: server.log_tail().count(refusals) >= 3)

    (finding,) = await under_test.broker.check([])

    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert named in warning.getMessage()
    assert (finding.severity, named in finding.message) == ("unreachable", True)
    assert SECRET not in caplog.text + repr(finding)
    assert "wrong" not in caplog.text + repr(finding)


async def test_rotated_credentials_count_at_the_next_connect(
    new_nats: NewNats, start: Starter, tmp_path: Path
) -> None:
    options, seed = nkey_access(tmp_path)
    good = seed.read_bytes()
    (tmp_path / "other").mkdir()
    _, other = nkey_access(tmp_path / "other")
    seed.write_bytes(other.read_bytes())
    server = await asyncio.to_thread(new_nats, options=options)
    under_test = await start(server.url, until=State.DOWN, nkey_seed_file=str(seed))

    seed.unlink()
    await asyncio.sleep(0)
    seed.write_bytes(good)

    await wait_for(lambda: under_test.broker.state is State.UP)


async def test_tls_with_our_authority(
    new_nats: NewNats, start: Starter, certificates: Certificates
) -> None:
    server = await asyncio.to_thread(new_nats, options=tls_options(certificates))
    tls = {"ca_file": str(certificates.ca)}
    under_test = await start(server.url, tls=tls, streams=STREAM)
    big = await under_test.outcome("s", b"x" * 900_000)

    assert await under_test.outcome("s") == big == "Receipt"


async def test_tls_with_a_client_certificate(
    new_nats: NewNats, start: Starter, certificates: Certificates
) -> None:
    server = await asyncio.to_thread(new_nats, options=tls_options(certificates, mutual=True))
    ours = {
        "ca_file": str(certificates.ca),
        "cert_file": str(certificates.client),
        "key_file": str(certificates.client_key),
    }
    with_ours = await start(server.url, tls=ours, streams=STREAM)
    without = await start(server.url, tls={"ca_file": str(certificates.ca)}, until=State.DOWN)

    assert await with_ours.outcome("s") == "Receipt"
    assert await without.outcome("s") == "Unavailable(broker_down)"


async def test_an_unknown_authority_and_no_tls_are_told(
    new_nats: NewNats,
    start: Starter,
    certificates: Certificates,
    caplog: pytest.LogCaptureFixture,
) -> None:
    secure = await asyncio.to_thread(new_nats, options=tls_options(certificates))
    plain = await asyncio.to_thread(new_nats)

    await start(secure.url, tls={"ca_file": str(certificates.other_ca)}, until=State.DOWN)
    await start(secure.url, until=State.DOWN)
    await start(plain.url, tls={"ca_file": str(certificates.ca)}, until=State.DOWN)

    told = [record.getMessage() for record in caplog.records]
    assert sum("not trusted; check brokers.bus.tls.ca_file" in message for message in told) == 2
    assert sum("it offers no TLS" in message for message in told) == 1


@pytest.mark.parametrize("login", [{"token": SECRET}, {"username": "u", "password": SECRET}])
async def test_no_secret_goes_out_where_tls_is_wanted_and_not_offered(
    start: Starter, certificates: Certificates, login: dict[str, str]
) -> None:
    heard = []

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"version":"2.12.0","headers":true,"auth_required":true}\r\n')
        heard.append(await reader.read())
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        tls = {"ca_file": str(certificates.ca)}
        under_test = await start(f"127.0.0.1:{port}", until=State.DOWN, tls=tls, **login)
        await under_test.broker.close(1)
        await wait_for(lambda: bool(heard))

    assert set(heard) == {b""}


async def test_a_login_that_may_not_subscribe_to_its_inbox_is_told(
    new_nats: NewNats, start: Starter, caplog: pytest.LogCaptureFixture
) -> None:
    permissions = {"subscribe": {"deny": ["_INBOX.>"]}}
    users = [{"user": "u", "password": SECRET, "permissions": permissions}]
    server = await asyncio.to_thread(new_nats, options={"authorization": {"users": users}})
    login = {"username": "u", "password": SECRET}

    await start(server.url, **login, until=State.DOWN)
    core = await start(server.url, **login, jetstream=False)

    assert await core.outcome("s") == "Receipt"
    assert "may not subscribe to _INBOX.>" in caplog.text


@pytest.mark.parametrize(
    ("setting", "content"),
    [
        ("credentials_file", None),
        ("credentials_file", "no such thing"),
        ("nkey_seed_file", None),
        ("nkey_seed_file", "SUNOTASEED"),
        ("tls.ca_file", None),
        ("tls.ca_file", "not PEM"),
        ("tls.cert_file", None),
        ("tls.cert_file", "not PEM"),
    ],
)
async def test_a_file_that_cannot_work_stops_the_start(
    start: Starter, tmp_path: Path, setting: str, content: str | None
) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_text(content)
    outer, _, inner = setting.partition(".")
    settings = {outer: {inner: str(path)}} if inner else {outer: str(path)}

    with pytest.raises(BrokerOptionsError) as caught:
        await start("nats://localhost", until=None, **settings)

    assert (caught.value.broker, caught.value.setting) == ("bus", setting)
    assert content is None or content not in str(caught.value)


def test_a_key_without_its_certificate() -> None:
    with pytest.raises(BrokerOptionsError, match=r"bus\.tls\.cert_file"):
        client_options("bus", config(tls={"key_file": "key.pem"}))


def test_no_server_is_an_error() -> None:
    with pytest.raises(BrokerOptionsError, match=r"bus\.servers: is empty"):
        client_options("bus", config(servers=()))


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("example.com", Server("example.com", 4222, tls_host="example.com")),
        ("example.com:5000", Server("example.com", 5000, tls_host="example.com")),
        ("tls://example.com", Server("example.com", 4222, tls=True, tls_host="example.com")),
        ("nats://[::1]:4333", Server("::1", 4333, tls_host="::1")),
        (
            "nats://u:p%40@h",
            Server("h", 4222, tls_host="h", username="u", password=SecretStr("p@")),
        ),
    ],
)
def test_addresses(text: str, server: Server) -> None:
    assert parse_server("bus", text) == server


@pytest.mark.parametrize(
    "text", ["", "nats://", "ws://example.com", "h:notaport", "nats://h:99999", "nats://h/x", "a b"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(BrokerOptionsError, match=r"bus\.servers"):
        parse_server("bus", text)


def test_nothing_shows_a_secret() -> None:
    options = client_options(
        "bus",
        config(servers=(f"nats://u:{SECRET}@h",), username="u", password=SECRET, token=SECRET),
    )
    with pytest.raises(BrokerOptionsError) as caught:
        parse_server("bus", f"nats://u:{SECRET}@h:port")

    assert SECRET not in f"{options!r} {options} {options.servers[0]!r} {caught.value}"
