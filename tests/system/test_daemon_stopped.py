"""A daemon that was stopped for longer than its time limits, as SIGSTOP or a paused virtual machine does it."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support import backends, certificates, tunnel

pytestmark = pytest.mark.slow

LIMIT_S = 2.0
LONG_S = LIMIT_S + 1.5


@contextmanager
def stopped(daemon: tunnel.Tunnel) -> Iterator[None]:
    """All of its processes stand still until the block is left, and for longer than LIMIT_S."""
    pids = [daemon.process.pid, *daemon.children()]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    begun = time.monotonic()
    try:
        yield
        time.sleep(max(0.0, begun + LONG_S - time.monotonic()))  # the time itself is what is tested
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def echo() -> Iterator[backends.Backend]:
    with backends.serve(backends.echo) as backend:
        yield backend


def dial(daemon: tunnel.Tunnel) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(certificates.ca().certificate))
    sock = socket.create_connection(("127.0.0.1", daemon.port), timeout=60)
    return context.wrap_socket(sock, server_hostname="localhost")


def read_exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := sock.recv(size - len(data))):
        data += more
    return data


def test_what_came_while_we_were_stopped_is_served_before_the_clock_is_looked_at(echo: backends.Backend) -> None:
    options = ("--idle-timeout", f"{LIMIT_S:g}s", "--max-lifetime", "1h")
    with tunnel.server(echo.port, *options) as daemon:
        links = [dial(daemon) for _ in range(8)]
        for link in links:
            link.sendall(b"before")
            assert read_exactly(link, 6) == b"before"
        with stopped(daemon):
            for link in links:
                link.sendall(b"meanwhile")
        for link in links:
            assert read_exactly(link, 9) == b"meanwhile"
            link.close()
        assert {daemon.record()["reason"] for _ in links} <= {"finished", "truncated", "client_reset"}


def test_a_silent_link_is_idle_all_the_same(echo: backends.Backend) -> None:
    with tunnel.server(echo.port, "--idle-timeout", f"{LIMIT_S:g}s") as daemon, dial(daemon) as link:
        with stopped(daemon):
            pass
        assert link.recv(1) == b""
        assert daemon.record()["reason"] == "idle_timeout"


def test_a_handshake_that_waited_for_us_is_completed(echo: backends.Backend) -> None:
    """Its client has sent what it had to: the rest of its first message came while we were stopped."""
    context = ssl.create_default_context(cafile=str(certificates.ca().certificate))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    hello = outgoing.read()
    with (
        tunnel.server(echo.port, "--handshake-timeout", f"{LIMIT_S:g}s") as daemon,
        socket.create_connection(("127.0.0.1", daemon.port), timeout=60) as sock,
    ):
        sock.sendall(hello[:100])
        with stopped(daemon):
            sock.sendall(hello[100:])
        while True:
            try:
                session.do_handshake()
                break
            except ssl.SSLWantReadError:
                data = sock.recv(65536)
                assert data, "cut in the handshake"
                incoming.write(data)
        session.write(b"in time")
        sock.sendall(outgoing.read())
        answer = b""
        while len(answer) < 7:
            try:
                answer += session.read(7)
            except ssl.SSLWantReadError:
                incoming.write(sock.recv(65536))
        assert answer == b"in time"


def test_a_drain_lets_finish_what_has_finished_while_we_were_stopped(echo: backends.Backend) -> None:
    with tunnel.server(echo.port, "--drain-timeout", f"{LIMIT_S:g}s") as daemon:
        link = dial(daemon)
        link.sendall(b"last words")
        assert read_exactly(link, 10) == b"last words"
        daemon.terminate()
        daemon.message("stop", "draining")
        with stopped(daemon):
            link.sendall(b"goodbye")
            link.shutdown(socket.SHUT_WR)
        with link:
            link.recv(1)
        assert daemon.wait() == 0
        assert daemon.record()["reason"] in ("finished", "truncated")
