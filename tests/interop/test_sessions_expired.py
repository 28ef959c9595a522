"""No session outlives the certificate it was made with, although every resumption brings a ticket for another one.

OpenSSL looks at a certificate's dates when it is shown, and a resumed session shows none.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support import backends, openssl_ca, peers, services
from tests.support.interop import require
from tests.support.openssl_ca import Authority, Pair
from tests.support.services import GREETING, Services, ask

pytestmark = [pytest.mark.interop, pytest.mark.slow]

VERSIONS = ("-tls1_2", "-tls1_3")
CERTIFICATE_EXPIRED = 45


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return openssl_ca.make(tmp_path)


def short_lived(authority: Authority, *words: str, is_used: Callable[[Pair], bool]) -> Pair:
    """A certificate that was used in time and has expired since. A slow machine gets one that lives longer."""
    for life_s in (3, 10, 30):
        end = datetime.now(UTC) + timedelta(seconds=life_s)
        pair = authority.issue("short-lived", *words, options=("-enddate", f"{end:%Y%m%d%H%M%SZ}"))
        if is_used(pair):
            # Its end is a moment on the clock: there is nothing that could tell us but the clock.
            threading.Event().wait((end - datetime.now(UTC)).total_seconds() + 1)
            return pair
    raise AssertionError("no certificate lives long enough for this machine")


def test_a_client_whose_certificate_has_expired_is_not_resumed(authority: Authority, tmp_path: Path) -> None:
    server = authority.issue("localhost", "subjectAltName=DNS:localhost")
    common = (
        f'certificate = "{server.certificate}"\nkey = "{server.key}"\nallow_any = true\n'
        f'client_auth = "required"\nclient_ca = "{authority.certificate}"'
    )
    with (
        backends.serve(services.greet) as backend,
        services.run(tmp_path, backend.port, {"web": ""}, common) as running,
    ):
        web = running.at("web")

        def is_used(pair: Pair) -> bool:
            for version in VERSIONS:
                session = str(tmp_path / version)
                for options, resumed in ((("-sess_out",), False), (("-sess_in",), True)):
                    said = ask(web, authority.certificate, version, *options, session, pair=pair)
                    record = running.record()
                    if record["reason"] == "expired_certificate":
                        return False
                    assert GREETING in said.text
                    assert record["resumed"] is resumed
            return True

        pair = short_lived(authority, is_used=is_used)
        dialled = backend.count
        for version in VERSIONS:
            session = str(tmp_path / version)
            said = ask(web, authority.certificate, version, "-sess_in", session, "-sess_out", session, pair=pair)
            record = running.record()
            assert (record["resumed"], record["reason"]) == (True, "expired_certificate")
            assert "cn=short-lived: expired since the session that it resumes was made" in record["detail"]
            assert record["target"] is None
            assert GREETING not in said.text
            said = ask(web, authority.certificate, version, pair=pair)
            assert said.alert == CERTIFICATE_EXPIRED
            assert running.record()["reason"] == "expired_certificate"
        assert backend.count == dialled


def fetch(running: Services) -> str:
    """How a connection through the tunnel ended; with what it brought."""
    with socket.create_connection(("127.0.0.1", running.at("db")), 60) as sock:
        sock.sendall(b"drawer\n")
        sock.shutdown(socket.SHUT_WR)
        data = backends.read_all(sock)
    record = running.record()
    assert (data == b"reward\n") is (record["reason"] == "finished")
    return f"{record['reason']}, {'resumed' if record['resumed'] else 'new'}"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_server_whose_certificate_has_expired_is_not_resumed(
    authority: Authority, tmp_path: Path, version: str
) -> None:
    kept: list[peers.Peer] = []
    lines = f'mode = "client"\nca = "{authority.certificate}"\nserver_name = "localhost"'
    port = peers.free_port()
    with services.run(tmp_path, f"127.0.0.1:{port}", {"db": lines}) as running:

        def is_used(pair: Pair) -> bool:
            words = ["s_server", "-accept", f"127.0.0.1:{port}", "-rev", version]
            kept.append(
                peers.Peer(
                    [require("openssl"), *words, "-cert", str(pair.certificate), "-key", str(pair.key)], is_talking=True
                )
            )
            kept[-1].read_until("^ACCEPT")
            said = [fetch(running) for _ in range(3)]
            if any("expired" in word for word in said):
                kept.pop().end()
                return False
            assert said == ["finished, new", "finished, resumed", "finished, resumed"]
            return True

        try:
            short_lived(authority, "subjectAltName=DNS:localhost", is_used=is_used)
            assert fetch(running).startswith("expired_certificate")
        finally:
            for peer in kept:
                peer.end()
