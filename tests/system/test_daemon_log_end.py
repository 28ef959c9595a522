"""A log whose reader is stuck holds up nothing, and what it loses is told: by another log, the metrics, the manager."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.manager import Manager
from tests.support.site import Site

pytestmark = pytest.mark.slow
CONNECTIONS = 60


class Stuck:
    """A daemon whose stderr is a small pipe that nobody reads once it is ready."""

    def __init__(self, site: Site, env: dict[str, str]) -> None:
        self._read, write = os.pipe()
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
        command = [sys.executable, "-m", "tlstunnel", "run", str(site.config)]
        self.process = subprocess.Popen(command, stderr=write, env=os.environ | env)
        os.close(write)
        self.text = b""
        while b"ready: " not in self.text or not self.text.endswith(b"\n"):
            self.text += os.read(self._read, 65536)
        found = re.search(rb"ready: web listening on 127.0.0.1:(\d+)", self.text)
        assert found
        self.port = int(found[1])

    def fill(self) -> None:
        """Leave no room in the pipe, not even for a short line."""
        again = os.open(f"/proc/self/fd/{self._read}", os.O_WRONLY | os.O_NONBLOCK)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(again, b"\n")
        os.close(again)

    def read_again(self) -> list[dict[str, object]]:
        """What was written, once it is over."""
        while data := os.read(self._read, 65536):
            self.text += data
        return [json.loads(line) for line in self.text.splitlines() if line.startswith(b"{")]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._read)


@contextlib.contextmanager
def stuck(site: Site, env: dict[str, str] | None = None) -> Iterator[Stuck]:
    """One that has a record of CONNECTIONS connections to write, and cannot."""
    daemon = Stuck(site, env or {})
    try:
        for _ in range(CONNECTIONS):
            with socket.create_connection(("127.0.0.1", daemon.port)) as sock:
                sock.sendall(b"no TLS at all\r\n")
                while sock.recv(1024):
                    pass
        site.until(lambda metrics: metrics["tlstunnel_connections_total"] == CONNECTIONS, "the end of all connections")
        site.rows_by_port()  # answered by the worker, between two turns: by then it has tried to write every record
        daemon.fill()
        yield daemon
    finally:
        daemon.close()


def test_a_stop_ends_well_and_the_manager_is_told_how_many_lines_were_lost(tmp_path: Path) -> None:
    site = Site(tmp_path, 1, process_workers="1")
    manager = Manager(tmp_path)
    with stuck(site, manager.environ) as daemon:
        manager.until("READY=1")
        daemon.process.terminate()
        assert daemon.process.wait(60) == 0
        status = manager.match(r"STATUS=stopped; (\d+) log lines were lost: the log's reader does not take them")
        lines = daemon.read_again()
        told = sum(int(str(line["count"])) for line in lines if line["event"] == "dropped")
        others = [line["event"] for line in lines if line["event"] == "start"] + ["stop", "stop", "dropped"]
        assert len(lines) + told + int(status[1]) == CONNECTIONS + len(others)


def test_a_reload_that_moves_the_log_tells_the_new_one_what_the_old_workers_lost(tmp_path: Path) -> None:
    site = Site(tmp_path, 1, process_workers="1")
    with stuck(site) as daemon:
        old = site.workers()[0]
        site.write(log_target=f'"file:{tmp_path}/log"')
        daemon.process.send_signal(signal.SIGHUP)
        metrics = site.until(
            lambda now: now["tlstunnel_config_reloads_total"] == 1 and now["tlstunnel_draining_generations"] == 0,
            "the end of the old worker",
        )
        lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
        said = next(line for line in lines if line["event"] == "dropped")
        lost = said["count"]
        assert said["message"] == f"{lost} log lines of worker {old} were lost: the log's reader does not take them"
        assert said["pid"] == old
        assert metrics["tlstunnel_log_lines_dropped_total"] >= lost
        daemon.process.terminate()
        assert daemon.process.wait(60) == 0
        written = [line for line in daemon.read_again() if line["event"] == "connection"]
        assert len(written) + lost == CONNECTIONS


def test_the_lines_of_a_worker_that_is_killed_are_counted_as_lost(tmp_path: Path) -> None:
    site = Site(tmp_path, 1, process_workers="1")
    with stuck(site) as daemon:
        os.kill(site.workers()[0], signal.SIGKILL)
        metrics = site.until(lambda now: now["tlstunnel_worker_restarts_total"] == 1, "the end of the worker")
        daemon.process.terminate()
        assert daemon.process.wait(60) == 0
        written = [line for line in daemon.read_again() if line["event"] == "connection"]
        assert metrics["tlstunnel_log_lines_dropped_total"] + len(written) == CONNECTIONS
