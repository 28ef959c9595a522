"""`cert show HOST:PORT` against servers we did not write, and against what is no TLS server at all."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support import certificates, tls_servers, tunnel
from tests.support.interop import require
from tlstunnel.address import TCPAddress
from tlstunnel.cli.cert import app
from tlstunnel.errors import StartupError
from tlstunnel.tools.pki import authority, issue, readers
from tlstunnel.tools.probe import fetch
from tlstunnel.tools.probe.route import Limits

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("show")
    root = authority.create(path / "root", name="Root")
    sub = authority.create(path / "sub", name="Sub", parent=root)
    issue.server(sub, ["localhost", "127.0.0.1"], path)
    return path


@contextmanager
def openssl_server(folder: Path, *options: str) -> Iterator[int]:
    """`openssl s_server` on a free port, with a chain."""
    command = [
        require("openssl"), "s_server", "-accept", "127.0.0.1:0", "-cert", str(folder / "localhost.pem"),
        "-cert_chain", str(folder / "sub" / "ca.pem"), "-key", str(folder / "localhost.key"), *options,
    ]  # fmt: skip
    server = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        line = next(line for line in server.stdout if line.startswith("ACCEPT"))
        yield int(line.rpartition(":")[2])
    finally:
        server.kill()
        server.communicate()


@contextmanager
def plain_server(behave: Callable[[socket.socket], object]) -> Iterator[int]:
    """A server that is not one: `behave` gets each connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            behave(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        thread.join()
        listener.close()


@pytest.mark.parametrize(
    "options", [["-tls1_3"], ["-tls1_2"], ["-Verify", "1", "-tls1_2"], ["-Verify", "1", "-tls1_3"]]
)
def test_the_whole_chain_is_fetched_unverified(folder: Path, options: list[str]) -> None:
    with openssl_server(folder, *options) as port:
        chain = fetch.fetch_chain(TCPAddress("127.0.0.1", port))
    assert [readers.certificates(der, where="x")[0].subject.rfc4514_string() for der in chain] == [
        "CN=localhost",
        "CN=Sub",
    ]


def test_the_command_shows_a_server_and_judges_its_chain(folder: Path) -> None:
    with openssl_server(folder) as port:
        arguments = ["show", f"127.0.0.1:{port}", "--ca", str(folder / "root" / "ca.pem"), "--json"]
        result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["chain"]["verifies"]
    assert report["chain"]["name"] == "127.0.0.1"
    assert report["chain"]["path"] == ["CN=localhost", "CN=Sub", "CN=Root"]


def test_a_server_for_another_name_is_said_to_be(folder: Path) -> None:
    with openssl_server(folder) as port:
        arguments = ["show", f"127.0.0.1:{port}", "--ca", str(folder / "root" / "ca.pem"), "--server-name", "web"]
        result = CliRunner().invoke(app, arguments)
    assert 'not for "web": its names are localhost, 127.0.0.1' in result.stdout


def test_a_port_where_nobody_listens() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        with pytest.raises(StartupError, match=f"127.0.0.1:{port}: connection refused; check host and port"):
            fetch.fetch_chain(TCPAddress("127.0.0.1", port))


def test_a_plaintext_server() -> None:
    with (
        plain_server(lambda connection: connection.sendall(b"220 mail.example.org ESMTP\r\n")) as port,
        pytest.raises(StartupError, match=r'speaks no TLS: it begins with "220 mail\.example\.org ESMTP"'),
    ):
        fetch.fetch_chain(TCPAddress("127.0.0.1", port))


def test_a_server_that_hangs_up() -> None:
    with (
        tls_servers.scripted(lambda connection: connection.recv(10000)) as port,
        pytest.raises(StartupError, match="closes the connection on every ClientHello"),
    ):
        fetch.fetch_chain(TCPAddress("127.0.0.1", port))


def test_a_silent_server_costs_no_more_than_the_deadline() -> None:
    done = threading.Event()
    with (
        plain_server(lambda _: done.wait()) as port,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(done.set)
        with pytest.raises(StartupError, match=r"the server said nothing within 0\.2s"):
            fetch.fetch_chain(TCPAddress("127.0.0.1", port), limits=Limits(answer_s=0.2))


def test_a_server_that_drips_costs_no_more_than_the_deadline() -> None:
    def drip(connection: socket.socket) -> None:
        # The beginning of a record of 16 KiB, one byte in each twentieth of a second, for as long as somebody listens.
        connection.settimeout(0.05)
        with contextlib.suppress(OSError):
            connection.sendall(b"\x16\x03\x03\x40\x00\x02")
            while True:
                with contextlib.suppress(TimeoutError):
                    if connection.recv(10000) == b"":
                        return
                connection.sendall(b"\x00")

    with plain_server(drip) as port, pytest.raises(StartupError, match=r"was not done within 0\.3s"):
        fetch.fetch_chain(TCPAddress("127.0.0.1", port), limits=Limits(answer_s=0.3))


def test_a_name_without_an_address() -> None:
    with pytest.raises(StartupError, match="the name has no address; check its spelling"):
        fetch.fetch_chain(TCPAddress("no-such-host.invalid", 443))


def test_a_server_with_nothing_but_an_unusual_group_shows_its_chain(folder: Path) -> None:
    for group in ("P-521", "X448", "ffdhe2048"):
        with openssl_server(folder, "-tls1_3", "-groups", group) as port:
            assert len(fetch.fetch_chain(TCPAddress("127.0.0.1", port))) == 2


def test_an_old_server_shows_its_chain() -> None:
    pair = certificates.server("localhost", key_type="RSA 1024")
    weak = ("-tls1", "-cipher", "ALL:@SECLEVEL=0")
    with tls_servers.openssl(*weak, pair=pair, settings=tls_servers.ANYTHING_GOES) as port:
        assert fetch.fetch_chain(TCPAddress("127.0.0.1", port))[0] == pair.leaf_der


def test_a_post_quantum_server_shows_its_chain(folder: Path) -> None:
    pair = certificates.server("localhost", key_type="ML-DSA-65")
    with tunnel.server("127.0.0.1:9", "--groups", "X25519MLKEM768", "--min-version", "1.3", pair=pair) as daemon:
        result = CliRunner().invoke(app, ["show", f"127.0.0.1:{daemon.port}", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["items"][0]["key"] == "ML-DSA-65"


def test_a_certificate_that_is_none_is_the_servers_fault() -> None:
    def behave(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        certificate = bytes.fromhex("0b00000a000007000004") + b"junk"
        connection.sendall(b"\x16\x03\x03" + (len(HELLO) + len(certificate) + 4).to_bytes(2) + HELLO + certificate)
        connection.sendall(b"\x0e\0\0\0")
        connection.recv(1 << 16)

    with tls_servers.scripted(behave) as port:
        result = CliRunner().invoke(app, ["show", f"127.0.0.1:{port}"])
    assert isinstance(result.exception, StartupError)
    assert "what it sends as a certificate cannot be read" in str(result.exception)


HELLO = b"\x02\0\0\x26\x03\x03" + bytes(32) + b"\0" + b"\x00\x2f" + b"\0"
"""A ServerHello of TLS 1.2."""
