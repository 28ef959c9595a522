"""Stopping: nothing new is accepted, what is open may finish, and whoever is in a hurry is heard."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.support import backends
from tests.support.load import bid_farewell, dial, read_exactly, transfers, visit, visitors
from tests.support.manager import Manager
from tests.support.ports import free_port
from tests.support.site import Site, reload
from tests.support.wire_peers import client_context

pytestmark = pytest.mark.slow


@pytest.fixture
def echo() -> Iterator[backends.Backend]:
    with backends.serve(backends.echo) as backend:
        yield backend


def test_a_stop_lets_transfers_in_flight_finish_and_tells_the_manager(tmp_path: Path, echo: backends.Backend) -> None:
    site = Site(tmp_path, echo.port)
    manager = Manager(tmp_path)
    with site.run(env=manager.environ, exit_code=None) as daemon:
        ready = manager.until("READY=1")
        assert "STATUS=1 service, 0 connections, next certificate expires 20" in ready
        with transfers(daemon.port, count=3) as long:
            site.until(lambda metrics: metrics["tlstunnel_bytes_total"] > 1_000_000, "transfers under way")
            assert site.ask("/readyz")[0] == 200
            daemon.terminate()
            stopping = manager.until("STOPPING=1")
            assert "STATUS=draining" in stopping
            manager.until("EXTEND_TIMEOUT_USEC=30000000")
            assert site.ask("/readyz") == (503, "draining\n"), "readiness fails first"
            assert site.ask("/livez")[0] == 200, "liveness stays good"
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", daemon.port), timeout=60)
            metrics = site.metrics()
            assert metrics["tlstunnel_draining"] == 1
            assert metrics["tlstunnel_connections_active"] == 3
            moved = metrics["tlstunnel_bytes_total"]
            site.until(lambda now: now["tlstunnel_bytes_total"] > moved + 1_000_000, "transfers that go on")
            assert not long.flaws
        assert daemon.wait() == 0
        assert [record["reason"] for record in daemon.records] == ["finished"] * 3
        assert daemon.messages[-1]["message"] == "stopped"
        assert not (tmp_path / "admin.sock").exists()


def test_no_visitor_that_was_accepted_is_cut_by_a_stop(tmp_path: Path, echo: backends.Backend) -> None:
    """What a stop may do to the others is refuse them; who is in a queue at that moment sees a reset."""
    site = Site(tmp_path, echo.port)
    with site.run(exit_code=None) as daemon:
        port = daemon.port
        with visitors(port, count=4, flaws=1 << 30) as crowd:
            crowd.wait_for(50)
            daemon.terminate()
            assert daemon.wait() == 0
        reasons = {record["reason"] for record in daemon.records}
        assert reasons <= {"finished", "eof", "reset"}, reasons
        for flaw in crowd.flaws:
            assert "refused" in flaw or "reset" in flaw, flaw


def test_a_link_that_moves_is_not_cut_before_drain_timeout_and_then_it_is(
    tmp_path: Path, echo: backends.Backend
) -> None:
    site = Site(tmp_path, echo.port, drain_timeout='"1500ms"')
    with site.run(exit_code=None) as daemon, dial(daemon.port, client_context()) as sock:
        exchange(sock)
        daemon.terminate()
        daemon.message("stop", "draining")
        with pytest.raises((OSError, EOFError)):
            exchange_for_ever(sock)
        assert daemon.wait() == 1
        record = daemon.record()
        assert record["reason"] == "drained"
        begun, ended = (datetime.fromisoformat(m["time"]) for m in (daemon.message("stop", "draining"), record))
        assert (ended - begun).total_seconds() >= 1.4
        assert daemon.messages[-1]["message"] == "stopped; 1 connection was cut at the end of the drain"
        assert daemon.messages[-1]["level"] == "warning"


def test_links_that_do_not_end_are_cut_and_counted(tmp_path: Path, echo: backends.Backend) -> None:
    site = Site(tmp_path, echo.port, drain_timeout='"0s"')
    with site.run(exit_code=None) as daemon:
        socks = [dial(daemon.port, client_context()) for _ in range(7)]
        for sock in socks:
            exchange(sock)
        daemon.terminate()
        assert daemon.wait() == 1
        assert daemon.messages[-1]["message"] == "stopped; 7 connections were cut at the end of the drain"
        for sock in socks:
            sock.close()


def test_what_a_worker_has_cut_counts_also_when_it_is_killed_before_it_can_say_so(
    tmp_path: Path, echo: backends.Backend
) -> None:
    site = Site(tmp_path, echo.port, drain_timeout='"0s"', process_workers="1")
    with site.run(exit_code=None) as daemon, dial(daemon.port, client_context()) as sock:
        exchange(sock)
        (worker,) = site.workers()
        daemon.terminate()
        assert daemon.record()["reason"] == "drained"
        # It lingers now: our side has not closed.
        os.kill(worker, signal.SIGKILL)
        assert daemon.wait() == 1
        assert daemon.messages[-1]["message"] == "stopped; 1 connection was cut at the end of the drain"


def test_a_second_signal_hastens(tmp_path: Path, echo: backends.Backend) -> None:
    site = Site(tmp_path, echo.port, drain_timeout='"never"')
    for first, second in ((signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGINT)):
        with site.run(exit_code=None) as daemon, dial(daemon.port, client_context()) as sock:
            exchange(sock)
            daemon.process.send_signal(first)
            daemon.message("stop", "draining")
            exchange(sock)
            daemon.process.send_signal(second)
            assert daemon.wait() == 1
            assert daemon.message("stop", "told to stop again: cutting what is still open")
            assert daemon.messages[-1]["message"] == "stopped; 1 connection was cut at the end of the drain"


def test_a_quit_to_the_whole_process_group_drains(tmp_path: Path, echo: backends.Backend) -> None:
    """nginx ends gracefully at SIGQUIT, and a terminal sends it to everybody at once."""
    site = Site(tmp_path, echo.port, drain_timeout='"never"')
    with (
        site.run(prefix=("setsid",), exit_code=None) as daemon,
        dial(daemon.port, client_context()) as sock,
    ):
        exchange(sock)
        os.killpg(daemon.process.pid, signal.SIGQUIT)
        daemon.message("stop", "draining")
        assert site.ask("/readyz") == (503, "draining\n")
        exchange(sock)
        bid_farewell(sock)
        assert daemon.wait() == 0
        assert daemon.record()["reason"] == "finished"


def test_a_signal_without_a_meaning_is_said_and_changes_nothing(tmp_path: Path, echo: backends.Backend) -> None:
    site = Site(tmp_path, echo.port)
    with site.run(prefix=("setsid",)) as daemon, dial(daemon.port, client_context()) as sock:
        exchange(sock)
        workers = site.workers()
        os.killpg(daemon.process.pid, signal.SIGUSR2)
        assert "SIGHUP reloads" in daemon.message("signal", "SIGUSR2 means nothing here")["message"]
        os.killpg(daemon.process.pid, signal.SIGUSR1)
        exchange(sock)
        visit(daemon.port, b"x", client_context())
        assert site.workers() == workers
        bid_farewell(sock)


def test_a_worker_that_hangs_does_not_keep_the_daemon_from_stopping(tmp_path: Path, echo: backends.Backend) -> None:
    site = Site(tmp_path, echo.port, drain_timeout='"0s"', process_workers="1")
    with site.run(exit_code=None, is_clean=False) as daemon, dial(daemon.port, client_context()) as sock:
        exchange(sock)
        worker = site.workers()[0]
        os.kill(worker, signal.SIGSTOP)
        daemon.terminate()
        daemon.message("stop", "draining")
        with pytest.raises(ConnectionRefusedError):  # although the worker still has its listening socket
            socket.create_connection(("127.0.0.1", daemon.port), timeout=60)
        assert daemon.wait() == 1
        assert daemon.message("worker", "has not ended by the end of its drain and is killed")
        assert daemon.messages[-1]["message"] == "stopped; 1 connection was cut at the end of the drain"


def test_an_old_generation_drains_within_its_own_drain_timeout(tmp_path: Path, echo: backends.Backend) -> None:
    site = Site(tmp_path, echo.port, drain_timeout='"0s"')
    with site.run() as daemon, dial(daemon.port, client_context()) as sock:
        exchange(sock)
        site.write(drain_timeout='"1h"')
        reload(daemon)
        assert daemon.record()["reason"] == "drained"
        assert daemon.message("drain", "1 connection was cut at the end of the drain of generation 1")
        site.until(lambda metrics: metrics["tlstunnel_draining_generations"] == 0, "no old generation")
        visit(daemon.port, b"x", client_context())


def test_ports_are_free_at_once_for_the_next_daemon(tmp_path: Path, echo: backends.Backend) -> None:
    site = Site(tmp_path, echo.port, listen=f'"127.0.0.1:{free_port()}"')
    with site.run(exit_code=None) as daemon, dial(daemon.port, client_context()) as sock:
        exchange(sock)
        daemon.terminate()
        daemon.message("stop", "draining")
        site.write(admin_listen=f'"unix:{tmp_path}/other.sock"')
        with site.run() as following:
            visit(following.port, b"x", client_context())
        exchange(sock)
        bid_farewell(sock)
        assert daemon.wait() == 0


def test_a_stop_during_the_start_is_a_good_end(tmp_path: Path, echo: backends.Backend) -> None:
    site = Site(tmp_path, echo.port, process_workers="4")
    with site.run(exit_code=None) as daemon:
        daemon.terminate()
        assert daemon.wait() == 0


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_no_process_of_a_daemon_has_a_socket_for_a_stream_that_was_closed(
    closed: str, tmp_path: Path, echo: backends.Backend
) -> None:
    site = Site(tmp_path, echo.port, process_workers="1")
    command = ["/bin/sh", "-c", f'exec "$0" -m tlstunnel run "$1" {closed}', sys.executable, str(site.config)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while not serves(site):
                assert process.poll() is None
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            for pid in (process.pid, *children):
                streams = [os.readlink(f"/proc/{pid}/fd/{number}") for number in (0, 1, 2)]
                assert not any(stream.startswith(("socket:", "anon_inode:", "/memfd:")) for stream in streams), streams
        finally:
            process.terminate()
        assert process.wait(60) == 0


def serves(site: Site) -> bool:
    try:
        return site.ask("/readyz")[0] == 200
    except OSError:
        return False


def exchange(sock: socket.socket) -> None:
    sock.sendall(b"still there")
    assert read_exactly(sock, 11) == b"still there"


def exchange_for_ever(sock: socket.socket) -> None:
    while True:
        exchange(sock)
