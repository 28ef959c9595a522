"""What holds for every run of the tests: whatever fails, it is named at once, and the run goes on and ends.

A test that hangs is ended by `faulthandler_timeout` (pyproject.toml).
"""

import faulthandler
import os

import pytest

ENDING_S = 120.0
"""What ending may take when the last test is done: a thread that a failed test has left may wait for ever."""


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Name a failure and its reason at once: a run that is cut short, say by CI's limit, never prints its summary."""
    if not report.failed or "PYTEST_XDIST_WORKER" in os.environ:
        return
    crash = getattr(report.longrepr, "reprcrash", None)
    reason = report.longreprtext if crash is None else f"{crash.path}:{crash.lineno}: {crash.message}"
    print(f"\n{report.nodeid} failed ({report.when}):\n{reason[:2000]}", flush=True)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    """Show what does not end, and end it."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        faulthandler.dump_traceback_later(ENDING_S, exit=True)
