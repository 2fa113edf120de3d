"""`gateway dev`: the whole thing on a laptop, with a real broker and no config."""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import shlex
import signal
import time
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import click
import uvloop
from pydantic import SecretStr
from rich.console import Console

from gateway.app import Blueprint, draw, load, load_contents
from gateway.brokers.base import Arrival, Need, State, Unavailable
from gateway.clerk.samples import sample
from gateway.commands.arrivals import arrival_line
from gateway.commands.embedded import EmbeddedNats
from gateway.commands.invocation import invocation
from gateway.commands.loading import print_warnings
from gateway.commands.send import DEFAULT_URL, ENV_VARIABLE, SECRET_FILE, read_secret_file
from gateway.commands.standin import PREFIX, dev_streams, stand_in
from gateway.commands.tail import follow
from gateway.config import LoadedConfig, load_config_text
from gateway.observability.logs import configure
from gateway.server.contents import Contents
from gateway.server.http import ListenError, listen
from gateway.server.process import stop_event
from gateway.server.redraw import Load
from gateway.server.run import Apply, Following, Running, serve

if TYPE_CHECKING:
    from gateway.commands.posting import Poster

__all__ = ["dev_command"]

_FIRST_EVENTS = (
    "user.created",
    "organization.created",
    "organizationMembership.created",
    "session.created",
    "user.updated",
)
_TRIES = 100
_TRY_AGAIN = 0.1
_WATCH_AGAIN = 2.0


@click.command("dev")
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Your own file; the embedded broker stands in for brokers without `servers`.",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port for webhooks, in place of the config's."
)
def dev_command(config: Path | None, port: int | None) -> None:
    """Start a real nats-server, serve, and show every event that arrives.

    No config is needed; one that is given is followed while it changes. Data and the signing
    secret are kept in .gateway/.
    """
    uvloop.run(_dev(config, port))


async def _dev(path: Path | None, port: int | None) -> None:
    stop = stop_event(signal.SIGTERM, signal.SIGINT)
    env = _env()
    loaded = _load(path, env)
    config = loaded.config
    print_warnings(loaded)
    ports = (config.server.port if port is None else port, _free(config.admin.port))
    _assert_free(ports[0])
    configure("warning", "console")
    nats = EmbeddedNats(SECRET_FILE.parent / "nats")
    await nats.start()
    lost = asyncio.create_task(nats.end())
    lost.add_done_callback(lambda _: stop.set())
    try:
        blueprint = draw(stand_in(loaded, nats.url, ports, draw(loaded).needs()))
        session = _Session(blueprint, nats)
        load = _loader(path, env, nats.url, ports)
        await session.run(stop, load and Following(env, load=load, apply=session.change))
        if lost.done():
            raise lost.result()
    finally:
        lost.cancel()
        await nats.stop()


def _loader(
    path: Path | None, env: Mapping[str, str], url: str, ports: tuple[int, int]
) -> Load | None:
    """Give what loads a config of the user's own again, with the broker that stands in."""
    if path is None:
        return None

    def load(contents: Contents) -> LoadedConfig:
        read = (contents.text.text, contents.files)
        loaded = load_contents(os.fspath(path), *read, env, stand_in=True)
        return stand_in(loaded, url, ports, draw(loaded).needs())

    return load


