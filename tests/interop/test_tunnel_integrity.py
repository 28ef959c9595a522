"""Every byte arrives, once and in order, in both directions at once: by hash, with Python's TLS on the other side.

Python's `ssl` is the client of a tunnel in server mode and the server of one in client mode; it runs on the system's
OpenSSL, the tunnel on the one in `cryptography`.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from tests.support import certificates, tunnel
from tests.support.traffic import TLS, Digest, Plain, Stream, backend, receive, talk

pytestmark = pytest.mark.interop

MIB = 1 << 20
SIZES = [0, 1, 16384, 16385, MIB]
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def client_context(version: str | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certificates.ca().certificate))
    if version is not None:
        context.minimum_version = context.maximum_version = VERSIONS[version]
    return context


def server_context(version: str | None = None) -> ssl.SSLContext:
    pair = certificates.server("localhost", "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    if version is not None:
        context.minimum_version = context.maximum_version = VERSIONS[version]
    return context


class Rig:
    """Tunnels of both modes, alone and in series, before backends that answer with the stream that the test chose."""

    def __init__(self, stack: ExitStack, *options: str) -> None:
        self.reply = Stream(0)
        self.client_closes_first = True
        self.tls_server = server_context()
        self.plain_backend = stack.enter_context(backend(self._answer_plain))
        self.tls_backend = stack.enter_context(backend(self._answer_tls))
        self.server = stack.enter_context(tunnel.server(self.plain_backend.port, *options))
        self.client = stack.enter_context(tunnel.client(self.tls_backend.port, *options))
        self.series = stack.enter_context(tunnel.client(self.server.port, *options))

    def _answer_plain(self, sock: socket.socket) -> Digest:
        return talk(Plain(sock), self.reply, half_close=not self.client_closes_first)

    def _answer_tls(self, sock: socket.socket) -> Digest:
        end = TLS(sock, self.tls_server, server_side=True)
        return talk(end, self.reply, half_close=not self.client_closes_first)

    def exchange(self, route: str, ours: Stream, theirs: Stream, *, client_closes_first: bool = True) -> None:
        """Send both streams at once through a route, and compare what came with what was sent."""
        self.reply, self.client_closes_first = theirs, client_closes_first
        entry: tunnel.Tunnel = getattr(self, route)
        service = self.tls_backend if route == "client" else self.plain_backend
        with socket.create_connection(("127.0.0.1", entry.port)) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end = TLS(sock, client_context(), server_hostname="localhost") if route == "server" else Plain(sock)
            came = talk(end, ours, half_close=client_closes_first)
        assert came == theirs.digest()
        assert service.got() == ours.digest()
        for daemon in (entry, self.server) if route == "series" else (entry,):
            record = daemon.record()
            assert record["reason"] == "finished"
            assert (record["bytes_forward"], record["bytes_reverse"]) == (ours.size, theirs.size)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with ExitStack() as stack:
        yield Rig(stack)


ROUTES = pytest.mark.parametrize("route", ["server", "client", "series"])


@ROUTES
@pytest.mark.parametrize("size", SIZES)
def test_both_directions_arrive_whole(rig: Rig, route: str, size: int) -> None:
    rig.exchange(route, Stream(size, seed=1), Stream(size, seed=2))


@ROUTES
def test_directions_of_different_length_arrive_whole(rig: Rig, route: str) -> None:
    rig.exchange(route, Stream(3 * MIB + 7, seed=1), Stream(1, seed=2))
    rig.exchange(route, Stream(1, seed=3), Stream(3 * MIB + 7, seed=4))


@ROUTES
def test_a_backend_that_finishes_first_still_gets_the_rest(rig: Rig, route: str) -> None:
    rig.exchange(route, Stream(MIB, seed=1), Stream(16385, seed=2), client_closes_first=False)


@ROUTES
@pytest.mark.parametrize("chunk", [1, 13])
def test_tiny_writes_arrive_whole(rig: Rig, route: str, chunk: int) -> None:
    rig.exchange(route, Stream(3001, seed=1, chunk=chunk), Stream(2003, seed=2, chunk=chunk))


@pytest.mark.parametrize("version", VERSIONS)
def test_python_as_client_and_as_server_in_each_version(rig: Rig, version: str) -> None:
    rig.tls_server = server_context(version)
    rig.exchange("client", Stream(40_000, seed=1), Stream(40_000, seed=2))
    rig.reply, rig.client_closes_first = Stream(40_000, seed=3), True
    with socket.create_connection(("127.0.0.1", rig.server.port)) as sock:
        end = TLS(sock, client_context(version), server_hostname="localhost")
        assert end.object.version() == f"TLSv{version}"
        assert talk(end, Stream(40_000, seed=4)) == rig.reply.digest()
    assert rig.plain_backend.got() == Stream(40_000, seed=4).digest()
    assert rig.server.record()["version"] == f"TLSv{version}"


def test_a_fin_that_comes_after_close_notify_is_no_truncation() -> None:
    """The tunnel has forwarded the end of the stream already when the connection's end is reported on its own."""
    was_told, has_closed = threading.Event(), threading.Event()
    reply = Stream(MIB, seed=7)

    def answer(sock: socket.socket) -> Digest:
        asked = receive(sock)
        was_told.set()
        assert has_closed.wait(tunnel.PATIENCE_S)
        talk(Plain(sock), reply)
        return asked

    with ExitStack() as stack:
        service = stack.enter_context(backend(answer))
        daemon = stack.enter_context(tunnel.server(service.port, "--strict-close"))
        sock = stack.enter_context(closing(socket.create_connection(("127.0.0.1", daemon.port))))
        end = TLS(sock, client_context(), server_hostname="localhost")
        end.end()
        end.flush()  # close_notify, without a FIN
        assert was_told.wait(tunnel.PATIENCE_S)
        sock.shutdown(socket.SHUT_WR)
        has_closed.set()
        assert talk(end, Stream(0)) == reply.digest()
        assert service.got() == Stream(0).digest()
        assert daemon.record()["reason"] == "finished"


