"""`tlstunnel probe` as a command: its report, its exit codes, its words, on a terminal and off one."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.support import certificates, tls_servers
from tests.support.answers import PATIENT, hello, read_hello
from tlstunnel.address import UnixAddress
from tlstunnel.cli.probe import WEAK, app
from tlstunnel.errors import UsageError
from tlstunnel.tools.probe.survey import Request, probe

# The command.


def run(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def test_the_command_prints_a_report_within_80_columns() -> None:
    ca = str(certificates.ca().certificate)
    with tls_servers.openssl(pair=certificates.server("localhost", through_intermediate=True)) as port:
        command = [sys.executable, "-m", "tlstunnel", "probe", f"localhost:{port}", "--ca", ca]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "80"}, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == f"localhost:{port}"
    assert max(len(line) for line in lines) <= 80
    assert not any(line != line.rstrip() for line in lines)
    for title in ("weaknesses", "protocol", "cipher suites of TLS 1.2 (the client's order decides)", "certificate"):
        assert title in lines
    assert any(line.startswith("  verifies    yes for localhost") for line in lines)


def test_json_is_one_object_with_everything() -> None:
    with tls_servers.openssl() as port:
        ca = str(certificates.ca().certificate)
        result = run(f"127.0.0.1:{port}", "--json", "--ca", ca, "--server-name", "localhost", "--name", "127.0.0.1")
    document = json.loads(result.stdout)
    assert result.exit_code == 0
    assert document["schema"] == 1
    target = document["target"]
    assert (target["host"], target["server_name"], target["name"]) == ("127.0.0.1", "localhost", "127.0.0.1")
    assert document["chains"][0]["certificates"][0]["spki_pin"].startswith("sha256:")


@pytest.mark.parametrize(("severity", "code"), [("low", WEAK), ("medium", WEAK), ("high", 0), ("critical", 0)])
def test_fail_on_is_an_exit_code_of_its_own(severity: str, code: int) -> None:
    with tls_servers.openssl(pair=tls_servers.rsa_pair()) as port:
        result = run(f"127.0.0.1:{port}", "--fail-on", severity, "--ca", str(certificates.ca().certificate))
    assert result.exit_code == code, result.output


def test_a_server_on_a_unix_socket_is_probed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    pair = certificates.server("localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.combined)

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
                with context.wrap_socket(connection, server_side=True) as session:
                    session.recv(1)
            except ssl.SSLError:
                continue
            except OSError:
                if listener.fileno() < 0 or is_over.is_set():
                    return

    is_over = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(16)
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        ca = certificates.ca().certificate
        found = probe(Request(target=UnixAddress(str(path)), server_name="localhost", ca=ca, limits=PATIENT))
        is_over.set()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert found.target.port is None
    assert found.chains[0].verifies


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["localhost"], 'HOST:PORT: "localhost" has no port'),
        (["localhost:1", "--handshake-timeout", "5"], '--handshake-timeout: "5" has no unit'),
        (["localhost:1", "--max-time", "never"], '--max-time: "never" would let a silent server keep us'),
        (["localhost:1", "--alpn", "h2,"], '--alpn: "" is no protocol name'),
        (["localhost:1", "--server-name", "a b"], '--server-name: "a b" is not a host name; write one such as www'),
        (["localhost:1", "--server-name", "a" * 64], "has a label of 64 characters, and DNS allows 63"),
        (["a" * 64 + ":1"], "has a label of 64 characters, and DNS allows 63"),
    ],
)
def test_wrong_words_are_usage_errors(words: list[str], why: str) -> None:
    result = run(*words)
    assert isinstance(result.exception, UsageError)
    assert why in str(result.exception)


def test_progress_is_shown_on_a_terminal_and_only_there() -> None:
    with tls_servers.openssl() as port:
        controller, terminal = pty.openpty()
        command = [sys.executable, "-m", "tlstunnel", "probe", f"127.0.0.1:{port}", "--json"]
        env = os.environ | {"TERM": "xterm"}  # where it says "dumb", nothing moves
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal, text=True, env=env) as process:
            os.close(terminal)
            seen = b""
            while True:
                try:
                    chunk = os.read(controller, 1 << 16)
                except OSError:  # how a pseudo-terminal says that nobody is left
                    break
                if not chunk:
                    break
                seen += chunk
            os.close(controller)
            assert process.stdout is not None
            document = json.loads(process.stdout.read())
    assert b"probing" in seen
    assert document["connections"] > 10


def test_an_interrupt_ends_the_probe_at_once() -> None:
    enough = threading.Semaphore(8)
    is_stuck = threading.Event()

    def behave(connection: socket.socket) -> None:
        read_hello(connection)
        if enough.acquire(blocking=False):
            connection.sendall(hello(0x002F))
        else:
            is_stuck.set()
        connection.recv(1)

    with tls_servers.scripted(behave) as port:
        command = [sys.executable, "-m", "tlstunnel", "probe", f"127.0.0.1:{port}", "--handshake-timeout", "1h"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert is_stuck.wait(60)
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=60)
    assert process.returncode not in (0, None)
    assert said[0] == ""
    assert "Traceback" not in said[1], said[1]
