"""TLS servers we did not write, in configurations of our choice, for a probe to look at.

    with tls_servers.openssl("-tls1_2") as port, tls_servers.nginx("ssl_protocols TLSv1.2;") as other:
        ...

Each listens on a free port of 127.0.0.1 when the block is entered. nginx and HAProxy are handed a socket that listens
already; the others say when they are ready.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.support import certificates
from tests.support.certificates import Pair
from tests.support.interop import require

PATIENCE_S = 60.0
"""Only a hang reaches it."""
ANYTHING_GOES = """
openssl_conf = defaults
[defaults]
ssl_conf = settings
[settings]
system_default = lowest
[lowest]
MinProtocol = TLSv1
CipherString = ALL:eNULL:@SECLEVEL=0
"""
"""Takes from OpenSSL the limits that Debian sets."""


def default_pair() -> Pair:
    """A certificate for localhost with an ECDSA key."""
    return certificates.server("localhost", "127.0.0.1")


def rsa_pair(key_type: str = "RSA 2048") -> Pair:
    """The same with an RSA key."""
    return certificates.server("localhost", "127.0.0.1", key_type=key_type)


@contextlib.contextmanager
def openssl(*options: str, pair: Pair | None = None, settings: str = "") -> Iterator[int]:
    """`openssl s_server`. It serves one connection after the other."""
    pair = pair or default_pair()
    command = [require("openssl"), "s_server", "-accept", "127.0.0.1:0", "-cert", str(pair.certificate)]
    command += ["-key", str(pair.key), "-cert_chain", str(pair.certificate), *options]
    with tempfile.TemporaryDirectory() as folder:
        environment = dict(os.environ)
        if settings:
            path = Path(folder) / "openssl.cnf"
            path.write_text(settings)
            environment["OPENSSL_CONF"] = str(path)
        with _talking(command, lambda line: line.startswith("ACCEPT "), env=environment) as line:
            yield int(line.rpartition(":")[2])


@contextlib.contextmanager
def gnutls(priority: str, *options: str, pair: Pair | None = None) -> Iterator[int]:
    """`gnutls-serv --echo`. It cannot choose a free port itself."""
    pair = pair or default_pair()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [require("gnutls-serv"), "--echo", "--port", str(port), "--priority", priority]
    command += ["--x509certfile", str(pair.certificate), "--x509keyfile", str(pair.key), *options]
    with _talking(command, lambda line: "listening on IPv4" in line and line.rstrip().endswith("done")):
        yield port


@contextlib.contextmanager
def nginx(*directives: str, pair: Pair | None = None) -> Iterator[int]:
    """nginx with one HTTPS server."""
    pair = pair or default_pair()
    program = require("nginx")
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        places = "".join(
            f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        path = Path(folder) / "nginx.conf"
        path.write_text(
            f"daemon off; pid {folder}/pid; error_log stderr warn; events {{}}\n"
            f"http {{ access_log off; {places}\n"
            f"server {{ listen 127.0.0.1:{port} ssl http2; {' '.join(directives)}\n"
            f"ssl_certificate {pair.certificate}; ssl_certificate_key {pair.key}; return 204; }} }}\n"
        )
        command = [program, "-p", folder, "-e", "stderr", "-c", str(path)]
        with _running(command, listener, {"NGINX": f"{listener.fileno()};"}):
            yield port


@contextlib.contextmanager
def haproxy(*words: str, pair: Pair | None = None) -> Iterator[int]:
    """HAProxy with one frontend; `words` go to its bind line."""
    pair = pair or default_pair()
    program = require("haproxy")
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as listener:
        path = Path(folder) / "haproxy.cfg"
        path.write_text(
            "defaults\n  mode http\n  timeout client 10s\n  timeout connect 5s\n  timeout server 10s\n"
            f"frontend front\n  bind fd@{listener.fileno()} ssl crt {pair.combined} {' '.join(words)}\n"
            "  http-request return status 204\n"
        )
        with _running([program, "-db", "-f", str(path)], listener, {}):
            yield listener.getsockname()[1]


@contextlib.contextmanager
def postgres(pair: Pair | None = None) -> Iterator[int]:
    """PostgreSQL with TLS, as the user postgres where we are root."""
    pair = pair or default_pair()
    initdb, program = require("initdb"), require("postgres")
    user = "postgres" if os.getuid() == 0 else None
    with tempfile.TemporaryDirectory() as folder:
        if user:
            shutil.chown(folder, user)
        data = Path(folder) / "data"
        made = [initdb, "-D", str(data), "--no-sync", "-A", "trust"]
        subprocess.run(made, check=True, capture_output=True, user=user, cwd=folder)
        for source, name in ((pair.certificate, "server.crt"), (pair.key, "server.key")):
            shutil.copy(source, data / name)
            (data / name).chmod(0o600)
            if user:
                shutil.chown(data / name, user)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [program, "-D", str(data), "-p", str(port), "-c", "listen_addresses=127.0.0.1", "-c", "ssl=on"]
        command += ["-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "log_destination=stderr"]
        with _talking(command, lambda line: "ready to accept connections" in line, user=user, cwd=folder):
            yield port


@contextlib.contextmanager
def scripted(behave: Callable[[socket.socket], object], *, host: str = "127.0.0.1") -> Iterator[int]:
    """A server of our own: each connection is given to `behave`, in a thread of its own, and closed after it."""
    listener = socket.create_server((host, 0))
    threads: list[threading.Thread] = []

    def serve_one(connection: socket.socket) -> None:
        connection.settimeout(PATIENCE_S)
        with connection, contextlib.suppress(OSError):
            behave(connection)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=serve_one, args=(connection,), daemon=True)
            threads.append(thread)
            thread.start()

    acceptor = threading.Thread(target=serve, daemon=True)
    acceptor.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join(PATIENCE_S)


@contextlib.contextmanager
def _running(command: list[str], listener: socket.socket, environment: dict[str, str]) -> Iterator[None]:
    """A server that takes over a listening socket; connections wait there until it is ready."""
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(listener.fileno(),),
            env=os.environ | environment,
        )  # fmt: skip
        try:
            yield
            assert server.poll() is None, _text(log)
        finally:
            server.terminate()
            server.wait(PATIENCE_S)


def _text(log: object) -> str:
    log.seek(0)  # type: ignore[attr-defined]
    return str(log.read())  # type: ignore[attr-defined]


@contextlib.contextmanager
def _talking(command: list[str], is_ready: Callable[[str], bool], **how: Any) -> Iterator[str]:
    """A server that says when it is ready; the line in which it does. What it says later is read and dropped."""
    server = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        **how,
    )  # fmt: skip
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        assert server.stdout is not None
        for line in server.stdout:
            lines.put(line)
        lines.put(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    said = ""
    try:
        while (line := lines.get(timeout=PATIENCE_S)) is not None:
            said += line
            if is_ready(line):
                break
        else:
            raise AssertionError(said)
        yield line
    finally:
        server.terminate()
        server.wait(PATIENCE_S)
        reader.join(PATIENCE_S)
        for stream in (server.stdin, server.stdout):
            assert stream is not None
            stream.close()
