"""What the daemon weighs when it has nothing to do: every process counted, and shared pages once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import certificates
from tests.support.site import Site

pytestmark = pytest.mark.slow

MIB = 1 << 20


def pss(pid: int) -> int:
    """Proportional set size in bytes: a page that n processes share counts as one n-th in each."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


@pytest.mark.parametrize(("workers", "most"), [(1, 55 * MIB), (2, 65 * MIB)])
def test_at_rest_all_processes_together_take_little_memory(workers: int, most: int, tmp_path: Path) -> None:
    site = Site(tmp_path, 9, process_workers=str(workers))
    site.install(certificates.server("localhost"))
    with site.run() as daemon:
        processes = (daemon.process.pid, *daemon.children())
        assert len(processes) == 2 + workers
        total = sum(pss(pid) for pid in processes)
    assert total <= most, f"{total / MIB:.1f} MiB"
