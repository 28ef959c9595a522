"""What holds for every run of the tests: nothing is hurried, and a failure is named at once.

A test that hangs, or the end of what it has started, is ended by `faulthandler_timeout` (pyproject.toml).
"""

import os

import hypothesis
import pytest

# No example has a time limit: on a busy machine any of them may take long.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Name a failure and its reason at once: a run that is cut short, say by CI's limit, never prints its summary."""
    if not report.failed or "PYTEST_XDIST_WORKER" in os.environ:
        return
    crash = getattr(report.longrepr, "reprcrash", None)
    reason = report.longreprtext if crash is None else f"{crash.path}:{crash.lineno}: {crash.message}"
    print(f"\n{report.nodeid} failed ({report.when}):\n{reason[:2000]}", flush=True)
