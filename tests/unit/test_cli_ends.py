"""How a command ends: interrupted, without an answer, or begun without the streams that every program expects."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from tests.support import certificates
from tlstunnel.address import parse_target
from tlstunnel.cli import app as commands
from tlstunnel.tools.pki import files
from tlstunnel.tools.probe.route import Route
from tlstunnel.tools.probe.trouble import OutOfTime


def ends_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(commands, "app", fail)
    with pytest.raises(SystemExit) as caught:
        commands.main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


def abort(cause: BaseException) -> typer.Abort:
    error = typer.Abort()
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), abort(KeyboardInterrupt())])
def test_an_interrupt_is_130_without_a_word(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends_with(monkeypatch, error) == 130
    assert capsys.readouterr() == ("", "")


def test_a_question_without_an_answer_is_a_wrong_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends_with(monkeypatch, abort(EOFError())) == 2
    assert "no answer on standard input" in capsys.readouterr().err


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(("words", "code"), [("--version", 0), ("no-such-command", 2)])
def test_streams_that_were_closed_are_no_error_of_the_command(closed: str, words: str, code: int) -> None:
    command = f'exec "$0" -m tlstunnel {words} {closed}'
    done = subprocess.run(["/bin/sh", "-c", command, sys.executable], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


@pytest.mark.parametrize("words", [["--version"], ["cert", "show", "CERTIFICATE"], ["show", "CONFIG"], ["--help"]])
def test_a_reader_that_has_gone_is_no_error(words: list[str], tmp_path: Path) -> None:
    pair = certificates.server("localhost")
    config = tmp_path / "tunnel.toml"
    config.write_text('[services.a]\nmode = "client"\nlisten = "127.0.0.1:0"\ntarget = "localhost:1"\n')
    given = {"CERTIFICATE": str(pair.certificate), "CONFIG": str(config)}
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "tlstunnel", *(given.get(word, word) for word in words)]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_file_takes_the_number_of_a_stream_that_was_closed() -> None:
    """A socket with the number 1 would be sent what a command prints."""
    program = (
        "import os\n"
        "from tlstunnel.cli.entry import open_standard_streams\n"
        "open_standard_streams()\n"
        "assert [os.readlink(f'/proc/self/fd/{n}') for n in (0, 1, 2)] == ['/dev/null'] * 3\n"
        "assert os.dup(0) > 2\n"
        "print('into the void')\n"
        "os._exit(7)\n"
    )
    command = 'exec "$0" -c "$1" <&- >&- 2>&-'
    assert subprocess.run(["/bin/sh", "-c", command, sys.executable, program], check=False).returncode == 7


@pytest.mark.parametrize("place", ["1</dev/null", ">/dev/full"])
@pytest.mark.parametrize("words", ["--version", "show tunnel.toml", "explain"])
def test_an_output_that_takes_nothing_is_one_line_and_1(place: str, words: str, tmp_path: Path) -> None:
    text = '[services.a]\nmode = "client"\nlisten = "127.0.0.1:0"\ntarget = "localhost:1"\n'
    (tmp_path / "tunnel.toml").write_text(text)
    command = ["/bin/sh", "-c", f'exec "$0" -m tlstunnel {words} {place}', sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("tlstunnel: standard output: ")
    assert done.stderr.count("\n") == 1


def test_an_error_that_nobody_can_read_has_its_exit_code_all_the_same() -> None:
    command = ["/bin/sh", "-c", 'exec "$0" -m tlstunnel no-such-command 2>/dev/full', sys.executable]
    assert subprocess.run(command, check=False).returncode == 2


@pytest.mark.parametrize("where", ["ctypes", "__del__", "weakref"])
def test_an_interrupt_that_is_swallowed_comes_again(where: str) -> None:
    """What cannot raise prints the KeyboardInterrupt and goes on."""
    swallowed = {
        "ctypes": "import ctypes; ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(signal.SIGINT))()",
        "__del__": "type('A', (), {'__del__': lambda self: signal.raise_signal(signal.SIGINT)})()",
        "weakref": "import weakref; r = (lambda o: weakref.ref(o, lambda _: signal.raise_signal(2)))(set())",
    }
    program = (
        "import signal, time\n"
        "from tlstunnel.cli import signals\n"
        "signals.hold(); signals.release()\n"
        "try:\n"
        f"    {swallowed[where]}\n"
        "    time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    raise SystemExit(signals.status())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (130, "")


def test_no_connection_of_a_stopped_probe_stays_open() -> None:
    """One that was being made while the probe was stopped is nobody's to end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        class Stopped(Route):
            def _connect(self) -> socket.socket:
                sock = socket.create_connection(("127.0.0.1", port))
                self.stop()
                return sock

        with pytest.raises(OutOfTime), Stopped(parse_target(f"127.0.0.1:{port}")).open():
            pass
        accepted, _ = server.accept()
        with accepted:
            assert accepted.recv(1) == b""


def test_what_a_killed_command_left_behind_is_gone_after_the_next(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from tlstunnel.tools.pki import files\n"
        "os.fsync = lambda fd: os.kill(os.getpid(), 9)\n"
        "files.write(Path(sys.argv[1]), b'secret', secret=True, replace=False)\n"
    )
    path = tmp_path / "www.key"
    subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    left = [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]
    assert len(left) == 1
    others = [tmp_path / ".www.key.notes.tmp", tmp_path / ".www.pem.0123456789ab.tmp"]
    for other in others:
        other.touch()
    files.write(path, b"secret", secret=True, replace=False)
    assert {each.name for each in tmp_path.iterdir()} == {"www.key", *(each.name for each in others)}


def test_what_another_command_is_writing_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "www.key"
    writing = tmp_path / ".www.key.0123456789ab.tmp"
    with open(writing, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        files.write(path, b"secret", secret=True, replace=False)
        assert writing.exists()
