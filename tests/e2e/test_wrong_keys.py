"""Brokers behind locks, with wrong keys: told at start and by `check`, by the setting's name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.canaries import WRONG_PASSWORD as WRONG
from tests.commands.command import Done, gateway, write_config
from tests.e2e.client import Client, event, until
from tests.e2e.conftest import Start
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.locks import Doors, Lock, assert_hidden, config_of, directory, findings
from tests.e2e.locks import sasl_of as sasl
from tests.servers.nats import NatsServer, tls_options
from tests.servers.nats_access import creds_access, nkey_access

LOGIN = "the login was refused; check brokers.{}.sasl.username and brokers.{}.sasl.password"
CLIENT = (
    "it wants a client certificate that it trusts; check brokers.{}.tls.cert_file and"
    " brokers.{}.tls.key_file"
)
AUTHORITY = "its certificate is not trusted; check brokers.{}.tls.ca_file"
HOST = "its certificate is for another host; check brokers.{}.servers"
EXPIRED = "its certificate has expired; renew it there"
CLOSED = "it closed the connection; if always, check brokers.{}.tls…"
AT_ONCE = "it closed the connection at once; check brokers.{}.tls and the port"
NO_SASL = "this port takes no login; check brokers.{}.sasl and the port"

WORDS = {
    "kafka_scram_512_password": LOGIN,
    "kafka_scram_256_password": LOGIN,
    "kafka_plain_password": LOGIN,
    "kafka_username": LOGIN,
    "kafka_mechanism": "the cluster does not take this login; check brokers.{}.sasl.mechanism",
    "kafka_authority": AUTHORITY,
    "kafka_host": HOST,
    "kafka_expired": EXPIRED,
    "kafka_no_certificate": CLIENT,
    "kafka_certificate_of_others": CLIENT,
    "kafka_plaintext_where_tls_is": CLOSED,
    "kafka_tls_where_none_is": AT_ONCE,
    "kafka_no_login": CLOSED,
    "kafka_login_where_none_is": NO_SASL,
    "nats_wrong_token": "the login was refused; check brokers.{}.token",
    "nats_no_login": (
        "the server wants a login; set brokers.{}.credentials_file, nkey_seed_file, username and"
        " password, or token"
    ),
    "nats_password": "the login was refused; check brokers.{}.username and brokers.{}.password",
    "nats_password_over_tls": (
        "the login was refused; check brokers.{}.username and brokers.{}.password"
    ),
    "nats_nkey_of_others": "the login was refused; check brokers.{}.nkey_seed_file",
    "nats_creds_of_others": "the login was refused; check brokers.{}.credentials_file",
    "nats_creds_revoked": "the login was refused; check brokers.{}.credentials_file",
    "nats_creds_expired": (
        "the login was refused; check brokers.{}.credentials_file: its JWT expired at 20…"
    ),
    "nats_authority": AUTHORITY,
    "nats_host": HOST,
    "nats_expired": EXPIRED,
    "nats_no_certificate": CLIENT,
    "nats_certificate_of_others": CLIENT,
    "nats_plaintext_where_tls_is": AUTHORITY,
    "nats_tls_where_none_is": (
        "it offers no TLS, or does not require it; require it there, or remove brokers.{}.tls"
    ),
}


def wrong_kafka(doors: Doors) -> list[Lock]:
    """Give brokers of the shared Kafka that cannot be reached, each for one reason."""
    kafka, changed = doors.kafka, doors.changed
    refused = {
        name: sasl(doors, mechanism, password=WRONG)[0]
        for name, mechanism in (("scram_512", "SCRAM-SHA-512"), ("scram_256", "SCRAM-SHA-256"))
    }
    plain, scram = "kafka_plain", "kafka_scram_512"
    clear, mutual = "kafka_plain_in_the_clear", "kafka_mutual"
    user = sasl(doors, "SCRAM-SHA-512", username="nobody")[0]
    return [
        changed(scram, "kafka_scram_512_password", sasl=refused["scram_512"]),
        changed(scram, "kafka_scram_256_password", sasl=refused["scram_256"]),
        changed(plain, "kafka_plain_password", sasl=sasl(doors, "PLAIN", password=WRONG)[0]),
        changed(scram, "kafka_username", sasl=user),
        changed(clear, "kafka_mechanism", sasl=sasl(doors, "SCRAM-SHA-512")[0]),
        changed(scram, "kafka_authority", tls=doors.tls(ca="other_ca")),
        changed(mutual, "kafka_host", servers=[kafka.misnamed]),
        changed(mutual, "kafka_expired", servers=[kafka.expired]),
        changed(mutual, "kafka_no_certificate", tls=doors.tls()),
        changed(mutual, "kafka_certificate_of_others", tls=doors.tls("other_client")),
        changed(plain, "kafka_plaintext_where_tls_is", tls=None),
        changed(plain, "kafka_tls_where_none_is", servers=[kafka.clear]),
        changed(plain, "kafka_no_login", sasl=None),
        changed(plain, "kafka_login_where_none_is", servers=[kafka.bootstrap], tls=None),
    ]


def wrong_nats(doors: Doors) -> list[Lock]:
    """Give brokers of NATS that cannot be reached, each for one reason."""
    changed, wrong = doors.changed, doors.secret(WRONG)

    def shown(identity: str) -> list[str]:
        return [doors.start(options=tls_options(doors.certificates, identity=identity)).url]

    def creds(name: str, **state: bool) -> tuple[dict[str, object], str]:
        options, path = creds_access(directory(doors, name), **state)
        return options, str(path)

    _, seed = nkey_access(directory(doors, "nkey-of-others"))
    _, foreign = creds("creds-of-others")
    expired, old = creds("creds-expired", expired=True)
    revoking, revoked = creds("creds-revoked", revoked=True)
    return [
        changed("nats_token", "nats_wrong_token", token=wrong),
        changed("nats_token", "nats_no_login", token=None),
        changed("nats_user", "nats_password", password=wrong),
        changed("nats_tls_user", "nats_password_over_tls", password=wrong),
        changed("nats_nkey", "nats_nkey_of_others", nkey_seed_file=str(seed)),
        changed("nats_creds", "nats_creds_of_others", credentials_file=foreign),
        changed(
            "nats_creds",
            "nats_creds_revoked",
            servers=[doors.start(options=revoking).url],
            credentials_file=revoked,
        ),
        changed(
            "nats_creds",
            "nats_creds_expired",
            servers=[doors.start(options=expired).url],
            credentials_file=old,
        ),
        changed("nats_tls", "nats_authority", tls=doors.tls(ca="other_ca")),
        changed("nats_tls", "nats_host", servers=shown("misnamed")),
        changed("nats_tls", "nats_expired", servers=shown("expired")),
        changed("nats_mutual_tls", "nats_no_certificate", tls=doors.tls()),
        changed("nats_mutual_tls", "nats_certificate_of_others", tls=doors.tls("other_client")),
        changed("nats_tls", "nats_plaintext_where_tls_is", tls=None),
        changed("nats_token", "nats_tls_where_none_is", tls=doors.tls()),
    ]


@pytest.fixture(scope="module")
def wrong(doors: Doors) -> dict[str, Lock]:
    """Give all brokers that cannot be reached."""
    return {lock.name: lock for lock in [*wrong_kafka(doors), *wrong_nats(doors)]}


@pytest.fixture(scope="module")
def checked(doors: Doors, wrong: dict[str, Lock], tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Run `gateway check --connect` on a file with all of them."""
    place = tmp_path_factory.mktemp("checked")
    path = write_config(place, config_of(wrong.values()))
    done = gateway("check", "--config", path, "--connect", cwd=place)
    assert_hidden(doors, done.out + done.err)
    return done


