"""What a proxy costs: CPU time and memory of a process and everything it started, read from the kernel.

CPU time is read from the process's CPU clock, which is what `/proc/PID/stat` shows as utime plus stime, but in
nanoseconds instead of clock ticks of 10 ms, and includes threads that have ended. Children that have ended and been
waited for are added from the stat file. Memory is PSS: a page shared by four processes counts a quarter in each, so
that the sum over a tree is what the machine would get back.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_SCHED_CLOCK = 2  # the low bits of a process CPU clock id, see clock_getcpuclockid(3)
# A proxy is at rest when a quarter of a millisecond of CPU time does not go by in a twentieth of a second; a worker's
# housekeeping timer stays below that.
_REST_S = 0.05
_REST_CPU_S = 0.00025
_REST_AT_MOST_S = 5.0


def _stat(pid: int) -> list[str]:
    """The fields after the command's name, which may itself hold spaces and parentheses."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def tree(root: int) -> list[int]:
    """The process and all its descendants that are alive, parents first."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):  # ended meanwhile
                parents.setdefault(int(_stat(int(entry))[1]), []).append(int(entry))

    def below(pid: int) -> Iterator[int]:
        yield pid
        for child in parents.get(pid, ()):
            yield from below(child)

    return list(below(root))


def cpu_s(root: int) -> float:
    """Seconds of CPU time, user and system, of the process and all its descendants, living and waited for."""
    total = 0.0
    for pid in tree(root):
        with contextlib.suppress(OSError):
            total += time.clock_gettime(~pid << 3 | _SCHED_CLOCK)
            total += sum(int(ticks) for ticks in _stat(pid)[13:15]) * _TICK_S
    return total


def user_system_s(root: int) -> tuple[float, float]:
    """User and system time apart, to the clock tick, living processes only."""
    fields = [_stat(pid) for pid in tree(root)]
    return sum(int(f[11]) for f in fields) * _TICK_S, sum(int(f[12]) for f in fields) * _TICK_S


def own_kib(root: int) -> int:
    """Proportional set size, in KiB, of the process and all its descendants, without pages of files.

    What a connection needs is anonymous or shared memory. Pages of programs and libraries are left out because a
    process's share of them changes whenever another one that uses the same library starts or ends.
    """
    total = 0
    for pid in tree(root):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                total += int(line.split()[1])
    return total


def come_to_rest(root: int) -> None:
    """Waits until the proxy has nothing left to do, five seconds at most: one that never rests is measured as it is."""
    until = time.monotonic() + _REST_AT_MOST_S
    before = cpu_s(root)
    while time.monotonic() < until:
        time.sleep(_REST_S)
        after = cpu_s(root)
        if after - before < _REST_CPU_S:
            return
        before = after


def pin(root: int, cpus: set[int]) -> None:
    """Confines every thread of the process and its descendants to these CPUs, whatever they chose for themselves."""
    for pid in tree(root):
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(thread), cpus)


def end(process: subprocess.Popen[str] | subprocess.Popen[bytes], patience_s: float = 3.0) -> None:
    """Ends a process we started and what it started: asked first, killed when it does not listen."""
    if process.poll() is None:
        pids = tree(process.pid)
        process.terminate()
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
