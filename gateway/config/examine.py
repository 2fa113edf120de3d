"""From a document to its model and everything that is wrong with it, for any kind of file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from gateway.config.document import Document
from gateway.config.findings import Finding, View
from gateway.config.misplaced import without_secrets
from gateway.config.models import Model
from gateway.config.problems import MAX_PROBLEMS, DocumentPath, Positions, Problem
from gateway.config.repair import STAND_INS, Repairs, repair
from gateway.config.validation import validate

__all__ = ["PathFault", "cross_check", "examine", "locate"]

Root = TypeVar("Root", bound=Model)


class PathFault(Protocol):
    """What another package finds wrong in a file: `gateway.routing.compile.Fault` is one."""

    @property
    def path(self) -> DocumentPath:
        """Where in the file."""
        ...

    @property
    def message(self) -> str:
        """What is wrong, and what would be right."""
        ...

    @property
    def offset(self) -> int:
        """Characters into the value, 0-based."""
        ...


Rules = Callable[[Root, View], Iterable[Finding]]
"""The cross checks of a kind of file. They may see names that lead nowhere, and stand-ins."""
Checks = Iterable[Callable[[Root], Iterable[PathFault]]]
"""Checks of other packages, told beside the rules."""


def examine(
    root: type[Root],
    document: Document,
    view: View,
    rules: Rules[Root],
    checks: Checks[Root] = (),
    stand_ins: Mapping[str, Any] = STAND_INS,
) -> tuple[Root | None, list[Problem]]:
    """Give the model, or what could be saved of it, and all problems in order.

    `stand_ins` has a valid value of every field of `root` that has no default. What is saved of a
    faulty document is good for more checks only.
    """
    problems = list(document.problems)
    repairs = Repairs(document.failed)
    model: Root | None
    result = validate(root, document.value, view.suggester)
    if isinstance(result, tuple):
        for fault in result:
            path = fault.place.path
            if not repairs.touch(path):
                at = view.positions.key(path) if fault.at_key else view.positions.value(path)
                problems.append(Problem("error", path, at.line, at.col, fault.message))
        model = repair(root, document.value, result, repairs, stand_ins)
    else:
        model = result
    if model is not None:
        problems += cross_check(model, view, rules, checks, repairs)
    # Through an alias one place in the file can be wrong several times in the same way.
    told = (replace(one, message=without_secrets(one.message)) for one in problems)
    unique = {(problem.line, problem.col, problem.message): problem for problem in told}
    return model, sorted(unique.values(), key=lambda problem: (problem.line, problem.col))


def locate(positions: Positions, finding: Finding, offset: int = 0) -> Problem:
    """Make a problem of a finding, `offset` characters into the value it is about."""
    at = positions.value(finding.path)
    exact = offset and at.text_col is not None and finding.path in positions
    col = (at.text_col or 0) + offset if exact else at.col
    return Problem(finding.severity, finding.path, at.line, col, finding.message)


def cross_check(
    model: Root,
    view: View,
    rules: Rules[Root],
    checks: Checks[Root] = (),
    repairs: Repairs | None = None,
) -> list[Problem]:
    """Give what does not fit together in a model; `repairs` is where it is not what was written."""
    found = _found(model, view, rules, checks, Repairs(()) if repairs is None else repairs)
    return list(_limited(found))


def _found(
    model: Root, view: View, rules: Rules[Root], checks: Checks[Root], repairs: Repairs
) -> Iterator[Problem]:
    for finding in rules(model, view):
        if not any(repairs.touch(path) for path in (finding.path, *finding.uses)):
            yield locate(view.positions, finding)
    for check in checks:
        for fault in check(model):
            if not repairs.touch(fault.path):
                finding = Finding(fault.path, _discreet(view, fault))
                yield locate(view.positions, finding, fault.offset)


def _limited(problems: Iterable[Problem]) -> Iterator[Problem]:
    """End after so many errors, and leave out the warnings after as many of them."""
    count = {"error": 0, "warning": 0, "note": 0}
    for problem in problems:
        count[problem.severity] += 1
        if count[problem.severity] <= MAX_PROBLEMS:
            yield problem
        if count["error"] >= MAX_PROBLEMS:
            return


def _discreet(view: View, fault: PathFault) -> str:
    """Cut off what may quote a value that came from `${…}`: what stands after the first colon."""
    if not view.positions.is_interpolated(fault.path):
        return fault.message
    return f"{fault.message.partition(':')[0]} (its value came from ${{…}} and is not shown)"