@pytest.fixture(scope="module")
def serving(wrong: dict[str, Lock], module_gateways: Start) -> GatewayProcess:
    """Serve a file with all of them."""
    return module_gateways(config_of(wrong.values()))


def told(serving: GatewayProcess, name: str) -> list[str]:
    """Give what the log says of a broker that is not connected."""
    marks = (f"kafka broker {name}: not connected: ", f"nats broker {name}: not connected: ")
    return [
        line["event"].partition(": not connected: ")[2]
        for line in serving.lines()
        if line["event"].startswith(marks) and line["level"] == "warning"
    ]


def assert_told(name: str, words: str) -> None:
    """Assert that these are a broker's words; "…" in the table stands for the rest."""
    expected = WORDS[name].format(name, name)
    if expected.endswith("…"):
        words = words[: len(expected) - 1] + "…"
    assert words == expected


def test_every_wrong_key_has_its_words(wrong: dict[str, Lock]) -> None:
    assert set(wrong) == set(WORDS)


def test_check_says_that_brokers_could_not_be_reached(checked: Done) -> None:
    assert checked.code == 3
    assert "fine" not in checked.out


@pytest.mark.parametrize("name", WORDS)
def test_check_names_the_setting(checked: Done, wrong: dict[str, Lock], name: str) -> None:
    ((severity, about, words),) = findings(checked.out)[name]
    assert (severity, about) == ("unreachable", name)
    where = wrong[name].address.removeprefix("nats://")
    what = "cluster" if name.startswith("kafka") else "server"
    start = f"cannot use the {what} at {where}: "
    assert words.startswith(start)
    assert_told(name, words.removeprefix(start))


