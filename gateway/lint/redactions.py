"""Paths of `redact` that lead to nothing: what was to be left out is then still in the record."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.clerk.schemas import FieldView, Steps, lookup
from gateway.lint.fields import advice
from gateway.lint.finding import Finding, have
from gateway.lint.route import RouteView

__all__ = ["check_redactions"]


def check_redactions(view: RouteView) -> Iterator[Finding]:
    """Yield the redactions that no type of a route has a field for."""
    if not view.has_schemas or not view.types:
        return
    for number, target in enumerate(view.route.targets):
        for at, path in enumerate(target.redact):
            missing = [_missing(one, path) for one in view.types]
            absent = [one for one in missing if one is not None]
            if len(absent) == len(missing):
                depth, steps, found = max(absent, key=lambda one: one[0])
                hint = advice(steps[: depth + 1], found, view.types[0])
                yield Finding(
                    "unknown-field",
                    (*view.path, "targets", number, "redact", at),
                    f"redact[{at}]: {have(view.types)} no {'.'.join(path)}, so that nothing"
                    f" is left out{hint}",
                )


def _missing(event_type: str, path: tuple[str, ...]) -> tuple[int, Steps, FieldView] | None:
    """Give how far a path leads where it leads to nothing; a list is done element by element."""
    steps: Steps = ()
    for name in path:
        holder = lookup(event_type, steps)
        is_list = holder is not None and holder.kinds - {"null"} == {"array"}
        steps = (*steps, None, name) if is_list else (*steps, name)
    found = lookup(event_type, steps)
    return (found.depth, steps, found) if found and found.status == "missing" else None
