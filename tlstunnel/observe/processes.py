"""What the kernel says of our processes, read from /proc/PID alone.

Nothing outside the process directories is read, so it works under systemd's ProcSubset=pid. What the admin process may
not see (the descriptors of a supervisor that runs as another user) is `None`, and the metric is left out rather than
shown as 0.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from tlstunnel.observe.families import counter, gauge

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    """One process at one moment."""

    # fmt: off
    cpu_s: float = counter("process_cpu_seconds{role,row}", "User and system CPU time.")
    resident_bytes: int = gauge(
        "process_resident_memory_bytes{role,row}", "Resident memory.", "Pages that processes share count in each.")
    virtual_bytes: int = gauge("process_virtual_memory_bytes{role,row}", "Address space.")
    started_at: float = gauge("process_start_time_seconds{role,row}", "When the process started, in Unix time.")
    open_fds: int | None = gauge(
        "process_open_fds{role,row}", "Open file descriptors.",
        "Missing for a process of another user, which the admin process may not look into.")
    max_fds: int | None = gauge("process_max_fds{role,row}", "Limit of open file descriptors.")
    # fmt: on


def usage(pid: int, proc: Path = Path("/proc")) -> ProcessUsage | None:
    """The usage of a process; None if it is gone or hidden from us."""
    home = proc / str(pid)
    try:
        # The name, in parentheses, may hold blanks and parentheses; what follows the last one is numbers (proc(5)).
        fields = (home / "stat").read_text("ascii", "replace").rpartition(")")[2].split()
    except OSError:
        return None
    # fields[0] is what proc(5) calls field 3.
    user, system, started, virtual, resident = (int(fields[index - 3]) for index in (14, 15, 22, 23, 24))
    # Ticks since boot; where the boot was in Unix time follows from two clocks, without /proc/stat.
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return ProcessUsage(
        cpu_s=(user + system) / _TICKS,
        resident_bytes=resident * _PAGE,
        virtual_bytes=virtual,
        started_at=round(booted + started / _TICKS, 2),
        open_fds=_count(home / "fd"),
        max_fds=_limit(home / "limits"),
    )


def _count(directory: Path) -> int | None:
    """How many descriptors are open. Since Linux 6.2 the directory's size says so (proc_pid_fd(5)); counting 10,000
    names takes 4 ms. Before that the size is 0. A process that may not read the names gets no number either way."""
    with contextlib.suppress(OSError):
        if os.access(directory, os.R_OK | os.X_OK):
            found = os.stat(directory)
            if found.st_size and found.st_dev == os.stat("/proc/self").st_dev:
                return found.st_size
        return len(os.listdir(directory))
    return None


def _limit(path: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in path.read_text().splitlines():
            if line.startswith("Max open files"):
                return int(line.split()[3])
    return None