@pytest.mark.parametrize("name", WORDS)
async def test_serve_names_the_setting_and_answers_503(serving: GatewayProcess, name: str) -> None:
    async def is_told() -> bool:
        return bool(told(serving, name))

    await until(is_told, f"{name} is told")
    (words,) = told(serving, name)
    assert_told(name, words)
    async with Client(serving) as client:
        async with client.counting(("clerk", "failed", "broker_down")):
            answer = await client.post(event(f"{name}.created"))
        assert answer.word == (503, "failed")
        assert [target["reason"] for target in answer.body["targets"]] == ["broker_down"]
        status, ready = await client.ready()
    assert (status, ready["status"]) == (503, "undeliverable")
    assert ready["brokers"][name] == "down"


async def test_each_cause_is_told_once_however_often_it_is_tried(
    doors: Doors, serving: GatewayProcess
) -> None:
    server = doors.servers["nats_user"]
    before = server.log.read_text().count("authentication error")

    async def tried_on() -> bool:
        return server.log.read_text().count("authentication error") >= before + 4

    await until(tried_on, "four more attempts")
    assert {name: len(told(serving, name)) for name in WORDS} == dict.fromkeys(WORDS, 1)
    written = serving.log.read_text()
    assert_hidden(doors, written)
    assert '"level":"error"' not in written


async def test_a_new_cause_is_told_and_the_right_key_ends_it(
    new_nats: Callable[..., NatsServer], gateways: Start
) -> None:
    def users(password: str) -> dict[str, Any]:
        return {"authorization": {"users": [{"user": "u", "password": password}]}}

    server = await asyncio.to_thread(new_nats, options=users("another"))
    settings = {
        "kind": "nats",
        "servers": [server.url],
        "username": "u",
        "password": WRONG,
        "jetstream": False,
    }
    lock = Lock("bus", settings, {})
    serving = await asyncio.to_thread(gateways, config_of([lock]))
    login = "the login was refused; check brokers.bus.username and brokers.bus.password"
    away = "nothing listens there; check brokers.bus.servers"

    async def is_so(expected: list[str]) -> None:
        async def told_so() -> bool:
            return told(serving, "bus") == expected

        await until(told_so, str(expected))

    await is_so([login])
    await asyncio.to_thread(server.stop)
    await is_so([login, away])
    await asyncio.to_thread(server.start)
    await is_so([login, away, login])
    server.reload(users(WRONG))
    async with Client(serving) as client:
        await client.until_ready()
        assert (await client.post(event("bus.created"))).word == (200, "delivered")
    assert told(serving, "bus") == [login, away, login]
    assert WRONG not in serving.log.read_text()
