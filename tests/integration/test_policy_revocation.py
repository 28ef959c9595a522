"""Revocation lists of openssl(1): revoked, expired and renewed ones, on both sides of the tunnel."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import backends, openssl_ca, peers, services
from tests.support.backends import Backend
from tests.support.openssl_ca import Authority, Pair
from tests.support.services import GREETING, Services, ask

pytestmark = [pytest.mark.interop, pytest.mark.slow]

VERSIONS = ["-tls1_2", "-tls1_3"]
CERTIFICATE_REVOKED = 44
LONG_AGO = ("-crl_lastupdate", "20200101000000Z", "-crl_nextupdate", "20200102000000Z")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return openssl_ca.make(tmp_path)


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with backends.serve(services.greet) as running:
        yield running


def common(authority: Authority, crl: Path) -> str:
    server = authority.issue("localhost", "subjectAltName=DNS:localhost")
    return (
        f'certificate = "{server.certificate}"\nkey = "{server.key}"\nclient_auth = "required"\nallow_any = true\n'
        f'client_ca = "{authority.certificate}"\ncrl = "{crl}"'
    )


def reload(running: Services, word: str = "reloaded") -> None:
    before = len(running.daemon.messages)
    running.daemon.process.send_signal(signal.SIGHUP)
    running.daemon.until(
        lambda: [message for message in running.daemon.messages[before:] if message["message"].startswith(word)], word
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_a_revoked_client_gets_the_alert_for_it_and_a_new_list_counts_after_a_reload(
    authority: Authority, backend: Backend, tmp_path: Path, version: str
) -> None:
    good, bad = authority.issue("good"), authority.issue("bad")
    lines = common(authority, authority.crl())
    session = str(tmp_path / "session")
    with services.run(tmp_path, backend.port, {"web": ""}, lines) as running:
        for pair in (good, bad):
            said = ask(running.at("web"), authority.certificate, version, "-sess_out", session, pair=pair)
            assert GREETING in said.text
            assert running.record()["reason"] == "finished"
        authority.revoke(bad)
        authority.crl()
        reload(running)
        dialled = backend.count
        # With and without a session from before: a change of trust ends resumption.
        for options in ((), ("-sess_in", session)):
            said = ask(running.at("web"), authority.certificate, version, *options, pair=bad)
            assert (said.alert, GREETING in said.text) == (CERTIFICATE_REVOKED, False)
            record = running.record()
            assert (record["reason"], record["detail"]) == ("revoked", "give it a new one if it is still welcome")
        assert backend.count == dialled
        assert GREETING in ask(running.at("web"), authority.certificate, version, pair=good).text


def refused(config: Path) -> str:
    command = [sys.executable, "-m", "tlstunnel", "check", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_an_expired_list_stops_a_start_and_a_reload(authority: Authority, backend: Backend, tmp_path: Path) -> None:
    lines = common(authority, authority.crl())
    good = authority.issue("good")
    with services.run(tmp_path, backend.port, {"web": ""}, lines) as running:
        authority.crl(*LONG_AGO)
        reload(running, "reload failed, nothing changed")
        assert GREETING in ask(running.at("web"), authority.certificate, pair=good).text
        said = refused(running.config)
    assert "tunnel.toml: services.web.crl: " in said
    assert 'expired on 2020-01-02 00:00 UTC; fetch it anew, or set crl_expired to "warning"' in said


@pytest.mark.parametrize("version", VERSIONS)
def test_an_expired_list_that_may_be_used_warns_and_still_revokes(
    authority: Authority, backend: Backend, tmp_path: Path, version: str
) -> None:
    good, bad = authority.issue("good"), authority.issue("bad")
    authority.revoke(bad)
    lines = common(authority, authority.crl(*LONG_AGO)) + '\ncrl_expired = "warning"'
    with services.run(tmp_path, backend.port, {"web": ""}, lines) as running:
        assert "expired on 2020-01-02 00:00 UTC; fetch it anew" in running.daemon.message("config", "list")["message"]
        assert GREETING in ask(running.at("web"), authority.certificate, version, pair=good).text
        assert running.record()["reason"] == "finished"
        assert ask(running.at("web"), authority.certificate, version, pair=bad).alert == CERTIFICATE_REVOKED
        assert running.record()["reason"] == "revoked"


def test_a_ca_without_a_list_refuses_everybody_it_vouches_for_and_says_why(
    authority: Authority, backend: Backend, tmp_path: Path
) -> None:
    other = openssl_ca.make(tmp_path, "another CA")
    both = tmp_path / "both.pem"
    both.write_bytes(authority.certificate.read_bytes() + other.certificate.read_bytes())
    lines = common(authority, authority.crl()).replace(
        f'client_ca = "{authority.certificate}"', f'client_ca = "{both}"'
    )
    with services.run(tmp_path, backend.port, {"web": ""}, lines) as running:
        warning = running.daemon.message("config", "no revocation list")["message"]
        assert "no revocation list of CN=another CA is given; its certificates will be refused" in warning
        ask(running.at("web"), authority.certificate, pair=other.issue("orphan"))
        assert running.record()["reason"] == "crl_unusable"
        assert GREETING in ask(running.at("web"), authority.certificate, pair=authority.issue("good")).text


@pytest.fixture
def s_server(authority: Authority) -> Iterator[tuple[peers.Peer, Pair]]:
    pair = authority.issue("localhost", "subjectAltName=DNS:localhost")
    with peers.s_server("-rev", pair=pair) as peer:  # type: ignore[arg-type]
        yield peer, pair


def reverse(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 60) as sock:
        sock.sendall(b"drawer\n")
        sock.shutdown(socket.SHUT_WR)
        data = b""
        while piece := sock.recv(4096):
            data += piece
        return data


@pytest.mark.parametrize("expired", [False, True])
def test_the_server_is_checked_against_a_list_in_client_mode(
    authority: Authority, s_server: tuple[peers.Peer, Pair], tmp_path: Path, expired: bool
) -> None:
    peer, pair = s_server
    dates = LONG_AGO if expired else ()
    crl = authority.crl(*dates)
    lines = f'mode = "client"\nca = "{authority.certificate}"\ncrl = "{crl}"\ntarget = "localhost:{peer.port}"'
    lines += '\ncrl_expired = "warning"' if expired else ""
    with services.run(tmp_path, "", {"db": lines}) as running:
        assert reverse(running.at("db")) == b"reward\n"
        assert running.record()["reason"] == "finished"
        authority.revoke(pair)
        authority.crl(*dates)
        reload(running)
        assert reverse(running.at("db")) == b""
        record = running.record()
        assert (record["reason"], record["stage"]) == ("revoked", "handshake")
