"""How a reload ended, for everybody who wants to know: metrics, status, the log, the service manager."""

from __future__ import annotations

import time

from tlstunnel.daemon.processes.state import Daemon
from tlstunnel.errors import TunnelError
from tlstunnel.observe.state import ReloadState


class ReloadOutcome:
    """Notes an outcome where it is looked up, and then tells it where it is read."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def note_success(self) -> None:
        """What runs is what was written last."""
        daemon = self._daemon
        process = daemon.generation.series.process
        daemon.row.counters[process.reloads["success"]] += 1
        daemon.row.floats[process.last_reload_success] = time.time()
        daemon.publisher.last_reload = ReloadState(at=time.time(), ok=True)

    def tell_success(self, what: str) -> None:
        """In the log and to the manager, whose reload is over now."""
        self._daemon.log.message("info", "reload", what)
        self._daemon.notifier.ready(self._daemon.status_text())

    def note_failure(self, error: TunnelError) -> None:
        """Nothing has changed."""
        daemon = self._daemon
        daemon.row.counters[daemon.generation.series.process.reloads["failure"]] += 1
        daemon.publisher.last_reload = ReloadState(at=time.time(), ok=False, errors=tuple(str(error).splitlines()))

    def tell_failure(self, error: TunnelError) -> None:
        """Every problem in the log. The manager has no word for it: its reload is over, and the status says how."""
        lines = str(error).splitlines()
        for line in lines:
            self._daemon.log.message("error", "reload", f"reload failed, nothing changed: {line}")
        self._daemon.notifier.ready(f"reload failed, still running the old configuration: {lines[0]}")
