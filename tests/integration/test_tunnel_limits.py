"""max_connections and running out of descriptors: accepting pauses, says so once, costs nothing, and goes on."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from tests.support import backends, clients, tunnel

NOT_SPINNING_S = 0.5
"""CPU seconds; one second of spinning would use twice that."""


def hold(sock: socket.socket) -> None:
    """Echo one byte at a time until the client leaves."""
    while data := sock.recv(1):
        sock.sendall(data)


def is_served(client: clients.Client) -> bool:
    client.send(b"x")
    return client.read(1) == b"x"


def test_max_connections_stops_accepting_and_resumes_when_one_leaves() -> None:
    with (
        backends.serve(hold) as backend,
        tunnel.server(backend.port, "--max-connections", "3", "--handshake-timeout", "never") as daemon,
        contextlib.ExitStack() as stack,
    ):
        inside = [stack.enter_context(clients.connect(daemon.port)) for _ in range(3)]
        assert all(is_served(client) for client in inside)
        # The fourth waits in the kernel's queue: connected, but nobody answers its hello.
        waiting = stack.enter_context(clients.raw(daemon.port))
        daemon.message("accept", "max_connections")
        waiting.settimeout(0.5)
        late = clients.Client(waiting, clients.client_context())
        waiting.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            late.handshake()
            raise AssertionError("a fourth connection was accepted")
        assert all(is_served(client) for client in inside)
        before = daemon.cpu_s()
        waiting.settimeout(1.0)
        with contextlib.suppress(TimeoutError):
            waiting.recv(1)
            raise AssertionError("the fourth connection was answered")
        assert daemon.cpu_s() - before < NOT_SPINNING_S, "it spins while it is full"
        waiting.settimeout(clients.PATIENCE_S)
        inside[0].close_notify(fin=True)
        inside[0].read_all()
        daemon.record()
        assert is_served(late.handshake())
        for client in (*inside[1:], late):
            client.close_notify(fin=True)
            client.read_all()
        assert [daemon.record()["reason"] for _ in range(3)] == ["finished"] * 3
    assert len(daemon.records) == 4


def test_out_of_descriptors_pauses_is_said_once_does_not_spin_and_recovers() -> None:
    with (
        backends.serve(hold) as backend,
        tunnel.server(backend.port, nofile=64) as daemon,
        contextlib.ExitStack() as stack,
    ):
        inside: list[clients.Client] = []
        queued: list[socket.socket] = []
        while not any(message["event"] == "accept" for message in daemon.messages):
            sock = stack.enter_context(clients.raw(daemon.port))
            client = clients.Client(sock, clients.client_context())
            sock.settimeout(0.3)
            try:
                client.handshake()
                if not is_served(client):
                    continue  # accepted with the last descriptor, so none was left for the backend
            except TimeoutError:
                queued.append(sock)
                continue
            sock.settimeout(clients.PATIENCE_S)
            inside.append(client)
            assert len(inside) < 64
        assert len(inside) > 10
        assert all(is_served(client) for client in inside), "who is inside is not disturbed"
        before, began = daemon.cpu_s(), time.monotonic()
        threading.Event().wait(1.5)
        used = daemon.cpu_s() - before
        assert used < (time.monotonic() - began) / 4, "it spins while it is out of descriptors"
        said = [message for message in daemon.messages if message["event"] == "accept"]
        assert len(said) == 1, said
        assert "descriptors" in said[0]["message"]
        assert said[0]["level"] == "warning"
        # Whoever was waiting gives up, those inside leave, and the next is served as if nothing had been.
        for sock in queued:
            sock.close()
        for client in inside:
            client.close_notify(fin=True)
            client.read_all()
        with clients.connect(daemon.port) as client:
            assert is_served(client)
            client.close_notify(fin=True)
            client.read_all()
        daemon.until(
            lambda: "finished" in {record["reason"] for record in daemon.records}, "a record of who was served"
        )
        reasons = {record["reason"] for record in daemon.records}
        assert reasons <= {"finished", "no_descriptors", "eof", "reset", "truncated", "client_reset"}
