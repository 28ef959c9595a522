"""How connections end through the real daemon: half-closes both ways, timeouts, and peers that never read."""

from __future__ import annotations

import socket
import threading

import pytest

from tests.support import backends, clients, tunnel
from tests.support.wire_peers import client_context, digest, make_bytes, server_context

REPLY = make_bytes(1 << 20, 11)


def answer_after_eof(sock: socket.socket) -> None:
    """Hear everything, then give a long reply."""
    heard = backends.read_all(sock)
    sock.sendall(heard + REPLY)
    backends.half_close(sock)


@pytest.mark.parametrize("version", ["1.3", "1.2"])
@pytest.mark.parametrize("how", ["close_notify", "close_notify and FIN", "FIN"])
def test_a_megabyte_reply_after_the_clients_half_close_arrives_whole(how: str, version: str) -> None:
    with (
        backends.serve(answer_after_eof) as backend,
        tunnel.server(backend.port) as daemon,
        clients.connect(daemon.port, context=client_context(version)) as client,
    ):
        client.send(b"question")
        if how == "FIN":
            client.sock.shutdown(socket.SHUT_WR)
        else:
            client.close_notify(fin="FIN" in how)
        assert digest(client.read_all()) == digest(b"question" + REPLY)
        assert client.has_close_notify
        if how == "close_notify":
            client.sock.close()
        record = daemon.record()
        assert record["reason"] == ("truncated" if how == "FIN" else "finished")
        assert (record["bytes_forward"], record["bytes_reverse"]) == (8, 8 + len(REPLY))


@pytest.mark.parametrize("version", ["1.3", "1.2"])
def test_in_client_mode_too_the_reply_follows_the_half_close(version: str) -> None:
    """The server is another tunnel: what stands behind it sees the FIN, and its reply comes back through both."""
    with (
        backends.serve(answer_after_eof) as backend,
        tunnel.server(backend.port, "--max-version", version) as far,
        tunnel.client(far.port) as near,
        clients.raw(near.port) as sock,
    ):
        sock.sendall(b"question")
        sock.shutdown(socket.SHUT_WR)
        assert digest(backends.read_all(sock)) == digest(b"question" + REPLY)
        assert near.record()["reason"] == far.record()["reason"] == "finished"


@pytest.mark.parametrize("version", ["1.3", "1.2"])
def test_a_backend_that_half_closes_first_still_hears_the_client(version: str) -> None:
    heard: list[bytes] = []

    def first(sock: socket.socket) -> None:
        sock.sendall(b"goodbye")
        sock.shutdown(socket.SHUT_WR)
        heard.append(backends.read_all(sock))

    with (
        backends.serve(first) as backend,
        tunnel.server(backend.port) as daemon,
        clients.connect(daemon.port, context=client_context(version)) as client,
    ):
        assert client.read_all() == b"goodbye"
        client.send(REPLY)
        client.close_notify(fin=True)
        assert daemon.record()["reason"] == "finished"
    assert digest(heard[0]) == digest(REPLY)


@pytest.mark.parametrize("version", ["1.3", "1.2"])
def test_a_client_that_never_reads_loses_nothing_of_what_it_sent(version: str) -> None:
    """Session tickets that lie unread in its socket when it closes would make its kernel send a reset."""
    heard: list[bytes] = []
    with (
        backends.serve(lambda sock: heard.append(backends.read_all(sock))) as backend,
        tunnel.server(backend.port) as daemon,
    ):
        for number in range(3):
            with clients.raw(daemon.port) as sock:
                client = clients.Client(sock, client_context(version)).handshake()
                client.send(REPLY)
                client.close_notify()
            assert daemon.record()["reason"] == "finished"
            assert digest(heard[number]) == digest(REPLY)


# Timeouts. Each test waits for the event; that it did not come early is seen in the record.


@pytest.mark.slow
def test_idle_timeout_ends_a_quiet_connection_properly_and_traffic_puts_it_off() -> None:
    with (
        backends.serve(backends.echo) as backend,
        tunnel.server(backend.port, "--idle-timeout", "1s") as daemon,
        clients.connect(daemon.port) as client,
    ):
        # Echoes for longer than the timeout: the round trips take their time from a socket that does nothing.
        ticking = clients.raw(daemon.port)
        ticking.settimeout(0.4)
        for _ in range(4):
            with pytest.raises(TimeoutError):
                ticking.recv(1)
            client.send(b"x")
            assert client.read(1) == b"x"
        ticking.close()
        assert client.read_all() == b""
        assert client.has_close_notify
        record = next(r for r in (daemon.record(), daemon.record()) if r["reason"] != "eof")
        assert (record["reason"], record["fault"]) == ("idle_timeout", "nobody")
        assert record["total_s"] >= 2.4


