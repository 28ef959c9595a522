"""Plain HTTP on a TLS port gets an answer that says so, wherever the first bytes are looked at; nothing else does."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.support import backends, certificates, clients, services
from tests.support.interop import require
from tests.support.services import Services

pytestmark = pytest.mark.slow

ANSWER = b"This port speaks TLS. Use https:// instead of http://, or a client that speaks TLS.\n"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Services, backends.Backend]]:
    pair = certificates.server("localhost")
    common = f'certificate = "{pair.certificate}"\nkey = "{pair.key}"'
    with backends.serve(services.greet) as backend:
        cases = {
            "plain": "",
            "named": '[[sni]]\nnames = ["a.example"]',
            "proxied": "accept_proxy_protocol = true",
            "silent": "http_hint = false",
            "silent_named": 'http_hint = false\n[[sni]]\nnames = ["a.example"]',
        }
        with services.run(tmp_path_factory.mktemp("hint"), backend.port, cases, common) as found:
            yield found, backend


@pytest.mark.interop
@pytest.mark.parametrize("service", ["plain", "named"])
@pytest.mark.parametrize("options", [(), ("--head",), ("--request", "POST", "--data", "x" * 100_000)])
def test_curl_shows_what_to_do(
    running: tuple[Services, backends.Backend], service: str, options: tuple[str, ...]
) -> None:
    found, backend = running
    port = found.at(service)
    command = [require("curl"), "--silent", "--show-error", "--include", "--noproxy", "*", *options]
    done = subprocess.run([*command, f"http://127.0.0.1:{port}/"], capture_output=True, check=False)
    assert done.stdout.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert options == ("--head",) or done.stdout.endswith(ANSWER)
    record = found.record()
    assert (record["reason"], record["detail"]) == (
        "not_tls",
        "client speaks plain HTTP; give it https:// instead of http://",
    )
    assert backend.count == 0


def test_behind_a_proxy_header_too(running: tuple[Services, backends.Backend]) -> None:
    found, _ = running
    with clients.raw(found.at("proxied")) as sock:
        sock.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n")
        data, was_reset = clients.read_to_end(sock)
    assert data.endswith(ANSWER)
    assert not was_reset
    record = found.record()
    assert (record["reason"], record["real_client"]) == ("not_tls", "192.0.2.1:1")


@pytest.mark.parametrize("service", ["plain", "named", "silent", "silent_named"])
@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "client speaks SSH"),
        (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", "client speaks PostgreSQL's own request for TLS"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "client speaks plain HTTP; give it https:// instead of http://"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "client speaks the PROXY protocol (v1) before TLS"),
    ],
)
def test_others_get_no_http(running: tuple[Services, backends.Backend], service: str, data: bytes, detail: str) -> None:
    found, backend = running
    is_hinted = data.startswith(b"GET") and not service.startswith("silent")
    with clients.raw(found.at(service)) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        said, was_reset = clients.read_to_end(sock)
    assert not was_reset
    assert (b"HTTP/1.1 400" in said) is is_hinted
    record = found.record()
    assert record["reason"] == "not_tls"
    assert record["detail"].startswith(detail)
    assert backend.count == 0


@pytest.mark.parametrize("service", ["plain", "named"])
def test_http_that_comes_byte_by_byte_is_recognized(running: tuple[Services, backends.Backend], service: str) -> None:
    found, _ = running
    with clients.raw(found.at(service)) as sock:
        with contextlib.suppress(ConnectionError):  # the answer is there before the last byte is sent
            for byte in b"GET / HTTP/1.1\r\n\r\n":
                sock.send(bytes([byte]))
        data, _ = clients.read_to_end(sock)
    assert data.endswith(ANSWER)
    record = found.record()
    assert (record["reason"], record["detail"]) == (
        "not_tls",
        "client speaks plain HTTP; give it https:// instead of http://",
    )
