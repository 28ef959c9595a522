"""The admin endpoint over TLS: who is served, who is not, and what the commands need to reach it."""

from __future__ import annotations

import http.client
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from tests.support.admin_rig import running
from tlstunnel.config.model import Admin
from tlstunnel.errors import StartupError
from tlstunnel.observe.admin.tls import tls_context


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ca.pem`, and `server.pem` and `client.pem` with their keys."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    for name in ("server", "client"):
        made = authority.issue_cert("localhost", "127.0.0.1")
        made.private_key_and_cert_chain_pem.write_to_path(str(folder / f"{name}.pem"))
    made.private_key_pem.write_to_path(str(folder / "alone.key"))
    return folder


def status(files: Path, address: int | str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tlstunnel", "status", "--admin", f"localhost:{address}", "--warn-days", "1"]
    return subprocess.run([*command, *options], capture_output=True, text=True, check=False, cwd=files)


def test_it_serves_those_who_show_a_certificate_and_nobody_else(files: Path) -> None:
    with running(workers=1, certificate=files / "server.pem", client_ca=files / "ca.pem") as rig:
        assert status(files, rig.address, "--ca", "ca.pem", "--cert", "client.pem").returncode == 0
        without = status(files, rig.address, "--ca", "ca.pem")
        assert without.returncode == 1
        assert "it may want a certificate (--cert, --key)" in without.stderr
        assert status(files, rig.address).returncode == 1
        assert status(files, rig.address, "--ca", "ca.pem", "--cert", "client.pem").returncode == 0


def test_without_a_client_ca_it_serves_everybody_who_speaks_tls(files: Path) -> None:
    with running(workers=1, certificate=files / "server.pem") as rig:
        context = ssl.create_default_context(cafile=str(files / "ca.pem"))
        connection = http.client.HTTPSConnection("localhost", int(rig.address), timeout=30, context=context)
        for path in ("/livez", "/readyz", "/metrics"):
            connection.request("GET", path)
            response = connection.getresponse()
            assert response.status == 200
            assert response.read()
        connection.request("POST", "/metrics", body="x")
        assert connection.getresponse().status == 405
        connection.close()
        untrusting = status(files, rig.address, "--cert", "client.pem")
        assert "its certificate is not trusted" in untrusting.stderr
        assert len(untrusting.stderr.splitlines()) == 1


def test_plain_http_is_cut_off_without_an_answer_in_plain(files: Path) -> None:
    with (
        running(workers=1, certificate=files / "server.pem") as rig,
        socket.create_connection(("127.0.0.1", int(rig.address)), timeout=30) as client,
    ):
        client.sendall(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        try:
            while part := client.recv(65536):
                answer += part
        except ConnectionResetError:
            pass
        assert b"HTTP" not in answer


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"certificate": "none.pem"}, "none.pem: does not exist; check the path"),
        ({"certificate": "ca.pem"}, "not usable; it must hold a PEM certificate, and admin.key"),
        ({"certificate": "server.pem", "key": "alone.key"}, "key values mismatch; it must hold"),
        (
            {"certificate": "server.pem", "client_ca": "alone.key"},
            "holds a private key but no certificate; a CA needs no key",
        ),
    ],
)
def test_files_that_do_not_serve_are_named_with_what_would_be_right(
    settings: dict[str, str], said: str, files: Path
) -> None:
    with pytest.raises(StartupError) as caught:
        tls_context(Admin(**{name: files / value for name, value in settings.items()}))
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"admin.{'client_ca' if 'client_ca' in settings else 'certificate'}: ")
    assert "\n" not in str(caught.value)


def test_an_encrypted_key_is_refused_instead_of_asked_for(files: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked.pem"
    subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-in", files / "server.pem", "-out", locked, "-passout", "pass:secret"],
        check=True,
    )
    with pytest.raises(StartupError, match="the key is encrypted; it must hold"):
        tls_context(Admin(certificate=files / "server.pem", key=locked))


def test_plain_http_needs_no_context() -> None:
    assert tls_context(Admin()) is None
