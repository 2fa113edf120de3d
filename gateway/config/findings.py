"""What a cross check finds, and what it may know of the file beside the model."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.config.names import Suggester
from gateway.config.problems import DocumentPath, Positions, Severity

__all__ = ["Finding", "View"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that fits its own field and not the rest of the file."""

    path: DocumentPath
    message: str
    severity: Severity = "error"
    uses: tuple[DocumentPath, ...] = ()
    """What else it was concluded from; it is dropped when that is faulty by itself."""


@dataclass(frozen=True, slots=True)
class View:
    """The file as the checks may see it."""

    positions: Positions
    allow_missing_servers: bool = False
    """A broker without `servers` is served by the embedded one of `gateway dev`."""
    suggester: Suggester = field(default_factory=Suggester)

    def show(self, path: DocumentPath, value: str) -> str:
        """Quote a value, unless it came from `${…}`."""
        return "this value" if self.positions.is_interpolated(path) else f'"{value}"'

    def where(self, path: DocumentPath) -> str:
        """Name a place in words."""
        at = self.positions.value(path)
        return f"line {at.line} column {at.col}"
