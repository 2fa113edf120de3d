"""Secrets that change while the gateway serves: nothing is refused, nothing lost, no restart."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.canaries import OTHER_SECRET, SECRET
from tests.e2e.clerk import Clerk, MountedSecret
from tests.e2e.client import Answer, Client, event, new_id, signed, until
from tests.e2e.conftest import Start
from tests.e2e.gateway_process import GatewayProcess, children
from tests.e2e.readback import create_stream, stream_messages
from tests.e2e.test_workers import until_workers
from tests.servers.nats import NatsServer

OLD, NEW = SECRET, OTHER_SECRET
STALE = "config not reloaded: the last good one stays"


async def on(nats: NatsServer, name: str, secrets: Any, **more: Any) -> dict[str, Any]:
    """Make a stream, and give a config with these secrets whose one route goes there."""
    await create_stream(nats.url, name, f"{name}.>")
    targets = [{"broker": "bus", "subject": f"{name}.{{type}}"}]
    return {
        "sources": {"clerk": {"secrets": secrets}},
        "brokers": {"bus": {"kind": "nats", "servers": [nats.url]}},
        "routes": [{"name": "all", "events": ["*"], "targets": targets}],
        **more,
    }


def held(path: Path) -> str:
    """Give how a config names a file."""
    return f"${{file:{path}}}"


def replace(path: Path, text: str) -> None:
    """Rename a new file over the old one."""
    beside = path.with_name("new")
    beside.write_text(text)
    beside.rename(path)


def said(gateway: GatewayProcess, what: str) -> list[dict[str, Any]]:
    """Give the lines of one event of the log."""
    return [line for line in gateway.lines() if line["event"] == what]


async def until_said(gateway: GatewayProcess, what: str, times: int = 1) -> None:
    async def is_so() -> bool:
        return len(said(gateway, what)) >= times

    await until(is_so, f"{times} times: {what}")


async def until_config(client: Client, state: str) -> None:
    async def is_so() -> bool:
        return bool((await client.ready())[1]["config"] == state)

    await until(is_so, f"the config is {state}")


def assert_taken_or_not_yet(answer: Answer) -> None:
    """A worker that has just started answers 503 until its broker is there."""
    if answer.status == 503:
        assert answer.body["reason"] == "broker_down"
    else:
        assert answer.word == (200, "delivered")


async def until_refused(client: Client, secret: str) -> None:
    async def is_so() -> bool:
        body = event()
        answer = await client.post(body, signed(body, secret=secret))
        if answer.status == 401:
            return True
        assert_taken_or_not_yet(answer)
        return False

    await until(is_so, "the old secret is refused")


async def until_every_worker_refuses(gateway: GatewayProcess, secret: str) -> None:
    """Ask each worker by itself, the others being frozen meanwhile."""
    workers = await asyncio.to_thread(children, gateway.pid)
    for asked in workers or {0}:
        for frozen in workers - {asked}:
            os.kill(frozen, signal.SIGSTOP)
        async with Client(gateway) as fresh:
            await until_refused(fresh, secret)
        for frozen in workers - {asked}:
            os.kill(frozen, signal.SIGCONT)


class OneFile:
    """Both secrets in one file, separated by a comma; another file is renamed over it."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "secrets"
        self._path.write_text(OLD)
        self.secrets: Any = held(self._path)

    def write(self, *secrets: str) -> None:
        replace(self._path, ",".join(secrets) + "\n")


class TwoFiles:
    """Two files of a mounted Kubernetes Secret; they hold the same while there is one secret."""

    def __init__(self, directory: Path) -> None:
        self._mounted = MountedSecret(directory / "mounted", first=OLD, second=OLD)
        self.secrets: Any = [held(self._mounted.path(name)) for name in ("first", "second")]

    def write(self, *secrets: str) -> None:
        self._mounted.write(first=secrets[0], second=secrets[-1])


