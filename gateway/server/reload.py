"""A changed `${file:…}` becomes a changed config: looked for, checked whole, applied or refused.

Files are compared by what they hold and not by their time: a mounted secret is swapped by a
symbolic link, others are renamed over or written in place. What changed is read until two looks
in a row agree, so that nobody's half-written file counts.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TypeVar

import msgspec
import structlog
from pydantic import SecretStr

from gateway import GatewayError
from gateway.app import Blueprint, draw, load_contents, prove_options, recipes
from gateway.config import ConfigError, FileContent, GatewayConfig
from gateway.config.delivery import DeliveryConfig
from gateway.config.files import FileReader, read_file
from gateway.observability.health import ConfigState
from gateway.observability.metrics import ConfigMetrics

__all__ = ["Redrawn", "Reloader", "redraw"]

_EVERY = 1.0
"""Seconds between looks at the files."""
_SETTLE = 0.2
"""Seconds between two looks that must agree."""
_SLOW = 5.0
"""Seconds after which it is told that the files cannot be read."""
_AGAIN_AFTER = 15
"""Looks after which what was refused is tried again: its reason may lie outside of the files."""
_MAX_PROBLEMS = 5
_MAX_WORDS = 300

Files = Mapping[str, FileContent]
T = TypeVar("T")


class Redrawn(msgspec.Struct, frozen=True):
    """What a config has become by what its files hold now."""

    blueprint: Blueprint
    needs_restart: tuple[str, ...]
    """Sections that changed and stay as they were until the next start."""


def redraw(current: Blueprint, files: Files, env: Mapping[str, str]) -> Redrawn:
    """Load the text of the current config again with other files, checked as at the start.

    Every process of a tree makes the same of the same. Raises `ConfigError`.
    """
    loaded = load_contents(current.loaded.path, current.loaded.text, files, env)
    config, needs_restart = _keep(current.config, loaded.config)
    return Redrawn(draw(replace(loaded, config=config)), needs_restart)


def _keep(current: GatewayConfig, changed: GatewayConfig) -> tuple[GatewayConfig, tuple[str, ...]]:
    """Put back what a running process cannot change: ports and their bounds, the log, and where
    the ledger and the inbox are.

    The admin token can be changed, but only for the address that it was checked with, and not be
    taken away: what the open port is bound to was looked at when there was one.
    """
    admin = current.admin.model_copy(update={"token": changed.admin.token})
    if admin != changed.admin or not changed.admin.token.get_secret_value():
        admin = current.admin
    kept = {"server": current.server, "admin": admin, "log": current.log}
    needs_restart = tuple(name for name in kept if kept[name] != getattr(changed, name))
    delivery, sections = _keep_inbox(current.delivery, changed.delivery)
    delivery, place = _keep_ledger(current.delivery, delivery)
    kept["delivery"] = delivery
    return changed.model_copy(update=kept), needs_restart + sections + place


def _keep_inbox(
    current: DeliveryConfig, changed: DeliveryConfig
) -> tuple[DeliveryConfig, tuple[str, ...]]:
    """Put back the mode, and in inbox mode which store there is; its bounds may change."""
    places = ("store", "path", "broker", "stream")
    kept = {place: getattr(current.inbox, place) for place in places}
    inbox = changed.inbox.model_copy(update=kept)
    moved = current.mode == changed.mode == "inbox" and inbox != changed.inbox
    needs_restart = ("delivery.mode",) if current.mode != changed.mode else ()
    if moved:
        needs_restart = (*needs_restart, "delivery.inbox")
    update = {"mode": current.mode, "inbox": inbox}
    return changed.model_copy(update=update), needs_restart


def _keep_ledger(
    current: DeliveryConfig, changed: DeliveryConfig
) -> tuple[DeliveryConfig, tuple[str, ...]]:
    """Put back where the ledger is; how long it remembers may change."""
    place = {name: getattr(current.ledger, name) for name in ("store", "broker", "bucket")}
    ledger = changed.ledger.model_copy(update=place)
    if ledger == changed.ledger:
        return changed, ()
    return changed.model_copy(update={"ledger": ledger}), ("delivery.ledger",)


class Reloader:
    """Watches the files of a config for one process tree."""

    def __init__(
        self,
        blueprint: Blueprint,
        apply: Callable[[Blueprint], Awaitable[None]],
        env: Mapping[str, str],
        *,
        read: FileReader = read_file,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`apply` makes the tree serve by a blueprint; it may raise a `GatewayError`.

        `read` is called in a thread of its own.
        """
        self.current = blueprint
        self.state: ConfigState = "current"
        self.metrics = ConfigMetrics()
        self._apply = apply
        self._env = env
        self._read = read
        self._sleep = sleep
        self._needs_restart: tuple[str, ...] = ()
        self._refused: Files | None = None
        self._problems: tuple[str, ...] = ()
        self._looks = 0
        self._hung_up = asyncio.Event()
        self._log = structlog.get_logger()

    def admin_token(self) -> SecretStr:
        """Give the token of the admin port that counts now."""
        return self.current.config.admin.token

    def hang_up(self) -> None:
        """Look now: what SIGHUP does."""
        self._hung_up.set()

    async def run(self) -> None:
        """Look at the files about once a second, for ever."""
        while True:
            asked = self._hung_up.is_set()
            self._hung_up.clear()
            await self.look(asked=asked)
            with suppress(TimeoutError):
                async with asyncio.timeout(_EVERY):
                    await self._hung_up.wait()

    async def look(self, *, asked: bool = False) -> None:
        """Look once, and apply what changed. `asked` tries what was refused before, too.

        Raises nothing: a fault of ours must not end the watch.
        """
        try:
            await self._look(asked)
        except Exception as error:  # noqa: BLE001 - as the docstring says
            self._log.error("bug", where="reload", error=type(error).__name__)
            self._refuse(None, ("internal",))

    async def _look(self, asked: bool) -> None:
        files = await self._settled()
        self._looks += 1
        if files == self.current.loaded.files:
            if asked or self._problems:
                self._log.info("config unchanged")
            self._becomes_current()
        elif asked or files != self._refused or self._looks >= _AGAIN_AFTER:
            self._looks = 0
            if asked:
                self._problems = ()  # who asks is told again
            await self._try(files)

    async def _settled(self) -> Files:
        """Give what the files hold, once two looks in a row agree on what is new."""
        files = await self._read_all()
        while files not in (self.current.loaded.files, self._refused):
            await self._sleep(_SETTLE)
            before, files = files, await self._read_all()
            if files == before:
                break
        return files

    async def _read_all(self) -> Files:
        reading = asyncio.ensure_future(_in_thread(self._contents))
        done, _ = await asyncio.wait((reading,), timeout=_SLOW)
        if not done:
            self._refuse(None, (f"the files could not be read within {_SLOW:g} s",))
        return await reading

    def _contents(self) -> Files:
        """Read every file. One that was not empty and now is, is being written, or a mistake."""
        found = {}
        for name, known in self.current.loaded.files.items():
            content = self._read(name)
            if not content.problem and _is_blank(content) and not _is_blank(known):
                content = FileContent(problem=f"{name} is empty")
            found[name] = content
        return found

    async def _try(self, files: Files) -> None:
        try:
            redrawn, brokers = await _in_thread(partial(self._prove, files))
            await self._apply(redrawn.blueprint)
        except GatewayError as error:
            self._refuse(files, _words(error))
            return
        self.current = redrawn.blueprint
        self._needs_restart = redrawn.needs_restart
        self.metrics.reloads.labels("applied").inc()
        self._log.info("config reloaded", brokers=brokers)
        if self._needs_restart:
            self._log.warning("config needs a restart", sections=self._needs_restart)
        self._becomes_current()

    def _prove(self, files: Files) -> tuple[Redrawn, tuple[str, ...]]:
        """Make the blueprint, and prove that the brokers which it makes anew can be made."""
        redrawn = redraw(self.current, files, self._env)
        before = recipes(self.current)
        changed = tuple(
            name for name, made in recipes(redrawn.blueprint).items() if made != before.get(name)
        )
        prove_options(redrawn.blueprint, changed)
        return redrawn, changed

    def _becomes_current(self) -> None:
        self._refused, self._problems = None, ()
        self.state = "needs_restart" if self._needs_restart else "current"
        self.metrics.stale.set(0)

    def _refuse(self, files: Files | None, problems: tuple[str, ...]) -> None:
        """Go on with the last good config, and say why, once for each cause."""
        self._refused = files
        self.state = "stale"
        self.metrics.stale.set(1)
        if problems == self._problems:
            return
        self._problems = problems
        self.metrics.reloads.labels("refused").inc()
        self._log.warning("config not reloaded: the last good one stays", problems=problems)


def _is_blank(content: FileContent) -> bool:
    return not content.text.get_secret_value().strip()


def _words(error: GatewayError) -> tuple[str, ...]:
    """Say what is wrong: places, names and rules, never what a file holds."""
    if isinstance(error, ConfigError):
        found = [
            problem.render(error.path) for problem in error.problems if problem.severity == "error"
        ]
    else:
        found = [str(error)]
    return tuple(words[:_MAX_WORDS] for words in found[:_MAX_PROBLEMS])


async def _in_thread(call: Callable[[], T]) -> T:
    """Run what may block. Not in the loop's own threads, for which the end of a process waits."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(set_outcome: Callable[[], None]) -> None:
        if not future.done():
            set_outcome()

    def run() -> None:
        try:
            outcome = partial(future.set_result, call())
        except Exception as error:  # noqa: BLE001 - raised again where it is waited for
            outcome = partial(future.set_exception, error)
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, outcome)

    threading.Thread(target=run, name="config-files", daemon=True).start()
    return await future
