"""The client's first message on the running daemon: recorded ones and their fingerprints in the log, and real ones that
are as large as post-quantum key exchange makes them, cut into records and segments of any size.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
from collections.abc import Iterator

import pytest
from OpenSSL import SSL

from tests.support import backends, certificates, clients, hellos, services, tunnel
from tests.support.interop import require
from tests.support.services import Services
from tlstunnel import _openssl

pytestmark = pytest.mark.slow

VERSION_NAMES = {0x304: "1.3", 0x303: "1.2", 0x302: "1.1", 0x301: "1.0"}
NAME = "orders.example.org"
SERVICES = ("at_once", "by_name")
"""Where OpenSSL reads the message first, and where we do."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    own, named = certificates.server("localhost"), certificates.server(NAME)
    common = f'certificate = "{own.certificate}"\nkey = "{own.key}"'
    groups = 'groups = "X25519MLKEM768:SecP384r1MLKEM1024:SecP256r1MLKEM768:X25519:P-256"'
    with backends.serve(backends.echo) as backend:
        cases = {
            "at_once": groups,
            "by_name": f'{groups}\n[[sni]]\nnames = ["{NAME}"]\n'
            f'certificate = "{named.certificate}"\nkey = "{named.key}"',
            "through": 'mode = "passthrough"\nsni_mismatch = "reject"\n'
            f'[[sni]]\nnames = ["nobody.example"]\ntarget = "127.0.0.1:{backend.port}"',
        }
        path = tmp_path_factory.mktemp("hellos") / "tunnel.toml"
        services.write(path, backend.port, {name: cases[name] for name in SERVICES}, common)
        through = cases["through"].replace("[[sni]]", "[[services.through.sni]]")
        path.write_text(path.read_text() + f'[services.through]\nlisten = "127.0.0.1:0"\n{through}\n')
        with tunnel.run(path) as daemon:
            yield Services(daemon, path)


def send_alone(port: int, first: bytes) -> None:
    """Send a first message and nothing more, and read what comes."""
    with clients.raw(port) as sock:
        sock.sendall(first)
        sock.shutdown(socket.SHUT_WR)
        clients.read_to_end(sock)


@pytest.mark.parametrize("service", [*SERVICES, "through"])
@pytest.mark.parametrize("name", sorted(hellos.RECORDED))
def test_a_failed_handshake_is_logged_with_what_its_client_is(running: Services, name: str, service: str) -> None:
    """Of the browsers' the fingerprints are those that others publish of the same releases."""
    expected = hellos.RECORDED[name]
    send_alone(running.at(service), hellos.recorded(name))
    record = running.record()
    assert record["stage"] == "handshake", record
    assert record["ja4"] == expected["ja4"]
    assert record["client_versions"] == ",".join(VERSION_NAMES[version] for version in expected["versions"])
    assert service == "at_once" or record["server_name"] == expected["server_name"]


def test_the_fingerprint_published_of_chrome_133_to_149_comes_out(running: Services) -> None:
    """Chrome 156 without what came later: ML-DSA signatures and the extension for trust anchors."""
    whole = hellos.recorded("chromium-156")
    content = whole[9:]
    at = 35 + content[34]
    at += 2 + int.from_bytes(content[at : at + 2], "big")
    at += 1 + content[at]
    start, rest, kept = content[:at], content[at + 2 :], b""
    while rest:
        kind, size = struct.unpack_from(">HH", rest)
        value, rest = rest[4 : 4 + size], rest[4 + size :]
        if kind == 13:
            algorithms = [word for word in struct.iter_unpack(">H", value[2:]) if word[0] not in (0x904, 0x905, 0x906)]
            kept += hellos.words(13, *(word[0] for word in algorithms))
        elif kind != 51764:
            kept += hellos.extension(kind, value)
    older = hellos.record(hellos.message(start + hellos.vector(kept, 2)))
    send_alone(running.at("at_once"), older)
    assert running.record()["ja4"] == "t13d1516h2_8daaf6152771_d8a2da3f94cd"


@pytest.mark.interop
def test_the_same_program_has_the_same_fingerprint_wherever_it_goes(running: Services) -> None:
    """curl, live, refusing the certificate."""
    seen = set()
    for name in ("one.example", "two.example"):
        port = running.at("by_name")
        command = [require("curl"), "--silent", "--noproxy", "*", "--resolve", f"{name}:{port}:127.0.0.1"]
        done = subprocess.run([*command, f"https://{name}:{port}/"], check=False)
        assert done.returncode == 60  # it does not know the CA
        record = running.record()
        assert record["server_name"] == name
        seen.add(record["ja4"])
    assert len(seen) == 1


class Cut:
    """A client of OpenSSL 4.0 with post-quantum key shares, whose first message a test cuts as it likes."""

    def __init__(self, shares: str) -> None:
        context = SSL.Context(SSL.TLS_METHOD)
        context.load_verify_locations(str(certificates.ca().certificate))
        context.set_verify(SSL.VERIFY_PEER)
        _openssl.set_groups(context, shares)
        self.tls = SSL.Connection(context, None)
        self.tls.set_tlsext_host_name(NAME.encode())
        self.tls.set_connect_state()
        with contextlib.suppress(SSL.WantReadError):
            self.tls.do_handshake()
        self.first = self.tls.bio_read(1 << 20)

    def finish(self, sock: socket.socket) -> None:
        """After the first message was sent: the rest of the handshake."""
        while True:
            self.tls.bio_write(sock.recv(65536))
            try:
                self.tls.do_handshake()
            except SSL.WantReadError:
                continue
            sock.sendall(self.tls.bio_read(1 << 20))
            return

    def exchange(self, sock: socket.socket, data: bytes) -> bytes:
        """Send it, and what comes back."""
        self.tls.send(data)
        sock.sendall(self.tls.bio_read(1 << 20))
        while True:
            with contextlib.suppress(SSL.WantReadError):
                return bytes(self.tls.recv(len(data)))
            self.tls.bio_write(sock.recv(65536))


SMALL = "*X25519MLKEM768"
LARGE = "*SecP384r1MLKEM1024:*X25519MLKEM768:*SecP256r1MLKEM768"


@pytest.mark.parametrize("shares", [SMALL, LARGE])
@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize(
    ("record_size", "segment"),
    [(1 << 14, 1 << 14), (1 << 14, 1), (1 << 14, 1400), (100, 1 << 14), (100, 7), (300, 301)],
)
def test_a_post_quantum_hello_in_pieces_is_a_handshake_like_any_other(
    running: Services, service: str, shares: str, record_size: int, segment: int
) -> None:
    client = Cut(shares)
    assert len(client.first) > (4000 if shares == LARGE else 1200)
    sent = hellos.fragmented(client.first, record_size) if record_size < len(client.first) else client.first
    with clients.raw(running.at(service)) as sock:
        for at in range(0, len(sent), segment):
            sock.sendall(sent[at : at + segment])
        client.finish(sock)
        assert client.exchange(sock, b"through the tunnel") == b"through the tunnel"
        sock.shutdown(socket.SHUT_WR)
        clients.read_to_end(sock)
    record = running.record()
    assert (record["server_name"], record["version"], record["group"]) == (NAME, "TLSv1.3", "X25519MLKEM768")
    assert record["stage"] == "link"
