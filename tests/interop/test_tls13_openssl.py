"""Our TLS 1.3 from first principles talks to OpenSSL's command line tools, as client and as server."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.support import certificates, hostile
from tests.support.hostile import Wire
from tests.support.interop import require
from tlstunnel.tools.tls13.client import Client
from tlstunnel.tools.tls13.client_config import ClientConfig
from tlstunnel.tools.tls13.events import PeerKeysUpdated
from tlstunnel.tools.tls13.names import CipherSuite, NamedGroup
from tlstunnel.tools.tls13.server import Server
from tlstunnel.tools.tls13.server_config import ClientAuth, ServerConfig

pytestmark = pytest.mark.interop


@contextlib.contextmanager
def openssl_server(*options: str, key_type: str = "ECDSA P-256") -> Iterator[tuple[str, int]]:
    """`openssl s_server -rev`, which sends every line back reversed."""
    pair = certificates.server("localhost", "127.0.0.1", key_type=key_type)
    command = [require("openssl"), "s_server", "-accept", "127.0.0.1:0", "-tls1_3", "-rev", "-naccept", "2"]
    command += ["-cert", str(pair.certificate), "-key", str(pair.key), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("ACCEPT"):
                    host, _, port = line.split()[1].rpartition(":")
                    yield host, int(port)
                    break
        finally:
            process.kill()


def converse(address: tuple[str, int], config: ClientConfig, *, update: bool = False) -> Client:
    """Handshake, a line there and back, and close_notify both ways."""
    client = Client(config)
    with socket.create_connection(address) as sock:
        wire = Wire(client, sock)
        client.start()
        assert wire.handshake().completed
        if update:
            client.update_keys(request_peer=True)
        client.send(b"hello\n")
        wire.pump_until(lambda: wire.verdict.data.endswith(b"\n"))
        assert wire.verdict.data == b"olleh\n"
        if update:
            assert PeerKeysUpdated() in wire.verdict.events
        client.close()
        wire.flush()
        sock.shutdown(socket.SHUT_WR)
        assert wire.pump_until(lambda: False).ending in ("close_notify", "eof")
    return client


@pytest.mark.parametrize("suite", list(CipherSuite), ids=lambda suite: suite.name)
@pytest.mark.parametrize("group", [NamedGroup.X25519, NamedGroup.SECP256R1], ids=lambda group: group.name)
def test_client_talks_to_openssl_with_every_suite_and_group(suite: CipherSuite, group: NamedGroup) -> None:
    with openssl_server() as address:
        config = ClientConfig(server_name="localhost", cipher_suites=(suite,), groups=(group,))
        client = converse(address, config)
        assert (client.suite, client.group) == (suite, group)


@pytest.mark.parametrize("key_type", ["ECDSA P-384", "RSA 2048", "Ed25519"])
def test_client_verifies_signatures_that_openssl_makes(key_type: str) -> None:
    with openssl_server(key_type=key_type) as address:
        client = converse(address, hostile.client_config())
        pair = certificates.server("localhost", "127.0.0.1", key_type=key_type)
        assert client.server_chain[0] == pair.leaf_der


def test_client_follows_the_hello_retry_request_of_openssl() -> None:
    with openssl_server("-groups", "P-384") as address:
        config = ClientConfig(server_name="localhost")
        client = converse(address, config)
        assert client.was_retried
        assert client.group == NamedGroup.SECP384R1


def test_client_resumes_with_the_ticket_of_openssl() -> None:
    with openssl_server() as address:
        first = converse(address, hostile.client_config())
        assert first.sessions
        second = converse(address, replace(hostile.client_config(), session=first.sessions[-1]))
        assert second.is_resumed
        assert second.server_chain == ()


def test_client_updates_keys_with_openssl_in_both_directions() -> None:
    with openssl_server() as address:
        converse(address, hostile.client_config(), update=True)


@pytest.mark.parametrize("key_type", ["ECDSA P-256", "RSA 2048", "Ed25519"])
def test_client_authenticates_to_openssl(key_type: str) -> None:
    pair = certificates.client("billing", key_type=key_type)
    authority = str(certificates.ca().certificate)
    with openssl_server("-Verify", "1", "-CAfile", authority, "-verify_return_error") as address:
        converse(address, replace(hostile.client_config(), credential=hostile.credential(pair)))


def test_client_without_certificate_is_refused_by_openssl_with_certificate_required() -> None:
    authority = str(certificates.ca().certificate)
    with openssl_server("-Verify", "1", "-CAfile", authority, "-verify_return_error") as address:
        assert hostile.attack(address).alert == "certificate_required"


def openssl_client(port: int, *options: str, sent: str = "hello\n") -> subprocess.CompletedProcess[str]:
    command = [require("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "localhost", "-tls1_3"]
    command += ["-CAfile", str(certificates.ca().certificate), "-verify_return_error", "-ign_eof", *options]
    return subprocess.run(command, input=sent, capture_output=True, text=True, timeout=60, check=False)


def serve(listener: socket.socket, config: ServerConfig) -> Server:
    """Serve one client: send its line back in capitals, then close."""
    server = Server(config)
    sock, _ = listener.accept()
    with sock:
        wire = Wire(server, sock)
        assert wire.handshake().completed
        wire.pump_until(lambda: wire.verdict.data.endswith(b"\n"))
        server.send(wire.verdict.data.upper())
        server.close()
        wire.flush()
        with contextlib.suppress(OSError):  # the client may have got what it wanted and left
            sock.shutdown(socket.SHUT_WR)
        wire.pump_until(lambda: False)
    return server


class Service:
    """Our server in a thread, for a number of clients."""

    def __init__(self, config: ServerConfig, clients: int = 1) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._pool = ThreadPoolExecutor(1)
        self._served = [self._pool.submit(serve, self._listener, config) for _ in range(clients)]

    def served(self) -> list[Server]:
        servers = [each.result(timeout=60) for each in self._served]
        self._pool.shutdown()
        self._listener.close()
        return servers


@pytest.mark.parametrize("key_type", ["ECDSA P-256", "ECDSA P-384", "RSA 2048", "Ed25519"])
def test_openssl_client_believes_our_server(key_type: str) -> None:
    pair = certificates.server("localhost", key_type=key_type)
    service = Service(ServerConfig(credentials=(hostile.credential(pair),)))
    done = openssl_client(service.port, "-verify_hostname", "localhost", "-quiet")
    assert "HELLO" in done.stdout, done.stderr
    assert service.served()[0].server_name == "localhost"


def test_openssl_client_follows_our_hello_retry_request() -> None:
    config = replace(hostile.server_config(), groups=(NamedGroup.SECP384R1,), cookie=b"remember this")
    service = Service(config)
    done = openssl_client(service.port, "-groups", "X25519:P-384", "-quiet")
    assert "HELLO" in done.stdout, done.stderr
    assert service.served()[0].group == NamedGroup.SECP384R1


@pytest.mark.parametrize("suite", list(CipherSuite), ids=lambda suite: suite.name)
def test_openssl_client_talks_to_our_server_with_every_suite(suite: CipherSuite) -> None:
    service = Service(replace(hostile.server_config(), cipher_suites=(suite,)))
    done = openssl_client(service.port)
    assert f"Cipher is {suite.name}" in done.stdout
    assert service.served()[0].suite is suite


def test_openssl_client_resumes_with_our_ticket(tmp_path: object) -> None:
    session = f"{tmp_path}/session"
    service = Service(hostile.server_config(), clients=2)
    openssl_client(service.port, "-sess_out", session, "-quiet")
    done = openssl_client(service.port, "-sess_in", session)
    assert "Reused, TLSv1.3" in done.stdout, done.stderr
    assert [server.is_resumed for server in service.served()] == [False, True]


def test_openssl_client_authenticates_to_our_server() -> None:
    pair = certificates.client("billing")
    service = Service(replace(hostile.server_config(), client_auth=ClientAuth.REQUIRED))
    done = openssl_client(service.port, "-cert", str(pair.certificate), "-key", str(pair.key), "-quiet")
    assert "HELLO" in done.stdout, done.stderr
    assert service.served()[0].client_chain[0] == pair.leaf_der


def test_openssl_client_key_update_is_answered() -> None:
    service = Service(hostile.server_config())
    command = [require("openssl"), "s_client", "-connect", f"127.0.0.1:{service.port}", "-tls1_3"]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, **streams) as client:  # type: ignore[call-overload]
        try:
            # "K" alone makes s_client update its keys and ask for ours.
            client.stdin.write("K\n")
            client.stdin.flush()
            wait_for(client, "KEYUPDATE")
            client.stdin.write("hello\n")
            client.stdin.flush()
            wait_for(client, "HELLO")
        finally:
            client.kill()
    (server,) = service.served()
    assert server.failure is None


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if text in line:
            return
    raise AssertionError("".join(seen))
