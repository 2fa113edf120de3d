"""Do something to many items: a bounded number at once, with progress, until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from typing import TextIO

import click

from gateway import GatewayError
from gateway.brokers.base import Unavailable
from gateway.commands.inbox_view import escaped
from gateway.delivery.inbox.letters import Item

__all__ = ["NotDone", "Tally", "run_batch", "stopping"]

_AT_ONCE = 32
"""Far below every broker's in-flight caps."""
_LINES = 20
"""So many failures are told one by one; the others are counted."""
_STEPS = 20
"""Lines of progress where there is no terminal, for as many items as take a while."""
_WHILE = 100


class NotDone(GatewayError):
    """An item that was left as it is."""

    def __init__(self, word: str, why: str) -> None:
        self.word = word
        """One bounded word."""
        self.why = why
        super().__init__(f"{word}: {why}")


class Tally:
    """Counts what was done, and shows how far it has come."""

    def __init__(self, verb: str, total: int, out: TextIO, err: TextIO) -> None:
        """`verb` is what is done in the past tense: `replayed`. Results go to `out`."""
        self.verb = verb
        self.total = total
        self.done = 0
        self.failed: Counter[str] = Counter()
        self.end: GatewayError | None = None
        """What broke the whole off."""
        self._out = out
        self._err = err
        self._is_terminal = err.isatty()

    @property
    def left(self) -> int:
        """How many were not begun, or broke off."""
        return self.total - self.done - self.failed.total()

    def succeeded(self) -> None:
        """Count an item that is done."""
        self.done += 1
        self._progress()

    def left_alone(self, item: str, why: NotDone) -> None:
        """Count and tell an item that is left as it is."""
        self.failed[why.word] += 1
        if self.failed.total() <= _LINES:
            self._clear()
            line = f"{item}: not {self.verb}: {why.word}: {escaped(why.why, 400)}"
            self._out.write(line + "\n")
        self._progress()

    def summary(self) -> None:
        """Tell what was done and what is left."""
        self._clear()
        self._out.write(f"{self.verb} {self.done:,} of {self.total:,}\n")
        if self.failed:
            words = ", ".join(f"{word} {count:,}" for word, count in self.failed.most_common())
            self._out.write(f"not {self.verb} {self.failed.total():,}: {words}\n")
        if self.left:
            self._out.write(f"left {self.left:,}: run the command again to go on\n")
        self._out.flush()

    def code(self) -> int:
        """Give the exit code."""
        if isinstance(self.end, Unavailable):
            return 3
        return 1 if self.end is not None or self.failed or self.left else 0

    def _progress(self) -> None:
        seen = self.done + self.failed.total()
        if not self._is_terminal:
            many = self.total >= _WHILE
            if many and seen % (self.total // _STEPS) == 0 and seen < self.total:
                self._err.write(f"{self.verb} {self.done:,} of {self.total:,}\n")
                self._err.flush()
            return
        width = 30
        bar = "#" * (width * seen // max(1, self.total))
        self._err.write(f"\r[{bar.ljust(width)}] {self.verb} {self.done:,} of {self.total:,}")
        self._err.flush()

    def _clear(self) -> None:
        if self._is_terminal:
            self._err.write("\r\x1b[K")


@contextlib.contextmanager
def stopping(stop: asyncio.Event) -> Iterator[None]:
    """Set `stop` on the first Ctrl-C, and cancel the task that asks for this on the second."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()

    def interrupted() -> None:
        if stop.is_set() and task is not None:
            task.cancel()
            return
        stop.set()
        click.echo(
            "\nstopping: what is on its way is finished first; Ctrl-C again leaves it", err=True
        )

    loop.add_signal_handler(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)


async def run_batch(
    items: AsyncGenerator[Item, None],
    work: Callable[[Item], Awaitable[None]],
    tally: Tally,
    stop: asyncio.Event,
) -> None:
    """Do `work` to each item, several at once, begun in their order.

    `work` raises `NotDone` for an item that is left as it is; any other `GatewayError` ends the
    whole, as `stop` does: nothing new is begun then, and what is begun is finished.
    """
    slots = asyncio.Semaphore(_AT_ONCE)
    tasks: set[asyncio.Task[None]] = set()

    async def one(item: Item) -> None:
        try:
            await work(item)
            tally.succeeded()
        except NotDone as why:
            tally.left_alone(item.id, why)
        except GatewayError as error:
            tally.end = tally.end or error
            stop.set()
        finally:
            slots.release()

    try:
        async for item in _until(stop, items):
            await slots.acquire()
            if stop.is_set():
                return
            task = asyncio.create_task(one(item))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    except GatewayError as error:
        tally.end = tally.end or error
    finally:
        await _finished(tasks)


async def _finished(tasks: set[asyncio.Task[None]]) -> None:
    """Wait for what is begun; when that is cancelled, cancel it."""
    try:
        while tasks:
            await asyncio.wait(tasks)
    finally:
        for task in tasks:
            task.cancel()


async def _until(stop: asyncio.Event, items: AsyncGenerator[Item, None]) -> AsyncIterator[Item]:
    """Give the items until `stop` is set, also while the next one is waited for."""
    stopped = asyncio.ensure_future(stop.wait())
    try:
        while True:
            following = asyncio.ensure_future(anext(items, None))
            try:
                await asyncio.wait({following, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if stop.is_set():
                    return
                item = following.result()
            finally:
                if not following.cancel() and not following.cancelled():
                    following.exception()  # told already, or of no interest any more
            if item is None:
                return
            yield item
    finally:
        stopped.cancel()
