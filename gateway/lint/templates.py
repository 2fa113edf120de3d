"""What is odd about the templates of a target: fields that are not there, or may be empty."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gateway.clerk.catalogue import key_paths
from gateway.config.problems import DocumentPath
from gateway.lint.abstract import interpret
from gateway.lint.conditions import ByTypes, by_types, published, risks_of, why
from gateway.lint.fields import absences, where_missing
from gateway.lint.finding import Finding, names
from gateway.lint.guards import Guard, implied
from gateway.lint.outcome import Outcome, truths
from gateway.lint.route import OWN_NAMES, ByType, Certain, RouteView
from gateway.routing.expressions import Expression
from gateway.routing.template import Template

__all__ = ["check_templates", "guards_of"]

Guards = Mapping[str, Guard | None]


def guards_of(view: RouteView, asked: ByTypes) -> Guards:
    """Give for each type what the condition implies; None for types that it never takes.

    `asked` is what the condition can give.
    """
    when = view.route.when
    if when is None:
        return {}
    guard = implied(when.tree, True, ())
    guards: dict[str, Guard | None] = {}
    for types, result in asked:
        taken = True in truths(result.outcome) and result.outcome.kinds != {"error"}
        for one in types:
            guards[one] = guard if taken and _can_be_met(guard, ByType(view, one)) else None
    return guards


def _can_be_met(guard: Guard, facts: ByType) -> bool:
    """Tell whether something can be wherever a condition demands it."""
    return all(facts.at(place).kinds != {"null"} for place in guard)


def check_templates(view: RouteView, asked: ByTypes) -> Iterator[Finding]:
    """Yield what is odd about the templates of a route's targets; `asked` is of its condition."""
    guards = guards_of(view, asked)
    for number, target in enumerate(view.route.targets):
        path: DocumentPath = (*view.path, "targets", number)
        field = "topic" if target.kind == "kafka" else "subject"
        yield from _destination(target.destination, (*path, field), view, guards)
        if target.key is not None:
            yield from _key(target.key, (*path, "key"), view, guards)
        for name, value in target.headers:
            for expression, offset in _placeholders(value):
                found = by_types(expression, view, guards)
                yield from _common(expression, offset, (*path, "headers", name), view, found)


def _placeholders(template: Template) -> Iterator[tuple[Expression, int]]:
    """Give what may be odd: every event has a type, and what the gateway calls it by."""
    expressions = (part for part in template.parts if isinstance(part, Expression))
    for expression, offset in zip(expressions, template.offsets, strict=True):
        if expression.path not in {"type", *OWN_NAMES}:
            yield expression, offset


def _common(
    expression: Expression, offset: int, path: DocumentPath, view: RouteView, found: ByTypes
) -> Iterator[Finding]:
    """Yield the fields that no type has, and the functions that may fail."""
    field = path[-1] if path[-2] != "headers" else f"headers.{path[-1]}"
    certain = interpret(expression, Certain(view))
    if certain.outcome.kinds == {"error"}:
        message = f"{field}: fails for every event{why(certain)}, which are then refused; mend it"
        yield Finding("always-fails", path, message, offset)
        return
    missing = absences(expression, view)
    for absence in missing:
        message = f"{field}: {absence.message}"
        yield Finding("unknown-field", path, message, offset + absence.offset)
    told = {absence.place for absence in missing}
    yield from risks_of(expression, view, found, path, told=told, offset=offset)


def _destination(
    template: Template, path: DocumentPath, view: RouteView, guards: Guards
) -> Iterator[Finding]:
    for expression, offset in _placeholders(template):
        found = by_types(expression, view, guards)
        told = list(_common(expression, offset, path, view, found))
        yield from told
        if any(one.rule != "may-fail" for one in told):
            continue
        if _is_demanded(expression, view):
            continue
        lists = [one for types, result in found if _is_list(result.outcome) for one in types]
        empty = _types(found)
        if lists:
            message = f"{path[-1]}: {{{expression.source}}} is a list or an object"
            message += f" in {names(lists)}, which is then refused; name one field in it"
            yield Finding("empty-destination", path, message, offset)
        elif empty:
            message = _empty(expression, empty, path, view)
            kept = view.has_dead_letter
            yield Finding("empty-destination", path, message, offset, is_note=kept)


def _empty(expression: Expression, types: list[str], path: DocumentPath, view: RouteView) -> str:
    how = "may be null or empty"
    source = expression.source
    if expression.path is not None:
        steps = tuple(expression.path.split("."))
        missing = set(where_missing(steps, expression, view)[1])
        how = "is not there" if missing >= set(types) else how
    else:
        source = source if "||" in source and "&&" not in source else f"({source})"
    fate = "goes to the dead letter" if view.has_dead_letter else "is then refused (expression)"
    return (
        f"{path[-1]}: {{{expression.source}}} {how} in {names(types)}, which {fate}; write"
        f" {{{source} || 'none'}}, or exclude these"
    )


def _key(
    template: Template, path: DocumentPath, view: RouteView, guards: Guards
) -> Iterator[Finding]:
    placeholders = list(_placeholders(template))
    results = [(one, offset, by_types(one, view, guards)) for one, offset in placeholders]
    silent = False
    for expression, offset, found in results:
        told = list(_common(expression, offset, path, view, found))
        yield from told
        silent |= any(one.rule == "unknown-field" for one in told)
    # Beside text, or the type, a key is not empty.
    if silent or not results or len(results) < len(template.parts):
        return
    empty = [[] if _is_demanded(one, view) else _types(found) for one, _, found in results]
    types = [one for one in empty[0] if all(one in other for other in empty)]
    first, offset, _ = results[0]
    if len(results) == 1:
        # What the default key begins with may as well be empty: it is the same key.
        types = [one for one in types if not _begins_default(first, one)]
    if types:
        yield Finding("empty-key", path, _empty_key(first, types), offset)


def _begins_default(expression: Expression, event_type: str) -> bool:
    """Tell whether a key is what the default key tries first: `a`, or `a || b` of `a || b || c`."""
    paths = key_paths(event_type)
    begins = {"||".join(paths[: n + 1]) for n in range(len(paths))}
    return "".join(expression.source.split()) in begins


def _empty_key(expression: Expression, types: list[str]) -> str:
    defaults = {" || ".join(key_paths(one)) for one in types}
    default = f" ({defaults.pop()})" if len(defaults) == 1 else " of each type"
    return (
        f"key: {{{expression.source}}} may be null or empty in {names(types)}, where the default"
        f" key{default} takes its place; write {{{expression.source} || data.id}}, or what else is"
        " meant"
    )


def _is_demanded(expression: Expression, view: RouteView) -> bool:
    """Tell whether the condition, or a side of its `&&`, is the expression itself."""
    pending = [] if view.route.when is None else [view.route.when.tree]
    while pending:
        node = pending.pop()
        if node == expression.tree:
            return True
        if node["type"] == "and_expression":
            pending.extend(node["children"])
    return False


def _types(found: ByTypes) -> list[str]:
    """Give the types for which a placeholder may give nothing."""
    empty = [types for types, result in found if _may_be_empty(result.outcome)]
    return [one for types in empty for one in published(types)]


def _may_be_empty(outcome: Outcome) -> bool:
    """Tell whether a placeholder may give nothing to write."""
    if outcome.values is not None:
        return any(value is None or value == "" for value in outcome.values)
    return "null" in outcome.kinds or outcome.is_left_blank


def _is_list(outcome: Outcome) -> bool:
    return bool(outcome.kinds) and outcome.kinds <= {"array", "object"}
