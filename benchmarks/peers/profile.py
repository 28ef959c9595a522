"""Where the cycles go: one proxy alone on one row, under perf(1)."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

from benchmarks.peers import process
from benchmarks.peers.compare import Stage
from benchmarks.peers.errors import BenchmarkError
from benchmarks.peers.programs import Peer
from benchmarks.peers.workloads import Row

_LINES = 45


def profile(row: Row, peer: Peer, on: Stage) -> None:
    """Prints shares by library and the hottest symbols, measured while the row runs; preparation is not recorded.

    Raises BenchmarkError when perf is missing or the kernel does not let it look.
    """
    if shutil.which("perf") is None:
        raise BenchmarkError("perf: not installed (Debian: linux-perf)")
    site = on.site(peer)
    data = Path(on.setting.work) / "perf.data"
    try:
        row.prepare(site)
        pids = ",".join(map(str, process.tree(site.proxy.pid)))
        user, system = process.user_system_s(site.proxy.pid)
        recorder = subprocess.Popen(
            ["perf", "record", "--quiet", "-F", "2000", "-o", data, "-p", pids],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            samples = [row.measure(site) for _ in range(on.options.rounds)]
        finally:
            recorder.send_signal(signal.SIGINT)
            _, said = recorder.communicate()
        if not data.exists() or data.stat().st_size == 0:
            raise BenchmarkError(f"perf: {said.strip() or 'recorded nothing'}")
        after_user, after_system = process.user_system_s(site.proxy.pid)
    finally:
        site.stop()
    values = ", ".join(f"{sample.value:.4g}" for sample in samples)
    print(f"{row.title}: {values} {row.unit}; user {after_user - user:.2f} s, system {after_system - system:.2f} s\n")
    for sort in ("comm,dso", "dso,symbol"):
        shown = subprocess.run(
            ["perf", "report", "--stdio", "--quiet", "--percent-limit", "0.5", "--sort", sort, "-i", data],
            capture_output=True,
            text=True,
            check=False,
        )
        lines = [line.rstrip() for line in shown.stdout.splitlines() if line.strip() and not line.startswith("#")]
        print("\n".join(lines[:_LINES]), end="\n\n")
