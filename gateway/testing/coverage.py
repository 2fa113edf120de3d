"""Which routes, targets and conditions of a table the tests have shown to work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from gateway.config.problems import DocumentPath
from gateway.routing.table import Table
from gateway.testing.run import Result
from gateway.testing.words import shown

__all__ = ["Coverage", "Gap", "Tally", "cover"]


class Tally(msgspec.Struct, frozen=True):
    """So many of so many."""

    reached: int
    total: int

    def __str__(self) -> str:
        return f"{self.reached}/{self.total}"


class Gap(msgspec.Struct, frozen=True):
    """A part of the config that no test reaches."""

    path: DocumentPath
    message: str


class Coverage(msgspec.Struct, frozen=True):
    """What the tests that passed have reached."""

    routes: Tally
    """Reached by a record of one of their targets."""
    targets: Tally
    """Reached where a record came, and a test expected it."""
    conditions: Tally
    """Seen both ways: true by a record of the route, and not true by a test that would have failed
    had a record come."""
    gaps: tuple[Gap, ...]
    """In file order."""

    @property
    def percent(self) -> float:
        """The share of all routes, targets and conditions, 0 to 100; 100 of nothing."""
        tallies = (self.routes, self.targets, self.conditions)
        total = sum(tally.total for tally in tallies)
        return 100 * sum(tally.reached for tally in tallies) / total if total else 100.0


def cover(table: Table, results: Iterable[Result]) -> Coverage:
    """Count what the tests reach. One that fails shows nothing, and counts for nothing."""
    reached: set[tuple[str, int]] = set()
    untrue: set[str] = set()
    for result in results:
        if result.passed:
            reached |= result.reached
            if result.test.exhaustive:
                untrue |= result.untrue
    routes = {name for name, _ in reached}
    conditions = [route.name for route in table.routes if route.when is not None]
    return Coverage(
        routes=Tally(len(routes), len(table.routes)),
        targets=Tally(len(reached), sum(len(route.targets) for route in table.routes)),
        conditions=Tally(sum(name in routes & untrue for name in conditions), len(conditions)),
        gaps=tuple(_gaps(table, reached, untrue)),
    )


def _gaps(table: Table, reached: set[tuple[str, int]], untrue: set[str]) -> Iterator[Gap]:
    for at, route in enumerate(table.routes):
        path: DocumentPath = ("routes", at)
        missed = [
            number for number in range(len(route.targets)) if (route.name, number) not in reached
        ]
        unreached = len(missed) == len(route.targets)
        if unreached:
            yield Gap(path, f"no test reaches route {route.name}")
        if route.when is not None:
            ways = [way for way, unseen in _ways(route.name, unreached, untrue) if unseen]
            if ways:
                message = f"no test sees the condition of route {route.name} {' or '.join(ways)}"
                yield Gap((*path, "when"), message)
        for number in missed:
            target = route.targets[number]
            place = f"{target.broker}/{target.destination.source}"
            message = f"no test reaches target {shown(place)[1:-1]} of route {route.name}"
            yield Gap((*path, "targets", number), message)


def _ways(route: str, unreached: bool, untrue: set[str]) -> tuple[tuple[str, bool], ...]:
    return ("true", unreached), ("false", route not in untrue)
