"""What the supervisor has to do later: a handful of named appointments, served by its one loop."""

from __future__ import annotations

import time
from collections.abc import Callable


class Timers:
    """Appointments by name; making one again moves it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due: dict[str, tuple[float, Callable[[], None]]] = {}

    def after(self, delay_s: float, name: str, action: Callable[[], None]) -> None:
        """Call `action` once, when `delay_s` have passed."""
        self._due[name] = (self._clock() + delay_s, action)

    def cancel(self, name: str) -> None:
        """Forget an appointment, if there is one of this name."""
        self._due.pop(name, None)

    @property
    def wait_s(self) -> float | None:
        """Seconds until something is due; None when nothing ever is."""
        if not self._due:
            return None
        return max(0.0, min(when for when, _ in self._due.values()) - self._clock())

    def run(self) -> None:
        """Do what is due. What that makes due at once waits for the next time."""
        now = self._clock()
        for name, (when, action) in list(self._due.items()):
            # An action may have cancelled or moved the ones after it.
            if when <= now and self._due.get(name) == (when, action):
                del self._due[name]
                action()
