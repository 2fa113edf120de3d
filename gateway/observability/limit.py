"""A limit on repeated log lines that counts what it holds back."""

from __future__ import annotations

__all__ = ["RateLimit"]

_BURST = 5
_WINDOW = 10.0
_MAX_REASONS = 1000


class _Window:
    """One reason's lines since `start`."""

    __slots__ = ("held_back", "start", "taken")

    def __init__(self, start: float) -> None:
        self.start = start
        self.taken = 0
        self.held_back = 0


class RateLimit:
    """Lets five lines per reason through in ten seconds. Time is given, in monotonic seconds."""

    __slots__ = ("_windows",)

    def __init__(self) -> None:
        self._windows: dict[str, _Window] = {}

    def take(self, reason: str, now: float) -> int | None:
        """Tell whether to log: None is no; a number is yes, and how many were held back before."""
        window = self._windows.get(reason)
        if window is None:
            if len(self._windows) >= _MAX_REASONS:
                return None
            window = self._windows[reason] = _Window(now)
        held_back = 0
        if now - window.start >= _WINDOW:
            held_back = window.held_back
            window.start, window.taken, window.held_back = now, 0, 0
        if window.taken >= _BURST:
            window.held_back += 1
            return None
        window.taken += 1
        return held_back

    def overdue(self, now: float) -> list[tuple[str, int]]:
        """Give what closed windows held back and nobody has told yet; it is then told."""
        told = []
        for reason, window in list(self._windows.items()):
            if now - window.start < _WINDOW:
                continue
            if window.held_back:
                told.append((reason, window.held_back))
            del self._windows[reason]
        return told
