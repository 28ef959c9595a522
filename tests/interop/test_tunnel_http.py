"""curl before the tunnel; nginx and Python's http.server behind it."""

from __future__ import annotations

import hashlib
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import certificates, peers, tunnel
from tests.support.interop import require

pytestmark = [pytest.mark.interop, pytest.mark.slow]

TEXT = "a page behind the tunnel\n"
BLOB = random.Random(1).randbytes(3_000_001)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("site")
    (root / "page.txt").write_text(TEXT)
    (root / "blob").write_bytes(BLOB)
    (root / "put").mkdir()
    return root


@pytest.fixture(scope="module", params=["nginx", "http.server"])
def web(request: pytest.FixtureRequest, site: Path) -> Iterator[tunnel.Tunnel]:
    start = peers.nginx if request.param == "nginx" else peers.http_server
    pair = certificates.server("localhost", "www.example.org", "127.0.0.1")
    with start(site) as service, tunnel.server(service.port, pair=pair) as daemon:
        yield daemon


def curl(*words: object, ca: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    options = ["--silent", "--show-error", "--noproxy", "*", "--max-time", "60"]
    command = [require("curl"), *options, "--cacert", str(ca or certificates.ca().certificate), *map(str, words)]
    return subprocess.run(command, capture_output=True, check=False)


def fetched(*words: object) -> bytes:
    result = curl(*words)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_curl_gets_a_page(web: tunnel.Tunnel) -> None:
    assert fetched("--http1.1", f"https://localhost:{web.port}/page.txt").decode() == TEXT
    record = web.record()
    assert (record["reason"], record["version"]) == ("finished", "TLSv1.3")


def test_curl_gets_a_page_over_tls_1_2(web: tunnel.Tunnel) -> None:
    words = ["--tlsv1.2", "--tls-max", "1.2", f"https://localhost:{web.port}/page.txt"]
    assert fetched(*words).decode() == TEXT
    assert web.record()["version"] == "TLSv1.2"


def test_curl_asks_for_another_name_and_an_address(web: tunnel.Tunnel) -> None:
    resolve = ["--resolve", f"www.example.org:{web.port}:127.0.0.1"]
    assert fetched(*resolve, f"https://www.example.org:{web.port}/page.txt").decode() == TEXT
    assert fetched(f"https://127.0.0.1:{web.port}/page.txt").decode() == TEXT


def test_curl_gets_a_file_whole(web: tunnel.Tunnel) -> None:
    got = fetched(f"https://localhost:{web.port}/blob")
    assert hashlib.sha256(got).digest() == hashlib.sha256(BLOB).digest()


def test_curl_asks_twice_on_one_connection(site: Path) -> None:
    with peers.nginx(site) as service, tunnel.server(service.port) as daemon:
        url = f"https://localhost:{daemon.port}/page.txt"
        out = fetched("--write-out", "%{num_connects}\n", url, url).decode()
        assert out == f"{TEXT}1\n{TEXT}0\n"
        daemon.record()
        assert len(daemon.records) == 1


def test_curl_puts_a_file_whole(site: Path, tmp_path: Path) -> None:
    blob = tmp_path / "upload"
    blob.write_bytes(BLOB)
    with peers.nginx(site) as service, tunnel.server(service.port) as daemon:
        fetched("--http1.1", "--upload-file", blob, f"https://localhost:{daemon.port}/put/upload")
        assert (site / "put" / "upload").read_bytes() == BLOB
        assert daemon.record()["bytes_forward"] > len(BLOB)


def test_curl_refuses_a_stranger_and_another_name(web: tunnel.Tunnel) -> None:
    other = curl(f"https://localhost:{web.port}/page.txt", ca=certificates.ca("another CA").certificate)
    assert other.returncode == 60
    wrong = curl("--resolve", f"wrong.example:{web.port}:127.0.0.1", f"https://wrong.example:{web.port}/")
    assert wrong.returncode == 60


def test_curl_with_an_old_version_or_without_tls_is_refused(web: tunnel.Tunnel) -> None:
    old = curl("--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0", f"https://localhost:{web.port}/")
    assert old.returncode == 35
    assert b"protocol version" in old.stderr
    plain = curl("--fail-with-body", f"http://localhost:{web.port}/")
    assert plain.returncode == 22
    assert b"speaks TLS" in plain.stdout


def test_curl_shows_its_certificate(site: Path) -> None:
    demand = ["--client-auth", "required", "--client-ca", str(certificates.ca().certificate), "--allow-cn", "browser"]
    pair = certificates.client("browser")
    with peers.http_server(site) as service, tunnel.server(service.port, *demand) as daemon:
        shown = ["--cert", pair.certificate, "--key", pair.key]
        assert fetched(*shown, f"https://localhost:{daemon.port}/page.txt").decode() == TEXT
        assert "browser" in daemon.record()["identity"]
        assert curl(f"https://localhost:{daemon.port}/page.txt").returncode != 0
        assert daemon.record()["reason"] == "no_client_certificate"


def test_curl_speaks_plaintext_to_a_tunnel_in_client_mode(site: Path) -> None:
    with (
        peers.http_server(site) as service,
        tunnel.server(service.port) as far,
        tunnel.client(far.port) as near,
    ):
        assert fetched(f"http://localhost:{near.port}/page.txt").decode() == TEXT
        assert near.record()["reason"] == "finished"


def test_curl_through_unix_sockets_and_ipv6(site: Path) -> None:
    with peers.http_server(site) as service, peers.folder() as folder:
        listen = (f"unix:{folder}/tls", "[::1]:0")
        pair = certificates.server("localhost", "::1")
        with tunnel.server(service.port, listen=listen, pair=pair) as daemon:
            port = next(each.port for each in daemon.listens if not each.address.startswith("unix:"))
            assert fetched("--unix-socket", f"{folder}/tls", "https://localhost/page.txt").decode() == TEXT
            assert fetched("--globoff", f"https://[::1]:{port}/page.txt").decode() == TEXT
