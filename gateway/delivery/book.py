"""The book: the ledger that the processes of one tree share, and who may write in it now.

Pure: no I/O, and the time is an argument, in seconds of one clock. Whoever has the *claim* on an
event delivers it; the others that ask stand in line. What is written of the targets is not looked
into here: only those who deliver read it.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from gateway.delivery.memory import EntryState, Memory, Remembered, Retention

__all__ = ["Book", "Grant", "Holder", "Report"]

Holder = tuple[int, int]
"""A process, and the number of its claim: a claim that is given up and made anew is another."""

# What CPython takes for a page with its key, its text and its place in a dictionary, the texts
# themselves apart. A test measures that the sum is never less than what is allocated.
_PAGE_BYTES = 560


class Report(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is written of an event."""

    targets: bytes = b""
    """Those that are settled, as their processes write them; empty where none is."""
    complete: bool = False
    age: float = 0.0
    """Of a complete one: seconds since it was answered."""


class Grant(msgspec.Struct, frozen=True, gc=False):
    """The claim on an event has passed to another holder."""

    holder: Holder
    report: Report


class _Page(Remembered, eq=False, gc=False):
    targets: bytes = b""


class _Claim:
    """Who delivers an event, and who waits, in order of arrival."""

    __slots__ = ("holder", "line")

    def __init__(self, holder: Holder) -> None:
        self.holder = holder
        self.line: dict[Holder, None] = {}


class Book(Memory[_Page]):
    """A page for each event, bounded by bytes, and a claim on each that is being delivered.

    Claims are as many as the processes have deliveries open, which they bound. A page that is
    evicted while it is claimed comes back with its release.
    """

    __slots__ = ("_claims",)

    def __init__(self, retention: Retention, on_evicted: Callable[[EntryState], None]) -> None:
        """See `Memory`."""
        super().__init__(retention, on_evicted)
        self._claims: dict[str, _Claim] = {}

    @property
    def claimed(self) -> int:
        """How many events are being delivered."""
        return len(self._claims)

    def claim(self, key: str, holder: Holder, now: float) -> Report | None:
        """Give the claim on an event, and what is written of it; None puts `holder` in line."""
        claim = self._claims.get(key)
        if claim is None:
            self._claims[key] = _Claim(holder)
        elif claim.holder != holder:
            claim.line[holder] = None
            return None
        return self._read(key, now)

    def release(self, key: str, holder: Holder, report: Report, now: float) -> Grant | None:
        """End a claim by what came of it; the next in line, if there is one, gets it."""
        claim = self._claims.get(key)
        if claim is None or claim.holder != holder:
            return None
        self._write(key, report, now)
        return self._pass_on(key, claim, now)

    def withdraw(self, key: str, holder: Holder, now: float) -> Grant | None:
        """Take `holder` out of the line; a claim that it had passes on, and nothing is written."""
        claim = self._claims.get(key)
        if claim is None:
            return None
        if claim.holder == holder:
            return self._pass_on(key, claim, now)
        claim.line.pop(holder, None)
        return None

    def waited_for(self) -> set[int]:
        """The processes that have a claim which others wait for."""
        return {claim.holder[0] for claim in self._claims.values() if claim.line}

    def held_by(self, process: int) -> list[tuple[str, int]]:
        """The claims that a process has: their keys and numbers."""
        return [
            (key, claim.holder[1])
            for key, claim in self._claims.items()
            if claim.holder[0] == process
        ]

    def give_up(self, process: int, now: float) -> list[Grant]:
        """Take back all that a process has claimed: it is gone or frozen; what it wrote stays."""
        grants = []
        for key, claim in list(self._claims.items()):
            for holder in [one for one in claim.line if one[0] == process]:
                del claim.line[holder]
            if claim.holder[0] == process:
                grant = self._pass_on(key, claim, now)
                grants += [grant] if grant is not None else []
        return grants

    def _pass_on(self, key: str, claim: _Claim, now: float) -> Grant | None:
        if claim.line:
            claim.holder = next(iter(claim.line))
            del claim.line[claim.holder]
            return Grant(claim.holder, self._read(key, now))
        del self._claims[key]
        page = self._incomplete.get(key)
        if page is not None and not page.targets:
            self._forget(page)
        return None

    def _read(self, key: str, now: float) -> Report:
        page = self._find(key, now)
        if page is None:
            self._add(_Page(key, now, _PAGE_BYTES + len(key)))
            return Report()
        if page.state == "complete":
            return Report(page.targets, True, now - page.since)
        return Report(page.targets)

    def _write(self, key: str, report: Report, now: float) -> None:
        page = self._complete.get(key) or self._incomplete.get(key)
        if not report.targets or (report.complete and self._retention.window == 0):
            if page is not None:
                self._forget(page)
            return
        if page is None:
            page = self._add(_Page(key, now, _PAGE_BYTES + len(key)))
        grown = len(report.targets) - len(page.targets)
        page.targets = report.targets
        # A copy of a complete event leaves it as old as it is.
        if page.state != "forgotten" and not (page.state == "complete" and report.complete):
            state: EntryState = "complete" if report.complete else "incomplete"
            self._keep(page, state, now - report.age if report.complete else now)
        self._grow(page, grown)
