"""Every TLS library closes in its own way; what it said arrives whole beside a reader that begins when it is gone.

The programs of `closers/` send SIZE bytes and close: with the library's own goodbye, without one, or with a reset
behind it. As clients they speak to a tunnel in server mode, as servers they stand behind one in client mode.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import backends, certificates, clients, tunnel
from tests.support.interop import lack, require
from tests.support.ports import free_port
from tests.support.wire_peers import digest

pytestmark = pytest.mark.interop

SOURCES = Path(__file__).parent / "closers"
SIZE = 300_000
DATA = bytes(range(251)) * (SIZE // 251 + 1)
EXPECTED = digest(DATA[:SIZE])
PASSPHRASE = "goodbye"
STUCK_S = 2.0
"""A program whose words fill every buffer on the way cannot leave before somebody reads."""

LINKED = {
    "openssl": ("openssl/ssl.h", ("-lssl", "-lcrypto")),
    "gnutls": ("gnutls/gnutls.h", ("-lgnutls",)),
    "mbedtls": ("mbedtls/ssl.h", ("-lmbedtls", "-lmbedx509", "-lmbedcrypto")),
    "wolfssl": ("wolfssl/ssl.h", ("-lwolfssl",)),
}
WAYS = [
    *((library, how) for library in LINKED for how in ("goodbye", "bare", "reset")),
    ("go", "goodbye"),
    ("go", "bare"),
    ("java", "goodbye"),
    ("java", "half"),
    ("node", "half"),
    ("node", "bare"),
]
CASES = [
    (version, library, how)
    for library, how in WAYS
    for version in ("1.3", "1.2")
    if version == "1.3" or how in ("goodbye", "half")
]
every_case = pytest.mark.parametrize(("version", "library", "how"), CASES, ids=lambda word: word)
versions = pytest.mark.parametrize("version", ["1.3", "1.2"])


@functools.cache
def built(library: str) -> tuple[str, ...]:
    """The command of a library's program, made once for the whole run of the tests."""
    folder = _folder()
    if library == "node":
        return (require("node"), str(SOURCES / "closer.js"))
    if library == "java":
        subprocess.run([require("javac"), "-d", folder, SOURCES / "Closer.java"], check=True)
        return (require("java"), "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp", str(folder), "Closer")
    program = folder / library
    if library == "go":
        env = os.environ | {
            "GOCACHE": str(folder / "go-cache"),
            "GOFLAGS": "-mod=mod",
            "GOPATH": str(folder / "go-path"),
        }
        source = SOURCES / "closer.go"
        subprocess.run([require("go"), "build", "-o", program, source], check=True, env=env)
        return (str(program),)
    header, libraries = LINKED[library]
    compiler = require("cc")
    if not _has_header(compiler, header):
        lack(header)
    sources = [SOURCES / "closer.c", SOURCES / f"{library}.c"]
    subprocess.run([compiler, "-O1", "-Wall", "-Wextra", "-o", program, *sources, *libraries], check=True)
    return (str(program),)


@functools.cache
def _folder() -> Path:
    return Path(_stack.enter_context(tempfile.TemporaryDirectory(prefix="closers-")))


def _has_header(compiler: str, header: str) -> bool:
    words = [compiler, "-fsyntax-only", "-x", "c", "-"]
    include = f"#include <{header}>\n"
    return subprocess.run(words, input=include, text=True, capture_output=True, check=False).returncode == 0


class Reader:
    """A backend that begins to read when it is told to, and ends when it has heard the end."""

    def __init__(self) -> None:
        self.may_read = threading.Event()
        self.has_heard = threading.Event()
        self.heard = b""
        self.was_reset = False

    def __call__(self, sock: socket.socket) -> None:
        self.may_read.wait(backends.PATIENCE_S)
        self.heard, self.was_reset = clients.read_to_end(sock)
        self.has_heard.set()


class Site:
    """A tunnel of each mode and version in one daemon, and what stands before and behind them."""

    def __init__(self, stack: contextlib.ExitStack, folder: Path) -> None:
        self.reader: backends.Handler = Reader()
        self.backend = stack.enter_context(backends.serve(self._serve))
        self.target = free_port()
        pair = certificates.server("localhost", "127.0.0.1")
        text = '[process]\nworkers = 1\n[log]\nformat = "json"\n'
        for version in ("1.3", "1.2"):
            number = version.replace(".", "")
            text += f"""
[services.server{number}]
mode = "server"
listen = "127.0.0.1:0"
target = "127.0.0.1:{self.backend.port}"
certificate = "{pair.certificate}"
key = "{pair.key}"
max_version = "{version}"
[services.client{number}]
mode = "client"
listen = "127.0.0.1:0"
target = "localhost:{self.target}"
ca = "{certificates.ca().certificate}"
max_version = "{version}"
"""
        config = folder / "tunnel.toml"
        config.write_text(text)
        self.daemon = stack.enter_context(tunnel.run(config))

    def _serve(self, sock: socket.socket) -> None:
        self.reader(sock)

    def port(self, mode: str, version: str) -> int:
        """Where that service listens."""
        name = f"{mode}{version.replace('.', '')}"
        return next(listen.port for listen in self.daemon.listens if listen.service == name)


@functools.cache
def _site() -> Site:
    return Site(_stack, Path(_stack.enter_context(tempfile.TemporaryDirectory(prefix="goodbyes-"))))


_stack = contextlib.ExitStack()


@pytest.fixture(scope="module", autouse=True)
def sites() -> Iterator[None]:
    """Those that a test has asked for, ended with the last of them."""
    with _stack:
        yield
    for made in (_site, built, _folder):
        made.cache_clear()


