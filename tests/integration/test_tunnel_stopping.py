"""Stopping: SIGTERM lets what is open finish, cuts what does not, and says which in the exit status."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading

import pytest

from tests.support import backends, clients, tunnel
from tests.support.wire_peers import digest, make_bytes

DATA = make_bytes(4 << 20, 12)


def slow_giver(sock: socket.socket) -> None:
    """A transfer that goes on for as long as the client wants it to."""
    for at in range(0, len(DATA), 1 << 18):
        sock.recv(1)
        sock.sendall(DATA[at : at + (1 << 18)])
    backends.half_close(sock)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_transfer_in_flight_is_finished_and_the_exit_status_is_0(number: signal.Signals) -> None:
    with (
        backends.serve(slow_giver) as backend,
        tunnel.server(backend.port) as daemon,
        clients.connect(daemon.port) as client,
    ):
        client.send(b".")
        got = client.read(1 << 18)
        daemon.process.send_signal(number)
        daemon.message("stop", "draining")
        wait_until_refused(daemon.port)
        while len(got) < len(DATA):
            client.send(b".")
            got += client.read(1 << 18)
        client.close_notify(fin=True)
        client.read_all()
        assert digest(got) == digest(DATA)
        assert client.has_close_notify
        assert daemon.wait() == 0
        assert daemon.records[-1]["reason"] == "finished"
        assert daemon.records[-1]["bytes_reverse"] == len(DATA)


def wait_until_refused(port: int) -> None:
    """Until nobody listens there. Not in a rush: every attempt that still gets through is a line of log."""
    pause = threading.Event()
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionError:
            return
        pause.wait(0.01)


def test_a_stuck_connection_is_cut_after_drain_timeout_and_the_exit_status_is_1() -> None:
    with (
        backends.serve(slow_giver) as backend,
        tunnel.server(backend.port, "--drain-timeout", "400ms", exit_code=1) as daemon,
        clients.connect(daemon.port) as client,
    ):
        client.send(b".")
        client.read(1 << 18)
        daemon.terminate()
        with contextlib.suppress(OSError):
            assert client.read_all() == b""
        assert not client.has_close_notify, "it was cut, and must not look complete"
        record = daemon.record()
        assert (record["reason"], record["fault"]) == ("drained", "us")
        assert daemon.wait() == 1
        assert "1 connection was cut" in daemon.message("stop", "stopped")["message"]


def test_a_second_sigterm_hastens() -> None:
    with (
        backends.serve(slow_giver) as backend,
        tunnel.server(backend.port, "--drain-timeout", "never", exit_code=1) as daemon,
        clients.connect(daemon.port) as client,
    ):
        client.send(b".")
        client.read(1 << 18)
        daemon.terminate()
        daemon.message("stop", "draining")
        assert daemon.process.poll() is None
        client.send(b".")
        assert client.read(1 << 18) == DATA[1 << 18 : 2 << 18]
        daemon.terminate()
        assert daemon.record()["reason"] == "drained"
        assert daemon.wait() == 1


def test_a_handshake_under_way_may_finish_while_draining_and_one_that_stalls_is_cut() -> None:
    with (
        backends.serve(backends.echo) as backend,
        tunnel.server(backend.port, "--drain-timeout", "500ms", exit_code=1) as daemon,
        clients.raw(daemon.port) as good_sock,
        clients.raw(daemon.port) as stalled,
    ):
        stalled.sendall(b"\x16\x03\x01")
        good = clients.Client(good_sock, clients.client_context())
        with clients.connect(daemon.port) as probe:  # whoever came before it has been accepted
            probe.send(b"x")
            assert probe.read(1) == b"x"
            probe.close_notify(fin=True)
            probe.read_all()
        daemon.record()
        daemon.terminate()
        daemon.message("stop", "draining")
        good.handshake().send(b"ping")
        assert good.read(4) == b"ping"
        good.close_notify(fin=True)
        assert good.read_all() == b""
        assert daemon.record()["reason"] == "finished"
        assert clients.read_to_end(stalled) == (b"", False)
        assert daemon.record()["reason"] == "shutdown"


def test_with_nothing_open_it_ends_at_once_and_says_so() -> None:
    with tunnel.server(backends.unused_port()) as daemon:
        daemon.terminate()
        assert daemon.wait() == 0
        assert daemon.message("stop", "stopped")["level"] == "info"
        assert not daemon.records
