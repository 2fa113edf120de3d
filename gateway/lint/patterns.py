"""What `events` and `exclude` take: which pattern covers which. A type may be any text."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from gateway.lint.finding import Finding
from gateway.lint.route import RouteView

__all__ = ["ancestors", "check_patterns", "covering", "takes_all_of"]


def ancestors(pattern: str) -> Iterator[str]:
    """Give every pattern that takes all that this one takes, itself first."""
    yield pattern
    stem = pattern.removesuffix("*")
    at = stem.find(".")
    while at >= 0:
        if stem[: at + 1] + "*" != pattern:
            yield stem[: at + 1] + "*"
        at = stem.find(".", at + 1)
    if pattern != "*":
        yield "*"


def covering(pattern: str, others: Collection[str]) -> str | None:
    """Give one of `others` (a set) that takes all that `pattern` takes."""
    return next((one for one in ancestors(pattern) if one in others), None)


def takes_all_of(events: Collection[str], exclude: Collection[str], of: RouteView) -> bool:
    """Tell whether every type that a route takes is among `events` without `exclude` (sets)."""
    for pattern in of.events:
        if covering(pattern, of.exclude) is not None:
            continue
        if covering(pattern, events) is None:
            return False
        # What is taken away here must be taken away there too.
        if covering(pattern, exclude) is not None:
            return False
    within = (entry for entry in exclude if covering(entry, of.events) is not None)
    return all(covering(entry, of.exclude) is not None for entry in within)


def check_patterns(view: RouteView) -> Iterator[Finding]:
    """Yield the patterns of a route that change nothing, and say so if they leave nothing."""
    yield from _redundant(view, "events", view.config.events)
    yield from _redundant(view, "exclude", view.config.exclude)
    if all(covering(pattern, view.exclude) is not None for pattern in view.events):
        yield Finding(
            "never-matches",
            (*view.path, "exclude"),
            "exclude: takes away all that events takes, so the route never matches; take the"
            " entry out that is too wide, or remove the route",
        )
        return
    above = {one for pattern in view.events for one in ancestors(pattern)}
    for at, pattern in enumerate(view.config.exclude):
        if pattern not in above and covering(pattern, view.events) is None:
            yield Finding(
                "idle-exclude",
                (*view.path, "exclude", at),
                f"exclude[{at}]: events takes none of these, so that nothing is taken away; remove"
                " it",
            )


def _redundant(view: RouteView, field: str, patterns: Sequence[str]) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for at, pattern in enumerate(patterns):
        first.setdefault(pattern, at)
    for at, pattern in enumerate(patterns):
        wider = next((one for one in ancestors(pattern) if one != pattern and one in first), None)
        if first[pattern] != at:
            message = f"{field}[{at}]: {field}[{first[pattern]}] is the same; remove one"
        elif wider is not None:
            message = f"{field}[{at}]: {field}[{first[wider]}] takes all of it; remove it"
        else:
            continue
        yield Finding("redundant-pattern", (*view.path, field, at), message)
