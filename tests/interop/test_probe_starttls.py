"""STARTTLS: `openssl s_client -starttls` and our probe reach TLS through the same scripted servers.

OpenSSL judges the script, the script then judges us: what it lets through is what others speak too.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.support import certificates, dovecot, tls_servers
from tests.support.interop import require
from tlstunnel.address import TCPAddress
from tlstunnel.tools.probe.survey import Request, probe

pytestmark = [pytest.mark.interop, pytest.mark.slow]
MYSQL_GREETING = b"\x0a8.0.36\0" + bytes(4) + b"saltsalt\0" + b"\xff\xff" + b"\x2d\2\0\xff\xc1\x15" + bytes(10)
MYSQL_GREETING += b"saltsaltsalt\0caching_sha2_password\0"


def line(connection: socket.socket) -> bytes:
    """A line from the client, byte by byte, so that nothing of TLS is taken."""
    read = b""
    while not read.endswith(b"\r\n"):
        byte = connection.recv(1)
        if not byte:
            raise ConnectionError
        read += byte
    return read


def smtp(connection: socket.socket, hello: bytes = b"EHLO ") -> None:
    connection.sendall(b"220 mail.example.org ready\r\n")
    assert line(connection).startswith(hello)
    connection.sendall(b"250-mail.example.org\r\n250-PIPELINING\r\n250 STARTTLS\r\n")
    assert line(connection) == b"STARTTLS\r\n"
    connection.sendall(b"220 2.0.0 go ahead\r\n")


def lmtp(connection: socket.socket) -> None:
    smtp(connection, b"LHLO ")


def imap(connection: socket.socket) -> None:
    connection.sendall(b"* OK IMAP4rev1 ready\r\n")
    for words in (b"CAPABILITY", b"STARTTLS"):
        tag, _, said = line(connection).strip().partition(b" ")
        assert said.upper() == words
        if words == b"CAPABILITY":
            connection.sendall(b"* CAPABILITY IMAP4rev1 STARTTLS\r\n")
        connection.sendall(tag + b" OK done\r\n")


def pop3(connection: socket.socket) -> None:
    connection.sendall(b"+OK ready\r\n")
    assert line(connection) == b"STLS\r\n"
    connection.sendall(b"+OK begin\r\n")


def sieve(connection: socket.socket) -> None:
    connection.sendall(b'"IMPLEMENTATION" "example"\r\n"SIEVE" "fileinto"\r\n"STARTTLS"\r\nOK\r\n')
    assert line(connection) == b"STARTTLS\r\n"
    connection.sendall(b'OK "begin"\r\n')


def nntp(connection: socket.socket) -> None:
    connection.sendall(b"200 news.example.org ready\r\n")
    assert line(connection) == b"CAPABILITIES\r\n"
    connection.sendall(b"101 list follows\r\nVERSION 2\r\nSTARTTLS\r\n.\r\n")
    assert line(connection) == b"STARTTLS\r\n"
    connection.sendall(b"382 go ahead\r\n")


def ldap(connection: socket.socket) -> None:
    head = connection.recv(2, socket.MSG_WAITALL)
    request = connection.recv(head[1], socket.MSG_WAITALL)
    assert b"1.3.6.1.4.1.1466.20037" in request
    message_id = request[: 2 + request[1]]
    body = message_id + bytes.fromhex("78070a010004000400")
    connection.sendall(bytes([0x30, len(body)]) + body)


def mysql(connection: socket.socket) -> None:
    connection.sendall(len(MYSQL_GREETING).to_bytes(3, "little") + b"\0" + MYSQL_GREETING)
    head = connection.recv(4, socket.MSG_WAITALL)
    request = connection.recv(int.from_bytes(head[:3], "little"), socket.MSG_WAITALL)
    assert head[3] == 1
    assert int.from_bytes(request[:4], "little") & 0x0800
    assert len(request) == 32


SCRIPTS: dict[str, Callable[[socket.socket], None]] = {
    "smtp": smtp, "lmtp": lmtp, "imap": imap, "pop3": pop3, "sieve": sieve, "nntp": nntp, "ldap": ldap, "mysql": mysql,
}  # fmt: skip


@pytest.mark.parametrize("protocol", SCRIPTS)
def test_what_openssl_takes_for_the_protocol_we_do_too(protocol: str) -> None:
    program = require("openssl")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server("localhost").combined)

    def behave(connection: socket.socket) -> None:
        SCRIPTS[protocol](connection)
        with contextlib.suppress(ssl.SSLError), context.wrap_socket(connection, server_side=True) as session:
            session.recv(1)

    ca = certificates.ca().certificate
    with tls_servers.scripted(behave) as port:
        command = [program, "s_client", "-starttls", protocol, "-connect", f"localhost:{port}", "-brief"]
        command += ["-CAfile", str(ca), "-verify_return_error"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert "Verification: OK" in done.stdout + done.stderr, done.stderr
        found = probe(Request(target=TCPAddress("localhost", port), ca=ca, starttls=protocol))
    assert not found.incomplete
    assert {each.name for each in found.versions if each.offered} == {"TLS 1.3", "TLS 1.2"}
    assert found.chains[0].verifies
    assert found.timings_ms.starttls is not None


@pytest.fixture(scope="module")
def mail() -> Iterator[dict[str, int]]:
    with dovecot.running(tls_servers.default_pair()) as ports:
        yield ports


@pytest.mark.root
@pytest.mark.parametrize("protocol", ["imap", "pop3", "lmtp", "sieve"])
def test_dovecot_is_probed_behind_each_of_its_protocols(mail: dict[str, int], protocol: str) -> None:
    target = TCPAddress("localhost", mail[protocol])
    found = probe(Request(target=target, ca=certificates.ca().certificate, starttls=protocol))
    assert not found.incomplete
    assert {each.name for each in found.versions if each.offered} == {"TLS 1.3", "TLS 1.2"}
    assert found.chains[0].verifies
