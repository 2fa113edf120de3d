"""What is odd about a `when`: always or never true, failing, or about fields that are not there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from gateway.clerk.catalogue import CATALOGUE
from gateway.clerk.schemas import Steps
from gateway.config.names import closest
from gateway.lint.abstract import UNORDERED, Comparison, Facts, Findings, Risk, interpret
from gateway.lint.fields import absences, offset_of, where_missing
from gateway.lint.finding import Finding, names
from gateway.lint.guards import NO_GUARD, Guard
from gateway.lint.outcome import BOOLEAN, truths
from gateway.lint.route import OWN_NAMES, ByType, Certain, RouteView
from gateway.routing.expressions import Expression
from gateway.routing.paths import path_text

__all__ = ["ByTypes", "by_types", "check_condition", "published", "risks_of", "why"]

ByTypes = Sequence[tuple[tuple[str, ...], Findings]]
"""What an expression can give, for each group of types that it cannot tell apart."""


def by_types(
    expression: Expression, view: RouteView, guards: Mapping[str, Guard | None] | None = None
) -> ByTypes:
    """Interpret an expression by the schemas; `guards` say of each type what a condition implies.

    Types whose guard is None are never asked. Nothing where the schemas do not hold.
    """
    known = guards or {}
    runs: list[tuple[Guard, Findings, list[str]]] = []
    for group in view.groups(expression):
        parted: dict[int, tuple[Guard, list[str]]] = {}
        for one in group:
            guard = known.get(one, NO_GUARD)
            if guard is not None:
                parted.setdefault(id(guard), (guard, []))[1].append(one)
        for guard, types in parted.values():
            facts = ByType(view, types[0])
            like = _alike(runs, guard, facts)
            if like is None:
                runs.append((guard, interpret(expression, facts, guard), types))
            else:
                like.extend(types)
    return [(tuple(types), result) for _, result, types in runs]


def _alike(
    runs: Sequence[tuple[Guard, Findings, list[str]]], guard: Guard, facts: Facts
) -> list[str] | None:
    """Find types of which all that was asked is the same."""
    for other, result, types in runs:
        if other is guard and all(facts.at(*one) == seen for one, seen in result.asked.items()):
            return types
    return None


def check_condition(view: RouteView, found: ByTypes) -> Iterator[Finding]:
    """Yield what is odd about a route's condition; `found` is what it can give, by type."""
    when = view.route.when
    if when is None:
        return
    path = (*view.path, "when")
    certain = interpret(when, Certain(view))
    if certain.outcome.kinds == {"error"}:
        message = f"when: fails for every event{why(certain)}, so that its targets refuse them all"
        yield Finding("always-fails", path, f"{message}; mend it")
        return
    if "error" not in certain.outcome.kinds and len(truths(certain.outcome)) == 1:
        yield _constant(view, certain)
        return
    missing = absences(when, view) if found else ()
    for absence in missing:
        yield Finding("unknown-field", path, f"when: {absence.message}", absence.offset)
    wrong = list(_unequal(view, when, found, certain))
    yield from wrong
    yield from risks_of(when, view, found, path, told={absence.place for absence in missing})
    # Of a pattern there may be types that nobody knows yet.
    knows_all = view.exact is not None or "type" not in when.fields
    if found and knows_all and not missing and not wrong and _is_never_true(found):
        types = names([one for group, _ in found for one in group])
        reason = next((why(one) for _, one in found if UNORDERED in one.risks), "")
        message = f"when: is never true for {types}{reason}, by Clerk's schemas; mend it, or remove"
        yield Finding("never-matches", path, f"{message} the route")


def _constant(view: RouteView, certain: Findings) -> Finding:
    path = (*view.path, "when")
    if True in truths(certain.outcome):
        return Finding("needless-condition", path, "when: is always true; remove it")
    reasons = [one for one, possible in certain.comparisons.items() if not possible]
    why = f": {_never(reasons[0], view)}" if reasons else ""
    message = f"when: is never true{why}; mend it, or remove the route"
    return Finding("never-matches", path, message)


def _is_never_true(found: ByTypes) -> bool:
    outcomes = [result.outcome for _, result in found]
    return all(one.kinds != {"error"} and True not in truths(one) for one in outcomes)


