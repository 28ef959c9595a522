"""`tlstunnel status` and `tlstunnel top` against a real endpoint, in a pseudo-terminal and without one."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import socketserver
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from tests.support import certificates
from tests.support.admin_rig import Rig, running
from tlstunnel.address import UnixAddress, parse_target
from tlstunnel.connection.hint import HTTP_ANSWER
from tlstunnel.errors import StartupError
from tlstunnel.tools.top.client import AdminClient

TUNNEL = [sys.executable, "-m", "tlstunnel"]
WAIT_S = 60
"""For a hang, not for a speed."""


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with running() as rig:
        rig.tell(do="connections", row=1, count=7)
        rig.tell(do="open", row=2, count=3)
        yield rig


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TUNNEL, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environ},
        timeout=WAIT_S,
    )


class Terminal:
    """A program in a pseudo-terminal of 80 by 24, and everything it has written."""

    def __init__(self, master: int, process: subprocess.Popen[bytes]) -> None:
        self._master = master
        self.process = process
        self.seen = b""

    def read_until(self, pattern: str) -> str:
        """Read on until the pattern appears in what was written since the last call."""
        start = len(self.seen)
        while not re.search(pattern, self.text(start)):
            ready, _, _ = select.select([self._master], [], [], WAIT_S)
            assert ready, f"{pattern!r} not in {self.text(start)!r}"
            try:
                part = os.read(self._master, 65536)
            except OSError:
                part = b""
            assert part, f"ended without {pattern!r}: {self.text(start)!r}"
            self.seen += part
        return self.text(start)

    def text(self, start: int = 0) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.seen[start:].decode("utf-8", "replace"))

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())


@contextmanager
def in_terminal(*arguments: str) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environ = {**os.environ, "TERM": "xterm-256color"}
    environ.pop("COLUMNS", None)
    environ.pop("LINES", None)
    with subprocess.Popen([*TUNNEL, *arguments], stdin=slave, stdout=slave, stderr=slave, env=environ) as process:
        try:
            yield Terminal(master, process)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            os.close(slave)
            os.close(master)


def test_status_is_good_when_ready_and_no_certificate_expires_soon(rig: Rig) -> None:
    done = run("status", "--admin", f"127.0.0.1:{rig.address}", "--warn-days", "3")
    assert done.returncode == 0, done.stderr
    for word in ("ready", "orders", "mail", "127.0.0.1:8443", "127.0.0.1:8081", "90", "CN=mail.example.org"):
        assert word in done.stdout
    assert "problem" not in done.stdout


def test_status_fails_when_a_certificate_expires_within_warn_days(rig: Rig) -> None:
    done = run("status", TLSTUNNEL_ADMIN=f"127.0.0.1:{rig.address}")
    assert done.returncode == 1
    assert "problem: mail: /etc/tlstunnel/mail.pem: certificate of CN=mail.example.org: 12 days left" in done.stdout


def test_status_fails_while_draining_and_says_so() -> None:
    with running(workers=1) as rig:
        rig.tell(do="phase", phase="draining")
        rig.tell(do="reload", ok=False)
        done = run("status", "--admin", f"127.0.0.1:{rig.address}", "--warn-days", "1")
    assert done.returncode == 1
    assert "problem: tlstunnel is draining and accepts no connections" in done.stdout
    assert "services.orders.key: does not match the certificate" in done.stdout


def test_status_has_an_exit_code_of_its_own_for_a_reload_that_failed_until_one_succeeds() -> None:
    with running(workers=1) as rig:
        words = ("status", "--admin", f"127.0.0.1:{rig.address}", "--warn-days", "1")
        rig.tell(do="reload", ok=False)
        done = run(*words)
        assert done.returncode == 2, done.stdout
        assert "problem: what runs is not what is on disk, since the last reload failed" in done.stdout
        assert run(*words, "--json").returncode == 2
        rig.tell(do="reload", ok=True)
        assert run(*words).returncode == 0


def test_status_as_json_is_the_endpoints_document(rig: Rig) -> None:
    done = run("status", "--admin", f"127.0.0.1:{rig.address}", "--json", "--warn-days", "1")
    document = json.loads(done.stdout)
    assert (done.returncode, document["ready"]) == (0, True)
    assert document["services"][0]["connections"] == {"active": 3, "ended": 7, "limit": 1000, "rejected": 0}


def test_status_fits_80_columns(rig: Rig) -> None:
    with in_terminal("status", "--admin", f"127.0.0.1:{rig.address}", "--warn-days", "1") as terminal:
        text = terminal.read_until("workers: ")
    assert "127.0.0.1:8443  127.0.0.1:8080" in text
    for line in text.splitlines():
        assert len(line) <= 80


@pytest.mark.parametrize(
    ("address", "code", "said"),
    [
        (
            "127.0.0.1:1",
            1,
            "127.0.0.1:1: no tunnel's admin endpoint answers: connection refused; start the tunnel with",
        ),
        ("unix:/none", 1, "unix:/none: no tunnel's admin endpoint answers: no such file or directory; start"),
        ("nonsense", 2, '--admin: "nonsense" has no port; write HOST:PORT, [V6]:PORT or unix:/path'),
    ],
)
@pytest.mark.parametrize("command", ["status", "top"])
def test_an_endpoint_that_does_not_answer_is_one_line(command: str, address: str, code: int, said: str) -> None:
    done = run(command, "--admin", address)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(f"tlstunnel: {said}")
    assert len(done.stderr.splitlines()) == 1


class _Stranger(socketserver.BaseRequestHandler):
    """Answers every request with what it was told to."""

    answer: ClassVar[bytes]

    def handle(self) -> None:
        self.request.recv(65536)
        self.request.sendall(self.answer)


@contextmanager
def stranger(answer: bytes) -> Iterator[int]:
    handler = type("Handler", (_Stranger,), {"answer": answer})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def http_answer(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d Said\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


OTHER = "no tunnel's admin endpoint; name another with --admin"
STRANGERS = {
    "escapes": (http_answer(500, b"\x1b[31mevil"), f'/status: answered 500: "\\x1b[31mevil"; {OTHER}'),
    "much": (http_answer(500, b"a" * 100_000), f'/status: answered 500: "{"a" * 77}..."; {OTHER}'),
    "lines": (http_answer(404, b"one\r\ntwo\n"), f'/status: answered 404: "one"; {OTHER}'),
    "a page": (http_answer(404, b"<!DOCTYPE HTML>\n<html>\n</html>\n"), f"/status: answered 404; {OTHER}"),
    "nothing": (http_answer(404, b""), f"/status: answered 404; {OTHER}"),
    "not ready": (
        http_answer(503, b"starting\n"),
        '/status: answered 503: "starting"; ask again when it is ready, or name another endpoint with --admin',
    ),
    "no HTTP": (b"\x1b[31mevil\n", f": answers, but not in HTTP; {OTHER}"),
    "other JSON": (
        http_answer(200, b'{"status": "\\u001b[31mok"}'),
        "/status: the answer is not a tunnel's; name its admin endpoint with --admin",
    ),
    "deep JSON": (
        http_answer(200, b"[" * 100_000),
        "/status: the answer is not a tunnel's; name its admin endpoint with --admin",
    ),
    "a tunnel's own port": (
        HTTP_ANSWER,
        "/status: this port speaks TLS; name the admin endpoint with --admin, and its CA with --ca if it is served "
        "over TLS",
    ),
    "TLS": (
        b"\x15\x03\x01\x00\x02\x02\x46",
        ": this port speaks TLS; name the admin endpoint with --admin, and its CA with --ca if it is served over TLS",
    ),
}


@pytest.mark.parametrize("case", STRANGERS)
def test_a_strangers_answer_is_one_printable_line_with_advice(case: str) -> None:
    answer, said = STRANGERS[case]
    with stranger(answer) as port:
        for command in ("status", "top"):
            done = run(command, "--admin", f"127.0.0.1:{port}")
            assert (done.returncode, done.stdout) == (1, "")
            assert done.stderr == f"tlstunnel: 127.0.0.1:{port}{said}\n"


def test_texts_of_an_endpoint_cannot_steer_the_terminal(rig: Rig) -> None:
    client = AdminClient(parse_target(f"127.0.0.1:{rig.address}"))
    document = client.document("/status")
    client.close()
    document["version"] = document["services"][0]["name"] = "\x1b[31mevil"
    with stranger(http_answer(200, json.dumps(document).encode())) as port:
        done = run("status", "--admin", f"127.0.0.1:{port}", "--warn-days", "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert done.stdout.count("\\x1b[31mevil") == 2


@pytest.mark.parametrize(
    ("part", "value"),
    [("certificates", "x"), ("services", [1]), ("workers", {}), ("version", None), ("last_reload", 3)],
)
def test_a_document_of_other_types_is_somebody_elses(rig: Rig, part: str, value: object) -> None:
    client = AdminClient(parse_target(f"127.0.0.1:{rig.address}"))
    document = client.document("/status")
    client.close()
    with stranger(http_answer(200, json.dumps({**document, part: value}).encode())) as port:
        done = run("status", "--admin", f"127.0.0.1:{port}")
    if part in ("workers", "phase"):  # shown: no worker, and a phase of that name
        assert done.stderr == ""
    else:
        assert (done.returncode, done.stderr) == (
            1,
            f"tlstunnel: 127.0.0.1:{port}: the answer is not a tunnel's; name its admin endpoint with --admin\n",
        )


def test_a_server_that_hangs_up_is_said_to_be_there() -> None:
    with stranger(b"") as port:
        done = run("status", "--admin", f"127.0.0.1:{port}")
    assert done.stderr.startswith(f"tlstunnel: 127.0.0.1:{port}: somebody is there, and closes without an answer")


def test_tls_asked_of_a_port_without_it_is_said(rig: Rig) -> None:
    ca = certificates.ca().certificate
    done = run("status", "--admin", f"127.0.0.1:{rig.address}", "--ca", str(ca))
    assert done.stderr == (
        f"tlstunnel: 127.0.0.1:{rig.address}: this port speaks no TLS; leave out --ca, --cert and --key, or name "
        "another with --admin\n"
    )


@pytest.mark.parametrize("words", [("top", "--interval"), ("status", "--warn-days")], ids=" ".join)
def test_a_number_that_is_none_is_refused(words: tuple[str, str]) -> None:
    done = run(*words, "nan")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert words[1] in done.stderr


def test_top_without_a_terminal_prints_plain_lines(rig: Rig) -> None:
    done = run("top", "--admin", f"127.0.0.1:{rig.address}", "--interval", "0.2", "--count", "2")
    lines = done.stdout.splitlines()
    assert (done.returncode, len(lines)) == (0, 2), done.stderr
    for line in lines:
        assert re.fullmatch(r"\d\d:\d\d:\d\d ready open=3 new/s=0.0 handshakes/s=0.0 failed/s=0.0 .*", line)


def test_top_shows_a_screen_obeys_keys_and_leaves_the_terminal_as_it_was(rig: Rig) -> None:
    with in_terminal("top", "--admin", f"127.0.0.1:{rig.address}", "--interval", "0.2") as terminal:
        before = termios.tcgetattr(terminal._master)
        terminal.read_until("q quit")
        assert "192.0.2.7:40002" in terminal.text()
        terminal.press("s")
        terminal.read_until("s sort: total")
        terminal.press("f")
        terminal.read_until("f service: mail")
        terminal.press("\x1b")
        terminal.read_until("f service: all")
        terminal.press("/40001\r")
        terminal.read_until("filter: 40001")
        shown = terminal.read_until("filter: 40001")
        assert "192.0.2.7:40001" in shown
        assert "192.0.2.7:40002" not in shown
        terminal.press("?")
        terminal.read_until("this help")
        terminal.press("q")
        assert terminal.process.wait(WAIT_S) == 0
        assert termios.tcgetattr(terminal._master)[3] == before[3]


def test_top_survives_a_tunnel_that_goes_away_and_says_so(tmp_path: Path) -> None:
    path = str(tmp_path / "admin.sock")
    with ExitStack() as stack:
        with running(workers=1, address=path):
            terminal = stack.enter_context(in_terminal("top", "--admin", f"unix:{path}", "--interval", "0.2"))
            terminal.read_until("q quit")
        terminal.read_until("no answer, asking again: (connection refused|broken pipe)")
        terminal.press("q")
        assert terminal.process.wait(WAIT_S) == 0


def test_the_client_follows_an_endpoint_that_was_restarted(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    client = AdminClient(UnixAddress(str(path)))
    for _ in range(2):
        with running(workers=1, address=str(path)):
            assert client.document("/status")["ready"] is True
        path.unlink()
    client.close()


def test_an_answer_that_is_not_a_tunnels_is_refused(rig: Rig) -> None:
    client = AdminClient(parse_target(f"127.0.0.1:{rig.address}"))
    with pytest.raises(StartupError, match="the answer is not a tunnel's; name its admin endpoint"):
        client.document("/livez")
    with pytest.raises(StartupError, match=r"answered 404: .*; no tunnel's admin endpoint; name another with --admin"):
        client.document("/nothing")
    client.close()
