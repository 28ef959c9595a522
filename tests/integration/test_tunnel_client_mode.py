"""Client mode: chain and host name are verified always, names are resolved anew, sessions resume, ALPN is offered."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable

import pytest

from tests.support import backends, certificates, clients, tunnel
from tests.support.certificates import Pair
from tests.support.wire_peers import server_context

ECHO = b"through and back"


def context_for(pair: Pair, version: str = "1.3") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    if version == "1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


def echo_some(sock: socket.socket) -> None:
    """TLS in the standard library cannot half-close, so the length says when it is over."""
    data = b""
    while len(data) < len(ECHO) and (piece := sock.recv(100)):
        data += piece
    sock.sendall(data)
    if isinstance(sock, ssl.SSLSocket):
        sock.unwrap().close()


def talk(port: int) -> bytes:
    with clients.raw(port) as sock:
        sock.sendall(ECHO)
        got = b""
        while len(got) < len(ECHO) and (piece := sock.recv(100)):
            got += piece
        sock.shutdown(socket.SHUT_WR)
        return got + backends.read_all(sock)


REFUSED: dict[str, tuple[Callable[[], Pair], str]] = {
    "another name": (lambda: certificates.server("another.example"), "name_mismatch"),
    "a name in the common name only": (lambda: certificates.issue("localhost"), "name_mismatch"),
    "unknown CA": (lambda: certificates.server("localhost", authority="another CA"), "unknown_ca"),
    "self-signed": (lambda: certificates.server("localhost", self_signed=True), "unknown_ca"),
    "expired": (lambda: certificates.expired("localhost"), "expired_certificate"),
    "not yet valid": (lambda: certificates.not_yet_valid("localhost"), "not_yet_valid_certificate"),
    "for clients": (lambda: certificates.client("localhost", dns=("localhost",)), "wrong_purpose"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_server_that_cannot_prove_its_name_gets_an_alert_and_none_of_the_data(what: str) -> None:
    make, reason = REFUSED[what]
    heard: list[object] = []

    def listen(sock: socket.socket) -> None:
        try:
            heard.append(sock.recv(100))
        except ssl.SSLError as exc:
            heard.append(exc.reason)

    with (
        backends.serve(listen, context=context_for(make())) as backend,
        tunnel.client(backend.port) as daemon,
        clients.raw(daemon.port) as sock,
    ):
        sock.sendall(b"secret")
        data, _ = clients.read_to_end(sock)
        assert data == b""
        record = daemon.record()
        assert (record["reason"], record["stage"], record["fault"]) == (reason, "handshake", "backend")
        assert record["server_name"] in (None, "localhost")
        assert (record["bytes_forward"], record["bytes_reverse"]) == (0, 0)
    assert b"secret" not in heard


def test_server_name_is_sent_and_verified_in_place_of_the_targets_name() -> None:
    seen: list[str | None] = []
    context = context_for(certificates.server("db.example"))
    context.sni_callback = lambda _ssl, name, _context: seen.append(name)
    with backends.serve(echo_some, context=context) as backend:
        with tunnel.client(f"127.0.0.1:{backend.port}", "--server-name", "db.example") as daemon:
            assert talk(daemon.port) == ECHO
            assert daemon.record()["server_name"] == "db.example"
        with tunnel.client(f"127.0.0.1:{backend.port}") as daemon:
            assert talk(daemon.port) == b""
            assert daemon.record()["reason"] == "name_mismatch"
    assert seen == ["db.example", None], "an address is verified, but never sent (RFC 6066 section 3)"


def test_an_address_is_verified_as_an_address() -> None:
    with (
        backends.serve(echo_some, context=context_for(certificates.server("127.0.0.1"))) as backend,
        tunnel.client(f"127.0.0.1:{backend.port}") as daemon,
    ):
        assert talk(daemon.port) == ECHO
        assert daemon.record()["reason"] == "finished"


@pytest.mark.parametrize("version", ["1.3", "1.2"])
def test_sessions_resume_one_after_the_other_and_beside_each_other(version: str) -> None:
    with (
        backends.serve(echo_some, context=context_for(certificates.server("localhost"), version)) as backend,
        tunnel.client(backend.port) as daemon,
    ):
        for is_resumed in (False, True, True):
            assert talk(daemon.port) == ECHO
            record = daemon.record()
            assert (record["reason"], record["resumed"]) == ("finished", is_resumed)
            assert record["version"] == f"TLSv{version}"
        # One that stays open lends its ticket to the next, and nobody uses it twice.
        with clients.raw(daemon.port) as long:
            long.sendall(ECHO[:4])
            assert talk(daemon.port) == ECHO
            long.sendall(ECHO[4:])
            long.shutdown(socket.SHUT_WR)
            assert backends.read_all(long) == ECHO
        assert daemon.record()["reason"] == daemon.record()["reason"] == "finished"


def test_a_server_that_forgets_sessions_is_no_obstacle() -> None:
    contexts = [context_for(certificates.server("localhost")) for _ in range(2)]
    with backends.serve(echo_some, context=contexts[0]) as backend, tunnel.client(backend.port) as daemon:
        assert talk(daemon.port) == ECHO
        backend._context = contexts[1]
        assert talk(daemon.port) == ECHO
        assert [daemon.record()["resumed"] for _ in range(2)] == [False, False]


def test_alpn_is_offered_in_order_and_what_the_server_chose_is_in_the_record() -> None:
    context = context_for(certificates.server("localhost"))
    context.set_alpn_protocols(["postgresql", "h2"])
    with backends.serve(echo_some, context=context) as backend:
        with tunnel.client(backend.port, "--alpn", "h2,postgresql") as daemon:
            assert talk(daemon.port) == ECHO
            assert daemon.record()["alpn"] == "postgresql"
        with tunnel.client(backend.port) as daemon:
            assert talk(daemon.port) == ECHO
            assert not daemon.record()["alpn"]


def test_our_certificate_is_shown_and_one_that_is_missing_is_the_servers_alert() -> None:
    names: list[object] = []

    def who(sock: socket.socket) -> None:
        assert isinstance(sock, ssl.SSLSocket)
        names.append(sock.getpeercert())
        echo_some(sock)

    pair = certificates.client("billing")
    with backends.serve(who, context=server_context(asks=True)) as backend:
        with tunnel.client(backend.port, "--cert", str(pair.certificate), "--key", str(pair.key)) as daemon:
            assert talk(daemon.port) == ECHO
        with tunnel.client(backend.port) as daemon:
            with clients.raw(daemon.port) as sock:
                sock.sendall(ECHO)
                assert clients.read_to_end(sock)[0] == b""
            record = daemon.record()
            assert record["reason"] in {"backend_alert", "alert"}
            assert record["fault"] == "backend"
    assert "billing" in str(names)


def test_a_backend_that_speaks_no_tls_is_named_as_such_and_the_client_is_not_left_waiting() -> None:
    with (
        backends.serve(lambda sock: sock.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n") or backends.read_all(sock)) as backend,
        tunnel.client(backend.port) as daemon,
        clients.raw(daemon.port) as sock,
    ):
        assert clients.read_to_end(sock)[0] == b""
        record = daemon.record()
        assert (record["reason"], record["fault"]) == ("not_tls", "backend")