def leave(process: subprocess.Popen[str]) -> None:
    """Until the program is gone, or can go no further."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STUCK_S)


def ended_well(process: subprocess.Popen[str]) -> None:
    _, said = process.communicate(timeout=backends.PATIENCE_S)
    assert process.returncode == 0, said


def expected_reason(how: str) -> str:
    return "truncated" if how == "bare" else "finished"


@pytest.mark.slow
@every_case
def test_what_a_client_said_arrives_whole_and_ends_properly(version: str, library: str, how: str) -> None:
    words = [*built(library), "client"]
    site = _site()
    site.reader = reader = Reader()
    words += [str(site.port("server", version)), str(SIZE), how]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if how != "half":  # that one waits for the answer to its goodbye
        leave(process)
    reader.may_read.set()
    record = site.daemon.record()
    ended_well(process)
    assert reader.has_heard.wait(backends.PATIENCE_S)
    assert (len(reader.heard), digest(reader.heard), reader.was_reset) == (SIZE, EXPECTED, False)
    assert (record["bytes_forward"], record["reason"]) == (SIZE, expected_reason(how))


@contextlib.contextmanager
def serving(library: str, how: str, port: int) -> Iterator[subprocess.Popen[str]]:
    """A library's server that serves one client."""
    pair = certificates.server("localhost", "127.0.0.1")
    files = [str(pair.certificate), str(pair.key)]
    if library == "java":
        files = [str(certificates.p12(pair, PASSPHRASE)), PASSPHRASE]
    words = [*built(library), "server", str(port), str(SIZE), how, *files]
    pipe = subprocess.PIPE
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
@every_case
def test_what_a_server_said_arrives_whole_and_ends_properly(version: str, library: str, how: str) -> None:
    site = _site()
    with (
        serving(library, how, site.target) as process,
        clients.raw(site.port("client", version)) as sock,
    ):
        if how == "half":
            sock.shutdown(socket.SHUT_WR)
        else:
            leave(process)
        heard, was_reset = clients.read_to_end(sock)
        sock.close()
        record = site.daemon.record()
        ended_well(process)
        assert (len(heard), digest(heard), was_reset) == (SIZE, EXPECTED, False)
        assert (record["bytes_reverse"], record["reason"]) == (SIZE, expected_reason(how))


# Programs that are what they are.

TOOLS = {
    "tstclnt": ["tstclnt", "-D", "-o", "-h", "127.0.0.1", "-p"],
    "gnutls-cli": ["gnutls-cli", "--insecure", "--logfile=/dev/null", "127.0.0.1", "--port"],
    "s_client": ["openssl", "s_client", "-quiet", "-no_ign_eof", "-connect"],
}


@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS)
@versions
def test_what_a_tool_sent_arrives_whole_and_ends_properly(tool: str, version: str, tmp_path: Path) -> None:
    lines = b"0123456789\n" * 20_000  # no letter, which s_client could take for a command
    heard = bytearray()
    has_heard = threading.Event()

    def hear(sock: socket.socket) -> None:
        # tstclnt never ends first.
        while (len(heard) < len(lines) or tool != "tstclnt") and (piece := sock.recv(65536)):
            heard.extend(piece)
        has_heard.set()

    site = _site()
    site.reader = hear
    program, *words = TOOLS[tool]
    port = site.port("server", version)
    words = [require(program), *words, f"127.0.0.1:{port}" if tool == "s_client" else str(port)]
    given = tmp_path / "given"
    given.write_bytes(lines)
    with given.open("rb") as stdin:  # tstclnt does not see the end of a pipe
        subprocess.run(words, stdin=stdin, capture_output=True, timeout=backends.PATIENCE_S, check=False)
    assert has_heard.wait(backends.PATIENCE_S)
    record = site.daemon.record()
    assert (len(heard), digest(bytes(heard))) == (len(lines), digest(lines))
    assert (record["bytes_forward"], record["reason"]) == (len(lines), "finished")


# HTTP clients, which leave when they have what the head announced.

FETCH = """
import ctypes, sys
curl = ctypes.CDLL(sys.argv[1])
curl.curl_easy_init.restype = ctypes.c_void_p
curl.curl_easy_setopt.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p]
curl.curl_easy_perform.argtypes = curl.curl_easy_cleanup.argtypes = [ctypes.c_void_p]
URL, CAINFO, NOPROXY = 10002, 10065, 10177
for _ in range(int(sys.argv[4])):
    one = curl.curl_easy_init()
    for option, value in ((URL, sys.argv[2]), (CAINFO, sys.argv[3]), (NOPROXY, "*")):
        curl.curl_easy_setopt(one, option, value.encode())
    failed = curl.curl_easy_perform(one)
    curl.curl_easy_cleanup(one)
    if failed:
        sys.exit(f"error {failed}")
"""


def answer_http_1_0(sock: socket.socket) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        piece = sock.recv(65536)
        if not piece:
            return
        head += piece
    sock.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 20000\r\n\r\n" + bytes(20_000))


@pytest.mark.slow
@pytest.mark.parametrize("library", ["libcurl.so.4", "libcurl-gnutls.so.4"])
@versions
def test_forty_curls_that_have_their_whole_reply_are_forty_that_finished(library: str, version: str) -> None:
    try:
        ctypes.CDLL(library)
    except OSError:
        lack(library)
    site = _site()
    site.reader = answer_http_1_0
    words = [sys.executable, "-c", FETCH, library, f"https://localhost:{site.port('server', version)}/"]
    words += [str(certificates.ca().certificate), "10"]
    ways = [subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for process in ways:
        ended_well(process)
    records = [site.daemon.record() for _ in range(40)]
    assert {(record["reason"], record["detail"], record["bytes_reverse"]) for record in records} == {
        ("finished", None, 20_042)
    }
