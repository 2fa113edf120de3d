"""Runs tests: each event through the running gateway's own table, and beside what is expected."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from gateway.event import Event, EventError
from gateway.routing.explain import Explanation, explain
from gateway.routing.table import Table
from gateway.specimen import specimen
from gateway.testing.compare import Difference, differences, fits, nearest, pairs
from gateway.testing.events import NOW
from gateway.testing.load import RoutingTest, Suite
from gateway.testing.models import Expectation
from gateway.testing.outcomes import Outcome, outcomes_of
from gateway.testing.reasons import could_publish, reasons
from gateway.testing.rules import Setting
from gateway.testing.showing import reached, untrue

__all__ = ["Differs", "Failure", "Missing", "NoEvent", "Result", "Unexpected", "run", "run_suite"]


class Differs(msgspec.Struct, frozen=True):
    """An expected record came, and is not as expected."""

    line: int
    """Of the expectation."""
    expectation: Expectation
    outcome: Outcome
    differences: tuple[Difference, ...]


class Missing(msgspec.Struct, frozen=True):
    """Nothing came that could be the expected record."""

    line: int
    expectation: Expectation
    reasons: tuple[str, ...]


class Unexpected(msgspec.Struct, frozen=True):
    """A record or a refusal that the test does not expect."""

    outcome: Outcome


class NoEvent(msgspec.Struct, frozen=True):
    """The gateway would answer the body with 400."""

    problem: str


Failure = Differs | Missing | Unexpected | NoEvent


class Result(msgspec.Struct, frozen=True):
    """How one test ended."""

    test: RoutingTest
    failures: tuple[Failure, ...]
    """Empty: it passed."""
    seconds: float
    reached: frozenset[tuple[str, int]] = frozenset()
    """The targets, by route and number, whose records had to come."""
    untrue: frozenset[str] = frozenset()
    """The routes that took the event but for their condition, and would have been seen."""

    @property
    def passed(self) -> bool:
        """Whether everything was as expected."""
        return not self.failures


def run_suite(suite: Suite, setting: Setting, clock: Callable[[], float]) -> Iterator[Result]:
    """Run the tests of a file in its order; `clock` gives seconds."""
    for test in suite.tests:
        yield run(test, setting, clock)


def run(test: RoutingTest, setting: Setting, clock: Callable[[], float]) -> Result:
    """Run one test. Pure but for the clock: nothing is sent, and no file is read."""
    started = clock()
    try:
        event = specimen(setting.senders[test.source], test.body, NOW, test.svix_id)
    except EventError as error:
        return Result(test, (NoEvent(str(error)),), clock() - started)
    explanation = explain(setting.table, event)
    outcomes = outcomes_of(explanation, setting.sent)
    matched = pairs([_fitting(expectation, outcomes) for expectation in test.expect])
    failures = tuple(_failures(test, event, explanation, outcomes, matched, setting))
    return Result(
        test,
        failures,
        clock() - started,
        reached=reached(test.expect, outcomes, matched),
        untrue=untrue(explanation, event, test.expect, outcomes, matched),
    )


def _fitting(expectation: Expectation, outcomes: Sequence[Outcome]) -> list[int]:
    return [at for at, one in enumerate(outcomes) if fits(expectation, one)]


def _failures(
    test: RoutingTest,
    event: Event,
    explanation: Explanation,
    outcomes: Sequence[Outcome],
    matched: dict[int, int],
    setting: Setting,
) -> Iterator[Failure]:
    """Tell what is wrong in the order of the file, then what was not expected."""
    left = [one for one in range(len(test.expect)) if one not in matched]
    others = [at for at in range(len(outcomes)) if at not in matched.values()]
    near = _nearest(test, left, outcomes, others, setting.table)
    for one in left:
        expectation, line = test.expect[one], test.expect_lines[one]
        if one in near:
            outcome = outcomes[near[one]]
            yield Differs(line, expectation, outcome, differences(expectation, outcome))
        else:
            why = tuple(reasons(expectation, explanation, event, setting))
            yield Missing(line, expectation, why)
    if test.exhaustive:
        for at in others:
            if at not in near.values():
                yield Unexpected(outcomes[at])


def _nearest(
    test: RoutingTest,
    left: Sequence[int],
    outcomes: Sequence[Outcome],
    others: Sequence[int],
    table: Table,
) -> dict[int, int]:
    """Pair expectations and outcomes that should be told of as one record that differs."""
    known = {one: _is_known(test.expect[one], table) for one in left}
    return nearest(left, others, lambda a, b: _distance(test.expect[a], outcomes[b], known[a]))


def _distance(expectation: Expectation, outcome: Outcome, known: bool) -> int | None:
    """Say how far apart two are; None where they should not be told of as one record.

    They are one where a target of the outcome could have published what is expected, or where
    none of the table could (it is not `known`): then the expectation has a slip of the pen.
    """
    place, wanted = expectation.place
    if place != outcome.place:
        return None
    its_own = any(could_publish(target, expectation) for target in outcome.ends)
    if known and not its_own and not outcome.is_at(wanted):
        return None
    return len(differences(expectation, outcome)) + 100 * (not outcome.is_at(wanted))


def _is_known(expectation: Expectation, table: Table) -> bool:
    return any(
        could_publish(target, expectation) for route in table.routes for target in route.targets
    )
