"""CPU time of a daemon: of a process and everything it started.

Read from the processes' CPU clocks, which count what /proc/PID/stat shows as utime and stime, but in nanoseconds.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

_SCHED_CLOCK = 2  # the low bits of a process's CPU clock id, see clock_getcpuclockid(3)
_REST_S = 0.05
_REST_CPU_S = 0.0005
_REST_AT_MOST_S = 3.0


def tree(root: int) -> list[int]:
    """The process and all its descendants that are alive."""
    found, left = [], [root]
    while left:
        pid = left.pop()
        with contextlib.suppress(OSError):  # it has ended meanwhile
            for task in Path(f"/proc/{pid}/task").iterdir():
                left += map(int, (task / "children").read_text().split())
            found.append(pid)
    return found


def cpu_s(root: int) -> float:
    """Seconds of CPU time, user and system, of the process and its living descendants."""
    total = 0.0
    for pid in tree(root):
        with contextlib.suppress(OSError):
            total += time.clock_gettime(~pid << 3 | _SCHED_CLOCK)
    return total


def cpu_at_rest_s(root: int) -> float:
    """The same once they have nothing left to do: closing is paid for too. Waits three seconds for it at most."""
    until = time.monotonic() + _REST_AT_MOST_S
    before = cpu_s(root)
    while time.monotonic() < until:
        time.sleep(_REST_S)
        after = cpu_s(root)
        if after - before < _REST_CPU_S:
            return after
        before = after
    return before
