"""What workers and the supervisor need of observe/ costs them none of the admin process's libraries."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("trio", "h11", "prometheus_client", "rich", "http.client", "logging", "asyncio")
FOR_EVERYBODY = (
    "counters", "families", "series", "record", "observer", "log", "lines", "sinks", "state", "listing",
)  # fmt: skip


def test_workers_and_the_supervisor_import_no_server_and_no_exposition() -> None:
    names = ", ".join(f"tlstunnel.observe.{name}" for name in FOR_EVERYBODY)
    program = f"import sys; import {names}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
