"""A small world, drawn from a seed: its brokers, its events, and all that goes wrong in it.

Values only. What is drawn while a world runs, such as how long a record travels, comes from the
same seed (`sim.stage`), so that a seed is all that a replay needs.
"""

from __future__ import annotations

from random import Random
from typing import Literal

import msgspec

__all__ = [
    "FATES",
    "START",
    "Broker",
    "End",
    "Event",
    "Fate",
    "Mode",
    "Outage",
    "Target",
    "World",
    "draw",
]

START = 1000.0
"""Virtual seconds at which every world begins."""

Mode = Literal["direct", "inbox"]
Fate = Literal[
    "acked", "acked_late", "ack_lost", "record_lost", "unavailable", "refused", "stored_twice"
]
FATES: tuple[Fate, ...] = Fate.__args__  # type: ignore[attr-defined]  # of typing's Literal


class Broker(msgspec.Struct, frozen=True):
    """One cluster, and the client's limit on what is in flight to it."""

    name: str
    dedupes: bool
    """As JetStream: a dedupe id is stored once in two minutes."""
    max_in_flight: int


class Target(msgspec.Struct, frozen=True):
    """A target of the routing table."""

    broker: str
    destination: str


class Event(msgspec.Struct, frozen=True):
    """What Clerk sends once, and Svix perhaps more often."""

    id: str
    key: str
    at: float
    targets: tuple[int, ...]
    """Places in the world's targets; those of the second config may be others."""
    later_targets: tuple[int, ...]
    unrendered: tuple[int, ...]
    """Targets that routing refuses, because an expression fails."""
    twin: bool
    """It comes by two endpoints: the secret is being rotated."""
    resend_after: float | None
    """Somebody presses resend so many seconds after the 2xx."""


class Outage(msgspec.Struct, frozen=True):
    """A time in which a broker is gone, or stopped: what reaches it waits until it thaws."""

    broker: str
    kind: Literal["down", "frozen"]
    since: float
    until: float


class End(msgspec.Struct, frozen=True):
    """How one life of the process ends."""

    at: float
    graceful: bool
    """SIGTERM; else it dies before the callback that is `steps` after that time."""
    steps: int
    down_for: float


class StoreFaults(msgspec.Struct, frozen=True):
    """What the inbox's store does wrong, as shares of its writes and reads."""

    write_fails: float
    read_fails: float
    slow: float
    max_bytes: int
    parked_max_bytes: int


class World(msgspec.Struct, frozen=True):
    """All that is settled before a run."""

    seed: int
    mode: Mode
    brokers: tuple[Broker, ...]
    targets: tuple[Target, ...]
    dead_letter: str | None
    """The broker that takes letters."""
    later_dead_letter: str | None
    """The same by the second config."""
    refusing: frozenset[tuple[str, int]]
    """Event and target that the broker will never take."""
    letters_refused: bool
    events: tuple[Event, ...]
    outages: tuple[Outage, ...]
    ends: tuple[End, ...]
    weights: tuple[float, ...]
    """Of `FATES`, while there are faults."""
    faults_end: float
    reload_at: float
    """The second config serves from then on."""
    answers_lost: float
    """The share of answers that do not reach the sender."""
    deadline: float
    request_timeout: float
    window: float
    incomplete_for: float
    ledger_bytes: int
    max_age: float
    store: StoreFaults

    def letters_at(self, now: float) -> str | None:
        """Give the broker that takes letters by the config that serves then."""
        return self.dead_letter if now < self.reload_at else self.later_dead_letter


