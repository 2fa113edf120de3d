"""Brokers behind locks, with the right keys: checked, and published to, as an operator does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.commands.command import Done, gateway, write_config
from tests.e2e.client import Client, event, signed
from tests.e2e.conftest import Start
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.locks import LOCKS, Doors, assert_hidden, config_of, findings

CLEAR = {
    "kafka_plain_in_the_clear": (
        "sasl.mechanism PLAIN without tls sends the password in the clear; set tls"
    ),
    "nats_user": "without tls the password is sent in the clear; set tls",
    "nats_token": "without tls the token is sent in the clear; set tls",
}


@pytest.fixture(scope="module")
def opened(doors: Doors) -> Doors:
    """Make the topics and streams behind the locks."""

    async def prepare() -> None:
        for lock in doors.locks.values():
            if lock.broker["kind"] == "kafka":
                await doors.kafka.server.create_topic(lock.destination)
            await lock.prepare()

    asyncio.run(prepare())
    return doors


@pytest.fixture(scope="module")
def checked(opened: Doors, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Run `gateway check --connect` on a file with all locks."""
    directory = tmp_path_factory.mktemp("checked")
    path = write_config(directory, config_of(opened.locks.values()))
    done = gateway("check", "--config", path, "--connect", cwd=directory)
    assert_hidden(opened, done.out + done.err)
    return done


@pytest.fixture(scope="module")
def serving(opened: Doors, module_gateways: Start) -> GatewayProcess:
    """Serve a file with all locks."""
    return module_gateways(config_of(opened.locks.values()))


def test_the_locks_are_those_of_the_list(doors: Doors) -> None:
    assert set(doors.locks) == set(LOCKS)


def test_check_is_content(checked: Done) -> None:
    assert checked.code == 0, checked.out + checked.err
    count = len(LOCKS)
    assert f"fine: 1 source, {count} brokers, {count} routes" in checked.out


@pytest.mark.parametrize("name", LOCKS)
def test_check_gets_in_and_tells_what_is_in_the_clear(checked: Done, name: str) -> None:
    found = findings(checked.out)[name]
    answers = "the cluster answers" if name.startswith("kafka") else "nats-server"
    assert found[0][:2] == ("ok", name)
    assert answers in found[0][2]
    assert {severity for severity, _, _ in found} <= {"ok", "warning"}
    in_the_clear = [words for _, about, words in found if about == name and "in the clear" in words]
    assert in_the_clear == ([CLEAR[name]] if name in CLEAR else [])


@pytest.mark.parametrize("name", LOCKS)
async def test_an_event_gets_through(opened: Doors, serving: GatewayProcess, name: str) -> None:
    body = event(f"{name}.created")
    async with Client(serving) as client:
        await client.until_ready()
        async with client.counting(("clerk", "delivered", "")):
            answer = await client.post(body, signed(body))
    assert answer.word == (200, "delivered"), answer.raw
    assert [target["status"] for target in answer.body["targets"]] == ["delivered"]
    assert await opened.locks[name].values() == [body]


def test_nothing_that_opens_a_lock_is_in_the_log(opened: Doors, serving: GatewayProcess) -> None:
    assert_hidden(opened, serving.log.read_text())
    warned = [line for line in serving.lines() if line["level"] != "info"]
    assert warned == []


def test_secrets_are_looked_for(opened: Doors, tmp_path: Path) -> None:
    seed = (opened.directory / "nkey" / "user.nk").read_text()
    with pytest.raises(AssertionError, match=r"user\.nk"):
        assert_hidden(opened, f"some {seed} here")