class _Session:
    """One run of the command: what is shown, and the tasks that show it."""

    def __init__(self, blueprint: Blueprint, nats: EmbeddedNats) -> None:
        self._blueprint = blueprint
        self._nats = nats
        self._console = Console(highlight=False, soft_wrap=True)
        self._running: Running | None = None
        self._sending: list[asyncio.Task[None]] = []
        self._watches: list[asyncio.Task[None]] = []

    async def run(self, stop: asyncio.Event, following: Following | None) -> None:
        """Serve until `stop` is set."""
        try:
            await self._give_streams(self._blueprint)
            await serve(self._blueprint, stop=stop, started=self._started, following=following)
        finally:
            await _end(self._sending + self._watches)
            self._console.print("stopped", style="dim")

    async def change(self, blueprint: Blueprint, apply: Apply) -> None:
        """Serve, and show, what a changed table says. Raises what `apply` does."""
        await self._give_streams(blueprint)
        await apply(blueprint)
        before, self._blueprint = self._address, blueprint
        await _end(self._watches)
        running = self._running
        if running is not None:
            self._watch_all(running)
            if self._address != before:
                self._introduce(running)
        self._console.print("config reloaded", style="dim")

    async def _give_streams(self, blueprint: Blueprint) -> None:
        await self._nats.give_streams(PREFIX, dev_streams(blueprint.config))

    @property
    def _address(self) -> tuple[str, SecretStr]:
        """Path and secret of the source that is shown."""
        source = next(iter(self._blueprint.config.sources.values()))
        return source.path, source.secrets[0]

    def _started(self, running: Running) -> None:
        self._running = running
        self._introduce(running)
        self._console.print("\nevents as they arrive in the broker; Ctrl-C ends", style="dim")
        watching = self._watch_all(running)
        path, secret = self._address
        first = self._send_first_events(_url(running, path), secret, watching)
        self._sending.append(asyncio.create_task(first))

    def _watch_all(self, running: Running) -> list[asyncio.Event]:
        """Begin to show what arrives; each event is set once nothing more can be missed."""
        needs = self._blueprint.needs()
        begun = [asyncio.Event() for _ in needs]
        self._watches = [
            asyncio.create_task(self._watch(broker, wanted, watching, running))
            for (broker, wanted), watching in zip(needs.items(), begun, strict=True)
        ]
        return begun

    def _introduce(self, running: Running) -> None:
        path, secret = self._address
        url = _url(running, path)
        streams = [
            stream.name
            for broker in self._blueprint.config.brokers.values()
            if broker.kind == "nats"
            for stream in broker.streams
        ]
        rows = (
            ("webhooks", url),
            ("broker", f"{self._nats.url} (a real nats-server; streams {', '.join(streams)})"),
            ("health", f"http://127.0.0.1:{running.admin_port}/readyz and /metrics"),
            ("secret", secret.get_secret_value()),
            ("try", _send_line(url, secret)),
            ("", _send_line(url, secret, "--forge")),
        )
        for name, text in rows:
            self._console.print(f"[bold]{name:>9}[/]  {text}")

    async def _watch(
        self, broker: str, needs: tuple[Need, ...], watching: asyncio.Event, running: Running
    ) -> None:
        # Once the gateway is connected its streams exist, and those are what is to be followed.
        for _ in range(_TRIES):
            if running.healths()[0].brokers.get(broker) is State.UP:
                break
            await asyncio.sleep(_TRY_AGAIN)
        while True:
            try:
                await follow(broker, self._blueprint, needs, self._show, watching)
            except Unavailable as error:
                self._console.print(f"cannot watch: {error}", style="red")
                watching.set()
            await asyncio.sleep(_WATCH_AGAIN)

    def _show(self, arrival: Arrival) -> None:
        self._console.print(arrival_line(arrival))

    async def _send_first_events(
        self, url: str, secret: SecretStr, watching: Sequence[asyncio.Event]
    ) -> None:
        """Send a few samples, so that something is seen at once; the broker may need a moment."""
        # svix takes over half a second to import, by now the newcomer has something to read.
        from gateway.commands.posting import Poster  # noqa: PLC0415

        for begun in watching:
            await begun.wait()
        async with Poster(url, secret) as poster:
            for event_type in _FIRST_EVENTS:
                await _send_until_taken(poster, event_type)


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _url(running: Running, path: str) -> str:
    return f"http://127.0.0.1:{running.port}{path}"


async def _send_until_taken(poster: Poster, event_type: str) -> None:
    now_ms = int(time.time() * 1000)
    for _ in range(_TRIES):
        answer = await poster.post(sample(event_type, now_ms))
        if answer.status == 200:
            return
        await asyncio.sleep(_TRY_AGAIN)


def _env() -> Mapping[str, str]:
    env = dict(os.environ)
    if not env.get(ENV_VARIABLE):
        env[ENV_VARIABLE] = _own_secret().get_secret_value()
    return env


def _load(path: Path | None, env: Mapping[str, str]) -> LoadedConfig:
    if path is not None:
        return load(path, env, stand_in=True)
    text = resources.files("gateway.commands").joinpath("dev.yaml").read_text("utf-8")
    return load_config_text(text, "dev.yaml", env, allow_missing_servers=True)


def _own_secret() -> SecretStr:
    """Give the secret of this directory, made at the first run and kept for `gateway send`."""
    if SECRET_FILE.exists():
        return read_secret_file()
    SECRET_FILE.parent.mkdir(exist_ok=True)
    secret = SecretStr("whsec_" + base64.b64encode(secrets.token_bytes(24)).decode())
    with os.fdopen(os.open(SECRET_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secret.get_secret_value() + "\n")
    return secret


def _assert_free(port: int) -> None:
    try:
        listen("server", "127.0.0.1", port).close()
    except ListenError as error:
        message = f"cannot listen on port {port}: {error.problem}; choose another with --port"
        raise click.UsageError(message) from None


def _free(port: int) -> int:
    """Give the admin port, or 0 (any) where it is taken: nobody depends on it here."""
    try:
        listen("admin", "127.0.0.1", port).close()
    except ListenError:
        return 0
    return port


def _send_line(url: str, secret: SecretStr, *options: str) -> str:
    """Give a line to paste into a second shell in the same directory."""
    words = [*invocation(), "send", "user.created", *options]
    if url != DEFAULT_URL:
        words += ["--url", url]
    line = shlex.join(words)
    kept = SECRET_FILE.exists() and read_secret_file() == secret
    found = kept or os.environ.get(ENV_VARIABLE) == secret.get_secret_value()
    return line if found else f"{line} --secret …"
