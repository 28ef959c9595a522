"""Limits hold over all workers: never more than is written, and nobody refused or kept waiting while there is room.

With one worker as with eight; while workers are killed, configurations reloaded, and at the end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import backends
from tests.support.load import bid_farewell, dial, read_exactly
from tests.support.site import Site, reload
from tests.support.wire_peers import client_context

pytestmark = pytest.mark.slow
WORKERS = pytest.mark.parametrize("workers", [1, 2, 4, 8])


@pytest.fixture
def echo() -> Iterator[backends.Backend]:
    with backends.serve(backends.echo) as backend:
        yield backend


class Crowd:
    """Clients of which each, once it is served, counts as there until it begins to leave."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._there = 0
        self.most = 0
        self.served = 0

    def visit(self, port: int, stays: int = 3) -> None:
        """Come, be served, stay for some exchanges, leave."""
        with dial(port, client_context()) as sock:
            exchange(sock)
            with self._lock:
                self._there += 1
                self.served += 1
                self.most = max(self.most, self._there)
            for _ in range(stays):
                exchange(sock)
            with self._lock:
                self._there -= 1
            bid_farewell(sock)


def exchange(sock: ssl.SSLSocket) -> None:
    sock.sendall(b"still there")
    assert read_exactly(sock, 11) == b"still there"


