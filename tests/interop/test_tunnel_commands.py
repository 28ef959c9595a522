"""`tlstunnel connect` and `tlstunnel echo`, against OpenSSL, Python's ssl and each other."""

from __future__ import annotations

import hashlib
import random
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support import backends, certificates, peers, tunnel
from tests.support.traffic import TLS, Stream, backend, talk

pytestmark = [pytest.mark.interop, pytest.mark.slow]

CA = certificates.ca
BLOB = random.Random(2).randbytes(5_000_003)


@pytest.fixture(scope="module")
def echo() -> Iterator[tunnel.Tunnel]:
    pair = certificates.server("localhost", "127.0.0.1")
    words = ["--listen", "127.0.0.1:0", "--workers", "1", "--log-format", "json"]
    with tunnel.start("echo", *words, "--cert", str(pair.certificate), "--key", str(pair.key)) as daemon:
        yield daemon


def connect(
    address: str, *options: object, stdin: bytes = b"", ca: certificates.Pair | None = None
) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "tlstunnel", "connect", address, "--ca", str((ca or CA()).certificate)]
    return subprocess.run(
        [*command, *map(str, options)], input=stdin, capture_output=True, check=False, timeout=tunnel.PATIENCE_S
    )


def refusal(done: subprocess.CompletedProcess[bytes]) -> str:
    """The one line that a refused connection prints, and exit status 1."""
    assert done.returncode == 1
    assert done.stdout == b""
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1, lines
    return lines[0].removeprefix("tlstunnel: ")


# connect


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_connect_talks_to_s_server_and_says_what_was_negotiated(version: str) -> None:
    with peers.s_server(f"-tls{version.replace('.', '_')}", "-rev") as other:
        command = [sys.executable, "-m", "tlstunnel", "connect", f"localhost:{other.port}", "-v"]
        with peers.talking([*command, "--ca", str(CA().certificate)]) as ours:
            ours.write("drawer\n")
            said = ours.read_until("reward")
            assert f"connected to localhost:{other.port}: TLSv{version}, " in said
            other.process.terminate()
            ours.finish()


def test_connect_brings_back_everything_after_the_end_of_its_input(echo: tunnel.Tunnel) -> None:
    done = connect(f"localhost:{echo.port}", stdin=BLOB)
    assert (done.returncode, done.stderr) == (0, b"")
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(BLOB).digest()
    assert echo.record()["reason"] == "finished"


def test_connect_asks_a_web_server(tmp_path_factory: pytest.TempPathFactory) -> None:
    site = tmp_path_factory.mktemp("site")
    (site / "page").write_text("the page\n")
    with peers.nginx(site) as service, tunnel.server(service.port) as daemon:
        request = b"GET /page HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        done = connect(f"localhost:{daemon.port}", "-v", stdin=request)
        assert done.returncode == 0
        assert done.stdout.startswith(b"HTTP/1.1 200 OK\r\n")
        assert done.stdout.endswith(b"\r\n\r\nthe page\n")
        assert b"TLSv1.3, TLS_AES_128_GCM_SHA256, X25519MLKEM768" in done.stderr


def test_connect_verifies_the_chain_and_the_name(echo: tunnel.Tunnel) -> None:
    stranger = refusal(connect(f"localhost:{echo.port}", ca=CA("another CA")))
    assert "certificate does not chain to a trusted CA" in stranger
    wrong = refusal(connect(f"localhost:{echo.port}", "--server-name", "another.example"))
    assert "certificate is for another name" in wrong
    assert [echo.record()["reason"] for _ in range(2)] == ["alert", "alert"]


def test_connect_shows_its_certificate() -> None:
    demand = ["-Verify", "2", "-verify_return_error", "-CAfile", str(CA().certificate)]
    pair = certificates.client("billing")
    with peers.s_server("-tls1_2", "-www", *demand) as other:
        request = b"GET / HTTP/1.0\r\n\r\n"
        done = connect(f"localhost:{other.port}", "--cert", pair.certificate, "--key", pair.key, stdin=request)
        assert (
            pair.certificate.read_bytes().splitlines()[2] in done.stdout
        )  # s_server writes its client's into the page
        assert refusal(connect(f"localhost:{other.port}", stdin=request))


