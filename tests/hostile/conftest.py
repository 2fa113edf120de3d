"""Counts what the corpus sent, for the end of the run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest

TALLY = pytest.StashKey["Tally"]()


@dataclass
class Tally:
    """What became of the table, so far."""

    of_class: Counter[str] = field(default_factory=Counter)
    """Hostile rows there are, by class."""
    refused: Counter[str] = field(default_factory=Counter)
    """Of these, how many were answered and counted as the table says."""
    taken: int = 0
    """Control rows that were published, as they must be."""
    published: int = 0
    """Messages that came into the stream with a hostile row."""

    def line(self) -> str:
        """Tell it in one line."""
        rows, refused = self.of_class.total(), self.refused.total()
        classes = ", ".join(f"{name} {count}" for name, count in self.of_class.items())
        verdict = "all" if refused == rows else f"only {refused}"
        return (
            f"hostile requests: {rows} ({classes}), {verdict} refused as the table says; "
            f"{self.published} published; {self.taken} genuine ones taken"
        )


@pytest.fixture(scope="session")
def tally(pytestconfig: pytest.Config) -> Tally:
    """Give what is counted; asking for it makes the line appear."""
    return pytestconfig.stash.setdefault(TALLY, Tally())


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the counts, also in a quiet run."""
    tally = config.stash.get(TALLY, None)
    if tally is not None:
        terminalreporter.write_line(tally.line())
