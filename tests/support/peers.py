"""Programs we did not write, running as peers of a tunnel: started on a free port, ready when the block is entered.

    with peers.nginx(folder) as port, peers.stunnel(f"connect = 127.0.0.1:{port}", ...) as front:
        ...

Each is started in the foreground, asked whether it is ready by connecting to it (or by reading the line in which it
says so, where a connection would be taken for a client), and ended by its pid. A program that ends before it is ready
is started again on another port: whoever took the first one in between is not known to us.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support import certificates
from tests.support.interop import require
from tests.support.ports import free_port

PATIENCE_S = 60.0
"""Only a hang reaches it."""
_TRIES = 5
_BETWEEN_TRIES_S = 0.02


class Peer:
    """A running program and what it has said."""

    def __init__(
        self,
        command: list[str],
        *,
        is_talking: bool = False,
        user: str | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        self.command = command
        self.log = tempfile.TemporaryFile("w+", errors="backslashreplace")  # noqa: SIM115 - closed by end()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if is_talking else subprocess.DEVNULL,
            stdout=subprocess.PIPE if is_talking else self.log,
            stderr=subprocess.STDOUT if is_talking else self.log,
            text=True,
            errors="backslashreplace",
            user=user,
            group=None if user is None else pwd.getpwnam(user).pw_gid,
            extra_groups=None if user is None else [],
            cwd="/" if user is not None else None,
            env=os.environ | (env or {}),
        )
        self.port = 0
        self._reader: threading.Thread | None = None

    def said(self) -> str:
        """Everything it wrote so far, unless the test reads it itself."""
        self.log.seek(0)
        return self.log.read()

    def is_ready(self, connect: Callable[[], socket.socket]) -> bool:
        """Try to connect until that works; False when the program has ended instead."""
        for _ in range(int(PATIENCE_S / _BETWEEN_TRIES_S)):
            with contextlib.suppress(OSError):
                connect().close()
                return True
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_BETWEEN_TRIES_S)
                return False
        raise AssertionError(f"{self.command} hangs; it said:\n{self.said()}")

    def write(self, text: str) -> None:
        """To its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def read_until(self, pattern: str) -> str:
        """Read what it says up to the first line in which the pattern is found; all that was read."""
        assert self.process.stdout is not None
        guard = threading.Timer(PATIENCE_S, self.process.kill)
        guard.start()
        seen = []
        try:
            for line in self.process.stdout:
                seen.append(line)
                if re.search(pattern, line):
                    return "".join(seen)
        finally:
            guard.cancel()
        raise AssertionError(f"{self.command} ended without {pattern!r}; it said:\n{''.join(seen)}")

    def drop_the_rest(self) -> None:
        """Read what it still says and forget it, so that it is not held up by a full pipe."""
        self._reader = threading.Thread(target=lambda: [None for _ in self.process.stdout or ()], daemon=True)
        self._reader.start()

    def finish(self) -> str:
        """Close its standard input, wait for its end; the rest of what it says."""
        try:
            return self.process.communicate(timeout=PATIENCE_S)[0] or ""
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.command} does not end") from None

    def end(self) -> None:
        """SIGTERM, and SIGKILL where that is not obeyed."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self._reader is not None:
            self._reader.join(PATIENCE_S)
        for stream in (self.process.stdin, self.process.stdout, self.log):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


@contextlib.contextmanager
def serving(command: Callable[[int], list[str]], **how: str) -> Iterator[Peer]:
    """Run the program whose command line is made from a free port, until the block is left."""
    said = ""
    for _ in range(_TRIES):
        port = free_port()
        peer = Peer(command(port), user=how.get("user"))
        peer.port = port
        try:
            if peer.is_ready(lambda port=port: socket.create_connection(("127.0.0.1", port))):  # type: ignore[misc]
                yield peer
                return
            said = peer.said()
        finally:
            peer.end()
    raise AssertionError(f"{peer.command} ended {_TRIES} times before it was ready; it said:\n{said}")


@contextlib.contextmanager
def talking(command: list[str], env: dict[str, str] | None = None) -> Iterator[Peer]:
    """Run a program whose standard input and output (with stderr) the test holds."""
    peer = Peer(command, is_talking=True, env=env)
    try:
        yield peer
    finally:
        peer.end()


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder with a short path: sockets of other programs have to fit in it."""
    path = Path(tempfile.mkdtemp(prefix="peer-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


# OpenSSL's command line.


def s_client_command(port: int, *options: str, name: str = "localhost") -> list[str]:
    """`openssl s_client` that verifies as curl does."""
    ca = str(certificates.ca().certificate)
    return [
        require("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", "-servername", name,
        "-CAfile", ca, "-verify_return_error", "-verify_hostname", name, *options,
    ]  # fmt: skip


@contextlib.contextmanager
def s_server(*options: str, pair: certificates.Pair | None = None, env: dict[str, str] | None = None) -> Iterator[Peer]:
    """`openssl s_server`. With `-rev` it sends every line back reversed."""
    pair = pair or certificates.server("localhost", "127.0.0.1")
    command = [require("openssl"), "s_server", "-accept", "127.0.0.1:0", "-cert", str(pair.certificate)]
    with talking([*command, "-key", str(pair.key), *options], env) as peer:
        peer.port = int(re.findall(r"ACCEPT \S+:(\d+)", peer.read_until("^ACCEPT "))[0])
        yield peer


# Other tunnels and proxies.


@contextlib.contextmanager
def stunnel(*lines: str) -> Iterator[Peer]:
    """stunnel with one service, described by lines of its configuration without `accept`."""
    program = require("stunnel")
    with folder() as path:

        def command(port: int) -> list[str]:
            text = "\n".join(["foreground = yes", "pid =", "[peer]", f"accept = 127.0.0.1:{port}", *lines, ""])
            (path / "stunnel.conf").write_text(text)
            return [program, str(path / "stunnel.conf")]

        with serving(command) as peer:
            yield peer


@contextlib.contextmanager
def haproxy(bind: str, server: str) -> Iterator[Peer]:
    """HAProxy in TCP mode: what stands behind the address on its `bind` line, and its `server` line."""
    with haproxy_with(bind, f"server one {server}") as peer:
        yield peer


@contextlib.contextmanager
def haproxy_with(bind: str, line: str, *, mode: str = "tcp") -> Iterator[Peer]:
    """HAProxy with one listener: what stands behind the address on its `bind` line, and one line more."""
    program = require("haproxy")
    with folder() as path:

        def command(port: int) -> list[str]:
            (path / "haproxy.cfg").write_text(
                f"defaults\n mode {mode}\n timeout connect 10s\n timeout client 60s\n timeout server 60s\n"
                f"listen peer\n bind 127.0.0.1:{port} {bind}\n {line}\n"
            )
            return [program, "-db", "-f", str(path / "haproxy.cfg")]

        with serving(command) as peer:
            yield peer


@contextlib.contextmanager
def socat(listen: str, options: str, target: str) -> Iterator[Peer]:
    """socat between a listener of this kind, such as `TCP-LISTEN` with its options, and a target."""
    with serving(lambda port: [require("socat"), f"{listen}:{port},{options}", target]) as peer:
        yield peer


# Plaintext services.


@contextlib.contextmanager
def http_server(root: Path) -> Iterator[Peer]:
    """`python -m http.server` for a folder."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(root)]
    with talking(command) as peer:
        peer.port = int(re.findall(r"port (\d+)", peer.read_until(r"port \d+"))[0])
        yield peer


@contextlib.contextmanager
def nginx(root: Path) -> Iterator[Peer]:
    """nginx for a folder, over HTTP; bodies of PUT requests are kept below it."""

    def server(port: int) -> str:
        return f"server {{ listen 127.0.0.1:{port}; root {root}; location /put/ {{ dav_methods PUT; }} }}"

    with nginx_with(server) as peer:
        yield peer


@contextlib.contextmanager
def nginx_with(server: Callable[[int], str]) -> Iterator[Peer]:
    """nginx with the `server` block that is made for a port."""
    program = require("nginx")
    with folder() as path:
        path.chmod(0o755)

        def command(port: int) -> list[str]:
            user = f"user {pwd.getpwuid(os.geteuid()).pw_name};" if os.geteuid() == 0 else ""
            temporary = " ".join(
                f"{kind}_temp_path {path}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            )
            (path / "nginx.conf").write_text(
                f"daemon off; {user} pid {path}/pid; error_log stderr; worker_processes 1;\n"
                "events { worker_connections 64; }\n"
                f"http {{ access_log off; {temporary} client_max_body_size 0;\n"
                f"{server(port)} }}\n"
            )
            return [program, "-p", str(path), "-e", "stderr", "-c", str(path / "nginx.conf")]

        with serving(command) as peer:
            yield peer


@contextlib.contextmanager
def iperf3() -> Iterator[Peer]:
    """`iperf3 --server`. A connection that is no client of it would be an error, so it is read, not asked."""
    for _ in range(_TRIES):
        port = free_port()
        with talking([require("iperf3"), "-s", "-B", "127.0.0.1", "-p", str(port), "--forceflush"]) as peer:
            peer.port = port
            try:
                peer.read_until("Server listening")
            except AssertionError:
                continue
            yield peer
            return
    raise AssertionError("iperf3 finds no port")


@contextlib.contextmanager
def redis() -> Iterator[Peer]:
    """Redis without persistence."""
    program = require("redis-server")
    with folder() as path:
        words = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(path), "--daemonize", "no"]
        with serving(lambda port: [program, "--port", str(port), *words]) as peer:
            yield peer


@contextlib.contextmanager
def postgres(pair: certificates.Pair | None = None) -> Iterator[Peer]:
    """An empty PostgreSQL cluster that trusts its user `tester`; run by the user postgres when we are root. With TLS if
    a certificate is given."""
    user = "postgres" if os.geteuid() == 0 else None
    binaries = Path(require("initdb")).parent
    with folder() as path:
        data = path / "data"
        if user is not None:
            shutil.chown(path, user)
        subprocess.run(
            [str(binaries / "initdb"), "-D", str(data), "-A", "trust", "-U", "tester", "--no-sync", "--locale=C"],
            check=True, capture_output=True, user=user, extra_groups=None if user is None else [], cwd="/",
            group=None if user is None else pwd.getpwnam(user).pw_gid,
        )  # fmt: skip
        words = ["-D", str(data), "-k", str(path), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        if pair is not None:
            words += ["-c", "ssl=on"]
            for source, name in ((pair.certificate, "server.crt"), (pair.key, "server.key")):
                shutil.copy(source, data / name)
                (data / name).chmod(0o600)
                if user is not None:
                    shutil.chown(data / name, user)
        how = {} if user is None else {"user": user}
        with serving(lambda port: [str(binaries / "postgres"), *words, "-p", str(port)], **how) as peer:
            yield peer
