"""TLS towards the target, in client mode and as `target_tls`: `openssl s_server` is verified before it gets a byte."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import certificates, openssl_ca, peers, services
from tests.support.openssl_ca import Authority, Pair

pytestmark = [pytest.mark.interop, pytest.mark.slow]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return openssl_ca.make(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def named(authority: Authority) -> Pair:
    return authority.issue(
        "db", "subjectAltName=DNS:db.example.org,DNS:localhost,URI:spiffe://example.org/db", subject="/OU=data/CN=db"
    )


@pytest.fixture(scope="module")
def peer(authority: Authority, named: Pair) -> Iterator[int]:
    words = ("-rev", "-Verify", "1", "-CAfile", str(authority.certificate), "-verify_return_error")
    with peers.s_server(*words, pair=named) as running:  # type: ignore[arg-type]
        yield running.port


def reverse(port: int, tls: bool) -> bytes:
    """A line to the tunnel, and what comes back of it."""
    sock: socket.socket = socket.create_connection(("127.0.0.1", port), 60)
    if tls:
        context = ssl.create_default_context(cafile=str(certificates.ca().certificate))
        sock = context.wrap_socket(sock, server_hostname="localhost")
    with sock:
        sock.sendall(b"drawer\n")
        if not tls:
            sock.shutdown(socket.SHUT_WR)
        data = b""
        try:
            while (piece := sock.recv(4096)) and not data.endswith(b"\n"):
                data += piece
                if data.endswith(b"\n"):
                    break
        except (ConnectionResetError, ssl.SSLEOFError):
            pass
        return data


GOOD = {
    "host name": "",
    "server_name": 'server_name = "db.example.org"',
    "dns": 'verify_dns = ["db.example.org"]',
    "uri": 'verify_uri = ["spiffe://example.org/*"]',
    "cn": 'verify_cn = ["db"]',
}
BAD = {
    "wrong name": ('server_name = "other.example.org"', "name_mismatch", None),
    "wrong dns": ('verify_dns = ["other.example.org"]', "denied", "no rule matches"),
    "wrong uri": ('verify_uri = ["spiffe://example.org/web"]', "denied", "no rule matches"),
    "wrong cn": ('verify_cn = ["web"]', "denied", "no rule matches"),
    "wrong pin": ('verify_spki_pin = ["sha256:' + "A" * 43 + '="]', "denied", "no rule matches"),
    "wrong ca": ("ca = WRONG", "unknown_ca", None),
    # In TLS 1.3 its alert comes after our side of the handshake is complete (RFC 8446 section 4.4.2.4).
    "no certificate of ours": ("certificate = NONE", "backend_alert", None),
}


def case(mode: str, lines: str, authority: Authority, port: int) -> str:
    """The same settings for either mode; the table `target_tls` of server mode holds what client mode has itself."""
    mine = authority.issue("tunnel", subject="/CN=tunnel")
    own = f'certificate = "{mine.certificate}"\nkey = "{mine.key}"'
    settings = lines.splitlines()
    if not any(line.startswith("ca =") for line in settings):
        settings.append(f'ca = "{authority.certificate}"')
    settings = [line.replace("WRONG", f'"{certificates.ca("another CA").certificate}"') for line in settings]
    if "certificate = NONE" in settings:
        settings.remove("certificate = NONE")
    else:
        settings += own.splitlines()
    if mode == "client":
        return "\n".join(['mode = "client"', f'target = "localhost:{port}"', *settings])
    pair = certificates.server("localhost")
    return "\n".join([
        f'target = "localhost:{port}"', f'certificate = "{pair.certificate}"', f'key = "{pair.key}"',
        f"target_tls = {{ {', '.join(settings)} }}",
    ])  # fmt: skip


@pytest.mark.parametrize("mode", ["client", "server"])
def test_the_target_is_verified_by_chain_name_and_rules(
    authority: Authority, peer: int, tmp_path: Path, mode: str
) -> None:
    cases = {name.replace(" ", "_"): case(mode, lines, authority, peer) for name, lines in GOOD.items()}
    cases |= {name.replace(" ", "_"): case(mode, lines, authority, peer) for name, (lines, *_) in BAD.items()}
    with services.run(tmp_path, "", cases) as running:
        for name in GOOD:
            assert reverse(running.at(name.replace(" ", "_")), mode == "server") == b"reward\n", name
            record = running.record()
            assert record["reason"] in ("finished", "truncated", "client_reset"), name
            assert record["alpn"] is None  # none was set, so none was asked for
            # In server mode the record is about the client, which showed nothing.
            assert (record["identity"] is None) is (mode == "server")
        for name, (_, reason, rule) in BAD.items():
            assert reverse(running.at(name.replace(" ", "_")), mode == "server") == b"", name
            record = running.record()
            assert (name, record["reason"]) == (name, reason)
            assert record["bytes_reverse"] == 0
            assert record["bytes_forward"] == 0 or reason == "backend_alert"
            if mode == "client":
                assert record["rule"] == rule
