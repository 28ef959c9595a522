"""Our TLS 1.3 from first principles talks to GnuTLS's command line tools, as client and as server."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.interop.test_tls13_openssl import Service
from tests.support import certificates, hostile
from tests.support.hostile import Wire
from tests.support.interop import require
from tlstunnel.tools.tls13.client import Client
from tlstunnel.tools.tls13.client_config import ClientConfig
from tlstunnel.tools.tls13.names import CipherSuite, NamedGroup
from tlstunnel.tools.tls13.server_config import ClientAuth, ServerConfig

pytestmark = pytest.mark.interop
_PRIORITY = "NORMAL:-VERS-ALL:+VERS-TLS1.3"


@contextlib.contextmanager
def gnutls_server(*options: str, priority: str = _PRIORITY) -> Iterator[tuple[str, int]]:
    """`gnutls-serv --echo`. It cannot choose a free port itself, and says when it listens."""
    program = require("gnutls-serv")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    pair = certificates.server("localhost", "127.0.0.1")
    command = [program, "--echo", "--port", str(port), "--priority", priority]
    command += ["--x509certfile", str(pair.certificate), "--x509keyfile", str(pair.key), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            seen = ""
            for line in process.stdout:
                seen += line
                if "listening on IPv4" in line and line.rstrip().endswith("done"):
                    yield "127.0.0.1", port
                    break
            else:
                raise AssertionError(seen)
        finally:
            process.kill()


def converse(address: tuple[str, int], config: ClientConfig) -> Client:
    """Handshake, a line there and back, close_notify."""
    client = Client(config)
    with socket.create_connection(address) as sock:
        wire = Wire(client, sock)
        client.start()
        assert wire.handshake().completed
        client.send(b"hello\n")
        wire.pump_until(lambda: wire.verdict.data.endswith(b"\n"))
        assert wire.verdict.data == b"hello\n"
        client.close()
        wire.flush()
    return client


@pytest.mark.parametrize("suite", list(CipherSuite), ids=lambda suite: suite.name)
def test_client_talks_to_gnutls_with_every_suite(suite: CipherSuite) -> None:
    with gnutls_server() as address:
        client = converse(address, replace(hostile.client_config(), cipher_suites=(suite,)))
        assert client.suite is suite


def test_client_follows_the_hello_retry_request_of_gnutls_and_resumes() -> None:
    with gnutls_server(priority=_PRIORITY + ":-GROUP-ALL:+GROUP-SECP256R1") as address:
        first = converse(address, hostile.client_config())
        assert first.was_retried
        assert first.group == NamedGroup.SECP256R1
        second = converse(address, replace(hostile.client_config(), session=first.sessions[-1]))
        assert second.is_resumed
        assert second.was_retried


def test_client_authenticates_to_gnutls() -> None:
    authority = str(certificates.ca().certificate)
    with gnutls_server("--require-client-cert", "--verify-client-cert", "--x509cafile", authority) as address:
        own = hostile.credential(certificates.client("billing"))
        converse(address, replace(hostile.client_config(), credential=own))
        assert hostile.attack(address).alert == "certificate_required"


def gnutls_client(port: int, *options: str, priority: str = _PRIORITY) -> str:
    """What gnutls-cli prints until our server's answer came; it leaves when its input ends, so that stays open."""
    command = [require("gnutls-cli"), "--port", str(port), "--x509cafile", str(certificates.ca().certificate)]
    command += ["--priority", priority, *options, "localhost"]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    seen = []
    with subprocess.Popen(command, **streams) as process:  # type: ignore[call-overload]
        process.stdin.write("hello\n")
        process.stdin.flush()
        for line in process.stdout:
            seen.append(line)
            if line.startswith("HELLO"):
                break
        process.kill()
    return "".join(seen)


@pytest.mark.parametrize("key_type", ["ECDSA P-256", "RSA 2048", "Ed25519"])
def test_gnutls_client_believes_our_server(key_type: str) -> None:
    pair = certificates.server("localhost", key_type=key_type)
    service = Service(ServerConfig(credentials=(hostile.credential(pair),)))
    output = gnutls_client(service.port)
    assert "The certificate is trusted" in output
    assert output.endswith("HELLO\n"), output
    service.served()


def test_gnutls_client_follows_our_hello_retry_request() -> None:
    service = Service(replace(hostile.server_config(), groups=(NamedGroup.SECP384R1,), cookie=b"c" * 300))
    priority = _PRIORITY + ":-GROUP-ALL:+GROUP-X25519:+GROUP-SECP384R1"
    output = gnutls_client(service.port, "--single-key-share", priority=priority)
    assert output.endswith("HELLO\n"), output
    assert service.served()[0].group == NamedGroup.SECP384R1


def test_gnutls_client_authenticates_to_our_server() -> None:
    pair = certificates.client("billing")
    service = Service(replace(hostile.server_config(), client_auth=ClientAuth.REQUIRED))
    output = gnutls_client(service.port, "--x509certfile", str(pair.certificate), "--x509keyfile", str(pair.key))
    assert output.endswith("HELLO\n"), output
    assert service.served()[0].client_chain[0] == pair.leaf_der
