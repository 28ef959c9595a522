"""`tlstunnel explain` as a user calls it: in one process, against real servers, and against everything that is none."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.interop.test_tls13_gnutls import gnutls_server
from tests.interop.test_tls13_openssl import openssl_server
from tests.support import certificates, hostile, tunnel
from tests.support.tampering import Alter, Drop, flip
from tlstunnel.tools.tls13.names import HandshakeType


def explain(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tlstunnel", "explain", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **env})


def story(*words: str, code: int = 0) -> dict[str, Any]:
    done = explain(*words, "--json")
    assert done.returncode == code, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def titles(told: dict[str, Any]) -> list[str]:
    return [step["title"] for step in told["steps"]]


def ca() -> str:
    return str(certificates.ca().certificate)


def test_the_story_is_numbered_and_names_every_message_hash_secret_and_check() -> None:
    done = explain("--client-auth", "required")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    numbers = [int(each) for each in re.findall(r"^ *(\d+)\. (?!client: |server: )", done.stdout.split("What went")[0],
                                                re.MULTILINE)]  # fmt: skip
    assert numbers == list(range(1, len(numbers) + 1))
    for expected in (
        "client -> server: ClientHello  [plaintext]  (RFC 8446 section 4.1.2)",
        "Handshake secrets: encryption starts here",
        'Derive-Secret(Handshake Secret, "c hs traffic", ClientHello...ServerHello)',
        "server -> client: Server's Certificate  [encrypted, handshake keys]",
        "What is signed: 64 spaces",
        "verified by the client: the signature verifies",
        "verified by the server: the chain leads to a trusted CA",
        'Derive-Secret(Master Secret, "c ap traffic", ClientHello...server Finished)',
        "Transcript-Hash after it: ",
        "nonce            ",
    ):
        assert expected in done.stdout
    longest = max(done.stdout.splitlines(), key=len)
    assert len(longest) < 400, longest


def test_hex_shows_every_byte_of_every_message() -> None:
    plain, full = explain(), explain("--hex")
    assert "000000  01 00" in full.stdout
    assert len(full.stdout) > 2 * len(plain.stdout)


def test_json_is_what_the_documentation_says_and_adds_up() -> None:
    told = story("--client-auth", "required")
    assert told["format"] == "tlstunnel-explain-1"
    assert set(told) == {"format", "title", "server", "summary", "steps", "records", "failure"}
    keys = {"number", "kind", "title", "section", "text", "sender", "protection", "fields", "derivations", "keys"}
    for step in told["steps"]:
        assert set(step) == keys | {"checks", "transcript_hash", "bytes"}
    page = (Path(__file__).parents[2] / "docs" / "explanation" / "handshake.md").read_text()
    for key in {*told, *told["steps"][0], *told["records"][0], *told["summary"]}:
        assert f"`{key}`" in page, f"docs/explanation/handshake.md does not explain {key}"
    assert told["summary"]["bytes_from_client"] == sum(
        len(bytes.fromhex(record["bytes"])) for record in told["records"] if record["sender"] == "client"
    )
    assert told["summary"]["chain_verifies"] is True


def test_the_transcript_hashes_shown_are_those_of_the_bytes_shown() -> None:
    import hashlib

    for words in ((), ("--ciphersuites", "TLS_AES_256_GCM_SHA384", "--client-auth", "required")):
        told = story(*words)
        name = "sha384" if "SHA384" in told["summary"]["cipher_suite"] else "sha256"
        transcript = b""
        for step in told["steps"]:
            if step["kind"] != "message" or step["title"] == "NewSessionTicket":
                continue
            transcript += bytes.fromhex(step["bytes"])
            assert step["transcript_hash"] == hashlib.new(name, transcript).hexdigest()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--hello-retry",), ["HelloRetryRequest", "ClientHello, again"]),
        (("--resume",), ["Early secret and binder key"]),
        (("--key-update",), ["Client's KeyUpdate", "Server's KeyUpdate", "The next traffic secret"]),
        (("--client-auth", "optional", "--key-type", "ed25519"), ["CertificateRequest", "Client's Certificate"]),
        (("--key-type", "rsa-2048", "--groups", "secp256r1", "--alpn", "h2"), ["Server's CertificateVerify"]),
    ],
)
def test_every_variant_of_the_handshake_can_be_told(words: tuple[str, ...], expected: list[str]) -> None:
    told = titles(story(*words))
    for title in expected:
        assert title in told
    if words == ("--resume",):
        assert "Server's Certificate" not in told


class Page(HTMLParser):
    """Checks that tags are balanced and that nothing is fetched from elsewhere."""

    VOID = frozenset({"meta"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.links: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        assert tag not in ("script", "link", "img", "iframe")
        assert "src" not in found
        self.ids.add(found.get("id") or "")
        if tag == "a":
            self.links.add(found["href"] or "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_html_is_one_self_contained_page_whose_diagram_leads_to_every_step(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    done = explain("--client-auth", "required", "--html", str(file))
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    page = Page()
    page.feed(file.read_text())
    assert page.open == []
    assert "http" not in file.read_text().replace("http/1.1", "")
    steps = {link.removeprefix("#") for link in page.links}
    assert len(steps) == 21
    assert steps <= page.ids


def test_a_verified_chain_of_openssl_is_told_as_verified() -> None:
    with openssl_server() as (_, port):
        told = story(f"localhost:{port}", "--ca", ca())
    assert told["summary"]["chain_verifies"] is True
    assert told["failure"] is None
    assert "NewSessionTicket" in titles(told)


def test_an_unverified_chain_is_told_as_such_and_the_story_goes_on() -> None:
    with gnutls_server() as (host, port):
        done = explain(f"{host}:{port}", "--server-name", "elsewhere.example", "--ca", ca())
    assert done.returncode == 0, done.stderr
    assert "NOT verified by the client: the chain does not verify" in done.stdout
    assert "elsewhere.example" in done.stdout
    assert "Client's Finished" in done.stdout


def test_the_tunnel_itself_can_be_explained_with_post_quantum_keys_and_resumption() -> None:
    pair = certificates.server("localhost", "127.0.0.1")
    words = ["--listen", "127.0.0.1:0", "--workers", "1", "--cert", str(pair.certificate), "--key", str(pair.key)]
    with tunnel.start("echo", *words) as daemon:
        told = story(f"localhost:{daemon.port}", "--ca", ca(), "--resume")
    assert told["summary"]["group"] == "X25519MLKEM768"
    assert told["summary"]["resumed"] is True


def test_client_certificates_are_shown_to_a_real_server_and_their_absence_is_explained() -> None:
    pair = certificates.client("billing")
    with openssl_server("-Verify", "1", "-CAfile", ca(), "-verify_return_error") as (_, port):
        told = story(f"localhost:{port}", "--cert", str(pair.certificate), "--key", str(pair.key))
        assert "Client's CertificateVerify" in titles(told)
        done = explain(f"localhost:{port}")
    assert done.returncode == 1
    assert done.stderr == (
        f"tlstunnel: localhost:{port}: the peer refused with the alert certificate_required; give --cert and --key\n"
    )
    assert "Client's Finished" in done.stdout


@contextlib.contextmanager
def fake_server(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that accepts one connection and does what `answer` does with it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            sock, _ = listener.accept()
            with sock:
                answer(sock)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(30)


def until_closed(sock: socket.socket) -> None:
    while sock.recv(1 << 14):
        pass


def plaintext(sock: socket.socket) -> None:
    sock.recv(1 << 14)
    sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\x1b[31m\r\n")


def greeting(sock: socket.socket) -> None:
    sock.sendall(b"220 mail.example \x1b[2J ESMTP\r\n")
    until_closed(sock)


def tls_1_2(sock: socket.socket) -> None:
    hello = b"\x02\x00\x00\x26\x03\x03" + bytes(32) + b"\0\xc0\x2f\0"
    sock.recv(1 << 14)
    sock.sendall(b"\x16\x03\x03" + len(hello).to_bytes(2) + hello)
    until_closed(sock)


def handshake_failure(sock: socket.socket) -> None:
    sock.recv(1 << 14)
    sock.sendall(b"\x15\x03\x03\x00\x02\x02\x28")


def half_a_record(sock: socket.socket) -> None:
    sock.recv(1 << 14)
    sock.sendall(b"\x16\x03\x03\x10\x00\x02")


def close_at_once(sock: socket.socket) -> None:
    sock.recv(1 << 14)


def endless(sock: socket.socket) -> None:
    sock.recv(1 << 14)
    while True:
        sock.sendall(b"\x14\x03\x03\x00\x01\x01" * 2000)


BAD_SERVERS: dict[str, tuple[Callable[[socket.socket], None], str]] = {
    "silent": (
        until_closed,
        "the server said nothing within 0.5s; it may speak no TLS, or only after STARTTLS, "
        "which `tlstunnel probe --starttls` asks for",
    ),
    "plaintext": (plaintext, 'speaks no TLS: it begins with "HTTP/1.1 400 Bad Request"; give a port that does'),
    "greeting": (greeting, 'speaks no TLS: it begins with "220 mail.example \\x1b[2J ESMTP"; give a port that does'),
    "TLS 1.2": (tls_1_2, "offers no TLS 1.3; tlstunnel probe shows what it does offer"),
    "alert": (
        handshake_failure,
        "the peer refused with the alert handshake_failure; it may share no group, suite or signature with us",
    ),
    "half a record": (
        half_a_record,
        "the server closed the connection in the middle of the handshake; "
        "it may speak no TLS 1.3, or need another server name",
    ),
    "closing": (
        close_at_once,
        "the server closed the connection without an answer to our ClientHello; "
        "it may speak no TLS 1.3, or need another server name",
    ),
    "endless": (
        endless,
        "more records that mean nothing than any peer needs (we answered with the alert unexpected_message)",
    ),
}


@pytest.mark.parametrize("name", BAD_SERVERS)
def test_a_bad_server_is_one_line_and_exit_code_1(name: str) -> None:
    answer, expected = BAD_SERVERS[name]
    with fake_server(answer) as port:
        patience = "500ms" if name == "silent" else "30s"
        done = explain(f"127.0.0.1:{port}", "--handshake-timeout", patience)
    assert done.stderr == f"tlstunnel: 127.0.0.1:{port}: {expected}\n"
    assert done.returncode == 1
    assert "\x1b" not in done.stdout


def test_a_lying_server_is_caught_and_the_story_ends_where_it_lied() -> None:
    with hostile.trap(Alter(HandshakeType.CERTIFICATE_VERIFY, flip(-1))) as trap:
        told = story(f"localhost:{trap.port}", code=1)
        assert trap.verdict().alert == "decrypt_error"
    assert titles(told)[-2:] == ["Server's CertificateVerify", "alert decrypt_error"]
    assert told["failure"].startswith("the signature in CertificateVerify is not the certificate's")
    with hostile.trap(Drop(HandshakeType.ENCRYPTED_EXTENSIONS)) as trap:
        done = explain(f"localhost:{trap.port}")
    assert "CERTIFICATE" not in done.stderr
    assert done.stderr.count("\n") == 1
    assert "unexpected_message" in done.stderr


def test_an_unreachable_server_is_one_line_and_no_story() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    done = explain(f"127.0.0.1:{port}")
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr == f"tlstunnel: 127.0.0.1:{port}: connection refused; check host and port\n"
    done = explain("name.invalid:443")
    assert done.stderr == "tlstunnel: name.invalid:443: the name has no address; check its spelling\n"


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (("localhost",), "HOST:PORT"),
        (("localhost:99999",), "HOST:PORT"),
        (("--groups", "x448"), "--groups"),
        (("--ciphersuites", "RC4"), "--ciphersuites"),
        (("--alpn", ","), "--alpn"),
        (("--key-type", "dsa"), "--key-type"),
        (("--client-auth", "maybe"), "--client-auth"),
        (("--hello-retry", "--groups", "x25519"), "--hello-retry"),
        (("--server-name", "x"), "--server-name"),
        (("localhost:1", "--hello-retry"), "--hello-retry"),
        (("localhost:1", "--connect-timeout", "5"), "--connect-timeout"),
        (("localhost:1", "--cert", "x.pem"), "--key"),
        (("--json", "--hex"), "--hex"),
    ],
)
def test_a_wrong_word_is_one_line_and_exit_code_2(words: tuple[str, ...], where: str) -> None:
    done = explain(*words)
    assert (done.stdout, done.returncode) == ("", 2)
    assert done.stderr.startswith(f"tlstunnel: {where}: ")
    assert done.stderr.count("\n") == 1


def test_a_key_that_does_not_fit_is_refused_without_showing_it(tmp_path: Path) -> None:
    pair, other = certificates.client("billing"), certificates.client("payroll", key_type="ECDSA P-384")
    done = explain("localhost:1", "--cert", str(pair.certificate), "--key", str(other.key))
    assert done.returncode == 2
    assert done.stderr == (
        f"tlstunnel: {other.key}: the private key (ECDSA P-384; the certificate's is ECDSA P-256) does not belong to "
        f"the certificate CN=billing in {pair.certificate}; name the key it was made with\n"
    )
    (tmp_path / "garbage.pem").write_bytes(os.urandom(1000))
    done = explain("localhost:1", "--cert", str(tmp_path / "garbage.pem"), "--key", str(other.key))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    done = explain("localhost:1", "--ca", str(tmp_path / "absent.pem"))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1


def test_a_page_that_cannot_be_written_is_one_line() -> None:
    done = explain("--html", "/nonexistent/page.html")
    assert done.returncode == 1
    assert done.stderr == (
        "tlstunnel: /nonexistent/page.html: no such file or directory; give a file that can be written\n"
    )
