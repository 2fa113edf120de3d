"""A loop without a network and with a time of its own, for the fuzzer and the simulation.

asyncio's own event loop runs here unchanged; its selector watches nothing. Where a real one
would wait for a timer, this one either ends the run or moves the clock: so an input that takes
a minute of the gateway's time takes none of ours, and gives the same answer whenever it is
replayed.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

__all__ = ["EPOCH", "Loop", "virtual_time"]

EPOCH = 1_800_000_000
"""Unix seconds at which every run begins; it never moves, for no answer may depend on it."""


class _Clockwork(selectors.BaseSelector):
    """Watches nothing. Waiting moves the clock to `until`, and beyond it ends the run."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.until = 0.0
        self.quiet = True
        """Whether the last run ended with no timer left."""
        self.loop: asyncio.AbstractEventLoop | None = None
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return []
        assert self.loop is not None
        if timeout is None or self.now + timeout > self.until:
            self.quiet = timeout is None
            self.now = max(self.now, self.until)
            self.loop.stop()
        else:
            self.now += timeout
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = selectors.SelectorKey(fileobj, 0, events, data)
        self._keys[fileobj] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


class Loop(asyncio.SelectorEventLoop):
    """asyncio's loop on that clock, and the thread's own until it ends.

    What it would complain of is gathered in `complaints`.
    """

    def __init__(self) -> None:
        self._clockwork = _Clockwork()
        self.complaints: list[str] = []
        super().__init__(self._clockwork)
        self._clockwork.loop = self
        self.set_exception_handler(self._complain)
        asyncio.set_event_loop(self)

    def time(self) -> float:
        """Virtual seconds."""
        return self._clockwork.now

    @property
    def is_quiet(self) -> bool:
        """Whether the last run ended with nothing to do ever again: not even a timer is left."""
        return self._clockwork.quiet

    def pass_time(self, seconds: float = 0.0) -> None:
        """Run until there is nothing to do but wait, and wait for no more than `seconds`."""
        self._clockwork.until = self._clockwork.now + seconds
        self.run_forever()

    def end(self) -> None:
        """Close it; what still runs, because of a fault that was found, is cancelled."""
        for task in asyncio.all_tasks(self):
            task.cancel()
        self.pass_time()
        asyncio.set_event_loop(None)
        self.close()

    def _complain(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.complaints.append(f"{context.get('message')}: {context.get('exception')!r}")


@contextmanager
def virtual_time(loop: Loop) -> Iterator[None]:
    """Let the whole process read its clocks off the loop."""
    with mock.patch.multiple(time, monotonic=loop.time, time=lambda: float(EPOCH)):
        yield
