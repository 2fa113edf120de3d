"""Which routes an event may go to: what a look at all of them would give, without that look."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.routing.expressions import Expression
from gateway.routing.match import Pattern
from gateway.routing.table import Route, Table
from tests.core.builders import event

WORDS = st.sampled_from(["a", "b", "user", "ключ", ""])
TYPES = st.lists(WORDS, min_size=1, max_size=4).map(".".join)
PATTERNS = st.one_of(
    st.just("*"),
    TYPES.filter(bool),
    TYPES.filter(bool).map(lambda prefix: f"{prefix}.*"),
)
SOURCES = st.sampled_from(["clerk", "other", "third"])
ROUTES = st.lists(
    st.builds(
        lambda events, exclude, sources: Route(
            name="r",
            events=Pattern(events),
            targets=(),
            exclude=Pattern(exclude),
            sources=sources,
        ),
        st.lists(PATTERNS, min_size=1, max_size=3),
        st.lists(PATTERNS, max_size=2),
        st.none() | st.frozensets(SOURCES, max_size=2),
    ),
    max_size=12,
)


def fits(pattern: str, event_type: str) -> bool:
    if pattern.endswith(".*"):
        return event_type.startswith(pattern.removesuffix("*"))
    return pattern in {"*", event_type}


def takes(route: Route, source: str, event_type: str) -> bool:
    """What docs/routing.md says of `events`, `exclude` and `sources`."""
    if route.sources is not None and source not in route.sources:
        return False
    wanted = any(fits(one, event_type) for one in route.events.texts)
    return wanted and not any(fits(one, event_type) for one in route.exclude.texts)


@given(ROUTES, st.lists(st.tuples(SOURCES, TYPES), min_size=1, max_size=6))
@example([Route("r", Pattern(("a.*", "a.b", "a.b.*")), ())], [("clerk", "a.b.c"), ("clerk", "a.")])
@example([Route("r", Pattern(("a.*",)), ())], [("clerk", "a"), ("clerk", "a..b"), ("clerk", "")])
def test_the_candidates_are_those_of_a_look_at_every_route(
    routes: list[Route], asked: list[tuple[str, str]]
) -> None:
    table = Table(tuple(routes), frozenset())
    for source, event_type in [*asked, *asked]:
        found = table.candidates(source, event_type)
        wanted = [one for one in routes if takes(one, source, event_type)]
        assert [id(one) for one in found] == [id(one) for one in wanted]
        assert wanted == [one for one in routes if one.takes(source, event_type)]


class CountedPattern(Pattern):
    """A pattern that counts how often it is asked."""

    __slots__ = ("asked",)

    def __init__(self, patterns: list[str]) -> None:
        super().__init__(patterns)
        self.asked = 0

    def matches(self, event_type: str) -> bool:
        self.asked += 1
        return super().matches(event_type)


class CountedCondition(Expression):
    """A condition that counts how often it is evaluated."""

    __slots__ = ("asked",)

    def __init__(self, source: str) -> None:
        super().__init__(source)
        self.asked = 0

    def evaluate(self, document: Any) -> Any:
        self.asked += 1
        return super().evaluate(document)


def counted(number: int, patterns: Callable[[int], list[str]]) -> tuple[Route, ...]:
    return tuple(
        Route(
            name=f"r{at}",
            events=CountedPattern(patterns(at)),
            targets=(),
            exclude=CountedPattern([]),
            when=CountedCondition(f"data.tier == 't{at}'"),
        )
        for at in range(number)
    )


def looks(routes: tuple[Route, ...]) -> tuple[int, int]:
    """How many routes were asked for their patterns, and how many conditions were evaluated."""
    asked: list[Any] = [one for route in routes for one in (route.events, route.exclude)]
    conditions: list[Any] = [route.when for route in routes]
    return sum(one.asked for one in asked), sum(one.asked for one in conditions)


@pytest.mark.parametrize("number", [10, 1000])
@pytest.mark.parametrize(
    ("event_type", "candidates"),
    [("nobody.takes.this", 0), ("kind3.created", 1), ("deep.kind4.created", 1), ("shared", 5)],
)
def test_an_event_costs_its_candidates_however_many_routes_there_are(
    number: int, event_type: str, candidates: int
) -> None:
    def patterns(at: int) -> list[str]:
        return [f"kind{at}.*", f"deep.kind{at}.created", *(["shared"] if at < 5 else [])]

    routes = counted(number, patterns)
    table = Table(routes, frozenset())
    for again in (1, 2, 3):
        table.plan(event({"type": event_type}))
        assert looks(routes) == (candidates, candidates * again)


def test_a_source_costs_the_routes_of_others_nothing() -> None:
    routes = tuple(
        msgspec.structs.replace(one, sources=frozenset({f"s{at}"}))
        for at, one in enumerate(counted(1000, lambda _: ["*"]))
    )
    assert Table(routes, frozenset()).candidates("s7", "user.created") == (routes[7],)
    assert looks(routes) == (1, 0)


def test_what_is_remembered_is_bounded_by_the_candidates_too() -> None:
    routes = counted(1000, lambda _: ["*"])
    table = Table(routes, frozenset())
    for at in range(300):
        assert table.candidates("clerk", f"type{at}") == routes
        assert sum(map(len, table._cache.values())) <= 65_536
    assert len(table._cache) > 1
