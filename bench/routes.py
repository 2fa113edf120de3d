"""What the number of routes costs: an event in tables of 1 to 10,000, and loading the config.

`make bench-routes` asks each table for the plan of events that

- no route takes, each of a type that was not seen before, so that nothing is remembered of it
- one route takes, each of a type that was not seen before
- one route takes, of a type that was
- 10 and 100 routes take, whose conditions are all true

and takes a config file of so many routes from its text to the table, as far as the bounds of a file
let it be. Every route has a condition of its own and two targets with templates. All is CPU, the
least of several rounds that alternate, because a busy machine only ever adds.

Exits 1 where the cost of an event grows with routes that are not its candidates, or faster than
those that are, or where 1,000 routes take more than a second to load.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import yaml

from gateway.app import draw, load_contents
from gateway.config.models import GatewayConfig
from gateway.event import Event, Sender
from gateway.routing.compile import compile_table
from gateway.routing.expressions import compiled
from gateway.routing.table import Table
from gateway.routing.template import compiled_template
from gateway.specimen import specimen

SIZES = (1, 10, 100, 1_000, 10_000)
LOADED = (1, 10, 100, 1_000, 2_000)
"""A file has at most 1 MiB: some 2,800 routes of this kind."""
SHARED = (10, 100)
"""Of so many routes there is a type that they all take."""
EVENTS = 200
"""Of a round, fewer where many routes take each."""
LEAST, MOST = 10, 1_000
"""The sizes that are compared for flatness: one is below what a table's own bookkeeping costs, and
10,000 are more than the processor's caches hold."""
RATIO = 1.5
FLOOR = 3.0
"""Microseconds of difference that are noise, whatever the ratio."""
MAX_LOAD = 1.0
"""Seconds of CPU for 1,000 routes."""
SENDER = Sender("clerk", "clerk/clerk", True, compiled("type"))
DATA = {"id": "user_1", "public_metadata": {"tier": "enterprise"}, "region": "eu"}


def route(at: int) -> dict[str, Any]:
    name = f"kind{at}"
    return {
        "name": f"route-{at}",
        "events": [f"{name}.*", *(f"shared.{most}" for most in SHARED if at < most)],
        "exclude": [f"{name}.deleted"],
        "when": f"data.public_metadata.tier == 'enterprise' && data.region != 'none-{at}'",
        "targets": [
            {
                "broker": "events",
                "topic": f"clerk.{name}",
                "key": "{data.organization.id || data.id}",
                "headers": {"x-tier": "{data.public_metadata.tier}"},
            },
            {"broker": "bus", "subject": f"clerk.{name}.{{data.id}}"},
        ],
    }


def document(routes: int) -> dict[str, Any]:
    return {
        "sources": {"clerk": {"secrets": ["whsec_YSBiZW5jaG1hcmsncyBzZWNyZXQ="]}},
        "brokers": {
            "events": {"kind": "kafka", "servers": ["localhost:9092"]},
            "bus": {"kind": "nats", "servers": ["nats://localhost:4222"]},
        },
        "routes": [route(at) for at in range(routes)],
    }


def table(routes: int) -> Table:
    """Compile a table past the file, whose bounds end before 10,000 routes."""
    return compile_table(GatewayConfig.model_validate_json(json.dumps(document(routes))))


def event(event_type: str, at: int) -> Event:
    body = json.dumps({"type": event_type, "object": "event", "data": DATA}).encode()
    return specimen(SENDER, body, 1_800_000_000.0, f"msg_{at:024}")


def measure(
    tables: Sequence[Table], type_of: Callable[[int], str], routes: int, rounds: int
) -> list[float]:
    """Give microseconds per event in each table; `routes` is how many must take each.

    `type_of` names the type of the nth event.
    """
    least = [float("inf")] * len(tables)
    number, count = 0, EVENTS // max(1, routes)
    for _ in range(rounds):
        for which, one in enumerate(tables):
            events = [event(type_of(number + at), at) for at in range(count)]
            number += count
            gc.collect()
            before = time.process_time()
            for seen in events:
                plan = one.plan(seen)
            least[which] = min(least[which], (time.process_time() - before) / count * 1e6)
            if len({name for each in plan.assignments for name in each.routes}) != routes:
                raise RuntimeError(f"{events[-1].type} is taken by others than {routes} routes")
    return least


def load_seconds(routes: int, rounds: int) -> float:
    """Give the CPU from a file's text to its table, nothing of it compiled before."""
    text = yaml.dump(document(routes), Dumper=yaml.CSafeDumper, sort_keys=False)
    least = float("inf")
    for _ in range(rounds):
        compiled.cache_clear()
        compiled_template.cache_clear()
        gc.collect()
        before = time.process_time()
        made = draw(load_contents("bench.yaml", text, {}, {})).table
        least = min(least, time.process_time() - before)
        if len(made.routes) != routes:
            raise RuntimeError(f"{len(made.routes)} routes of {routes}")
    return least


def report(name: str, sizes: Sequence[int], costs: Sequence[float], unit: str) -> None:
    cells = dict(zip(sizes, costs, strict=True))
    shown = (f"{cells[size]:8.1f}" if size in cells else " " * 8 for size in SIZES)
    print(f"{name:<32}{' '.join(shown)}  {unit}", flush=True)


def is_flat(sizes: Sequence[int], costs: Sequence[float]) -> bool:
    """Tell whether the cost does not grow from `LEAST`, or what comes after it, to `MOST`."""
    cells = dict(zip(sizes, costs, strict=True))
    few = next(cells[size] for size in sizes if size >= LEAST)
    return cells[MOST] <= max(few * RATIO, few + FLOOR)


def events_faults(rounds: int) -> list[str]:
    """Measure events, and say of which the cost is not that of its candidates."""
    tables = [table(size) for size in SIZES]
    gc.freeze()
    kinds: list[tuple[str, Callable[[int], str], int, int]] = [
        ("no route, a new type", lambda at: f"nobody.takes{at}", 0, 1),
        ("one route, a new type", lambda at: f"kind0.happened{at}", 1, 1),
        ("one route", lambda _: "kind0.created", 1, 1),
        *((f"{most} routes", lambda _, most=most: f"shared.{most}", most, most) for most in SHARED),
    ]
    faults = []
    of_candidates = {}
    for name, type_of, routes, smallest in kinds:
        sizes = [size for size in SIZES if size >= smallest]
        costs = measure(tables[-len(sizes) :], type_of, routes, rounds)
        report(name, sizes, costs, "us")
        of_candidates[routes] = costs[-1]
        if not is_flat(sizes, costs):
            faults.append(f"not flat: {name}")
    few, many = SHARED
    if of_candidates[many] > of_candidates[few] * many / few * RATIO:
        faults.append(f"{many} candidates cost more than {many // few} times {few}")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print(f"{'routes in the table':<32}{' '.join(f'{size:8,}' for size in SIZES)}")
    faults = events_faults(options.rounds)
    loads = [load_seconds(size, 3) for size in LOADED]
    shown = (f"{seconds * 1000:8,.0f}" for seconds in loads)
    print(f"{'loading ' + ', '.join(f'{size:,}' for size in LOADED):<32}{' '.join(shown)}  ms")
    seconds = loads[LOADED.index(MOST)]
    if seconds > MAX_LOAD:
        faults.append(f"{MOST:,} routes take {seconds:.2f} s to load")
    print("\n".join(faults) or "flat, and loaded in time")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
