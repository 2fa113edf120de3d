"""The loop of one life of a process, and what goes on outside whether the process lives or not."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from random import Random
from typing import Any

from virtual.loop import Loop

__all__ = ["DiedError", "Outside", "ProcessLoop", "RunawayError"]

_MAX_STEPS = 400_000
"""Callbacks of one life; worlds need some hundreds, and those with long freezes some thousands."""

_TURNS = (0, 0, 0, 0, 0, 1, 2, 3)


class DiedError(BaseException):
    """The process is killed: nothing of it runs any more."""


class RunawayError(BaseException):
    """The process does not come to rest."""


class _Steps(deque[asyncio.Handle]):
    """The loop's queue of what is ready; the process dies where it is told to."""

    done = 0
    last = _MAX_STEPS
    is_fatal = False

    def popleft(self) -> asyncio.Handle:
        self.done += 1
        if self.done > self.last:
            raise DiedError if self.is_fatal else RunawayError
        return super().popleft()


class ProcessLoop(Loop):
    """A virtual clock that begins at a given time, and a process that dies before any callback.

    Callbacks run in the order in which they are scheduled, for asyncio promises that. The seed
    permutes what asyncio does not promise: when what comes from outside comes (`Outside`).
    """

    def __init__(self, now: float) -> None:
        super().__init__()
        self._clockwork.now = now
        self._ready = _Steps()

    @property
    def steps(self) -> int:
        """How many callbacks have run."""
        return self._ready.done

    def die_after(self, steps: int) -> None:
        """Die before the callback that is so many from now."""
        self._ready.last = self._ready.done + steps
        self._ready.is_fatal = True

    def abandon(self) -> None:
        """Throw away all that was to run, as a kill does, without a word."""
        self.set_exception_handler(lambda *_: None)
        # What is thrown away may still schedule something while it goes.
        setattr(self, "call_soon", _ignore)  # noqa: B010 - a method of this one object
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 - it is dead
            with suppress(RuntimeError):  # it awaits while it goes
                task.get_coro().close()
        self._ready.clear()
        self._scheduled.clear()  # type: ignore[attr-defined]  # of asyncio's own loop
        asyncio.set_event_loop(None)
        self.close()

    # No thread and no signal wakes this loop, and a pair of sockets for that costs the most.
    def _make_self_pipe(self) -> None:
        pass

    def _close_self_pipe(self) -> None:
        pass


def _ignore(*_: Any, **__: Any) -> None:
    return None


class Outside:
    """A timetable that outlives the process: what the brokers and the senders do."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._due: dict[int, tuple[float, Callable[[], None]]] = {}
        self._number = 0
        self._loop: ProcessLoop | None = None

    @property
    def now(self) -> float:
        """Virtual seconds."""
        assert self._loop is not None
        return self._loop.time()

    @property
    def is_empty(self) -> bool:
        """Whether nothing more will happen."""
        return not self._due

    def attach(self, loop: ProcessLoop) -> None:
        """Go on upon another loop, as the process before has ended."""
        self._loop = loop
        for number, (when, _) in list(self._due.items()):
            loop.call_at(when, self._come, number)

    def at(self, when: float, do: Callable[[], None]) -> None:
        """Do something at a time, whatever process there is then."""
        assert self._loop is not None
        self._number += 1
        self._due[self._number] = when, do
        self._loop.call_at(when, self._come, self._number)

    def tell(self, when: float, do: Callable[[], None]) -> None:
        """Tell the process that lives now something at a time; if it has died, nobody hears."""
        assert self._loop is not None
        self._loop.call_at(when, self._enter, do)

    def _come(self, number: int) -> None:
        self._enter(partial(self._do, number))

    def _do(self, number: int) -> None:
        # Until now it is due: a process that dies on one of the turns takes nothing with it.
        self._due.pop(number)[1]()

    def _enter(self, do: Callable[[], None]) -> None:
        """Come in some turns of the loop later, so that all orders of what coincides are seen."""
        self._turn(self._chance.choice(_TURNS), do)

    def _turn(self, turns: int, do: Callable[[], None]) -> None:
        if turns == 0:
            do()
        else:
            assert self._loop is not None
            self._loop.call_soon(self._turn, turns - 1, do)
