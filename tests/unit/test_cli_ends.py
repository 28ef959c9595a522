"""How a command ends: interrupted, without an answer, or begun without the streams that every program expects."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from tests.support import certificates
from tlstunnel.cli import app as commands


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
        "from tlstunnel.cli.app import _open_standard_streams\n"
        "_open_standard_streams()\n"
        "assert [os.readlink(f'/proc/self/fd/{n}') for n in (0, 1, 2)] == ['/dev/null'] * 3\n"
        "assert os.dup(0) > 2\n"
        "print('into the void')\n"
        "os._exit(7)\n"
    )
    command = 'exec "$0" -c "$1" <&- >&- 2>&-'
    assert subprocess.run(["/bin/sh", "-c", command, sys.executable, program], check=False).returncode == 7