@pytest.mark.slow
def test_half_close_timeout_is_an_idle_timer_that_a_long_reply_resets() -> None:
    is_over = threading.Event()

    def slow(sock: socket.socket) -> None:
        backends.read_all(sock)
        for _ in range(4):
            is_over.wait(0.4)
            sock.sendall(b"piece ")
        is_over.wait(backends.PATIENCE_S)

    with (
        backends.serve(slow) as backend,
        tunnel.server(backend.port, "--half-close-timeout", "1s") as daemon,
        clients.connect(daemon.port) as client,
    ):
        client.close_notify()
        assert client.read_all() == b"piece " * 4
        assert client.has_close_notify
        record = daemon.record()
        is_over.set()
        assert record["reason"] == "half_close_timeout"
        assert record["total_s"] >= 2.4


@pytest.mark.slow
def test_max_lifetime_ends_a_busy_connection() -> None:
    with (
        backends.serve(backends.echo) as backend,
        tunnel.server(backend.port, "--max-lifetime", "500ms") as daemon,
        clients.connect(daemon.port) as client,
    ):
        while True:
            try:
                client.send(b"x")
                if client.read(1) != b"x":
                    break
            except OSError:
                break
        record = daemon.record()
        assert record["reason"] == "max_lifetime"
        assert record["total_s"] >= 0.5


def test_in_client_mode_a_backend_that_does_not_shake_hands_ends_at_handshake_timeout() -> None:
    with (
        backends.serve(lambda sock: sock.recv(1) and backends.read_all(sock)) as backend,
        tunnel.client(backend.port, "--handshake-timeout", "300ms") as daemon,
        clients.raw(daemon.port) as sock,
    ):
        assert backends.read_all(sock) == b""
        record = daemon.record()
        assert (record["reason"], record["stage"]) == ("timeout", "handshake")


def test_a_client_that_never_reads_costs_a_bounded_amount_of_memory() -> None:
    """Sixty of them, each with a backend that would send for ever: under 128 KiB each."""
    count = 60

    def endless(sock: socket.socket) -> None:
        while True:
            sock.sendall(bytes(1 << 16))

    with backends.serve(endless) as backend, tunnel.server(backend.port) as daemon:
        # One has been served, so that what is allocated once is there.
        with clients.connect(daemon.port) as client:
            assert len(client.read(1 << 20)) == 1 << 20
            client.reset()
        daemon.record()
        before = daemon.memory("RssAnon")
        deaf = []
        for _ in range(count):
            client = clients.Client(clients.raw(daemon.port), client_context()).handshake()
            client.read(1)
            deaf.append(client)
        # One more that reads shows that the others do not hold it up; meanwhile their buffers fill.
        with clients.connect(daemon.port) as client:
            assert len(client.read(8 << 20)) == 8 << 20
            client.reset()
        daemon.record()
        each = (daemon.memory("RssAnon") - before) / count
        for client in deaf:
            client.reset()
        for _ in deaf:
            assert daemon.record()["reason"] == "client_reset"
        assert each < 128 * 1024, f"{each / 1024:.0f} KiB for each"


def test_strict_close_demands_close_notify() -> None:
    with backends.serve(backends.echo) as backend, tunnel.server(backend.port, "--strict-close") as daemon:
        for is_proper in (True, False):
            with clients.connect(daemon.port) as client:
                client.send(b"x")
                assert client.read(1) == b"x"
                if is_proper:
                    client.close_notify(fin=True)
                else:
                    client.sock.shutdown(socket.SHUT_WR)
                client.read_all()
                assert client.has_close_notify is is_proper
            assert daemon.record()["reason"] == ("finished" if is_proper else "truncated_strict")


def test_in_client_mode_a_backends_close_notify_is_the_end_the_client_sees() -> None:
    with (
        backends.serve(lambda sock: sock.sendall(b"bye"), context=server_context()) as backend,
        tunnel.client(backend.port) as daemon,
        clients.raw(daemon.port) as sock,
    ):
        assert backends.read_all(sock) == b"bye"
        sock.close()
        assert daemon.record()["reason"] in {"truncated", "finished"}
