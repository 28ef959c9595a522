"""Processes that hang: noticed without a service manager, replaced, and readiness says what is so."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import backends
from tests.support.load import dial, read_exactly, visit
from tests.support.site import Site
from tests.support.wire_peers import client_context

pytestmark = pytest.mark.slow
PATIENCE_S = 60.0


@pytest.fixture
def echo() -> Iterator[backends.Backend]:
    with backends.serve(backends.echo) as backend:
        yield backend


def until(site: Site, holds: Callable[[dict[str, Any], tuple[int, str]], bool], what: str) -> None:
    """Ask the admin endpoint again and again."""
    end = time.monotonic() + PATIENCE_S
    while not holds(site.status(), site.ask("/readyz")):
        assert time.monotonic() < end, f"it does not come to {what}: {site.status()['workers']}"
        time.sleep(0.05)


def test_a_worker_that_is_stopped_does_not_count_and_is_replaced(tmp_path: Path, echo: backends.Backend) -> None:
    site = Site(tmp_path, echo.port, process_workers="2")
    with site.run(is_clean=False) as daemon:
        victim, other = site.workers()
        os.kill(victim, signal.SIGSTOP)
        until(site, lambda status, ready: status["workers_answering"] == 1 and ready[0] == 200, "one that answers")
        assert {each["pid"]: each["answers"] for each in site.status()["workers"]} == {victim: False, other: True}
        text = f"worker {victim} has not answered for 10 s (stopped by a signal) and is replaced"
        assert daemon.message("worker", "has not answered")["message"] == text
        assert "its replacement starts now" in daemon.message("worker", "ended unexpectedly")["message"]
        until(site, lambda status, _: status["workers_answering"] == 2, "two that answer")
        assert other in site.workers()
        assert victim not in site.workers()
        for _ in range(20):  # no part of the connections waits for one that is gone
            visit(daemon.port, b"x", client_context())


def test_it_is_not_ready_while_no_worker_answers_and_ready_again_when_one_does(
    tmp_path: Path, echo: backends.Backend
) -> None:
    site = Site(tmp_path, echo.port, process_workers="2")
    with site.run(is_clean=False) as daemon, dial(daemon.port, client_context()) as sock:
        sock.sendall(b"before")
        assert read_exactly(sock, 6) == b"before"
        victims = site.workers()
        for pid in victims:
            os.kill(pid, signal.SIGSTOP)
        until(site, lambda _, ready: ready == (503, "no worker answers\n"), "not being ready")
        assert site.ask("/livez")[0] == 200
        for pid in victims:  # one that is only slow, or was stopped for a while, is taken back as it is
            os.kill(pid, signal.SIGCONT)
        until(site, lambda status, ready: ready[0] == 200 and status["workers_answering"] == 2, "being ready")
        assert site.workers() == victims
        sock.sendall(b"after")
        assert read_exactly(sock, 5) == b"after"


def test_it_is_not_ready_while_its_workers_do_nothing_but_die(tmp_path: Path, echo: backends.Backend) -> None:
    site = Site(tmp_path, echo.port, process_workers="1")
    with site.run(is_clean=False):
        end = time.monotonic() + PATIENCE_S
        while site.ask("/readyz") != (503, "no worker answers\n"):  # each replacement comes later than the one before
            assert time.monotonic() < end
            for pid in site.workers():
                with contextlib.suppress(ProcessLookupError):  # seen before it was replaced
                    os.kill(pid, signal.SIGKILL)
        until(site, lambda _, ready: ready[0] == 200, "being ready")


def test_an_admin_process_that_is_stopped_is_replaced(tmp_path: Path, echo: backends.Backend) -> None:
    site = Site(tmp_path, echo.port, process_workers="1")
    with site.run(is_clean=False) as daemon:
        (admin,) = set(daemon.children()) - set(site.workers())
        os.kill(admin, signal.SIGSTOP)
        daemon.message("admin", "has not answered for 10 s and is replaced")
        daemon.message("admin", "another one starts")
        site.until(lambda metrics: metrics["tlstunnel_workers"] == 1, "an answer")


def test_a_whole_process_group_that_was_stopped_goes_on_as_it_was(tmp_path: Path, echo: backends.Backend) -> None:
    """A paused machine, for longer than a worker may be silent: nobody is taken for hanging by it."""
    site = Site(tmp_path, echo.port, process_workers="2")
    with site.run(prefix=("setsid",)) as daemon, dial(daemon.port, client_context()) as sock:
        sock.sendall(b"before")
        assert read_exactly(sock, 6) == b"before"
        children = sorted(daemon.children())
        os.killpg(daemon.process.pid, signal.SIGSTOP)
        time.sleep(13)
        os.killpg(daemon.process.pid, signal.SIGCONT)
        sock.sendall(b"after")
        assert read_exactly(sock, 5) == b"after"
        until(site, lambda status, ready: ready[0] == 200 and status["workers_answering"] == 2, "two that answer")
        assert sorted(daemon.children()) == children
