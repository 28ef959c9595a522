"""Backends that are not there, slow, rude or quick: the reason is named, the client gets a clean end, never a hang."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import backends, clients, tunnel
from tests.support.wire_peers import digest, make_bytes


def ends_cleanly(port: int) -> clients.Client:
    """Shake hands, and expect nothing but a clean end."""
    with clients.connect(port) as client:
        assert client.read_all() == b""
        assert client.has_close_notify
    return client


def test_a_backend_that_refuses_is_named_and_the_client_ends_with_close_notify() -> None:
    port = backends.unused_port()
    with tunnel.server(port) as daemon:
        ends_cleanly(daemon.port)
        record = daemon.record()
        assert (record["reason"], record["stage"], record["fault"]) == ("refused", "dial", "backend")
        assert record["target"] == f"127.0.0.1:{port}"
        assert record["version"] == "TLSv1.3"
        assert f"127.0.0.1:{port}" in record["detail"]


def test_a_backend_whose_name_does_not_resolve_is_named() -> None:
    with tunnel.server("no-such-name.localhost.invalid:80", "--unsafe-target") as daemon:
        ends_cleanly(daemon.port)
        record = daemon.record()
        assert (record["reason"], record["stage"]) == ("unresolvable", "dial")


def test_a_unix_socket_that_is_not_there_or_not_ours_is_named(tmp_path: Path) -> None:
    with tunnel.server(f"unix:{tmp_path}/none.sock") as daemon:
        ends_cleanly(daemon.port)
        assert daemon.record()["reason"] == "no_socket"


class Full:
    """A listener whose queue is full, so that who connects waits."""

    def __init__(self) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.sock.settimeout(clients.PATIENCE_S)
        self.port = int(self.sock.getsockname()[1])
        self._filler = socket.create_connection(("127.0.0.1", self.port))
        self._accepted: list[socket.socket] = []

    def greet(self, words: bytes) -> None:
        """Make room, accept the next who comes, and speak first."""
        for _ in range(2):
            self._accepted.append(self.sock.accept()[0])
        self._accepted[-1].sendall(words)

    def __enter__(self) -> Full:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (self.sock, self._filler, *self._accepted):
            sock.close()


def test_a_backend_that_does_not_accept_ends_at_connect_timeout() -> None:
    with Full() as full, tunnel.server(full.port, "--connect-timeout", "300ms") as daemon:
        ends_cleanly(daemon.port)
        record = daemon.record()
        assert (record["reason"], record["stage"], record["fault"]) == ("connect_timeout", "dial", "backend")
        assert record["total_s"] >= 0.3


@pytest.mark.slow
def test_a_backend_that_is_slow_to_accept_and_speaks_first_is_heard() -> None:
    """What it says may stand in the socket before the connection is seen to be there, in one edge with it."""
    with (
        Full() as full,
        tunnel.server(full.port, "--connect-timeout", "30s") as daemon,
        clients.connect(daemon.port) as client,
    ):
        (worker,) = daemon.children()
        wait_until_dialing(worker, full.port)
        os.kill(worker, signal.SIGSTOP)
        full.greet(b"220 ready\r\n")
        os.kill(worker, signal.SIGCONT)
        assert client.read(11) == b"220 ready\r\n"
        client.close_notify(fin=True)
        full.__exit__()
        client.read_all()
        assert daemon.record()["reason"] == "finished"


def wait_until_dialing(pid: int, port: int) -> None:
    """Until a process has a connection under way to a port (02 is SYN_SENT in /proc/net/tcp)."""
    wanted = re.compile(rf"0100007F:{port:04X} 02 (?:\S+ +){{5}}(\d+)")
    deadline = time.monotonic() + clients.PATIENCE_S
    while time.monotonic() < deadline:
        under_way = set(wanted.findall(Path("/proc/net/tcp").read_text()))
        if under_way & set(sockets_of(pid)):
            return
    raise AssertionError("no connection is under way")


def sockets_of(pid: int) -> Iterator[str]:
    """The inodes of a process's sockets."""
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            link = os.readlink(f"/proc/{pid}/fd/{fd}")
            if link.startswith("socket:["):
                yield link[8:-1]


@pytest.mark.parametrize("said", [b"", b"half an answ"])
def test_a_backend_that_resets_mid_stream_is_named_and_the_client_sees_a_cut(said: bytes) -> None:
    def rude(sock: socket.socket) -> None:
        sock.recv(1)
        sock.sendall(said)
        if said:
            sock.recv(1)
        backends.reset(sock)

    with backends.serve(rude) as backend, tunnel.server(backend.port) as daemon:
        with clients.connect(daemon.port) as client:
            client.send(b"?")
            assert client.read(len(said)) == said
            client.send(b"!")
            assert client.read_all() == b""
            assert not client.has_close_notify, "an answer that was cut must not look complete (RFC 8446 section 6.1)"
        record = daemon.record()
        assert (record["reason"], record["stage"], record["fault"]) == ("backend_reset", "link", "nobody")
        assert record["bytes_reverse"] == len(said)


def test_a_backend_that_closes_first_leaves_a_proper_end() -> None:
    with (
        backends.serve(lambda sock: sock.sendall(b"all there is")) as backend,
        tunnel.server(backend.port) as daemon,
        clients.connect(daemon.port) as client,
    ):
        assert client.read_all() == b"all there is"
        assert client.has_close_notify
        client.close_notify(fin=True)
        assert daemon.record()["reason"] == "finished"


def test_a_backend_that_is_gone_before_the_client_has_spoken_still_leaves_its_words() -> None:
    with (
        backends.serve(lambda sock: sock.sendall(make_bytes(200_000))) as backend,
        tunnel.server(backend.port) as daemon,
        clients.connect(daemon.port) as client,
    ):
        assert digest(client.read_all()) == digest(make_bytes(200_000))
        client.close_notify(fin=True)
        assert daemon.record()["reason"] == "finished"


def test_a_backend_that_answers_early_and_closes_with_input_unread_has_its_answer_delivered() -> None:
    """As HTTP servers do with an upload that is too large. Without us the answer would arrive, so it must with us."""
    answer = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n"
    is_stuck = threading.Event()

    def refusing(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.recv(10)
        is_stuck.wait(backends.PATIENCE_S)
        sock.sendall(answer)

    with (
        backends.serve(refusing) as backend,
        tunnel.server(backend.port) as daemon,
        clients.connect(daemon.port) as client,
    ):
        client.tls.write(bytes(32 << 20))
        wire = client._outgoing.read()
        client.sock.setblocking(False)
        # The upload fills every buffer on the way before the answer comes.
        while select.select([], [client.sock], [], 0.3)[1]:
            wire = wire[client.sock.send(wire) :]
        client.sock.settimeout(clients.PATIENCE_S)
        is_stuck.set()
        assert client.read_all() == answer
        assert daemon.record()["reason"] == "backend_reset"


def test_the_second_target_is_used_while_the_first_refuses() -> None:
    with backends.serve(backends.echo) as backend:
        options = ["--target", f"127.0.0.1:{backend.port}"]
        with tunnel.server(backends.unused_port(), *options) as daemon:
            for _ in range(3):
                with clients.connect(daemon.port) as client:
                    client.send(b"ping")
                    assert client.read(4) == b"ping"
                    client.close_notify(fin=True)
                    client.read_all()
                assert daemon.record()["target"] == f"127.0.0.1:{backend.port}"