def _unequal(
    view: RouteView, when: Expression, found: ByTypes, certain: Findings
) -> Iterator[Finding]:
    """Yield the comparisons with a value that a place never has."""
    for comparison, may_be in certain.comparisons.items():
        if comparison.place[0] not in {*OWN_NAMES, "type"}:
            told = [one.comparisons for _, one in found if comparison in one.comparisons]
            possible = not told or any(one[comparison] for one in told)
            if possible or not _is_there(comparison, view, when):
                continue
        elif may_be:
            continue
        offset = offset_of(when, comparison.place)
        message = f"when: {_never(comparison, view)}"
        yield Finding("unknown-value", (*view.path, "when"), message, offset)


def _is_there(comparison: Comparison, view: RouteView, when: Expression) -> bool:
    """Tell whether some type has the place: that there is none is told by itself."""
    _, lacking = where_missing(comparison.place, when, view)
    return len(lacking) < len(view.types)


def _never(comparison: Comparison, view: RouteView) -> str:
    place, literal = path_text(comparison.place), comparison.literal
    json = msgspec.json.encode(literal).decode()
    shown = f"'{literal}'" if isinstance(literal, str) else f"`{json}`"
    if comparison.place == ("type",):
        return f"{place} is never {shown}, which events and exclude do not let in"
    known = _values(comparison.place, view)
    if not known:
        return f"{place} is never {shown}"
    near = closest(literal, known) if isinstance(literal, str) else None
    hint = f"; did you mean '{near}'?" if near else ""
    return f"{place} is never {shown}, it is {names(known, 8)}{hint}"


def _values(place: Steps, view: RouteView) -> list[str]:
    facts: list[Facts] = [
        Certain(view),
        *(ByType(view, one) for one in view.types if view.has_schemas),
    ]
    values = [value for fact in facts for value in fact.at(place, 0).values or ()]
    return list(dict.fromkeys(value for value in values if isinstance(value, str)))


def why(result: Findings) -> str:
    """Say in parentheses what an expression fails for, where it is one thing."""
    if UNORDERED in result.risks:
        return " (< and the like cannot compare text with a number)"
    risk = next(iter(result.risks), None)
    if risk is None:
        return ""
    if not risk.kinds:
        return f" (there is no function {risk.function}() of so many arguments)"
    kinds = {"boolean" if kind in BOOLEAN else kind for kind in risk.kinds}
    return f" ({risk.function}() takes no {names(sorted(kinds))})"


def risks_of(
    expression: Expression,
    view: RouteView,
    found: ByTypes,
    path: tuple[str | int, ...],
    *,
    told: set[Steps],
    offset: int = 0,
) -> Iterator[Finding]:
    """Yield the functions that fail where a field is null, and events for which all fails."""
    field = path[-1] if path[-2:-1] != ("headers",) else f"headers.{path[-1]}"
    by_risk: dict[tuple[str, Steps], list[str]] = {}
    for types, result in found:
        if result.outcome.kinds == {"error"} and not any(_is_null(risk) for risk in result.risks):
            message = f"{field}: fails for {names(types)}{why(result)}, which is then refused"
            yield Finding("always-fails", path, f"{message}; mend it", offset)
            return
        known = published(types)
        for risk in result.risks if known else ():
            if risk.place is not None and _is_null(risk):
                by_risk.setdefault((risk.function, risk.place), []).extend(known)
    for (function, place), affected in by_risk.items():
        if any(place[: len(one)] == one for one in told):
            continue
        text = path_text(place)
        lacking = set(where_missing(place, expression, view)[1])
        how = "is not there" if lacking >= set(affected) else "may be null or left out"
        message = (
            f"{field}: {function}() fails for null, and {text} {how} in {names(affected)}, which is"
            f" then refused; write {text} && … before it, or exclude these"
        )
        yield Finding("may-fail", path, message, offset + offset_of(expression, place))


def published(types: Sequence[str]) -> list[str]:
    """Leave out the types of which there is no schema: of them nothing is known."""
    return [one for one in types if one in CATALOGUE]


def _is_null(risk: Risk) -> bool:
    return risk.place is not None and "null" in risk.kinds
