"""What the service manager hears from us unasked: how we are, that we are, and that we need more time."""

from __future__ import annotations

from tlstunnel.daemon.processes.state import Daemon
from tlstunnel.daemon.processes.workforce import Workforce

STATUS_S = 5.0
"""How often the status line is renewed."""
EXTEND_S = 15.0
"""How often a drain asks for more time; each time for twice as much."""


class Heartbeat:
    """Speaks as long as the supervisor's loop turns, and only then."""

    def __init__(self, daemon: Daemon, workforce: Workforce) -> None:
        self._daemon, self._workforce = daemon, workforce

    def begin(self) -> None:
        """The daemon is ready."""
        if self._daemon.notifier.is_active:
            self._tell_status()
        if self._daemon.notifier.watchdog_s:
            self._ping()

    def begin_drain(self) -> None:
        """The daemon stops, and may take longer than the manager would wait."""
        if self._daemon.notifier.is_active:
            self._extend()

    def _tell_status(self) -> None:
        self._daemon.notifier.status(self._daemon.status_text())
        self._daemon.timers.after(STATUS_S, "status", self._tell_status)

    def _ping(self) -> None:
        """A worker whose loop is stuck must show: the manager hears from us only while every worker answers."""
        every_s = (self._daemon.notifier.watchdog_s or 0.0) / 4
        if self._workforce.do_all_answer(2 * every_s):
            self._daemon.notifier.watchdog()
        self._daemon.timers.after(every_s, "watchdog", self._ping)

    def _extend(self) -> None:
        self._daemon.notifier.extend_timeout(2 * EXTEND_S)
        self._daemon.timers.after(EXTEND_S, "extend", self._extend)
