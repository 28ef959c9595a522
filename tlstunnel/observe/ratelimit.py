"""Rate limit for lines that are interesting once and noise the hundredth time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

INTERVAL_S = 10.0


@dataclass(slots=True)
class Window:
    """One kind of line since its interval began."""

    level: str
    subject: str
    """The service, or nothing."""
    kind: str
    """A reason's label or an event: together with the subject from a bounded set."""
    text: str
    began: float
    count: int = 0

    def suppressed(self, burst: int) -> int:
        return max(0, self.count - burst)


class Limiter:
    """Lets a few lines of a kind through in every interval and counts the others.

    Args:
        monotonic: the clock.
    """

    __slots__ = ("_burst", "_monotonic", "_windows")

    def __init__(self, monotonic: Callable[[], float], burst: int) -> None:
        self._monotonic = monotonic
        self._burst = burst
        self._windows: dict[tuple[str, str], Window] = {}

    def admits(self, level: str, subject: str, kind: str, text: str) -> bool:
        """Whether this line may be written; counts it if not."""
        window = self._windows.get((subject, kind))
        if window is None:
            window = self._windows[subject, kind] = Window(level, subject, kind, text, self._monotonic())
        window.count += 1
        return window.count <= self._burst

    def ended(self, *, everything: bool = False) -> Iterator[tuple[Window, int, float]]:
        """The windows whose interval is over and that hold something back, how many lines, and over how many seconds.
        Everything: also those whose interval is not over.

        The next line of such a kind begins a new window.
        """
        now = self._monotonic()
        over = [window for window in self._windows.values() if everything or now - window.began >= INTERVAL_S]
        for window in over:
            del self._windows[window.subject, window.kind]
            held_back = window.suppressed(self._burst)
            if held_back:
                yield window, held_back, now - window.began