@pytest.mark.parametrize(("workers", "kept"), [(1, OneFile), (2, TwoFiles)])
async def test_the_clerk_secret_rotates_as_clerk_does_it(
    gateways: Start,
    own_nats: NatsServer,
    unique: Callable[[str], str],
    tmp_path: Path,
    workers: int,
    kept: type[OneFile | TwoFiles],
) -> None:
    """Under load, by every step that docs/http.md tells; both copies of an event come at once.

    One event is one message, whichever workers its copies reach. On Kafka that holds within one
    worker: tests/e2e/test_ledger.py.
    """
    stream, files = unique("rotation"), kept(tmp_path)
    gateway = gateways(await on(own_nats, stream, files.secrets), workers)
    if workers > 1:
        await until_workers(gateway, workers)
    processes = await asyncio.to_thread(children, gateway.pid)

    async def taken(secret: str, count: int = 20) -> None:
        """Wait until an endpoint has got through so often from now on."""
        before = len(clerk.attempts)

        async def is_so() -> bool:
            seen = clerk.attempts[before:]
            return sum(one.secret == secret and one.answer.status == 200 for one in seen) >= count

        await until(is_so, "events are taken")

    async with Client(gateway) as client:
        await client.until_ready()
        async with Clerk(gateway, [OLD]) as clerk:
            await taken(OLD)
            clerk.endpoints.append(NEW)  # 1. the second endpoint; the gateway does not know it
            await taken(OLD)
            files.write(OLD, NEW)  # 2. the gateway gets both
            await taken(NEW)
            clerk.endpoints.remove(OLD)  # 3. the old endpoint is deleted
            await taken(NEW)
            files.write(NEW)  # 4. the gateway forgets the old secret
            await until_every_worker_refuses(gateway, OLD)
            await taken(NEW)
        reloads = await client.samples("gateway_config_reloads_total")

    assert only_unknown_secrets_were_refused(clerk)
    assert reloads == {("applied",): 2, ("refused",): 0}
    assert await asyncio.to_thread(children, gateway.pid) == processes
    stored = Counter(one.headers["svix-id"] for one in await stream_messages(own_nats.url, stream))
    assert clerk.sent <= stored.keys(), "an event was lost"
    assert {stored[svix_id] for svix_id in clerk.sent} == {1}
    assert max(stored.values()) == 1


def only_unknown_secrets_were_refused(clerk: Clerk) -> bool:
    """Tell whether each connection was refused only what came before its worker knew the secret."""
    known = {(sender, OLD) for sender in range(100)}
    refused = 0
    for one in clerk.attempts:
        if one.answer.status == 200:
            known.add((one.sender, one.secret))
            continue
        assert one.answer.word == (401, "rejected")
        assert one.answer.body["error"] == "no matching signature"
        assert (one.sender, one.secret) not in known
        refused += 1
    return refused > 0


@pytest.fixture
async def gateway(
    gateways: Start, nats_server: NatsServer, unique: Callable[[str], str], tmp_path: Path
) -> GatewayProcess:
    """Give a gateway whose secrets and admin token are in files, and a request may take long."""
    (tmp_path / "secrets").write_text(OLD)
    (tmp_path / "token").write_text("admin-token-before")
    config = await on(
        nats_server,
        unique("rotation"),
        held(tmp_path / "secrets"),
        server={"deadline": "60s", "body_timeout": "60s"},
        admin={"token": held(tmp_path / "token")},
    )
    return gateways(config)


@pytest.fixture
async def client(gateway: GatewayProcess) -> AsyncIterator[Client]:
    async with Client(gateway) as client:
        await client.until_ready()
        yield client


async def test_a_request_in_flight_ends_with_what_it_began_with(
    gateway: GatewayProcess, client: Client, tmp_path: Path
) -> None:
    body = event()
    refused = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield body[:10]
        await refused.wait()
        yield body[10:]

    headers = signed(body, secret=OLD) | {"content-length": str(len(body))}
    async with Client(gateway) as other:
        answer = asyncio.create_task(other.post(body, headers, content=slow()))
        await client.post()  # the slow one's head is there: it was sent before this
        replace(tmp_path / "secrets", NEW)
        await until_refused(client, OLD)
        assert not answer.done()
        refused.set()
        assert (await answer).word == (200, "delivered")


async def test_the_admin_token_rotates(
    gateway: GatewayProcess, client: Client, tmp_path: Path
) -> None:
    assert (await client.admin("/metrics", "admin-token-before")).status_code == 200
    assert (await client.admin("/metrics", "admin-token-after")).status_code == 401
    replace(tmp_path / "token", "admin-token-after")

    async def is_refused() -> bool:
        return (await client.admin("/metrics", "admin-token-before")).status_code == 401

    await until(is_refused, "the old token is refused")
    assert (await client.admin("/metrics", "admin-token-after")).status_code == 200
    assert "token-" not in gateway.log.read_text()


