"""What a test runner writes: a line for each test, what is wrong in those that fail, and a sum.

Holds keys, headers and fields of the user's own test events, as the manual says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.delivery.plan import Assignment, Refusal
from gateway.testing.compare import ABSENT, Difference
from gateway.testing.models import Expectation
from gateway.testing.outcomes import Outcome
from gateway.testing.rules import Setting
from gateway.testing.run import Differs, Failure, Missing, NoEvent, Result, Unexpected
from gateway.testing.words import HIDDEN, inline, printable, shown

__all__ = ["details", "headline", "summary"]


def headline(failure: Failure) -> str:
    """Give the one line that says what is wrong."""
    match failure:
        case NoEvent():
            return f"the gateway would answer 400: {failure.problem}"
        case Differs():
            fields = ", ".join(printable(one.field) for one in failure.differences)
            return f"differs in {fields}: {_expected(failure.expectation)}, line {failure.line}"
        case Missing():
            did_not = "nothing refused" if failure.expectation.refused else "not published"
            return f"{did_not}: {_expected(failure.expectation)}, line {failure.line}"
        case Unexpected():
            refused = isinstance(failure.outcome.result, Refusal)
            return f"{'refused' if refused else 'published'}, and not expected"


def details(result: Result, setting: Setting) -> Iterator[str]:
    """Give the lines that tell why a test failed, indented."""
    for failure in result.failures:
        yield f"  {headline(failure)}"
        match failure:
            case Differs():
                yield from _differences(failure, setting)
            case Missing():
                yield from (f"    {printable(reason)}" for reason in failure.reasons)
            case Unexpected():
                yield f"    {_as_expectation(failure.outcome)}"
                if isinstance(failure.outcome.result, Refusal):
                    yield f"    {printable(failure.outcome.result.detail)}"


def summary(passed: int, failed: int, seconds: float) -> str:
    """Give the last line: `4 passed, 1 failed in 0.02 s`."""
    counts = [f"{passed} passed"] if passed or not failed else []
    if failed:
        counts.append(f"{failed} failed")
    return f"{', '.join(counts)} in {seconds:.2f} s"


def _differences(failure: Differs, setting: Setting) -> Iterator[str]:
    width = max(len(printable(one.field)) for one in failure.differences)
    for one in failure.differences:
        got = HIDDEN if _is_hidden(one, failure.outcome, setting) else _value(one.got)
        yield f"    {printable(one.field):<{width}}  expected {_value(one.expected)}"
        yield f"    {'':<{width}}  got      {got}"
        yield from _refused(one, failure.outcome)


def _is_hidden(difference: Difference, outcome: Outcome, setting: Setting) -> bool:
    name = difference.header
    return name is not None and any(
        setting.hides(route, "targets", at, "headers", name) for route, at in outcome.targets
    )


def _refused(difference: Difference, outcome: Outcome) -> Iterator[str]:
    if difference.field == "refused" and isinstance(outcome.result, Refusal):
        yield f"    {printable(outcome.result.detail)}"


def _value(value: Any) -> str:
    return "nothing" if value is ABSENT else shown(value)


def _expected(expectation: Expectation) -> str:
    place, destination = expectation.place
    broker = f"{expectation.broker} " if expectation.broker is not None else ""
    return f"{broker}{place} {inline(destination)}"


def _as_expectation(outcome: Outcome) -> str:
    """Write an outcome as a test would expect it."""
    result = outcome.result
    fields = {"broker": inline(result.broker), outcome.place: inline(outcome.destination)}
    if isinstance(result, Assignment):
        fields["key"] = inline(result.message.key or "")
    else:
        fields["refused"] = result.reason
    fields["routes"] = f"[{', '.join(result.routes)}]"
    pairs = ", ".join(f"{name}: {value}" for name, value in fields.items())
    return f"- {{{pairs}}}"
