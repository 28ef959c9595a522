"""Time in which a process was stopped is nobody's fault but its own.

Theory of operation. A process that is stopped (SIGSTOP, a debugger, a paused virtual machine, a starved one) wakes up
to find every deadline passed, also of peers whose bytes have been waiting all the while. So whoever keeps deadlines
says until when it means to sleep. Waking much later means that it was away; that time does not count, and for GRACE_S
more nothing is due: what has arrived is served first. Being late again at once is forgiven without that grace, since on
a machine that is always late time must go on.
"""

from __future__ import annotations

import math

AWAY_S = 1.0
"""How late a wake-up is no longer the machine's ordinary unpunctuality."""
GRACE_S = 0.5
"""Enough to serve what has arrived, and for a peer to answer."""


class Patience:
    """Turns a clock into one that does not count the time away. All values are seconds of one monotonic clock."""

    __slots__ = ("_away_s", "_due", "_has_slept", "_seen", "_was_late")

    def __init__(self) -> None:
        self._away_s = 0.0  # what has not been counted so far
        self._seen = -math.inf
        self._due = math.inf
        self._has_slept = self._was_late = False

    def sleep_until(self, when: float) -> None:
        """The clock is looked at again at `when`, by this clock, or before. Not said, it is looked at again at once."""
        self._due = when
        self._has_slept = True

    def look(self, now: float) -> float:
        """What time it is by this clock, if it is `now` by the other."""
        time = now - self._away_s
        if time - self._due > AWAY_S:
            time = self._due if self._was_late else max(self._seen, self._due - GRACE_S)
            self._away_s = now - time
            self._was_late = True
        elif self._has_slept:
            self._was_late = False
        self._has_slept = False
        self._seen = self._due = time
        return time