@pytest.mark.slow
def test_many_connections_at_once_do_not_mix(rig: Rig) -> None:
    """Each sends its own stream; all get the same one."""
    rig.reply, rig.client_closes_first = Stream(200_000, seed=9), True
    wanted = rig.reply.digest()
    came: list[Digest | Exception] = []

    def one(seed: int) -> None:
        try:
            with socket.create_connection(("127.0.0.1", rig.series.port)) as sock:
                came.append(talk(Plain(sock), Stream(100_000 + seed, seed=seed % 4)))
        except Exception as exc:  # noqa: BLE001 - shown in the assertion
            came.append(exc)

    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(tunnel.PATIENCE_S)
    assert came == [wanted] * len(threads)
    got = {rig.plain_backend.got() for _ in threads}
    assert got == {Stream(100_000 + seed, seed=seed % 4).digest() for seed in range(24)}
    for _ in threads:
        assert rig.series.record()["reason"] == rig.server.record()["reason"] == "finished"


@pytest.mark.slow
def test_256_mib_arrive_whole_in_both_directions_at_once() -> None:
    with ExitStack() as stack:
        Rig(stack).exchange("series", Stream(256 * MIB, seed=1), Stream(256 * MIB, seed=2))


@pytest.mark.slow
def test_a_1_gib_reply_after_the_clients_half_close_arrives_whole() -> None:
    """Asked for with one line and a half-close, as `printf ... | nc -N` does it."""
    reply = Stream(1024 * MIB, seed=5)

    def answer(sock: socket.socket) -> Digest:
        asked = receive(sock)
        talk(Plain(sock), reply)
        return asked

    with ExitStack() as stack:
        service = stack.enter_context(backend(answer))
        daemon = stack.enter_context(tunnel.server(service.port))
        sock = stack.enter_context(closing(socket.create_connection(("127.0.0.1", daemon.port))))
        question = Stream(100, seed=6)
        came = talk(TLS(sock, client_context(), server_hostname="localhost"), question)
        assert came == reply.digest()
        assert service.got() == question.digest()
        assert daemon.record()["reason"] == "finished"
