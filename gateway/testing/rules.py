"""Cross checks of a tests file: what fits its own field, and not the test or the config."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from gateway.clerk.catalogue import CATALOGUE, did_you_mean
from gateway.config.findings import Finding, View
from gateway.config.names import listing
from gateway.config.problems import DocumentPath, Positions
from gateway.event import Sender
from gateway.routing.table import Kind, Table
from gateway.testing.models import Case, Expectation, TestsFile
from gateway.testing.outcomes import Sent

__all__ = ["Setting", "check"]

MakeEvent = Callable[[DocumentPath, Case], Iterator[Finding]]


class Setting(msgspec.Struct, frozen=True):
    """What a config gives the tests of its table."""

    table: Table
    senders: Mapping[str, Sender]
    """The sources by name, in file order."""
    brokers: Mapping[str, Kind]
    """The kind of every broker by its name, in file order."""
    clerk: frozenset[str]
    """The sources of kind clerk."""
    sent: Sent
    positions: Positions
    """Where everything in the config stands, and what of it came from `${…}`."""

    @property
    def routes(self) -> tuple[str, ...]:
        """The routes' names, in file order."""
        return tuple(route.name for route in self.table.routes)

    def hides(self, route: str, *path: str | int) -> bool:
        """Tell whether what stands below a route came from `${…}`, and is not to be printed."""
        return self.positions.is_interpolated(("routes", self.routes.index(route), *path))

    def source_of(self, case: Case) -> str | None:
        """Give the source of a test's event; None where it must say which."""
        return case.source or (next(iter(self.senders)) if len(self.senders) == 1 else None)


def check(
    file: TestsFile, view: View, setting: Setting, make_event: MakeEvent
) -> Iterator[Finding]:
    """Yield what is wrong or doubtful; `make_event` makes a test's event, or says why not."""
    if not file.tests:
        yield Finding(("tests",), "tests: none; add at least one")
    first: dict[str, int] = {}
    for at, case in enumerate(file.tests):
        path: DocumentPath = ("tests", at)
        other = first.setdefault(case.name, at)
        if other != at:
            name = (*path, "name")
            where = view.where(("tests", other, "name"))
            message = f"name: another test is called {view.show(name, case.name)} ({where})"
            yield Finding(name, f"{message}; give each its own", uses=(("tests", other, "name"),))
        yield from _event(path, case, view, setting, make_event)
        yield from _source(path, case, view, setting)
        if not case.exhaustive and not case.expect:
            message = "exhaustive: false with nothing expected cannot fail; remove it"
            yield Finding((*path, "exhaustive"), message, uses=((*path, "expect"),))
        for number, expectation in enumerate(case.expect):
            here: DocumentPath = (*path, "expect", number)
            yield from _expectation(here, expectation, view, setting)


def _event(
    path: DocumentPath, case: Case, view: View, setting: Setting, make_event: MakeEvent
) -> Iterator[Finding]:
    given = [name for name in ("event", "file", "body") if getattr(case, name) is not None]
    if len(given) != 1:
        message = "a test has one event: write event, file or body"
        yield Finding((*path, *(given[1:2] or ("event",))), message, uses=_paths(path, given))
        return
    yield from make_event(path, case)
    if case.event is None or setting.source_of(case) not in setting.clerk:
        return
    here = (*path, "event")
    near = did_you_mean(case.event) if view.suggester.may(len(CATALOGUE)) else None
    if near is not None and not near.endswith("*"):
        shown = view.show(here, case.event)
        message = f"event: Clerk is not known to send {shown}, did you mean {near}?"
        yield Finding(here, message, "warning")


def _source(path: DocumentPath, case: Case, view: View, setting: Setting) -> Iterator[Finding]:
    known = tuple(setting.senders)
    if case.source is not None:
        yield from _unknown((*path, "source"), case.source, "source", known, view)
    elif len(known) != 1:
        message = f"source is missing; the config has several: {listing(known)}"
        yield Finding((*path, "source"), message)


def _expectation(
    path: DocumentPath, expectation: Expectation, view: View, setting: Setting
) -> Iterator[Finding]:
    given = [name for name in ("topic", "subject") if getattr(expectation, name) is not None]
    if len(given) != 1:
        message = "write a topic for Kafka, or a subject for NATS: one of them"
        yield Finding((*path, *(given[1:2] or ("topic",))), message, uses=_paths(path, given))
        return
    if expectation.broker is not None:
        here = (*path, "broker")
        yield from _unknown(here, expectation.broker, "broker", tuple(setting.brokers), view)
        kind = setting.brokers.get(expectation.broker)
        wanted, what = ("topic", "Kafka") if kind == "kafka" else ("subject", "NATS")
        if kind is not None and given != [wanted]:
            message = f"{given[0]}: {expectation.broker} is {what}, which has no {given[0]}s"
            yield Finding((*path, given[0]), f"{message}; write {wanted}", uses=(here,))
    for at, route in enumerate(expectation.routes or ()):
        yield from _unknown((*path, "routes", at), route, "route", setting.routes, view)
    if expectation.routes == ():
        yield Finding((*path, "routes"), "routes: the list is empty; remove it, or name the routes")
    for name in ("key", "headers", "value"):
        if expectation.refused is not None and getattr(expectation, name):
            message = f"{name}: what is refused has none; remove it"
            yield Finding((*path, name), message, uses=((*path, "refused"),))


def _unknown(
    path: DocumentPath, name: str, what: str, known: Sequence[str], view: View
) -> Iterator[Finding]:
    if name in known:
        return
    near = view.suggester.closest(name, known)
    hint = f"did you mean {near}?" if near else f"there is {listing(known) or 'none'}"
    field = f"{path[-2]}[{path[-1]}]" if isinstance(path[-1], int) else what
    yield Finding(path, f"{field}: the config has no {what} {view.show(path, name)}; {hint}")


def _paths(path: DocumentPath, names: Sequence[str]) -> tuple[DocumentPath, ...]:
    return tuple((*path, name) for name in names)
