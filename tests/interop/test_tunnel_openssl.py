"""OpenSSL's own programs as client and as server of the tunnel: versions, resumption, client certificates."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.support import backends, certificates, clients, peers, tunnel
from tests.support.backends import echo
from tests.support.certificates import Pair
from tests.support.traffic import Backend, backend

pytestmark = [pytest.mark.interop, pytest.mark.slow]

VERSIONS = ["1.2", "1.3"]
FLAG = {"1.2": "-tls1_2", "1.3": "-tls1_3"}
HELLO = "hello from openssl\n"
CA = certificates.ca


@pytest.fixture(scope="module")
def service() -> Iterator[Backend]:
    with backend(echo) as running:
        yield running


@pytest.fixture(scope="module")
def server(service: Backend) -> Iterator[tunnel.Tunnel]:
    with tunnel.server(service.port) as daemon:
        yield daemon


def shows(pair: Pair) -> list[str]:
    return ["-cert", str(pair.certificate), "-key", str(pair.key)]


def ask(port: int, *options: str) -> str:
    """A line there and back through `openssl s_client`; all that it says."""
    with peers.talking(peers.s_client_command(port, *options)) as client:
        client.write(HELLO)
        said = client.read_until(HELLO.strip())
        said += client.finish()
        assert client.process.returncode == 0
    return said


def refused(port: int, *options: str) -> str:
    """What `openssl s_client` says when it gets no answer; it waits for one."""
    with peers.talking(peers.s_client_command(port, "-ign_eof", *options)) as client:
        with contextlib.suppress(BrokenPipeError):  # it may have heard the alert already
            client.write(HELLO)
        said = client.finish()
        assert HELLO.strip() not in said
    return said


# s_client.


@pytest.mark.parametrize("version", VERSIONS)
def test_s_client_verifies_the_certificate_and_talks(server: tunnel.Tunnel, version: str) -> None:
    said = ask(server.port, FLAG[version])
    assert "Verify return code: 0 (ok)" in said
    assert f"New, TLSv{version}" in said
    record = server.record()
    assert (record["version"], record["reason"]) == (f"TLSv{version}", "finished")
    assert record["bytes_forward"] == record["bytes_reverse"] == len(HELLO)


@pytest.mark.parametrize("version", VERSIONS)
def test_s_client_resumes_its_session(server: tunnel.Tunnel, tmp_path: Path, version: str) -> None:
    session = str(tmp_path / "session")
    assert f"New, TLSv{version}" in ask(server.port, FLAG[version], "-sess_out", session)
    assert server.record()["resumed"] is False
    assert f"Reused, TLSv{version}" in ask(server.port, FLAG[version], "-sess_in", session)
    assert server.record()["resumed"] is True


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_resumes_whichever_worker_gets_it(service: Backend, tmp_path: Path, version: str) -> None:
    session = str(tmp_path / "session")
    with tunnel.server(service.port, "--workers", "2") as daemon:
        assert f"New, TLSv{version}" in ask(daemon.port, FLAG[version], "-sess_out", session)
        for _ in range(6):
            assert f"Reused, TLSv{version}" in ask(daemon.port, FLAG[version], "-sess_in", session)


@pytest.mark.parametrize("version", VERSIONS)
def test_s_client_cannot_renegotiate(server: tunnel.Tunnel, version: str) -> None:
    """`R` asks for it; TLS 1.3 has none, and s_client then updates its keys instead when told `K`."""
    with peers.talking(peers.s_client_command(server.port, FLAG[version])) as client:
        client.write(HELLO)
        client.read_until(HELLO.strip())
        if version == "1.3":
            client.write("K\n")
            client.read_until("KEYUPDATE")
            client.write("after the key update\n")
            client.read_until("after the key update")
            client.finish()
        else:
            client.write("R\n")
            assert "no renegotiation" in client.finish()
    server.record()


@pytest.mark.parametrize(
    ("key_type", "suite"),
    [("ECDSA P-384", "ECDHE-ECDSA-AES256-GCM-SHA384"), ("RSA 2048", "ECDHE-RSA-CHACHA20-POLY1305")],
)
def test_s_client_talks_whatever_the_key(service: Backend, key_type: str, suite: str) -> None:
    pair = certificates.server("localhost", key_type=key_type, through_intermediate=True)
    with tunnel.server(service.port, pair=pair) as daemon:
        assert f"Cipher is {suite}" in ask(daemon.port, "-tls1_2", "-cipher", suite)
        assert "Verify return code: 0 (ok)" in ask(daemon.port, "-tls1_3")


# s_client with and without a certificate.

Demanding = Callable[..., AbstractContextManager[tunnel.Tunnel]]


@pytest.fixture
def demanding(service: Backend) -> Demanding:
    def start(how: str, *rules: str) -> AbstractContextManager[tunnel.Tunnel]:
        words = ["--client-auth", how, "--client-ca", str(CA().certificate), *rules]
        return tunnel.server(service.port, *words)

    return start


@pytest.mark.parametrize("version", VERSIONS)
def test_required_certificates_are_required_and_judged(demanding: Demanding, version: str) -> None:
    with demanding("required", "--allow-cn", "billing") as daemon:
        ask(daemon.port, FLAG[version], *shows(certificates.client("billing")))
        record = daemon.record()
        assert record["reason"] == "finished"
        assert "billing" in record["identity"]

        for options, reason, alert in (
            ([], "no_client_certificate", "certificate required" if version == "1.3" else "handshake failure"),
            (shows(certificates.client("sales")), "denied", "alert"),
            (shows(certificates.client("billing", authority="another CA")), "unknown_ca", "unknown ca"),
            (
                shows(certificates.client("billing", not_before=CA().leaf.not_valid_before_utc,
                                          not_after=certificates.NOW - certificates._DAY)),
                "expired_certificate", "certificate expired",
            ),
            (shows(certificates.server("billing")), "wrong_purpose", "unsupported certificate"),
        ):  # fmt: skip
            said = refused(daemon.port, FLAG[version], *options)
            assert alert in said, reason
            assert daemon.record()["reason"] == reason


@pytest.mark.parametrize("version", VERSIONS)
def test_optional_certificates_are_judged_when_shown(demanding: Demanding, version: str) -> None:
    with demanding("optional", "--allow-cn", "billing", "--anonymous", "allow") as daemon:
        ask(daemon.port, FLAG[version])
        assert not daemon.record()["identity"]
        ask(daemon.port, FLAG[version], *shows(certificates.client("billing")))
        assert "billing" in daemon.record()["identity"]
        refused(daemon.port, FLAG[version], *shows(certificates.client("sales")))
        assert daemon.record()["reason"] == "denied"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_resumed_session_keeps_its_identity(demanding: Demanding, tmp_path: Path, version: str) -> None:
    session = str(tmp_path / "session")
    with demanding("required", "--allow-cn", "billing") as daemon:
        ask(daemon.port, FLAG[version], "-sess_out", session, *shows(certificates.client("billing")))
        first = daemon.record()
        assert f"Reused, TLSv{version}" in ask(daemon.port, FLAG[version], "-sess_in", session)
        second = daemon.record()
        assert (second["resumed"], second["identity"]) == (True, first["identity"])


# s_server behind a tunnel in client mode.


def reverse(port: int) -> bytes:
    """A line through a tunnel to `openssl s_server -rev`; empty when the connection was refused."""
    with socket.create_connection(("127.0.0.1", port), tunnel.PATIENCE_S) as sock:
        got = b""
        try:
            sock.sendall(b"drawer\n")
            while not got.endswith(b"\n") and (data := sock.recv(100)):
                got += data
        except ConnectionError:
            return b""
    return got


@pytest.mark.parametrize("version", VERSIONS)
def test_s_server_is_verified_and_its_sessions_are_resumed(version: str) -> None:
    with peers.s_server(FLAG[version], "-rev") as backend_peer, tunnel.client(backend_peer.port) as daemon:
        for is_resumed in (False, True, True):
            assert reverse(daemon.port) == b"reward\n"
            record = daemon.record()
            assert record["version"] == f"TLSv{version}"
            assert record["resumed"] is is_resumed


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_with_a_server_is_resumed_only_while_its_trust_stands(tmp_path: Path, version: str) -> None:
    """Sessions of connections that are still open when the trust changes do not outlive it either."""
    ca = tmp_path / "ca.pem"
    ca.write_bytes(CA().certificate.read_bytes())
    with peers.s_server(FLAG[version], "-rev") as other, tunnel.client(other.port, ca=ca) as daemon:
        assert reverse(daemon.port) == b"reward\n"
        daemon.record()
        with socket.create_connection(("127.0.0.1", daemon.port), tunnel.PATIENCE_S) as sock:
            sock.sendall(b"drawer\n")
            assert sock.recv(100) == b"reward\n"
            ca.write_bytes(CA("another CA").certificate.read_bytes())
            daemon.process.send_signal(signal.SIGHUP)
            daemon.message("reload")
        assert daemon.record()["resumed"] is True
        assert reverse(daemon.port) == b""
        assert daemon.record()["reason"] == "unknown_ca"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (lambda: certificates.server("another.example"), "name_mismatch"),
        (lambda: certificates.server("localhost", authority="another CA"), "unknown_ca"),
        (lambda: certificates.expired("localhost"), "expired_certificate"),
        (lambda: certificates.client("localhost", dns=("localhost",)), "wrong_purpose"),
    ],
)
def test_s_server_with_a_wrong_certificate_is_refused(version: str, pair: Callable[[], Pair], reason: str) -> None:
    with peers.s_server(FLAG[version], "-rev", pair=pair()) as other, tunnel.client(other.port) as daemon:
        assert reverse(daemon.port) == b""
        record = daemon.record()
        assert record["reason"] == reason
        assert record["bytes_forward"] == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_s_server_asks_for_our_certificate_and_gets_it(version: str) -> None:
    demand = ["-Verify", "2", "-verify_return_error", "-CAfile", str(CA().certificate)]
    with peers.s_server(FLAG[version], "-rev", *demand) as other:
        pair = certificates.client("billing")
        with tunnel.client(other.port, "--cert", str(pair.certificate), "--key", str(pair.key)) as daemon:
            assert reverse(daemon.port) == b"reward\n"
            assert daemon.record()["reason"] == "finished"
        with tunnel.client(other.port) as daemon:
            assert reverse(daemon.port) == b""
            assert daemon.record()["reason"] in {"alert", "backend_alert"}


def test_s_server_sees_the_name_we_ask_for() -> None:
    """Only the name gets the second certificate, and only that is good."""
    other_pair, right = certificates.server("another.example"), certificates.server("db.example")
    second = ["-cert2", str(right.certificate), "-key2", str(right.key)]
    with (
        peers.s_server("-rev", "-servername", "db.example", *second, pair=other_pair) as other,
        tunnel.client(other.port, "--server-name", "db.example") as daemon,
    ):
        assert reverse(daemon.port) == b"reward\n"
        assert daemon.record()["server_name"] == "db.example"


def test_who_wants_to_renegotiate_is_named() -> None:
    """TLS 1.2 alone has it, and nobody does it with us: `openssl` gives up then, with an alert that says nothing."""
    with backends.serve(echo) as behind, tunnel.server(behind.port) as daemon:
        with peers.talking(peers.s_client_command(daemon.port, "-tls1_2")) as client:
            client.read_until("Extended master secret")
            client.write("R\n")
            client.read_until("no renegotiation")
        record = daemon.record()
        assert record["reason"] == "client_alert"
        assert record["detail"].startswith("handshake_failure: it wanted to renegotiate")
    with (
        peers.s_server("-tls1_2", pair=certificates.server("localhost")) as server,
        tunnel.client(server.port) as daemon,
        clients.raw(daemon.port) as sock,
    ):
        sock.sendall(b"hello\n")
        server.read_until("hello")
        server.write("R\n")
        clients.read_to_end(sock)
        record = daemon.record()
        assert record["reason"] == "backend_alert"
        assert record["detail"].startswith("handshake_failure: it wanted to renegotiate")
