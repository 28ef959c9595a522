"""Work in a process that ends with what it knew."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import certificates
from tlstunnel.errors import StartupError, UsageError
from tlstunnel.x509.apart import apart


def test_what_it_found_comes_back_and_what_it_did_does_not() -> None:
    seen: list[int] = []

    def work() -> int:
        seen.append(1)
        return os.getpid()

    assert apart(work) != os.getpid()
    assert seen == []


def test_an_error_of_the_operator_comes_back_whole() -> None:
    def work() -> None:
        raise UsageError("--key", "is wrong")

    with pytest.raises(UsageError, match="--key: is wrong"):
        apart(work)


def test_an_error_of_ours_shows_its_kind_and_nothing_else() -> None:
    def work() -> None:
        raise ValueError("secret")

    with pytest.raises(StartupError, match="an error of ours, ValueError, while a key was opened") as caught:
        apart(work)
    assert "secret" not in str(caught.value)


def test_one_that_is_killed_is_an_error_and_not_a_wait() -> None:
    with pytest.raises(StartupError, match="has ended without an answer"):
        apart(lambda: os.kill(os.getpid(), signal.SIGKILL))


@contextmanager
def asking(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A daemon that asks for a passphrase, as the foreground job of a terminal."""
    pair = certificates.server("localhost")
    key = folder / "key.pem"
    key.write_bytes(certificates.encrypted_key(pair, "what-nobody-types").read_bytes())
    words = ["server", "--listen", "127.0.0.1:0", "--target", "127.0.0.1:9", "--cert", str(pair.certificate)]
    ours, theirs = pty.openpty()
    command = ["/usr/bin/setsid", "--ctty", sys.executable, "-m", "tlstunnel", *words, "--key", str(key)]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        said = b""
        while b"passphrase of" not in said:
            said += os.read(ours, 1000)
        yield process, ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_ctrl_c_ends_a_question(tmp_path: Path) -> None:
    with asking(tmp_path) as (process, terminal):
        os.write(terminal, b"\x03")
        assert process.wait(60) == 130


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_to_the_daemon_ends_its_question(number: signal.Signals, code: int, tmp_path: Path) -> None:
    with asking(tmp_path) as (process, _):
        process.send_signal(number)
        assert process.wait(60) == code
