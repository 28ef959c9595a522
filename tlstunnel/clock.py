"""trio's clock, but one that does not count the time in which the process was stopped (`patience`)."""

from __future__ import annotations

import time

import trio

from tlstunnel.patience import Patience


class PatientClock(trio.abc.Clock):
    """For `trio.run`: deadlines of a process that was stopped pass a moment after it goes on, not before."""

    def __init__(self) -> None:
        self._patience = Patience()

    def start_clock(self) -> None:
        """Nothing to start."""

    def current_time(self) -> float:
        return self._patience.look(time.monotonic())

    def deadline_to_sleep_time(self, deadline: float) -> float:
        now = self.current_time()
        self._patience.sleep_until(max(now, deadline))
        return deadline - now
