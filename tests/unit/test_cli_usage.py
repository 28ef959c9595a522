"""A command line that cannot be read: one line that names the command and says what would be right, exit code 2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tlstunnel.cli import app

SAID = {
    "server --foo": "tlstunnel server: no such option --foo; see tlstunnel server --help",
    "server --port 1": "tlstunnel server: no such option --port; see tlstunnel server --help",
    "server --starttls-required no": (
        "tlstunnel server: no such option --starttls-required; "
        "starttls_required is for files alone; write it into one, and tlstunnel run FILE"
    ),
    "server --lisen :1": "tlstunnel server: no such option --lisen; did you mean --listen?",
    "client --certificate a.pem": "tlstunnel client: no such option --certificate; did you mean --cert?",
    "server --listen": "tlstunnel server: --listen requires an argument; see tlstunnel server --help",
    "server --strict-close=yes": "tlstunnel server: --strict-close does not take a value; see tlstunnel server --help",
    "server extra": 'tlstunnel server: "extra" is one word too many; see tlstunnel server --help',
    "check a b": 'tlstunnel check: "b" is one word too many; see tlstunnel check --help',
    "show --json a": "tlstunnel show: no such option --json; see tlstunnel show --help",
    "connect": "tlstunnel connect: HOST:PORT is missing; write tlstunnel connect HOST:PORT",
    "cert isue": 'tlstunnel cert: no such command "isue"; did you mean issue?',
    "cert issue": "tlstunnel cert issue: --ca is missing; write tlstunnel cert issue --ca DIR",
    "status --warn-days soon": 'tlstunnel status: --warn-days: "soon" is not a number; see tlstunnel status --help',
    "serve": 'tlstunnel: no such command "serve"; did you mean server?',
    "frobnicate": 'tlstunnel: no such command "frobnicate"; see tlstunnel --help',
    "--frobnicate": "tlstunnel: no such option --frobnicate; see tlstunnel --help",
    "--version=3": "tlstunnel: --version does not take a value; see tlstunnel --help",
    "--\x1b[31m\n": "tlstunnel: no such option --\\x1b[31m; see tlstunnel --help",
}


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> tuple[object, str, str]:
    monkeypatch.setattr(sys, "argv", ["tlstunnel", *words])
    with pytest.raises(SystemExit) as ended:
        app.main()
    return ended.value.code, *capsys.readouterr()


@pytest.mark.parametrize(("line", "said"), SAID.items())
def test_what_cannot_be_read_gets_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, said: str
) -> None:
    assert run(monkeypatch, capsys, line.split(" ")) == (2, "", f"{said}\n")


@pytest.mark.parametrize("words", [[], ["cert"], ["systemd"]], ids=" ".join)
def test_without_a_command_the_help_is_shown_but_nothing_has_succeeded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    code, out, err = run(monkeypatch, capsys, words)
    assert (code, err) == (2, "")
    assert "Usage: tlstunnel" in out


@pytest.mark.parametrize("words", [["--help"], ["server", "--help"], ["cert", "issue", "--help"], ["--version"]])
def test_what_was_asked_for_is_printed_and_exits_0(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    code, out, err = run(monkeypatch, capsys, words)
    assert (code, err) == (0, "")
    assert "tlstunnel" in out


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("tlstunnel ser", ["server"]),
        ("tlstunnel server --fall", ["--fallback-target"]),
        ("tlstunnel cert iss", ["issue"]),
    ],
)
def test_the_shell_completes_commands_and_their_options(line: str, offered: list[str]) -> None:
    words = line.split(" ")
    asked = {"_TLSTUNNEL_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [sys.executable, "-m", "tlstunnel"], env=os.environ | asked, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == offered


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    config = tmp_path / "many.toml"
    text = '[services.s{}]\nmode = "client"\nlisten = "127.0.0.1:0"\ntarget = "db.example.org:1"\n'
    config.write_text("".join(text.format(at) for at in range(200)))  # more than a pipe holds
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tlstunnel", "show", str(config)],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