def test_connect_says_when_the_server_broke_off() -> None:
    """A FIN without close_notify: what came is written, and the exit status says that something may be missing."""
    pair = certificates.server("localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)

    def answer(sock: socket.socket) -> None:
        end = TLS(sock, context, server_side=True)
        end.put(memoryview(b"half an ans"))
        end.flush()

    with backend(answer) as service:
        done = connect(f"localhost:{service.port}")
        assert done.returncode == 1
        assert done.stdout == b"half an ans"
        assert b"without close_notify" in done.stderr
        service.got()


def test_connect_says_what_does_not_speak_tls() -> None:
    def answer(sock: socket.socket) -> None:
        sock.recv(1)
        sock.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
        sock.recv(1 << 16)

    with backend(answer) as service:
        assert f"localhost:{service.port}: handshake failed: peer does not speak TLS" in refusal(
            connect(f"localhost:{service.port}")
        )
    assert "refused" in refusal(connect(f"127.0.0.1:{peers.free_port()}")).lower()


def through_a_shell(port: int, line: str) -> subprocess.CompletedProcess[str]:
    """A line of shell in which `connect` is `tlstunnel connect` to that port."""
    head = f'connect() {{ "{sys.executable}" -m tlstunnel connect localhost:{port} --ca "{CA().certificate}"; }}; '
    return subprocess.run(
        ["/bin/bash", "-c", head + line], capture_output=True, text=True, check=False, timeout=tunnel.PATIENCE_S
    )


def test_a_hundred_mebibytes_go_through_pipes_there_and_back(echo: tunnel.Tunnel) -> None:
    make = f'"{sys.executable}" -c "import random, sys; b = random.Random(3).randbytes(1 << 20)\n'
    make += 'for n in range(100): sys.stdout.buffer.write(b[n:] + b[:n])"'
    done = through_a_shell(echo.port, f"{make} | tee >(sha256sum >&2) | connect | sha256sum; echo ${{PIPESTATUS[@]}}")
    back, codes = done.stdout.splitlines()
    assert done.stderr.strip() == back
    assert codes == "0 0 0 0"
    assert echo.record()["bytes_reverse"] == 100 << 20


@pytest.mark.parametrize(
    ("line", "printed"),
    [
        ("connect <&-", ""),
        ("echo hello | connect >&-", ""),
        ("echo hello | connect 2>&-", "hello\n"),
        ("connect <&- >&- 2>&-", ""),
    ],
)
def test_connect_takes_closed_streams_for_empty_ones(echo: tunnel.Tunnel, line: str, printed: str) -> None:
    done = through_a_shell(echo.port, line)
    assert (done.returncode, done.stdout, done.stderr) == (0, printed, "")
    assert echo.record()["reason"] == "finished"


def test_a_reader_that_goes_away_ends_connect_without_a_word(echo: tunnel.Tunnel) -> None:
    done = through_a_shell(echo.port, "yes | connect | head -n 1; echo ${PIPESTATUS[1]}")
    assert (done.stdout, done.stderr) == ("y\n0\n", "")
    echo.record()


def test_output_that_cannot_be_written_is_one_line(echo: tunnel.Tunnel) -> None:
    done = through_a_shell(echo.port, "echo hello | connect > /dev/full")
    assert done.returncode == 1
    assert done.stderr == "tlstunnel: standard output: no space left on device; redirect it elsewhere\n"
    echo.record()


def test_ctrl_c_ends_connect_at_once_also_while_nobody_reads_its_output(echo: tunnel.Tunnel) -> None:
    command = [sys.executable, "-m", "tlstunnel", "connect", f"localhost:{echo.port}", "--ca", str(CA().certificate)]
    with (
        open("/dev/zero", "rb") as zero,
        subprocess.Popen(command, stdin=zero, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as ours,
    ):
        assert ours.stdout is not None
        assert ours.stderr is not None
        ours.stdout.read(1 << 20)  # and no more
        ours.send_signal(signal.SIGINT)
        assert ours.wait(tunnel.PATIENCE_S) == -signal.SIGINT
        assert ours.stderr.read() == b""
    assert echo.record()["reason"] != "finished", "the server must not take it for all there was"


def test_a_server_that_resets_is_one_line_whether_something_is_sent_or_not() -> None:
    pair = certificates.server("localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)

    def hear_and_reset(sock: socket.socket) -> None:
        sock.recv(1)
        backends.reset(sock)

    with backends.serve(hear_and_reset, context=context) as service:
        for sent in (b"x", BLOB):
            said = refusal(connect(f"localhost:{service.port}", stdin=sent))
            assert said.startswith(f"localhost:{service.port}: the server went away: ")


# echo


def test_echo_ends_well_when_it_is_interrupted_and_needs_no_streams() -> None:
    pair = certificates.server("localhost", "127.0.0.1")
    for closed in ("<&- >&- 2>&-", "2> /dev/full"):
        port = peers.free_port()
        line = f'exec "$0" -m tlstunnel echo --listen 127.0.0.1:{port} --workers 1 --cert "$1" --key "$2" {closed}'
        words = ["/bin/sh", "-c", line, sys.executable, str(pair.certificate), str(pair.key)]
        daemon = peers.Peer(words)
        try:
            assert daemon.is_ready(lambda port=port: socket.create_connection(("127.0.0.1", port)))  # type: ignore[misc]
            assert connect(f"localhost:{port}", stdin=b"hello").stdout == b"hello"
            daemon.process.send_signal(signal.SIGINT)
            assert daemon.process.wait(tunnel.PATIENCE_S) == 0
            assert daemon.said() == ""
        finally:
            daemon.end()


@pytest.mark.parametrize("size", [0, 1, 1 << 20])
def test_echo_sends_back_to_python_what_it_gets(echo: tunnel.Tunnel, size: int) -> None:
    context = ssl.create_default_context(cafile=str(CA().certificate))
    stream = Stream(size, seed=8)
    with socket.create_connection(("127.0.0.1", echo.port)) as sock:
        assert talk(TLS(sock, context, server_hostname="localhost"), stream) == stream.digest()
    record = echo.record()
    assert (record["reason"], record["bytes_forward"], record["bytes_reverse"]) == ("finished", size, size)


def test_echo_sends_back_to_openssl_what_it_gets(echo: tunnel.Tunnel) -> None:
    with peers.talking(peers.s_client_command(echo.port)) as client:
        client.write("there and back\n")
        client.read_until("there and back")
        client.finish()
    assert echo.record()["reason"] == "finished"
