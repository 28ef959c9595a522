"""`tlstunnel probe` against servers that are out of reach, silent, no TLS, half TLS or hostile."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import certificates, tls_servers
from tests.support.answers import PATIENT, hello, read_hello
from tlstunnel.address import TCPAddress, UnixAddress
from tlstunnel.errors import StartupError
from tlstunnel.tools.probe.findings import Findings
from tlstunnel.tools.probe.hello import SSL_3_0
from tlstunnel.tools.probe.route import Limits
from tlstunnel.tools.probe.survey import Request, probe
from tlstunnel.tools.tls13 import extensions as ext
from tlstunnel.tools.tls13.extension_block import find
from tlstunnel.tools.tls13.messages import HELLO_RETRY_RANDOM, ClientHello, ServerHello
from tlstunnel.tools.tls13.names import TLS_1_2, TLS_1_3, ContentType
from tlstunnel.tools.tls13.names import ExtensionType as Ext
from tlstunnel.tools.tls13.wire import Record, vector

QUICK = Limits(connect_s=5.0, answer_s=0.2, total_s=60.0)
PROMPT = Limits(connect_s=5.0, answer_s=2.0, total_s=60.0)


HANDSHAKE_FAILURE = b"\x15\x03\x03\x00\x02\x02\x28"


Answer = Callable[[ClientHello], bytes]


def look(port: int, limits: Limits = PATIENT, **what: Any) -> Findings:
    ca = certificates.ca().certificate
    return probe(Request(target=TCPAddress("127.0.0.1", port), ca=ca, limits=limits, **what))


@contextmanager
def answering(answer: Answer) -> Iterator[int]:
    """A server that answers every ClientHello of TLS or SSL 3.0 and hangs up on all else."""

    def behave(connection: socket.socket) -> None:
        data = connection.recv(1, socket.MSG_PEEK)
        if data != b"\x16":
            return
        record = read_hello(connection)
        connection.sendall(answer(ClientHello.decode(record[9:])))
        connection.recv(1 << 16)

    with tls_servers.scripted(behave) as port:
        yield port


def reset(connection: socket.socket) -> None:
    connection.recv(1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def drip(connection: socket.socket) -> None:
    read_hello(connection)
    connection.sendall(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc")
    connection.settimeout(0.02)
    while True:
        try:
            if connection.recv(100) == b"":
                return
        except TimeoutError:
            connection.sendall(b"\x00")


def after_hello(answer: bytes, *, wait: bool = False) -> Callable[[socket.socket], None]:
    def behave(connection: socket.socket) -> None:
        read_hello(connection)
        connection.sendall(answer)
        if wait:
            connection.recv(1 << 16)

    return behave


def flood(connection: socket.socket) -> None:
    read_hello(connection)
    while True:
        connection.sendall(b"\x16\x03\x03\x3e\x84\x00\x00\x3e\x80" + bytes(16000))


def warn(connection: socket.socket) -> None:
    read_hello(connection)
    connection.sendall(b"\x15\x03\x03\x00\x02\x01\x5a" * 100)
    connection.recv(1)


def greet(connection: socket.socket) -> None:
    connection.sendall(b"220 mail\x1b[1m ESMTP\r\n")
    connection.recv(1 << 16)


def listen_only(connection: socket.socket) -> None:
    read_hello(connection)
    connection.recv(1)


HALF = b"\x16\x03\x03\x00\x4a\x02\x00\x00\x46\x03\x03"


SHORT = b"\x16\x03\x03\x00\x10\x02\x00\x00\x0c" + b"x" * 12


UNKNOWN_NAME = b"\x15\x03\x03\x00\x02\x02\x70"


BAD: dict[str, tuple[Callable[[socket.socket], object], str]] = {
    "silent": (listen_only, "said nothing within 0.2s; it may speak no TLS, or only after STARTTLS"),
    "hangs up": (read_hello, "closes the connection on every ClientHello; check that this port speaks TLS"),
    "resets": (reset, "closes the connection on every ClientHello; check that this port speaks TLS"),
    "HTTP": (
        after_hello(b"HTTP/1.1 400 Bad\r\n\r\n"),
        'no TLS: it begins with "HTTP/1.1 400 Bad"; give a port that does',
    ),
    "SMTP": (greet, 'begins with "220 mail\\x1b[1m ESMTP"; give a port that does, or use probe --starttls smtp'),
    "half a hello": (after_hello(HALF, wait=True), "began to answer, but was not done within 0.2s"),
    "drips": (drip, "began to answer, but was not done within 0.2s"),
    "breaks rules": (after_hello(SHORT), "breaks the rules of TLS: ServerHello ends in the middle of a field"),
    "refuses": (after_hello(HANDSHAKE_FAILURE), "refuses every ClientHello with the alert handshake_failure; it may"),
    "unknown name": (after_hello(UNKNOWN_NAME), "with the alert unrecognized_name; it may need another --server-name"),
    "warns without end": (warn, "breaks the rules of TLS: warnings come without end"),
}


@pytest.mark.parametrize(("behave", "why"), BAD.values(), ids=BAD.keys())
def test_a_server_that_is_none_costs_one_line_and_no_more_than_the_deadline(
    behave: Callable[[socket.socket], object], why: str
) -> None:
    with tls_servers.scripted(behave) as port, pytest.raises(StartupError) as caught:
        # Who answers is waited for; only silence costs the limit, so only there it is short.
        look(port, QUICK if "within" in why else PROMPT)
    text = str(caught.value)
    assert text.startswith(f"127.0.0.1:{port}: ")
    assert why in text
    assert "\n" not in text
    assert "\x1b" not in text
    assert caught.value.exit_code == 1


def test_a_server_that_talks_without_end_is_left() -> None:
    with tls_servers.scripted(flood) as port, pytest.raises(StartupError, match="sent over 1 MiB without an answer"):
        look(port)


def test_nobody_listening_and_no_such_name_are_said(tmp_path: Path) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        with pytest.raises(StartupError, match=f"127.0.0.1:{port}: connection refused; check host and port"):
            look(port)
    with pytest.raises(StartupError, match=r"no-such-host\.invalid:443: the name has no address; check its spelling"):
        probe(Request(target=TCPAddress("no-such-host.invalid", 443)))
    with pytest.raises(StartupError, match="no such file or directory; check the path"):
        probe(Request(target=UnixAddress(str(tmp_path / "none"))))


def test_a_starttls_that_is_refused_is_one_line() -> None:
    def no_capability(connection: socket.socket) -> None:
        connection.sendall(b"220 x\r\n")
        connection.recv(99)
        connection.sendall(b"250 x\r\n")
        connection.recv(99)

    with (
        tls_servers.scripted(no_capability) as port,
        pytest.raises(StartupError, match="the SMTP server does not offer STARTTLS"),
    ):
        look(port, starttls="smtp")
    with (
        tls_servers.scripted(lambda c: c.recv(99)) as port,
        pytest.raises(StartupError, match="hung up before TLS began; give the right --starttls"),
    ):
        look(port, starttls="postgres")


def test_a_server_that_waits_for_another_protocol_is_not_taken_for_one_that_wants_starttls() -> None:
    with (
        tls_servers.scripted(lambda c: c.recv(99) and c.recv(99)) as port,
        pytest.raises(StartupError, match=r"said nothing within 0\.2s; it may speak another protocol, or TLS from"),
    ):
        look(port, QUICK, starttls="postgres")


def test_a_server_that_is_silent_after_starttls_is_not_told_to_use_it() -> None:
    def stop(connection: socket.socket) -> None:
        connection.recv(99)
        connection.sendall(b"S")
        read_hello(connection)
        connection.recv(1)

    with (
        tls_servers.scripted(stop) as port,
        pytest.raises(StartupError, match=r"said nothing within 0\.2s; it agreed to TLS, and may be overloaded"),
    ):
        look(port, QUICK, starttls="postgres")


def test_a_server_of_tls_1_2_hears_the_end_of_a_question_in_its_own_version() -> None:
    heard: list[bytes] = []

    def behave(connection: socket.socket) -> None:
        if connection.recv(1, socket.MSG_PEEK) != b"\x16":
            return
        sent = ClientHello.decode(read_hello(connection)[9:])
        if 0x002F in sent.cipher_suites:
            connection.sendall(hello(0x002F) + b"\x16\x03\x03\x00\x04\x0e\0\0\0")
            heard.append(connection.recv(99))

    with tls_servers.scripted(behave) as port:
        look(port, PROMPT)
    assert b"\x15\x03\x03\x00\x02\x02\x5a" in heard
    assert {said[:3] for said in heard if said} == {b"\x15\x03\x03"}


def test_a_server_that_falls_silent_half_way_leaves_a_report_that_says_so() -> None:
    def behave(connection: socket.socket) -> None:
        if connection.recv(1, socket.MSG_PEEK) != b"\x16":
            return
        sent = ClientHello.decode(read_hello(connection)[9:])
        if 0x002F in sent.cipher_suites:
            connection.sendall(hello(0x002F))
        elif 0x0035 in sent.cipher_suites:
            connection.sendall(hello(0x0035))
        connection.recv(1)

    with tls_servers.scripted(behave) as port:
        found = look(port, PROMPT)
    assert any(line.startswith("cipher suites of TLS 1.2: after 2 answers: ") for line in found.incomplete)
    assert [each.id for each in found.ciphers[0].suites] == [0x002F, 0x0035]
    assert found.ciphers[0].order is None


def test_the_whole_probe_has_a_deadline_too() -> None:
    enough = threading.Semaphore(12)

    def behave(connection: socket.socket) -> None:
        read_hello(connection)
        if enough.acquire(blocking=False):
            connection.sendall(hello(0x002F))
        connection.recv(1)

    with tls_servers.scripted(behave) as port:
        found = look(port, Limits(answer_s=30.0, total_s=1.0))
    assert any("the time for the whole probe was over" in line for line in found.incomplete), found.incomplete


def test_a_server_that_agrees_to_everything_is_asked_no_longer_than_the_table_is() -> None:
    def answer(sent: ClientHello) -> bytes:
        return hello(next(each for each in sent.cipher_suites if each >> 8 != 0x13))

    with answering(answer) as port:
        found = look(port, parallel=8)
    ciphers = next(each for each in found.ciphers if each.version == "TLS 1.2")
    assert len(ciphers.suites) > 300
    assert "cipher-export" in {each.id for each in found.weaknesses}


def test_a_server_that_chooses_what_nobody_offered_is_noted_and_left() -> None:
    def answer(sent: ClientHello) -> bytes:
        return (
            hello(0x002F)
            if find(sent.extensions, Ext.SUPPORTED_VERSIONS) or len(sent.cipher_suites) > 300
            else hello(1)
        )

    with answering(answer) as port:
        found = look(port)
    assert any("which was not offered" in line for line in found.incomplete)


def test_what_only_old_servers_do_is_seen() -> None:
    def answer(sent: ClientHello) -> bytes:
        if sent.legacy_version == SSL_3_0:
            return hello(0x0035, SSL_3_0)
        return hello(0x0035, TLS_1_2, compression_method=1 if 1 in sent.compression_methods else 0)

    with answering(answer) as port:
        found = look(port)
    weak = {each.id for each in found.weaknesses}
    assert {"compression", "renegotiation", "no-extended-master-secret", "ssl3", "no-fallback-scsv"} <= weak
    assert found.features.compression == ["DEFLATE"]


def test_groups_that_nothing_here_can_compute_are_found() -> None:
    known = (0x11ED, 0x0202, 0x001E)

    def answer(sent: ClientHello) -> bytes:
        versions = find(sent.extensions, Ext.SUPPORTED_VERSIONS)
        if versions is None or TLS_1_3 not in ext.read_client_versions(versions):
            return HANDSHAKE_FAILURE
        offered = ext.read_numbers(find(sent.extensions, Ext.SUPPORTED_GROUPS) or b"", "groups")
        chosen = next((each for each in known if each in offered), None)
        if chosen is None or 0x1301 not in sent.cipher_suites:
            return HANDSHAKE_FAILURE
        message = ServerHello(
            HELLO_RETRY_RANDOM, sent.session_id, 0x1301,
            (ext.single(Ext.SUPPORTED_VERSIONS, TLS_1_3), ext.single(Ext.KEY_SHARE, chosen)),
        ).encode()  # fmt: skip
        return Record(ContentType.HANDSHAKE, TLS_1_2, message).encode()

    with answering(answer) as port:
        found = look(port)
    assert [each.name for each in found.groups[0].groups] == ["SecP384r1MLKEM1024", "MLKEM1024", "x448"]
    assert found.groups[0].order == "server"
    assert found.chains == []


def test_ssl2_is_seen() -> None:
    body = b"\4\0\1\0\2" + b"\0\0" + b"\0\3" + b"\0\1" + b"\x07\x00\xc0" + b"I"

    def behave(connection: socket.socket) -> None:
        first = connection.recv(1, socket.MSG_PEEK)
        if first == b"\x16":
            read_hello(connection)
            connection.sendall(HANDSHAKE_FAILURE)
        else:
            connection.recv(1 << 16)
            connection.sendall(bytes([0x80]) + vector(body, 1))

    with tls_servers.scripted(behave) as port:
        found = look(port)
    assert [each.id for each in found.weaknesses][:1] == ["ssl2"]