@contextlib.contextmanager
def guests(port: int, count: int) -> Iterator[list[ssl.SSLSocket]]:
    """So many that are served and stay."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(dial(port, client_context())) for _ in range(count)]
        for sock in socks:
            exchange(sock)
        yield socks


def is_refused(port: int) -> bool:
    """Whether the tunnel closes without a word."""
    try:
        with dial(port, client_context()) as sock:
            exchange(sock)
            bid_farewell(sock)
    except (OSError, EOFError):
        return True
    return False


class Queue:
    """Clients that come at once and are served when it is their turn."""

    def __init__(self, port: int, count: int) -> None:
        self._pool = ThreadPoolExecutor(count)
        self._raw = [socket.create_connection(("127.0.0.1", port), 60) for _ in range(count)]
        self._served = threading.Semaphore(0)
        self._go = threading.Semaphore(0)
        self._all = [self._pool.submit(self._wait, sock) for sock in self._raw]

    def _wait(self, raw: socket.socket) -> None:
        with client_context().wrap_socket(raw, server_hostname="localhost") as sock:
            exchange(sock)
            self._served.release()
            self._go.acquire()
            exchange(sock)
            bid_farewell(sock)

    def next(self) -> None:
        """Wait until one more is served."""
        assert self._served.acquire(timeout=60), "nobody is served, and there is room"

    def has_more(self) -> bool:
        """Whether one more has been served than `next` was called."""
        return self._served.acquire(blocking=False)

    def dismiss(self) -> None:
        """One of those that were served may leave."""
        self._go.release()

    def end(self) -> None:
        for each in self._all:
            each.result(60)
        self._pool.shutdown()


@WORKERS
@pytest.mark.parametrize("where", ["service", "process"])
def test_so_many_are_served_at_once_and_the_others_in_turn(
    tmp_path: Path, echo: backends.Backend, workers: int, where: str
) -> None:
    key = "max_connections" if where == "service" else "process_max_connections"
    site = Site(tmp_path, echo.port, process_workers=str(workers), **{key: "3"})
    with site.run() as daemon:
        queue = Queue(daemon.port, 12)
        for _ in range(3):
            queue.next()
        for _ in range(9):
            assert site.metrics()["tlstunnel_connections_active"] <= 3
            assert not queue.has_more()
            queue.dismiss()
            queue.next()
        for _ in range(3):
            queue.dismiss()
        queue.end()
        crowd = Crowd()
        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(crowd.visit, daemon.port) for _ in range(40)]:
                done.result(60)
        assert crowd.served == 40
        assert crowd.most <= 3


@WORKERS
def test_an_address_within_its_limit_is_never_refused_and_beyond_it_always(
    tmp_path: Path, echo: backends.Backend, workers: int
) -> None:
    site = Site(tmp_path, echo.port, process_workers=str(workers), max_connections_per_ip="6")
    with site.run() as daemon:
        for _ in range(6):
            with guests(daemon.port, 6) as socks:
                assert [is_refused(daemon.port) for _ in range(4)] == [True] * 4
                bid_farewell(socks.pop())
                site.until(lambda now: now["tlstunnel_connections_active"] == 5, "a place that is free")
                assert not is_refused(daemon.port)
            site.until(lambda now: now["tlstunnel_connections_active"] == 0, "nobody")
        rejected = site.metrics()["tlstunnel_connections_rejected_total"]
        assert rejected == 6 * 4


@WORKERS
@pytest.mark.parametrize("key", ["connection_rate_per_ip", "handshake_rate"])
def test_a_rate_is_that_of_all_workers_together(tmp_path: Path, echo: backends.Backend, workers: int, key: str) -> None:
    site = Site(tmp_path, echo.port, process_workers=str(workers), **{key: '"1/h burst 12"'})
    with site.run() as daemon:
        assert [is_refused(daemon.port) for _ in range(20)] == [False] * 12 + [True] * 8


@WORKERS
def test_a_worker_that_is_killed_gives_back_its_places_and_no_others(
    tmp_path: Path, echo: backends.Backend, workers: int
) -> None:
    site = Site(tmp_path, echo.port, process_workers=str(workers), max_connections="4", max_connections_per_ip="9")
    with site.run(is_clean=False) as daemon, contextlib.ExitStack() as stack:
        held = stack.enter_context(guests(daemon.port, 4))
        for _ in range(4):
            rows = site.rows_by_port()
            victim = rows[held[0].getsockname()[1]]
            pid = next(each["pid"] for each in site.status()["workers"] if each["row"] == victim)
            lost = [sock for sock in held if rows[sock.getsockname()[1]] == victim]
            queue = Queue(daemon.port, len(lost) + 1)
            os.kill(pid, signal.SIGKILL)
            # Who waited at the worker that died waits in its queue for the next one.
            for _ in lost:
                queue.next()
            for sock in held:
                if sock not in lost:
                    exchange(sock)
            assert site.metrics()["tlstunnel_connections_active"] == 4
            assert not queue.has_more()
            for _ in range(len(lost) + 1):
                queue.dismiss()
            queue.next()
            queue.end()
            held = [sock for sock in held if sock not in lost]
            left = len(held)
            site.until(lambda now, left=left: now["tlstunnel_connections_active"] == left, "who is left")  # type: ignore[misc]
            held += stack.enter_context(guests(daemon.port, len(lost)))


@WORKERS
def test_connections_of_a_generation_that_drains_count(tmp_path: Path, echo: backends.Backend, workers: int) -> None:
    site = Site(tmp_path, echo.port, process_workers=str(workers), max_connections="3", max_connections_per_ip="4")
    with site.run() as daemon, guests(daemon.port, 3) as held:
        site.write(idle_timeout='"2h"', process_workers=str(max(1, workers // 2)))
        assert "generation 2" in reload(daemon)
        queue = Queue(daemon.port, 2)
        daemon.message("accept", "max_connections are open")
        for sock in held:
            exchange(sock)
        assert not queue.has_more()
        bid_farewell(held.pop())
        queue.next()
        assert site.metrics()["tlstunnel_connections_active"] == 3
        bid_farewell(held.pop())
        queue.next()
        for _ in range(2):
            queue.dismiss()
        queue.end()
        bid_farewell(held.pop())


@pytest.mark.parametrize("workers", [2, 4])
def test_under_load_reloads_and_kills_the_limit_holds_and_everybody_is_served(
    tmp_path: Path, echo: backends.Backend, workers: int
) -> None:
    site = Site(tmp_path, echo.port, process_workers=str(workers), max_connections="5", max_connections_per_ip="64")
    with site.run(is_clean=False) as daemon:
        crowd = Crowd()
        stop = threading.Event()

        def come_and_go() -> int:
            cut = 0
            while not stop.is_set():
                try:
                    crowd.visit(daemon.port)
                except (OSError, EOFError, AssertionError):
                    cut += 1  # its worker was killed
            return cut

        with ThreadPoolExecutor(12) as pool:
            running = [pool.submit(come_and_go) for _ in range(12)]
            try:
                for number in range(4):
                    served = crowd.served
                    site.until(lambda _, served=served: crowd.served > served + 30, "more who are served")  # type: ignore[misc]
                    site.write(idle_timeout=f'"{number + 2}h"')
                    reload(daemon)
                    assert site.metrics()["tlstunnel_connections_active"] <= 5
                    os.kill(site.workers()[0], signal.SIGKILL)
            finally:
                stop.set()
            for each in running:
                each.result(60)
        # Exactly the limit is free again: nothing leaked, neither way.
        site.until(lambda now: now["tlstunnel_connections_active"] == 0, "nobody")
        queue = Queue(daemon.port, 7)
        for _ in range(5):
            queue.next()
        assert not queue.has_more()
        for _ in range(7):
            queue.dismiss()
        queue.end()


def test_a_worker_accepts_as_many_as_it_says_it_has_descriptors_for(tmp_path: Path, echo: backends.Backend) -> None:
    """All of them get their backend, whoever comes later waits for a place, and at a drain none is missing."""
    site = Site(tmp_path, echo.port, process_workers="1")
    with site.run(prefix=("prlimit", "--nofile=100:100")) as daemon:
        said = daemon.message("start", "connections can be open at once")["message"]
        room = int(said.split()[2])
        assert room == (100 - 50 - 2) // 2
        queue = Queue(daemon.port, room + 5)
        for _ in range(room):
            queue.next()
        daemon.message("accept", "out of descriptors")
        assert site.metrics()["tlstunnel_connections_active"] == room
        for _ in range(5):
            assert not queue.has_more()
            queue.dismiss()
            queue.next()
        site.write(idle_timeout='"2h"')
        reload(daemon)
        for _ in range(room):
            queue.dismiss()
        queue.end()
        assert {record["reason"] for record in daemon.records} == {"finished"}
