"""Which routes an event may go to, found without a look at the others. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.routing.match import Pattern

__all__ = ["PatternIndex"]

_Places = dict[str, list[int]]


class PatternIndex:
    """The patterns of a list of routes, by what they begin with. Immutable once it is made.

    A look costs the routes that it finds, and one probe for each dot of the type: nothing for the
    routes that it does not find, however many they are.
    """

    __slots__ = ("_by_source", "_unlimited")

    def __init__(self, routes: Iterable[tuple[Pattern, frozenset[str] | None]]) -> None:
        """Take each route's `events` and the sources that it is limited to; None is all."""
        self._unlimited = _Shelf()
        self._by_source: dict[str, _Shelf] = {}
        for at, (events, sources) in enumerate(routes):
            if sources is None:
                self._unlimited.add(at, events)
                continue
            for source in sources:
                self._by_source.setdefault(source, _Shelf()).add(at, events)

    def find(self, source: str, event_type: str) -> list[int]:
        """Give the places in the list, in order, of the routes that take this source and type."""
        found = set(self._unlimited.find(event_type))
        limited = self._by_source.get(source)
        if limited is not None:
            found.update(limited.find(event_type))
        return sorted(found)


class _Shelf:
    """The routes of one source."""

    __slots__ = ("_all", "_exact", "_longest", "_prefixes")

    def __init__(self) -> None:
        self._all: list[int] = []
        self._exact: _Places = {}
        self._prefixes: _Places = {}
        self._longest = 0

    def add(self, at: int, events: Pattern) -> None:
        if events.takes_all:
            self._all.append(at)
            return
        for event_type in events.exact:
            self._exact.setdefault(event_type, []).append(at)
        for prefix in events.prefixes:
            self._prefixes.setdefault(prefix, []).append(at)
            self._longest = max(self._longest, len(prefix))

    def find(self, event_type: str) -> list[int]:
        """Give them in no order; a route with several patterns may be there as often."""
        found = [*self._all, *self._exact.get(event_type, ())]
        dot = event_type.find(".", 0, self._longest)
        while dot >= 0:
            found += self._prefixes.get(event_type[: dot + 1], ())
            dot = event_type.find(".", dot + 1, self._longest)
        return found
