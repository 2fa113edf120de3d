"""A config file that changes while the gateway serves: every way to change it, good and bad."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.canaries import OTHER_SECRET
from tests.e2e.clerk import MountedSecret
from tests.e2e.client import Client, event, signed, until
from tests.e2e.conftest import Start
from tests.e2e.gateway_process import GatewayProcess, children
from tests.e2e.readback import create_stream
from tests.e2e.tables import numbers, table, until_generation
from tests.e2e.test_rotation import STALE, held, replace, said, until_config, until_said
from tests.e2e.test_workers import until_workers
from tests.servers.nats import NatsServer

Unique = Callable[[str], str]


async def stream(nats: NatsServer, name: str) -> str:
    return await create_stream(nats.url, name, f"{name}.>")


def write(gateway: GatewayProcess, config: dict[str, Any], how: str) -> None:
    match how:
        case "renamed":
            gateway.rewrite(config)
        case "in place":
            gateway.config.write_text(gateway.text(config))
        case _:
            assert how == "in pieces"
            text = gateway.text(config)
            with gateway.config.open("w") as file:
                for at in range(0, len(text), 100):
                    file.write(text[at : at + 100])
                    file.flush()


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_changed_file_counts_however_it_is_written(
    gateways: Start, nats_server: NatsServer, unique: Unique, workers: int
) -> None:
    name = await stream(nats_server, unique("reload"))
    gateway = gateways(table(nats_server, name, 0), workers)
    async with Client(gateway) as client:
        await client.until_ready()
        assert await numbers(client) == {0}
        processes = await asyncio.to_thread(children, gateway.pid)
        for number, how in enumerate(("renamed", "in place", "in pieces"), 1):
            write(gateway, table(nats_server, name, number), how)
            await until_generation(client, number + 1)
            assert await numbers(client, 5) == {number}, how
        await until_said(gateway, "config reloaded", 3)
        samples = await client.samples("gateway_config_generation")
        assert samples == {(): 4}
        assert await client.samples("gateway_config_reloads_total") == {
            ("applied",): 3,
            ("refused",): 0,
        }
    assert [line["sections"] for line in said(gateway, "config reloaded")] == [["routes"]] * 3
    assert await asyncio.to_thread(children, gateway.pid) == processes


async def test_a_mounted_configmap_is_swapped(
    gateways: Start, nats_server: NatsServer, unique: Unique, tmp_path: Path
) -> None:
    """As the kubelet does it: config.yaml -> ..data/config.yaml, ..data -> ..version/."""
    name = await stream(nats_server, unique("mounted"))
    gateway = gateways(table(nats_server, name, 0), start=False)

    def files(number: int) -> dict[str, str]:
        return {"config.yaml": gateway.text(table(nats_server, name, number))}

    mounted = MountedSecret(tmp_path / "mounted", **files(0))
    gateway.config = mounted.path("config.yaml")
    gateway.start()
    async with Client(gateway) as client:
        await client.until_ready()
        assert await numbers(client) == {0}
        for number in (1, 2):
            mounted.write(**files(number))
            await until_generation(client, number + 1)
            assert await numbers(client) == {number}


def spoil(path: Path, how: str, good: str) -> None:
    """Make a config file that cannot be used."""
    path.unlink()
    match how:
        case "empty":
            path.touch()
        case "half":
            path.write_text(good[: len(good) // 2])
        case "bytes":
            path.write_bytes(b"\xff\xfe\x00\x01")
        case "key":
            path.write_text(good.replace('"routes"', '"canary_routes"'))
        case "secret":
            path.write_text(good.replace("${file:", "${file:/nowhere"))
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "large":
            path.write_text(good + " " * 1024 * 1024)
        case "dangling":
            path.symlink_to("nowhere")
        case _:
            assert how == "removed"


PLACED = ("half", "key", "secret")
KINDS = ("empty", "bytes", "removed", "directory", "pipe", "large", "dangling", *PLACED)


@pytest.mark.parametrize(("workers", "kinds"), [(1, KINDS), (2, ("pipe", "half"))])
async def test_a_bad_file_keeps_the_last_good_one(
    gateways: Start,
    nats_server: NatsServer,
    unique: Unique,
    workers: int,
    kinds: tuple[str, ...],
) -> None:
    name = await stream(nats_server, unique("bad"))
    gateway = gateways(table(nats_server, name, 0), workers)
    good = gateway.config.read_text()
    async with Client(gateway) as client:
        await client.until_ready()
        for told, how in enumerate(kinds, 1):
            spoil(gateway.config, how, good)
            await until_config(client, "stale")
            status, ready = await client.ready()
            assert (status, ready["status"]) == (200, "ready")
            assert ready["problems"]["count"] >= 1
            place = r"config\.yaml:\d+:\d+" if how in PLACED else r"config\.yaml"
            assert re.fullmatch(place, ready["problems"]["first"]), how
            assert await client.samples("gateway_config_stale") == {(): 1}
            assert await numbers(client) == {0}
            if gateway.config.is_dir():
                gateway.config.rmdir()
            gateway.config.unlink(missing_ok=True)
            gateway.config.write_text(good)
            gateway.send(signal.SIGHUP)
            await until_config(client, "current")
            assert len(said(gateway, STALE)) == told, how
            assert "problems" not in (await client.ready())[1]
        assert await client.samples("gateway_config_reloads_total") == {
            ("applied",): 0,
            ("refused",): len(kinds),
        }
        spoil(gateway.config, "half", good)
        await until_config(client, "stale")
        gateway.rewrite(table(nats_server, name, 1))
        await until_config(client, "current")
        await until_generation(client, 2)
        assert await numbers(client) == {1}
    for line in said(gateway, STALE):
        assert all(problem.startswith(str(gateway.config)) for problem in line["problems"])


async def test_what_needs_a_restart_is_named_and_the_rest_counts(
    gateways: Start, nats_server: NatsServer, unique: Unique
) -> None:
    name = await stream(nats_server, unique("restart"))
    gateway = gateways(table(nats_server, name, 0))
    more = {
        "server": {"max_body": "1MiB"},
        "log": {"level": "debug"},
        "delivery": {"mode": "inbox"},
    }
    async with Client(gateway) as client:
        await client.until_ready()
        gateway.rewrite(table(nats_server, name, 1, **more))
        await until_config(client, "needs_restart")
        assert await numbers(client) == {1}
        ready = (await client.ready())[1]
        sections = ["server", "log", "delivery.mode"]
        assert (ready["config"], ready["needs_restart"]) == ("needs_restart", sections)
        assert await client.samples("gateway_config_needs_restart") == {(): 1}
        (line,) = said(gateway, "config needs a restart")
        assert line["sections"] == sections
        gateway.rewrite(table(nats_server, name, 2))
        await until_config(client, "current")
        assert "needs_restart" not in (await client.ready())[1]


async def test_sources_secrets_and_policies_change_with_the_text(
    gateways: Start, nats_server: NatsServer, unique: Unique, tmp_path: Path
) -> None:
    """A path comes, another goes; a file that the text did not name before is watched."""
    name = await stream(nats_server, unique("sources"))
    gateway = gateways(table(nats_server, name, 0))
    (tmp_path / "other").write_text((gateway.directory / "secret").read_text())
    async with Client(gateway) as client:
        await client.until_ready()
        assert (await client.post()).word == (200, "delivered")
        changed = table(nats_server, name, 1, unmatched="reject")
        changed["routes"][0]["events"] = ["session.*"]
        changed["sources"] = {
            "clerk": {"path": "/elsewhere", "secrets": [held(tmp_path / "other")]}
        }
        gateway.rewrite(changed)
        await until_generation(client, 2)
        assert (await client.post()).word == (404, "rejected")
        assert (await client.post(path="/elsewhere")).word == (422, "unmatched")
        answer = await client.post(event("session.created"), path="/elsewhere")
        assert answer.word == (200, "delivered")
        replace(tmp_path / "other", OTHER_SECRET)
        await until_generation(client, 3)
        assert (await client.post(path="/elsewhere")).word == (401, "rejected")


async def test_warnings_of_a_changed_file_are_told(
    gateways: Start, nats_server: NatsServer, unique: Unique
) -> None:
    name = await stream(nats_server, unique("warned"))
    gateway = gateways(table(nats_server, name, 0))
    changed = table(nats_server, name, 1)
    changed["routes"][0]["events"] = ["*", "usr.created"]
    gateway.rewrite(changed)
    await until_said(gateway, "config warnings")
    (line,) = said(gateway, "config warnings")
    assert any("did you mean user.created" in problem for problem in line["problems"])


async def test_without_watching_only_sighup_reloads(
    gateways: Start, nats_server: NatsServer, unique: Unique
) -> None:
    """Beside one that watches the same files, so that it is known when they would have counted."""
    name = await stream(nats_server, unique("unwatched"))
    gateway = gateways(table(nats_server, name, 0), 1, "--no-watch")
    watching = gateways(table(nats_server, name, 0), start=False)
    watching.config = gateway.config
    watching.start()
    async with Client(gateway) as client, Client(watching) as other:
        await client.until_ready()
        gateway.rewrite(table(nats_server, name, 1))
        await until_generation(other, 2)
        replace(gateway.directory / "secret", OTHER_SECRET)
        await until_said(watching, "config reloaded", 2)
        assert await numbers(client) == {0}
        gateway.send(signal.SIGHUP)
        await until_generation(client, 2)
        body = event()
        answer = await client.post(body, signed(body, secret=OTHER_SECRET))
        assert answer.body["targets"][0]["subject"] == f"{name}.a.1"
        gateway.config.write_text("sources: [")
        await until_config(other, "stale")
        assert (await client.ready())[1]["config"] == "current"
        gateway.send(signal.SIGHUP)
        await until_config(client, "stale")
        gateway.rewrite(table(nats_server, name, 1))
        await until_config(other, "current")
        assert (await client.ready())[1]["config"] == "stale"
        gateway.send(signal.SIGHUP)
        await until_config(client, "current")


async def test_what_can_be_read_only_once_is_not_followed(
    gateways: Start, nats_server: NatsServer, unique: Unique
) -> None:
    """`--config <(decrypt config)`: a pipe. The files that it names are followed all the same."""
    name = await stream(nats_server, unique("pipe"))
    gateway = gateways(table(nats_server, name, 0), start=False)
    text = gateway.config.read_text()
    gateway.config.unlink()
    os.mkfifo(gateway.config)
    writer = threading.Thread(target=gateway.config.write_text, args=(text,))
    writer.start()
    gateway.start()
    writer.join()
    await until_said(gateway, "config is not followed: it is no regular file")
    async with Client(gateway) as client:
        await client.until_ready()
        gateway.send(signal.SIGHUP)
        await until_said(gateway, "config unchanged")
        replace(gateway.directory / "secret", OTHER_SECRET)
        await until_generation(client, 2)
        assert (await client.post()).word == (401, "rejected")


async def test_sighup_in_the_moment_of_the_start_or_of_the_end_ends_nothing(
    gateways: Start, nats_server: NatsServer, unique: Unique
) -> None:
    """It is kept until there is somebody to look; a pipe holds the start up until it was sent."""
    name = await stream(nats_server, unique("hangup"))
    gateway = gateways(table(nats_server, name, 0), 2, "--no-watch", start=False)
    text = gateway.config.read_text()
    gateway.config.unlink()
    os.mkfifo(gateway.config)

    def write_after_hangup() -> None:
        with gateway.config.open("w") as pipe:  # waits until the gateway reads
            gateway.send(signal.SIGHUP)
            pipe.write(text)

    writer = threading.Thread(target=write_after_hangup)
    writer.start()
    gateway.start()
    writer.join()
    await until_said(gateway, "config unchanged")
    async with Client(gateway) as client:
        await client.until_ready()
        assert await numbers(client) == {0}
    gateway.terminate()
    while gateway.running:
        gateway.send(signal.SIGHUP)
        await asyncio.sleep(0.001)
    assert gateway.exit_code() == 0


async def test_a_worker_that_starts_later_has_the_current_table(
    gateways: Start, nats_server: NatsServer, unique: Unique
) -> None:
    name = await stream(nats_server, unique("later"))
    gateway = gateways(table(nats_server, name, 0), workers=2)
    victim, other = await until_workers(gateway, 2)
    async with Client(gateway) as client:
        gateway.rewrite(table(nats_server, name, 1))
        await until_generation(client, 2)
        # What is in the file when the worker starts does not count: it was not checked.
        gateway.config.write_text("being written")
        os.kill(victim, signal.SIGKILL)
        await until_workers(gateway, 2, without=victim)
        os.kill(other, signal.SIGSTOP)
        async with Client(gateway) as fresh:
            await fresh.until_delivered()
            assert await numbers(fresh, 5) == {1}
        os.kill(other, signal.SIGCONT)
        assert (await client.ready())[1]["generation"] == 2


async def test_a_worker_that_is_frozen_during_changes_gets_the_last_one(
    gateways: Start, nats_server: NatsServer, unique: Unique
) -> None:
    """The others serve by it meanwhile, and /readyz tells by which config the oldest serves."""
    name = await stream(nats_server, unique("frozen"))
    gateway = gateways(table(nats_server, name, 0), workers=2)
    frozen, other = await until_workers(gateway, 2)
    async with Client(gateway) as client:
        await client.until_ready()
        os.kill(frozen, signal.SIGSTOP)
        for number in (1, 2, 3):
            gateway.rewrite(table(nats_server, name, number))
            await until_said(gateway, "config reloaded", number)
        async with Client(gateway) as fresh:

            async def is_new() -> bool:
                return await numbers(fresh) == {3}

            await until(is_new, "the other worker serves by the last table")
        assert (await client.ready())[1]["generation"] == 1
        os.kill(frozen, signal.SIGCONT)
        await until_generation(client, 4)
        os.kill(other, signal.SIGSTOP)
        async with Client(gateway) as fresh:
            assert await numbers(fresh, 3) == {3}
        os.kill(other, signal.SIGCONT)
