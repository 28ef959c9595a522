"""Pings children, replaces those that hang, and keeps the service manager informed.

Each child is pinged once a second, and one that hangs is replaced, with or without a watchdog. A process that was
stopped, or whose loop turns no more, keeps its sockets: the kernel goes on giving it its part of the connections, and
they wait. What is counted is pings, not seconds. While the supervisor itself does not run, because the whole machine
was paused or the process group stopped, none are sent; and after it one is not enough.

As long as the supervisor's loop turns, the service manager gets a status line, the watchdog's keep-alive, and during a
drain requests for more time.
"""

from __future__ import annotations

from pathlib import Path

from tlstunnel.daemon.processes.adminprocess import AdminProcess
from tlstunnel.daemon.processes.children import Child
from tlstunnel.daemon.processes.messages import Ping
from tlstunnel.daemon.processes.state import Daemon
from tlstunnel.daemon.processes.workforce import Workforce

PING_S = 1.0
HUNG = 10
"""So many pings in a row without an answer: it is killed and replaced. No turn of a worker takes a tenth as long."""
HUNG_AT_START = 30
"""The same for one that has not begun to serve: it may have thousands of contexts to look at."""
STATUS_S = 5.0
"""How often the status line is renewed."""
EXTEND_S = 15.0
"""How often a drain asks for more time; each time for twice as much."""
_STATES = {"T": "stopped by a signal", "t": "stopped by a debugger", "D": "waits for a disk", "R": "busy"}


class Liveness:
    """Pings as long as there are children, and notifies the service manager."""

    def __init__(self, daemon: Daemon, workforce: Workforce, admin: AdminProcess) -> None:
        self._daemon, self._workforce, self._admin = daemon, workforce, admin

    def begin(self) -> None:
        """The daemon is ready."""
        self._ping()
        if self._daemon.notifier.is_active:
            self._notify_status()
        if self._daemon.notifier.watchdog_s:
            self._notify_watchdog()

    def begin_drain(self) -> None:
        """The daemon stops, and may take longer than the manager would wait."""
        if self._daemon.notifier.is_active:
            self._extend()

    def _ping(self) -> None:
        children = list(self._daemon.children.values())
        for child in children:
            before = child.answers
            child.unanswered += 1
            if child.unanswered > (HUNG if child.is_ready else HUNG_AT_START):
                self._replace(child)
            elif before and not child.answers:
                self._daemon.publish()
        self._workforce.send(Ping(), children)
        self._admin.check(HUNG)
        self._daemon.timers.after(PING_S, "ping", self._ping)

    def _replace(self, child: Child) -> None:
        seconds = round((child.unanswered - 1) * PING_S)
        text = f"worker {child.pid} has not answered for {seconds} s ({state_of(child.pid)}) and is replaced"
        self._daemon.log.message("error", "worker", text, pid=child.pid)
        child.kill()

    def _notify_status(self) -> None:
        self._daemon.notifier.status(self._daemon.status_text())
        self._daemon.timers.after(STATUS_S, "status", self._notify_status)

    def _notify_watchdog(self) -> None:
        """A worker whose loop is stuck must show: the manager hears from us only while every worker answers."""
        every_s = (self._daemon.notifier.watchdog_s or 0.0) / 4
        if self._workforce.do_all_answer(2 * every_s):
            self._daemon.notifier.watchdog()
        self._daemon.timers.after(every_s, "watchdog", self._notify_watchdog)

    def _extend(self) -> None:
        self._daemon.notifier.extend_timeout(2 * EXTEND_S)
        self._daemon.timers.after(EXTEND_S, "extend", self._extend)


def state_of(pid: int) -> str:
    """What a process that does not answer does instead, as far as the kernel says."""
    try:
        letter = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "gone"
    return _STATES.get(letter, "it waits for something")
