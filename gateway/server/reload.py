"""A changed config file, or `${file:…}`, becomes a changed config: applied whole, or refused.

It is read about once a second, and on SIGHUP. What changed is read until two looks in a row agree,
so that nobody's half-written file counts; then it is loaded and checked as at the start. What is
refused changes nothing, and is told.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import PurePath
from typing import TypeVar

import msgspec
import structlog
from pydantic import SecretStr

from gateway import GatewayError
from gateway.app import Blueprint, recipes
from gateway.config import ConfigError, LoadedConfig, Problem
from gateway.observability.health import ConfigHealth
from gateway.observability.metrics import ConfigMetrics
from gateway.server.contents import Contents, ContentsReader, contents_of
from gateway.server.redraw import Load, Redrawn, inbox_broker, prove_options, redraw

__all__ = ["Reloader"]

_EVERY = 1.0
"""Seconds between looks at the files."""
_SETTLE = 0.2
"""Seconds between two looks that must agree."""
_SLOW = 5.0
"""Seconds after which it is told that the files cannot be read."""
_RESTLESS = 50
"""Looks, each unlike the one before, after which it is told that the files do not come to rest."""
_AGAIN_AFTER = 15
"""Looks after which what was refused is tried again: its reason may lie outside of the files."""
_MAX_PROBLEMS = 5
_MAX_WORDS = 300

T = TypeVar("T")


class _Refusal(msgspec.Struct, frozen=True):
    """Why the last good config stays: words without values, and how much is wrong, where first."""

    words: tuple[str, ...]
    count: int = 1
    first: str = ""


class Reloader:
    """Follows what a config is read from, for one process tree."""

    def __init__(
        self,
        blueprint: Blueprint,
        apply: Callable[[Blueprint], Awaitable[None]],
        load: Load,
        reader: ContentsReader,
        *,
        watch: bool = True,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`apply` makes the tree serve by a blueprint; it may raise a `GatewayError`.

        `reader` is called in threads of its own. Without `watch` it looks on SIGHUP only. `clock`
        is Unix seconds.
        """
        self.current = blueprint
        self.metrics = ConfigMetrics()
        self._apply = apply
        self._load = load
        self._reader = reader
        self._watch = watch
        self._sleep = sleep
        self._clock = clock
        self._served = contents_of(blueprint.loaded)
        self._inbox_broker = inbox_broker(blueprint.config)
        self._needs_restart: tuple[str, ...] = ()
        self._refused: Contents | None = None
        self._refusal: _Refusal | None = None
        self._told: tuple[str, ...] = ()
        self._hangs: _Refusal | None = None
        """While the files cannot be read: that."""
        self._is_slow = False
        """Whether the last read was."""
        self._looks = 0
        self._hung_up = asyncio.Event()
        self._log = structlog.get_logger()
        self.metrics.applied(blueprint.generation, clock())

    @property
    def health(self) -> ConfigHealth:
        """What `/readyz` says of the config."""
        found = self._hangs or self._refusal
        if found is not None:
            return ConfigHealth("stale", self._needs_restart, found.count, found.first)
        return ConfigHealth(
            "needs_restart" if self._needs_restart else "current", self._needs_restart
        )

    def admin_token(self) -> SecretStr:
        """Give the token of the admin port that counts now."""
        return self.current.config.admin.token

    def hang_up(self) -> None:
        """Look now: what SIGHUP does."""
        self._hung_up.set()

    async def run(self) -> None:
        """Look about once a second, or when it is asked to, for ever."""
        while True:
            asked = self._hung_up.is_set()
            self._hung_up.clear()
            if asked or self._watch:
                await self.look(asked=asked)
            with suppress(TimeoutError):
                async with asyncio.timeout(_EVERY if self._watch else None):
                    await self._hung_up.wait()

    async def look(self, *, asked: bool = False) -> None:
        """Look once, and apply what changed. `asked` tries what was refused before, too.

        Raises nothing: a fault of ours must not end the watch.
        """
        try:
            await self._look(asked)
        except Exception as error:  # noqa: BLE001 - as the docstring says
            self._refuse_by_bug(None, error)

    async def _look(self, asked: bool) -> None:
        contents = await self._settled()
        self._looks += 1
        if contents is None:
            words = f"the files changed at each of {_RESTLESS} looks, and are waited for"
            self._refuse(None, _Refusal((words,)))
        elif contents == self._served:
            if asked or self._refusal is not None:
                self._log.info("config unchanged")
            self._becomes_current()
        elif asked or contents != self._refused or self._looks >= _AGAIN_AFTER:
            self._looks = 0
            if asked:
                self._told = ()  # who asks is told again
            await self._try(contents)

    async def _settled(self) -> Contents | None:
        """Give what is there, once two looks in a row agree on what is new.

        None where no two of many do; the next look goes on.
        """
        contents = await self._read()
        for _ in range(_RESTLESS):
            if contents in (self._served, self._refused):
                return contents
            await self._sleep(_SETTLE)
            before, contents = contents, await self._read()
            if contents == before:
                return contents
        return None

    async def _read(self) -> Contents:
        reading = asyncio.ensure_future(_in_thread(partial(self._reader.read, self._served)))
        done, _ = await asyncio.wait((reading,), timeout=_SLOW)
        if not done:
            self._hangs = _Refusal((f"the files could not be read within {_SLOW:g} s",))
            self._show()
            if not self._is_slow:
                self._tell_refusal(self._hangs)
        self._is_slow = not done
        try:
            return await reading
        finally:
            self._hangs = None
            self._show()

    async def _try(self, contents: Contents) -> None:
        if contents.text.problem:
            name = PurePath(self.current.loaded.path).name
            self._refuse(contents, _Refusal((contents.text.problem[:_MAX_WORDS],), first=name))
            return
        try:
            redrawn, brokers = await _in_thread(partial(self._prove, contents))
            await self._apply(redrawn.blueprint)
        except GatewayError as error:
            self._refuse(contents, _refusal(error))
            return
        except Exception as error:  # noqa: BLE001 - a fault of ours, told by `look`
            self._refuse_by_bug(contents, error)
            return
        before, self.current = self.current, redrawn.blueprint
        self._served = contents
        self._needs_restart = redrawn.needs_restart
        if inbox_broker(self.current.config) != self._inbox_broker:
            waits = (*self._needs_restart, "delivery.inbox")
            self._needs_restart = tuple(dict.fromkeys(waits))
        self._tell(before, brokers)
        self._becomes_current()

    def _prove(self, contents: Contents) -> tuple[Redrawn, tuple[str, ...]]:
        """Make the blueprint, and prove that the brokers which it makes anew can be made."""
        redrawn = redraw(self.current, contents, self._load, self.current.generation + 1)
        before = recipes(self.current)
        changed = tuple(
            name for name, made in recipes(redrawn.blueprint).items() if made != before.get(name)
        )
        prove_options(redrawn.blueprint, changed)
        return redrawn, changed

    def _tell(self, before: Blueprint, brokers: tuple[str, ...]) -> None:
        """Tell of what was applied; of warnings those that were not there before."""
        current = self.current
        self.metrics.applied(current.generation, self._clock())
        self.metrics.reloads.labels("applied").inc()
        self._log.info(
            "config reloaded",
            generation=current.generation,
            sections=_changed_sections(before, current),
            brokers=brokers,
        )
        if warnings := _new_warnings(before.loaded, current.loaded):
            words = _words(current.loaded.path, warnings)
            self._log.warning("config warnings", problems=words, count=len(warnings))
        if self._needs_restart:
            self._log.warning("config needs a restart", sections=self._needs_restart)

    def _becomes_current(self) -> None:
        self._refused, self._refusal, self._told = None, None, ()
        self._show()

    def _show(self) -> None:
        stale = (self._hangs or self._refusal) is not None
        self.metrics.show(stale=stale, needs_restart=bool(self._needs_restart))

    def _refuse(self, contents: Contents | None, refusal: _Refusal) -> None:
        """Go on with the last good config, and say why, once for each cause."""
        self._refused, self._refusal = contents, refusal
        self._show()
        if refusal.words != self._told:
            self._told = refusal.words
            self._tell_refusal(refusal)

    def _refuse_by_bug(self, contents: Contents | None, error: Exception) -> None:
        """Refuse what a fault of ours keeps from being served."""
        refusal = _Refusal(("internal",))
        if refusal.words != self._told:
            self._log.error("bug", where="reload", error=type(error).__name__)
        self._refuse(contents, refusal)

    def _tell_refusal(self, refusal: _Refusal) -> None:
        self.metrics.reloads.labels("refused").inc()
        self._log.warning(
            "config not reloaded: the last good one stays",
            problems=refusal.words,
            count=refusal.count,
        )


def _refusal(error: GatewayError) -> _Refusal:
    """Say what is wrong: places, names and rules, never what a file holds."""
    if not isinstance(error, ConfigError):
        return _Refusal((str(error)[:_MAX_WORDS],))
    errors = [problem for problem in error.problems if problem.severity == "error"]
    first, name = errors[0], PurePath(error.path).name
    place = f"{name}:{first.line}:{first.col}" if first.line else name
    return _Refusal(_words(error.path, errors), len(errors), place)


def _words(path: str, problems: list[Problem]) -> tuple[str, ...]:
    return tuple(problem.render(path)[:_MAX_WORDS] for problem in problems[:_MAX_PROBLEMS])


def _new_warnings(before: LoadedConfig, current: LoadedConfig) -> list[Problem]:
    known = {(warning.path, warning.message) for warning in before.warnings}
    return [one for one in current.warnings if (one.path, one.message) not in known]


def _changed_sections(before: Blueprint, current: Blueprint) -> tuple[str, ...]:
    """Name the sections of the file that are served otherwise now."""
    names = type(current.config).model_fields
    return tuple(
        name for name in names if getattr(before.config, name) != getattr(current.config, name)
    )


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
