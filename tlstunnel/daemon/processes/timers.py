"""What the supervisor has to do later: a handful of named appointments, served by its one loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from tlstunnel.patience import Patience


class Timers:
    """Appointments by name; making one again moves it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._read = clock
        self._patience = Patience()
        self._due: dict[str, tuple[float, Callable[[], None]]] = {}

    def _clock(self) -> float:
        return self._patience.look(self._read())

    def after(self, delay_s: float, name: str, action: Callable[[], None]) -> None:
        """Call `action` once, when `delay_s` have passed; never, when that is infinite."""
        self.cancel(name)
        if delay_s < math.inf:
            self._due[name] = (self._clock() + delay_s, action)

    def cancel(self, name: str) -> None:
        """Forget an appointment, if there is one of this name."""
        self._due.pop(name, None)

    @property
    def wait_s(self) -> float | None:
        """Seconds until something is due; None when nothing ever is. Ask only to wait for just that long."""
        if not self._due:
            self._patience.sleep_until(math.inf)
            return None
        first, now = min(when for when, _ in self._due.values()), self._clock()
        self._patience.sleep_until(max(now, first))
        return max(0.0, first - now)

    def run(self) -> None:
        """Do what is due. What that makes due at once waits for the next time."""
        now = self._clock()
        for name, (when, action) in list(self._due.items()):
            # An action may have cancelled or moved the ones after it.
            if when <= now and self._due.get(name) == (when, action):
                del self._due[name]
                action()
