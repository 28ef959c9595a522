"""Whether children answer: each is pinged once a second, and one that hangs is replaced, with or without a watchdog.

A process that was stopped, or whose loop turns no more, keeps its sockets: the kernel goes on giving it its part of the
connections, and they wait. What is counted is pings, not seconds. While the supervisor itself does not run, because the
whole machine was paused or the process group stopped, none are sent; and after it one is not enough.
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
_STATES = {"T": "stopped by a signal", "t": "stopped by a debugger", "D": "waits for a disk", "R": "busy"}


class Liveness:
    """Pings as long as there are children."""

    def __init__(self, daemon: Daemon, workforce: Workforce, admin: AdminProcess) -> None:
        self._daemon, self._workforce, self._admin = daemon, workforce, admin

    def begin(self) -> None:
        """The daemon is ready."""
        self._ping()

    def _ping(self) -> None:
        children = list(self._daemon.children.values())
        for child in children:
            before = child.answers
            child.unanswered += 1
            if child.unanswered > (HUNG if child.is_ready else HUNG_AT_START):
                self._replace(child)
            elif before and not child.answers:
                self._daemon.show()
        self._workforce.tell(Ping(), children)
        self._admin.look(HUNG)
        self._daemon.timers.after(PING_S, "ping", self._ping)

    def _replace(self, child: Child) -> None:
        seconds = round((child.unanswered - 1) * PING_S)
        text = f"worker {child.pid} has not answered for {seconds} s ({state_of(child.pid)}) and is replaced"
        self._daemon.log.message("error", "worker", text, pid=child.pid)
        child.kill()


def state_of(pid: int) -> str:
    """What a process that does not answer does instead, as far as the kernel says."""
    try:
        letter = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "gone"
    return _STATES.get(letter, "it waits for something")