def draw(seed: int, mode: Mode) -> World:
    """Draw the world of a seed."""
    chance = Random(f"{mode} {seed}")
    brokers = tuple(
        Broker(f"b{n}", chance.random() < 0.4, chance.choice((4, 50, 50, 50)))
        for n in range(chance.randint(1, 3))
    )
    targets = tuple(
        Target(chance.choice(brokers).name, f"t{n}") for n in range(chance.randint(1, 4))
    )
    busy = chance.choice((0.0, 1.0, 20.0, 60.0, 300.0))
    events = _events(chance, len(targets), busy)
    faults_end = START + busy + chance.choice((5.0, 60.0, 600.0))
    letters = chance.choice(brokers).name if chance.random() < 0.6 else None
    return World(
        seed=seed,
        mode=mode,
        brokers=brokers,
        targets=targets,
        dead_letter=letters,
        later_dead_letter=chance.choice((letters, None, chance.choice(brokers).name)),
        refusing=frozenset(
            (event.id, at) for event in events for at in event.targets if chance.random() < 0.03
        ),
        letters_refused=chance.random() < 0.03,
        events=events,
        outages=_outages(chance, brokers, busy, faults_end),
        ends=_ends(chance, events, busy, faults_end),
        weights=_weights(chance),
        faults_end=faults_end,
        reload_at=START + busy * chance.random() if chance.random() < 0.2 else float("inf"),
        answers_lost=chance.choice((0.0, 0.0, 0.1, 0.4)),
        deadline=chance.choice((10.0, 10.0, 3.0)),
        request_timeout=30.0,
        window=chance.choice((120.0, 120.0, 120.0, 5.0, 0.0)),
        incomplete_for=chance.choice((108_000.0, 108_000.0, 108_000.0, 120.0)),
        ledger_bytes=chance.choice((1 << 26, 1 << 26, 1 << 26, 6000)),
        max_age=chance.choice((604_800.0, 604_800.0, 30.0)),
        store=_store(chance),
    )


def _events(chance: Random, targets: int, busy: float) -> tuple[Event, ...]:
    keys = [f"user_{n}" for n in range(chance.randint(1, 4))]
    events = []
    for n in range(chance.choice((1, 1, 2, 2, 3, 4, 6, 12))):
        mine = tuple(at for at in range(targets) if chance.random() < 0.8) or (0,)
        later = mine if chance.random() < 0.7 else tuple(range(targets))
        failing = tuple(at for at in mine if chance.random() < 0.03)
        events.append(
            Event(
                id=f"msg_{n}",
                key=chance.choice(keys),
                at=START + round(busy * chance.random(), chance.choice((0, 3))),
                targets=mine,
                later_targets=later,
                unrendered=failing,
                twin=chance.random() < 0.25,
                resend_after=chance.choice((0.0, 1.0, 60.0, 200.0))
                if chance.random() < 0.15
                else None,
            )
        )
    return tuple(sorted(events, key=lambda event: (event.at, event.id)))


def _outages(
    chance: Random, brokers: tuple[Broker, ...], busy: float, faults_end: float
) -> tuple[Outage, ...]:
    outages = []
    for broker in brokers:
        since = START
        for _ in range(chance.choice((0, 0, 1, 1, 2))):
            since += chance.random() * max(busy, 1.0)
            lasts = chance.choice((0.05, 1.0, 10.0, 10.0, 40.0, 400.0))
            until = min(since + lasts, faults_end)
            if until > since:
                kind: Literal["down", "frozen"] = chance.choice(("down", "frozen"))
                outages.append(Outage(broker.name, kind, since, until))
            since = until + 3.0
    return tuple(outages)


def _ends(
    chance: Random, events: tuple[Event, ...], busy: float, faults_end: float
) -> tuple[End, ...]:
    """Let the process end, mostly just after an event has come."""
    ends = []
    for _ in range(chance.choice((0, 0, 1, 1, 2, 4))):
        near = chance.choice(events).at if chance.random() < 0.7 else START + busy * chance.random()
        at = near + chance.choice((0.0, 0.0, 0.001, 0.005, 0.02, 0.5, 6.0, 11.0, 31.0))
        down_for = chance.choice((0.0, 0.01, 1.0, 20.0))
        ends.append(End(at, chance.random() < 0.3, chance.randint(1, 40), down_for))
    return tuple(sorted((end for end in ends if end.at < faults_end), key=lambda end: end.at))


def _weights(chance: Random) -> tuple[float, ...]:
    """Give a world its weather: calm, one kind of fault, or a storm."""
    faults = [0.0] * (len(FATES) - 1)
    weather = chance.choice(("calm", "one", "one", "storm"))
    if weather == "one":
        faults[chance.randrange(len(faults))] = chance.choice((0.1, 0.5, 1.0))
    elif weather == "storm":
        faults = [chance.random() * 0.3 for _ in faults]
    return (1.0, *faults)


def _store(chance: Random) -> StoreFaults:
    return StoreFaults(
        write_fails=chance.choice((0.0, 0.0, 0.1, 0.5)),
        read_fails=chance.choice((0.0, 0.0, 0.2)),
        slow=chance.choice((0.0, 0.2, 1.0)),
        max_bytes=chance.choice((1 << 30, 1 << 30, 1200)),
        parked_max_bytes=chance.choice((1 << 28, 1 << 28, 1500)),
    )
