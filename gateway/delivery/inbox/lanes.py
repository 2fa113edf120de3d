"""The index of what waits in the inbox: which target's record may go next.

Pure: no I/O; the time, in seconds of one clock, and random numbers are arguments. A *lane* is a
target and a key; its records go one after the other, in order of arrival, on NATS to several
subjects of one template. Lanes take turns within the destination of their first record,
destinations within their broker, brokers among each other. So nothing that is stuck stops anything
else.

A lane that failed rests, twice as long after each failure. A broker that is down is not tried at
all, and all of its lanes may go at once when it is up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from math import inf

from gateway.delivery.inbox.ages import Ages
from gateway.delivery.inbox.lane import NO_BROKER, Item, Lane, Task, Waiting, bits, key_of
from gateway.delivery.inbox.store import Entry
from gateway.delivery.inbox.windows import Backoff, Gate, Place, Window

__all__ = ["NO_BROKER", "Lanes", "Task"]

_PATIENT = 5
"""Failures in a row after which a lane rests even if its broker has gone and come back meanwhile:
it may be its record that drives the broker away."""


class Lanes:
    """All that waits, by lane; `take` gives what may go now."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._waiting: dict[int, Waiting] = {}
        self._lanes: dict[Hashable, Lane] = {}
        self._gates: dict[str, Gate] = {}
        self._order: deque[Gate] = deque()
        self._rests: list[tuple[float, int, Lane | Place]] = []
        self._count = 0
        self._ages = Ages()
        self._old = Ages()
        self._gate(NO_BROKER).is_open = True

    def __len__(self) -> int:
        """How many records wait or are on their way."""
        return len(self._waiting)

    def add(self, entry: Entry) -> None:
        """Take a record; one that is known already is passed over."""
        if entry.ref in self._waiting:
            return
        waiting = Waiting(entry, entry.owed)
        self._waiting[entry.ref] = waiting
        self._ages.add(entry.stored_at, entry.ref, self._waiting)
        for at in bits(entry.owed):
            target = entry.targets[at]
            key = key_of(entry, at)
            self._enqueue(key, target.broker, target.destination, (entry.ref, at))

    def take(self, now: float) -> Task | None:
        """Give the next task that may start now, or None."""
        self._wake(now)
        for _ in range(len(self._order)):
            gate = self._order[0]
            self._order.rotate(-1)
            if gate.is_open and (task := self._take_from(gate)) is not None:
                return task
        return None

    def wakes_at(self) -> float | None:
        """Give the time from which `take` may give something that it does not give now."""
        return self._rests[0][0] if self._rests else None

    def owed_after(self, task: Task, settled: int) -> int:
        """Give the bitmask of what its record owes once the targets of the mask are settled."""
        return task.waiting.owed & ~settled

    def is_current(self, task: Task) -> bool:
        """Tell whether the task's record still is here to be dispatched."""
        return self._waiting.get(task.ref) is task.waiting

    def acked(self, task: Task) -> None:
        """Note that the task's broker took a record; its settlement may take a while yet."""
        task.lane.failures = 0
        task.place.worked()

    def settled(self, task: Task) -> None:
        """End a task whose target is owed no more, durably; its lane goes on."""
        waiting = self._end(task)
        waiting.owed &= ~(1 << task.at)
        if not waiting.owed and self.is_current(task):
            del self._waiting[task.ref]
        self._undivert(task.lane, (task.ref, task.at))
        task.lane.failures = 0
        self._go_on(task.lane)

    def failed(
        self, task: Task, now: float, jitter: float, *, ours: bool = False, slowly: bool = False
    ) -> None:
        """End a task whose target is still owed; it is tried again after a while.

        `jitter` is a random number, 0 to 1. What is `ours` says nothing of the destination.
        `slowly` waits the longest time at once. While the broker is down nothing waits: nothing
        is tried.
        """
        waiting = self._end(task)
        lane, place = task.lane, task.place
        if place.gate.is_open and not ours and place.failed(task.epoch):
            place.rests_until = now + self._backoff.after(place.failures, jitter)
            self._rest(place.rests_until, place)
        item = (task.ref, task.at)
        if not self._owes(item):
            self._undivert(lane, item)
            self._go_on(lane)
        elif waiting.overdue and not task.overdue:
            self._undivert(lane, item)
            self._go_on(lane)
            self._enqueue(item, NO_BROKER, "", item)
        else:
            heappush(lane.waiting, item)
            lane.failures += 1
            if not (place.gate.is_open or ours) and lane.failures < _PATIENT:
                self._ready(lane)
                return
            failures = 64 if slowly else lane.failures
            lane.state = "resting"
            lane.rests_until = now + self._backoff.after(failures, jitter)
            self._rest(lane.rests_until, lane)

    def divert(self, task: Task, broker: str) -> None:
        """End a task that needs another broker: it comes again, first in its lane, for that one."""
        waiting = self._end(task)
        lane, item = task.lane, (task.ref, task.at)
        if not self._owes(item) or (waiting.overdue and not task.overdue):
            self._undivert(lane, item)
            self._go_on(lane)
            if not self._owes(item):
                return
            lane = self._enqueue(item, NO_BROKER, "", item)
        else:
            heappush(lane.waiting, item)
        self._lead(lane, broker)
        lane.diverted = item
        self._ready(lane)

    def recall(self) -> None:
        """Ask anew where diverted tasks go: what they were diverted to is no longer right."""
        for lane in self._lanes.values():
            if lane.diverted is not None and lane.state != "busy":
                self._lead(lane, NO_BROKER)
                self._ready(lane)

    def set_gate(self, broker: str, window: Window, *, is_open: bool) -> None:
        """Say whether a broker is up, and what may be on its way to it."""
        gate = self._gate(broker)
        gate.window = window
        opens = is_open and not gate.is_open
        gate.is_open = is_open
        for place in gate.places.values():
            place.forgive() if opens else place.offer()
        for _, _, rester in self._rests if opens else ():
            if isinstance(rester, Lane) and rester.place.gate is gate:
                self._rise(rester, before=_PATIENT)

    def withdrawn(self, ref: int) -> bool:
        """Forget a record; False while something of it is on its way, or it is not here."""
        waiting = self._waiting.get(ref)
        if waiting is None or waiting.begun:
            return False
        del self._waiting[ref]
        for at in bits(waiting.owed):
            self._vacate(waiting, at)
        return True

    def lost(self, partition: int) -> None:
        """Forget a partition. What of it is on its way ends as it will, and is then forgotten."""
        for ref in [r for r, w in self._waiting.items() if w.entry.partition == partition]:
            waiting = self._waiting.pop(ref)
            for at in bits(waiting.owed & ~waiting.begun):
                self._vacate(waiting, at)

    def expire(self, stored_before: float, at_most: int) -> int:
        """Make overdue what was stored until then, and give how many records that were now.

        What of them is not on its way leaves its lane, and comes from `take` as `overdue`.
        """
        count = 0
        while count < at_most:
            ref = self._ages.pop(stored_before, self._waiting)
            if ref is None:
                break
            count += 1
            waiting = self._waiting[ref]
            waiting.overdue = True
            self._old.add(waiting.entry.stored_at, ref, self._waiting)
            for at in bits(waiting.owed & ~waiting.begun):
                self._vacate(waiting, at)
                self._enqueue((ref, at), NO_BROKER, "", (ref, at))
        return count

    def next_age(self) -> float | None:
        """Give when the oldest record was stored that is not overdue."""
        return self._ages.first(self._waiting)

    def oldest(self) -> float | None:
        """Give when the oldest of all records was stored."""
        ages = (self._ages.first(self._waiting), self._old.first(self._waiting))
        return min((age for age in ages if age is not None), default=None)

    def _enqueue(self, key: Hashable, broker: str, destination: str, item: Item) -> Lane:
        lane = self._lanes.get(key)
        if lane is None:
            place = self._place(broker, destination)
            place.lanes += 1
            lane = self._lanes[key] = Lane(key, broker, destination, place, [])
        heappush(lane.waiting, item)
        if lane.state == "new":
            self._ready(lane)
        return lane

    def _take_from(self, gate: Gate) -> Task | None:
        while gate.turn:
            place = gate.turn[0]
            lane = self._first_ready(place)
            if lane is None:
                gate.turn.popleft().in_turn = False
                continue
            ref, at = lane.waiting[0]
            waiting = self._waiting[ref]
            size = waiting.entry.size
            if not gate.has_room(size):
                return None
            gate.turn.popleft().in_turn = False
            if not place.has_room(size):
                continue
            place.ready.popleft()
            heappop(lane.waiting)
            lane.state = "busy"
            waiting.begun |= 1 << at
            epoch = place.begin(size)
            place.offer()
            overdue = waiting.overdue and lane.key == (ref, at)
            return Task(
                ref, at, gate.name, overdue, lane.failures, size, lane, place, epoch, waiting
            )
        return None

    def _first_ready(self, place: Place) -> Lane | None:
        """Give the lane whose turn it is, past those that have nothing to send any more."""
        while place.ready:
            lane = place.ready[0]
            if lane.state != "ready" or lane.place is not place:
                place.ready.popleft()
                continue
            self._skip_stale(lane)
            if lane.waiting and self._home(lane) == lane.destination:
                return lane
            # Its first record has been withdrawn, and the next one may go elsewhere.
            place.ready.popleft()
            self._go_on(lane)
        return None

    def _home(self, lane: Lane) -> str:
        """Give where a lane leads: to its first record's destination, if that goes to its own."""
        if lane.diverted is not None or lane.broker == NO_BROKER:
            return lane.destination
        ref, at = lane.waiting[0]
        return self._waiting[ref].entry.targets[at].destination

    def _skip_stale(self, lane: Lane) -> None:
        while lane.waiting and not self._belongs(lane, lane.waiting[0]):
            heappop(lane.waiting)
            lane.stale = max(0, lane.stale - 1)

    def _owes(self, item: Item) -> bool:
        waiting = self._waiting.get(item[0])
        return waiting is not None and bool(waiting.owed & ~waiting.begun & 1 << item[1])

    def _belongs(self, lane: Lane, item: Item) -> bool:
        """Tell whether an item waits, and in this lane."""
        return self._owes(item) and (self._waiting[item[0]].overdue is False or lane.key == item)

    def _end(self, task: Task) -> Waiting:
        task.waiting.begun &= ~(1 << task.at)
        task.place.end(task.size, task.epoch)
        return task.waiting

    def _go_on(self, lane: Lane) -> None:
        """Let a lane's next record go, or the lane, if that was the last."""
        self._skip_stale(lane)
        if lane.waiting:
            self._ready(lane)
        else:
            self._drop(lane)

    def _ready(self, lane: Lane) -> None:
        self._skip_stale(lane)
        if lane.waiting and (home := self._home(lane)) != lane.destination:
            lane.destination = home
            self._lead(lane, lane.broker)
        lane.state = "ready"
        lane.place.ready.append(lane)
        lane.place.offer()

    def _drop(self, lane: Lane) -> None:
        lane.state = "gone"
        del self._lanes[lane.key]
        self._leave(lane.place)

    def _vacate(self, waiting: Waiting, at: int) -> None:
        """Note that an item, which is not on its way, waits in its lane no longer."""
        entry = waiting.entry
        item = (entry.ref, at)
        lane = self._lanes.get(item) or self._lanes.get(key_of(entry, at))
        if lane is None:
            return
        lane.stale += 1
        if lane.stale * 2 > len(lane.waiting):
            lane.waiting = [one for one in lane.waiting if self._belongs(lane, one)]
            heapify(lane.waiting)
            lane.stale = 0
        if lane.state == "busy":
            return
        if lane.diverted == item:
            self._undivert(lane, item)
            self._ready(lane)
        if not lane.waiting:
            self._drop(lane)

    def _undivert(self, lane: Lane, item: Item) -> None:
        if lane.diverted == item:
            lane.diverted = None
            self._lead(lane, lane.broker)

    def _lead(self, lane: Lane, broker: str) -> None:
        """Lead a lane to a broker: its own, or another for its first record."""
        before, lane.place = lane.place, self._place(broker, lane.destination)
        lane.place.lanes += 1
        self._leave(before)

    def _leave(self, place: Place) -> None:
        place.lanes -= 1
        if not place.lanes:
            place.ready.clear()
            del place.gate.places[place.name]

    def _gate(self, name: str) -> Gate:
        gate = self._gates.get(name)
        if gate is None:
            gate = self._gates[name] = Gate(name, Window(1000, 64 * 1024 * 1024))
            self._order.append(gate)
        return gate

    def _place(self, broker: str, destination: str) -> Place:
        gate = self._gate(broker)
        place = gate.places.get(destination)
        if place is None:
            place = gate.places[destination] = Place(gate, destination)
        return place

    def _rest(self, until: float, rester: Lane | Place) -> None:
        self._count += 1
        heappush(self._rests, (until, self._count, rester))

    def _wake(self, now: float) -> None:
        while self._rests and self._rests[0][0] <= now:
            until, _, rester = heappop(self._rests)
            if rester.rests_until != until:
                continue
            if isinstance(rester, Lane):
                self._rise(rester)
            else:
                rester.rests_until = None
                rester.offer()

    def _rise(self, lane: Lane, before: float = inf) -> None:
        if lane.state == "resting" and lane.failures < before:
            self._ready(lane)
