"""Takes what waits in the inbox to its targets, in the background.

It is driven by events: a record that was stored, an answer of a broker, a broker that came up, a
lane whose rest is over. The lanes say what may go; this module loads it, publishes it, sends the
dead letter of what is refused or too old, and has the store keep what became of it. A lane goes
on when that is durable.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec

from gateway.brokers.base import Message, Receipt, Refused, State
from gateway.delivery.inbox.flights import Flight, Flights
from gateway.delivery.inbox.lanes import NO_BROKER, Lanes, Task
from gateway.delivery.inbox.outcomes import (
    DispatchListener,
    Setback,
    attempt,
    because,
    delivered,
    given_up,
    refusal_of,
    settlement,
    why,
)
from gateway.delivery.inbox.recent import Recent
from gateway.delivery.inbox.record import Record
from gateway.delivery.inbox.settling import Settling, unavailable
from gateway.delivery.inbox.store import (
    Entry,
    InboxFullError,
    InboxUnavailableError,
    Parked,
    Store,
)
from gateway.delivery.inbox.terms import Terms
from gateway.delivery.inbox.windows import Backoff
from gateway.delivery.plan import Assignment, Refusal
from gateway.delivery.settlement import Settlement

__all__ = ["Dispatcher"]

_TAKEN_AT_ONCE = 64
"""Tasks that begin before the event loop has a turn."""
_CACHED_BYTES = 32 * 1024 * 1024
"""Of records that were just stored, so that they need not be loaded."""
_LOOK_AT_AGES = 3600.0
"""Seconds between looks at the ages at the most: the clock may have been set."""


class Dispatcher:
    """Serves what waits in a store. It is the store's `Feed`."""

    def __init__(
        self,
        store: Store,
        listener: DispatchListener,
        terms: Terms,
        *,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`clock` is Unix seconds, `chance` a number from 0 to 1."""
        self._store = store
        self._listener = listener
        self._clock = clock
        self.random = chance
        self.lanes = Lanes(Backoff())
        self._recent = Recent(_CACHED_BYTES)
        self._settling = Settling(store, self.lanes, self)
        self._loading: dict[int, list[Task]] = {}
        self._loads: set[asyncio.Task[None]] = set()
        self._flights = Flights(self._landed)
        self._pumping: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._running = False
        self._idle: asyncio.Event | None = None
        self._terms = terms
        self.apply(terms)

    def start(self) -> None:
        """Begin to dispatch."""
        self._running = True
        self._wake()

    def apply(self, terms: Terms) -> None:
        """Dispatch by other terms from now on; what is on its way ends as it began."""
        before, self._terms = self._terms, terms
        for name, reach in terms.reaches.items():
            broker = terms.outlets.brokers[name]
            if name in before.reaches and before.reaches[name].kind != reach.kind:
                # What waits for one of the new kind may go at once.
                self.lanes.set_gate(name, reach.window, is_open=False)
            self.lanes.set_gate(name, reach.window, is_open=broker.state is State.UP)
        for name in before.reaches.keys() - terms.reaches.keys():
            self.lanes.set_gate(name, before.reaches[name].window, is_open=False)
        if terms.outlets.dead_letter != before.outlets.dead_letter:
            self.lanes.recall()
        self._wake()

    def broker_state(self, name: str, state: State) -> None:
        """Take the new state of a broker."""
        reach = self._terms.reaches.get(name)
        if reach is not None:
            self.lanes.set_gate(name, reach.window, is_open=state is State.UP)
            self._wake()

    def oldest_age(self) -> float:
        """Seconds since the oldest record that waits was stored; 0 where none waits."""
        oldest = self.lanes.oldest()
        return 0.0 if oldest is None else max(0.0, self._clock() - oldest)

    async def close(self, timeout: float) -> None:
        """Stop to take tasks, and wait for what is on its way, for at most `timeout` seconds."""
        self._running = False
        for handle in (self._timer, self._pumping):
            if handle is not None:
                handle.cancel()
        for load in tuple(self._loads):
            load.cancel()
        if self._flights or self._settling:
            self._idle = asyncio.Event()
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._idle.wait()
        self._flights.close()

    # The feed: see `Feed`.

    def stored(self, entry: Entry, record: Record | None) -> None:
        """See `Feed.stored`."""
        self.lanes.add(entry)
        if record is not None:
            self._recent.put(entry.ref, record, entry.size)
        self._wake()

    def withdrawn(self, ref: int) -> bool:
        """See `Feed.withdrawn`."""
        is_withdrawn = self.lanes.withdrawn(ref)
        if is_withdrawn:
            self._recent.drop(ref)
        return is_withdrawn

    def discarded(self, record: Record, targets: int) -> None:
        """See `Feed.discarded`."""
        plan = record.plan
        for at in range(len(plan.assignments) + len(plan.refusals)):
            if targets >> at & 1:
                refusal = refusal_of(record, at, "")
                self._listener.settled(settlement(refusal, "discarded"))

    def lost(self, partition: int) -> None:
        """See `Feed.lost`."""
        self.lanes.lost(partition)

    # What begins.

    def _wake(self) -> None:
        if self._running and self._pumping is None:
            self._pumping = asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        """Begin what may begin now, and have itself called when more may."""
        self._pumping = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        expired = self.lanes.expire(self._clock() - self._terms.max_age, _TAKEN_AT_ONCE)
        for _ in range(_TAKEN_AT_ONCE):
            task = self.lanes.take(now)
            if task is None:
                break
            self._begin(task)
        else:
            expired = _TAKEN_AT_ONCE
        if expired == _TAKEN_AT_ONCE:
            self._wake()
        else:
            self._rest(loop)

    def _rest(self, loop: asyncio.AbstractEventLoop) -> None:
        """Sleep until a lane's rest is over, or a record is too old."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        times = []
        if (wakes_at := self.lanes.wakes_at()) is not None:
            times.append(wakes_at)
        if (stored_at := self.lanes.next_age()) is not None:
            due_in = stored_at + self._terms.max_age - self._clock()
            times.append(loop.time() + min(due_in, _LOOK_AT_AGES))
        if times:
            self._timer = loop.call_at(min(times), self._wake)

    def _begin(self, task: Task) -> None:
        record = self._recent.get(task.ref)
        if record is not None:
            self._serve(task, record)
        elif task.ref in self._loading:
            self._loading[task.ref].append(task)
        else:
            self._loading[task.ref] = [task]
            load = asyncio.ensure_future(self._load(task.ref))
            self._loads.add(load)
            load.add_done_callback(self._loads.discard)

    async def _load(self, ref: int) -> None:
        try:
            record = await self._store.load(ref)
        except Exception as error:  # noqa: BLE001 - a store that breaks its promise loses nothing
            self._listener.inbox_failed(unavailable(error))
            for task in self._loading.pop(ref):
                self._again(task, ours=True)
            return
        tasks = self._loading.pop(ref)
        if tasks[0].waiting.owed.bit_count() > len(tasks):
            self._recent.put(ref, record, tasks[0].size)
        for task in tasks:
            self._serve(task, record)

    def _serve(self, task: Task, record: Record) -> None:
        """Publish a target's record, or its dead letter."""
        if not self._running or not self.lanes.is_current(task):
            self._again(task, ours=True)
            return
        assignments = record.plan.assignments
        refusal = (task.waiting.refusals or {}).get(task.at)
        if refusal is None and task.at >= len(assignments):
            refusal = refusal_of(record, task.at, "")
        elif refusal is None and task.overdue:
            refusal = self._outlived(assignments[task.at])
        if refusal is not None:
            self._refuse(task, record, refusal)
            return
        assignment = assignments[task.at]
        if self._is_elsewhere(assignment):
            self._again(task, ours=True, slowly=True)
            return
        self._publish(task, record, assignment.message, None)

    def _is_elsewhere(self, assignment: Assignment) -> bool:
        """Tell whether the broker of this name is of another kind than the record was made for."""
        reach = self._terms.reaches.get(assignment.broker)
        return reach is not None and assignment.kind not in (None, reach.kind)

    def _outlived(self, assignment: Assignment) -> Refusal:
        """Give the refusal of a record that is older than `max_age`."""
        has_broker = assignment.broker in self._terms.outlets.brokers
        if has_broker and not self._is_elsewhere(assignment):
            detail = f"not delivered within {self._terms.max_age:g} s"
            return given_up(assignment, "max_age", detail)
        return given_up(assignment, "no_broker", "the config has no such broker any more")

    def _refuse(self, task: Task, record: Record, refusal: Refusal) -> None:
        """Send a target's dead letter, or park it where there is none."""
        task.waiting.refusals = {**(task.waiting.refusals or {}), task.at: refusal}
        dead_letter = self._terms.outlets.dead_letter
        if dead_letter is None:
            self._park(task, record, refusal)
        elif dead_letter.broker != task.broker:
            self.lanes.divert(task, dead_letter.broker)
            self._wake()
        else:
            letter = dead_letter.letter(record.plan, refusal, record.target_ids()[task.at])
            if record.replay:
                dedupe_id = f"{letter.dedupe_id}.r{record.replay}"
                letter = msgspec.structs.replace(letter, dedupe_id=dedupe_id)
            self._publish(task, record, letter, refusal)

    def _publish(
        self, task: Task, record: Record, message: Message, refusal: Refusal | None
    ) -> None:
        reach = self._terms.reaches.get(task.broker)
        if reach is None:
            # A reload took the broker away while the record was loaded.
            self._again(task, ours=True)
            return
        broker = self._terms.outlets.brokers[task.broker]
        self._flights.begin(Flight(task, record, refusal), broker, message, reach)

    # What ends.

    def _landed(self, flight: Flight, outcome: Receipt | BaseException) -> None:
        task, record, refusal = flight.task, flight.record, flight.refusal
        self._listener.attempted(task.broker, attempt(outcome))
        if isinstance(outcome, Receipt):
            self.lanes.acked(task)
            if refusal is None:
                ended = delivered(record.plan.assignments[task.at], outcome)
            else:
                ended = settlement(refusal, "dead_lettered")
                self._listener.set_back("dead_lettered", record.plan.metadata, ended)
            self._settling.settle(task, ended)
        elif isinstance(outcome, Refused) and refusal is None:
            assignment = record.plan.assignments[task.at]
            self._refuse(task, record, given_up(assignment, outcome.reason, outcome.detail))
        elif isinstance(outcome, Refused) and refusal is not None:
            self._park(task, record, because(refusal, "dead_letter_refused", str(outcome)))
        else:
            self._failed(flight, outcome)
        self._settle_down()

    def _failed(self, flight: Flight, error: BaseException) -> None:
        """Try again later, and a dead letter where it goes by then."""
        task, record, refusal = flight.task, flight.record, flight.refusal
        reason, detail = why(error)
        refused = refusal_of(record, task.at, reason) if refusal is None else refusal
        ended = settlement(because(refused, reason, detail), "failed")
        self._listener.set_back("failed", record.plan.metadata, ended)
        dead_letter = self._terms.outlets.dead_letter
        if refusal is None or (dead_letter is not None and dead_letter.broker == task.broker):
            self._again(task)
        else:
            self.lanes.divert(task, NO_BROKER)
            self._wake()

    def _again(self, task: Task, *, ours: bool = False, slowly: bool = False) -> None:
        """Try a target again after a while."""
        now = asyncio.get_running_loop().time()
        self.lanes.failed(task, now, self.random(), ours=ours, slowly=slowly)
        self._wake()

    def _park(self, task: Task, record: Record, refusal: Refusal) -> None:
        why = (refusal.reason, refusal.detail)
        self._settling.park(task, Parked(record, task.at, *why, self._clock()))

    # See `Keeper`.

    def kept(self, task: Task, settlement: Settlement) -> None:
        """See `Keeper.kept`."""
        self._listener.settled(settlement)
        self._done(task)

    def parked(self, task: Task, parked: Parked) -> None:
        """See `Keeper.parked`."""
        self._tell(parked, "parked")
        self._done(task)

    def not_parked(self, task: Task, parked: Parked, error: InboxUnavailableError) -> None:
        """See `Keeper.not_parked`."""
        if isinstance(error, InboxFullError):
            self._tell(parked, "parked_full")
        else:
            self._listener.inbox_failed(error)
        self._again(task, ours=True, slowly=isinstance(error, InboxFullError))
        self._settle_down()

    def not_kept(self, error: InboxUnavailableError) -> None:
        """See `Keeper.not_kept`."""
        self._listener.inbox_failed(error)

    def _done(self, task: Task) -> None:
        self.lanes.settled(task)
        if not task.waiting.owed:
            self._recent.drop(task.ref)
        self._wake()
        self._settle_down()

    def _tell(self, parked: Parked, setback: Setback) -> None:
        refusal = refusal_of(parked.record, parked.target, parked.reason)
        ended = settlement(because(refusal, parked.reason, parked.detail), "failed")
        self._listener.set_back(setback, parked.record.plan.metadata, ended)

    def _settle_down(self) -> None:
        """Let `close` end, once nothing is on its way and everything is durable."""
        if self._idle is not None and not self._flights and len(self._settling) <= 1:
            asyncio.get_running_loop().call_soon(self._look_idle, self._idle)

    def _look_idle(self, idle: asyncio.Event) -> None:
        if not self._flights and not self._settling:
            idle.set()
