"""A server that is not the one we want hears it in the handshake, by an alert, and never sees our certificate."""

from __future__ import annotations

import contextlib
import queue
import re
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import backends, certificates, clients, services
from tests.support.peers import s_server

pytestmark = [pytest.mark.interop, pytest.mark.slow]

RULES = {
    "cn": 'verify_cn = ["nobody"]',
    "dns": 'verify_dns = ["other.example"]',
    "pin": f'verify_spki_pin = ["sha256:{"A" * 43}="]',
}
Heard = queue.Queue[str]


@contextlib.contextmanager
def server(version: str) -> Iterator[tuple[int, Heard]]:
    """A server that asks for a certificate, and what it hears."""
    heard: Heard = queue.Queue()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pair = certificates.server("localhost")
    context.load_cert_chain(pair.certificate, pair.key)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(certificates.ca().certificate)
    context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)

    def handler(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False) as tls:
            try:
                tls.do_handshake()
                said = "a handshake"
            except ssl.SSLError as exc:
                said = exc.reason or str(exc)
        heard.put(said)

    with backends.serve(handler) as backend:
        yield backend.port, heard


def config(mode: str, rule: str, port: int) -> str:
    own, pair = certificates.client("tunnel"), certificates.server("localhost")
    lines = [
        f'ca = "{certificates.ca().certificate}"',
        f'certificate = "{own.certificate}"',
        f'key = "{own.key}"',
        rule,
    ]
    target = f'target = "localhost:{port}"'
    if mode == "client":
        return "\n".join(['mode = "client"', target, *lines])
    return "\n".join([
        target, f'certificate = "{pair.certificate}"', f'key = "{pair.key}"', f"target_tls = {{ {', '.join(lines)} }}"
    ])  # fmt: skip


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("mode", ["client", "server"])
def test_a_server_that_the_rules_refuse_gets_an_alert_in_the_handshake_and_never_our_certificate(
    tmp_path: Path, mode: str, version: str
) -> None:
    with server(version) as (port, heard):
        cases = {name: config(mode, rule, port) for name, rule in RULES.items()}
        cases["name"] = config(mode, 'server_name = "other.example"', port)
        with services.run(tmp_path, "", cases) as running:
            for name in cases:
                if mode == "client":
                    with clients.raw(running.at(name)) as sock:
                        clients.read_to_end(sock)
                else:
                    with clients.connect(running.at(name)) as client:
                        client.read_all()
                said = heard.get(timeout=60)
                assert said == "SSLV3_ALERT_BAD_CERTIFICATE", name
                record = running.record()
                assert record["reason"] == ("name_mismatch" if name == "name" else "denied")
                if name != "name":
                    assert record["detail"].startswith("backend cn=localhost: no rule matches"), record
                    # In server mode the record is about the client.
                    assert (record["identity"], record["rule"]) == (
                        ("cn=localhost", "no rule matches") if mode == "client" else (None, None)
                    )


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_gets_the_alert_and_no_certificate(tmp_path: Path, version: str) -> None:
    """`openssl s_server`, which prints every message it is sent."""
    pair = certificates.server("localhost")
    with s_server("-Verify", "1", "-msg", version, pair=pair) as peer:
        cases = {"cn": config("client", RULES["cn"], peer.port)}
        with services.run(tmp_path, "", cases) as running, clients.raw(running.at("cn")) as sock:
            clients.read_to_end(sock)
            assert running.record()["reason"] == "denied"
        said = peer.read_until("alert bad certificate")
        assert re.search(r"<<< .*ClientHello", said)
        assert not re.search(r"<<< .*, Certificate", said)