def spoil(path: Path, how: str) -> None:
    """Make a file that cannot be used."""
    path.unlink()
    match how:
        case "empty":
            path.touch()
        case "garbage":
            path.write_bytes(b"\xff\xfe\x00\x01")
        case "no-secret":
            path.write_text("whsec_canary!not base64")
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "large":
            path.write_text(OLD + "," * 64 * 1024)
        case "dangling":
            path.symlink_to("nowhere")
        case _:
            assert how == "removed"


def mend(path: Path, text: str) -> None:
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    path.write_text(text)


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_bad_file_keeps_the_last_good_one(
    gateways: Start,
    nats_server: NatsServer,
    unique: Callable[[str], str],
    tmp_path: Path,
    workers: int,
) -> None:
    path = tmp_path / "secrets"
    path.write_text(OLD)
    gateway = gateways(await on(nats_server, unique("bad"), held(path)), workers)
    kinds = ("empty", "garbage", "no-secret", "removed", "directory", "pipe", "large", "dangling")
    async with Client(gateway) as client:
        await client.until_ready()
        for told, how in enumerate(kinds, 1):
            spoil(path, how)
            await until_config(client, "stale")
            assert (await client.ready())[0] == 200
            assert (await client.samples("gateway_config_stale")) == {(): 1}
            assert (await client.post()).word == (200, "delivered")
            mend(path, OLD)
            await until_config(client, "current")
            assert len(said(gateway, STALE)) == told, how
        assert (await client.samples("gateway_config_reloads_total")) == {
            ("applied",): 0,
            ("refused",): len(kinds),
        }
        spoil(path, "garbage")
        await until_config(client, "stale")
        mend(path, NEW)
        await until_every_worker_refuses(gateway, OLD)
        assert (await client.samples("gateway_config_stale")) == {(): 0}
        body = event()
        assert (await client.post(body, signed(body, secret=NEW))).word == (200, "delivered")
    for line in said(gateway, STALE):
        (problem,) = line["problems"]
        assert problem.startswith(str(gateway.config))
        assert "canary" not in problem


@pytest.mark.parametrize("workers", [1, 2])
async def test_sighup_looks_and_ends_nothing(
    gateways: Start,
    nats_server: NatsServer,
    unique: Callable[[str], str],
    tmp_path: Path,
    workers: int,
) -> None:
    path = tmp_path / "secrets"
    path.write_text(OLD)
    gateway = gateways(await on(nats_server, unique("hup"), held(path)), workers)
    if workers > 1:
        await until_workers(gateway, workers)
    async with Client(gateway) as client:
        await client.until_ready()
        processes = await asyncio.to_thread(children, gateway.pid)
        # To the whole group, as a terminal does.
        os.killpg(gateway.pid, signal.SIGHUP)
        await until_said(gateway, "config unchanged")
        replace(path, NEW)
        gateway.send(signal.SIGHUP)
        await until_said(gateway, "config reloaded")
        await until_every_worker_refuses(gateway, OLD)
        path.unlink()
        await until_config(client, "stale")
        gateway.send(signal.SIGHUP)
        await until_said(gateway, STALE, 2)
        assert gateway.running
        assert await asyncio.to_thread(children, gateway.pid) == processes


async def test_a_worker_that_starts_later_has_the_current_secret(
    gateways: Start, nats_server: NatsServer, unique: Callable[[str], str], tmp_path: Path
) -> None:
    path = tmp_path / "secrets"
    path.write_text(OLD)
    gateway = gateways(await on(nats_server, unique("later"), held(path)), workers=2)
    victim, other = await until_workers(gateway, 2)
    replace(path, NEW)
    await until_every_worker_refuses(gateway, OLD)
    # What the file holds when the worker starts does not count: it was not checked.
    path.write_text("being written")
    os.kill(victim, signal.SIGKILL)
    await until_workers(gateway, 2, without=victim)
    os.kill(other, signal.SIGSTOP)
    async with Client(gateway) as fresh:
        await until_refused(fresh, OLD)
        svix_id, body = new_id(), event()

        async def is_taken() -> bool:
            answer = await fresh.post(body, signed(body, svix_id, secret=NEW))
            assert_taken_or_not_yet(answer)
            return answer.status == 200

        await until(is_taken, "the new worker knows the new secret")
    os.kill(other, signal.SIGCONT)
